"""How does a picture file become a tensor, and how does a tensor become a file?

Whatever the file holds (a turned camera photo, a palette, ink colours, 16 bits, a colour
profile), the rest of the package sees upright sRGB in [0, 1]. The result goes back into the
photo's own colours and depth, with its profile and its tags.

    file -> decode -> turn -> sRGB -> Photo (3, H, W) -> ... -> Photo -> profile -> encode -> file
"""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.decode import STRIP, decode, decode_pil, one_sentence_errors
from rcod.pixels.encode import PictureHeader, Writer, unwritable_tags, writer
from rcod.pixels.metadata import Tags, collect, ignored_tags, is_adobe
from rcod.pixels.placing import placed
from rcod.pixels.planes import DAMAGE, Planes, Refuse, stream
from rcod.pixels.profiles import (
    ProfileError,
    Shaper,
    adobe_profile,
    curves_of,
    shown_by,
    srgb_profile,
    to_grey,
)
from rcod.pixels.resample import spread_colours

SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe",
            ".jpeg", ".jpg", ".jxl", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
            ".webp")  # fmt: skip
ENCODERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF",
            ".tiff": "TIFF", ".avif": "AVIF"}  # fmt: skip
LONGEST = {"PNG": 2**31 - 1, "TIFF": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383,
           "AVIF": 65_535}  # pixels a side, by format  # fmt: skip
DEEP = ("PNG", "TIFF")  # formats that are written with 16 bits


@dataclass(frozen=True)
class Photo:
    """An upright sRGB picture and what its file carried besides colours."""

    pixels: Tensor  # (3, H, W) float32 in [0, 1]
    alpha: Tensor | None = None  # (1, H, W) float32 in [0, 1], 0 where nothing shows
    icc: bytes | None = None  # the file's profile, in which a result is written; None is sRGB
    exif: bytes | None = None  # without the turn, which is already done
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    bits: int = 8  # of every channel of the file: 8 or 16
    grey: bool = False  # the file had no colours, so its result has none
    beyond: Tensor | None = None  # (3, H, W) what the profile shows and sRGB can't, added back
    notes: tuple[str, ...] = ()  # what was left out on reading
    lossless: bool = False  # the file was a WebP that loses nothing, so its result is one

    @property
    def tags(self) -> Tags:
        """EXIF, XMP and dots per inch."""
        return Tags(self.exif, self.xmp, self.dpi)


def find(paths: list[Path]) -> list[Path]:
    """List the pictures that some files and folders stand for.

    A file stands for itself, whatever its name. A folder stands for the pictures right in
    it, known by suffix, in order of name.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
            except OSError as error:
                raise RcodError(f"{path}: must be readable, got: {error.strerror}") from None
            if not inside:
                raise RcodError(
                    f"{path}: a folder must hold at least one picture, and this one holds none; "
                    f"pictures end in {', '.join(SUFFIXES)}"
                )
            found += sorted(inside)
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise RcodError(f"{path}: must be a file or a folder, got a device or a pipe; copy it")
        else:
            raise RcodError(f"{path}: no such file or folder; check the name")
    return found


def read(
    source: str | Path | bytes, name: str | None = None, refuse: Refuse = lambda size: None
) -> Photo:
    """Read a picture file, or its bytes, upright and in sRGB; of several pages the first.

    Args:
        source: the file, or what is in it.
        name: what an error calls it.
        refuse: is told width and height before anything is decoded, and raises if that is too much.
    """
    if not isinstance(source, bytes):
        source = Path(source)
    name = name or (str(source) if isinstance(source, Path) else "picture")
    planes = decode(source, name, refuse)
    with one_sentence_errors(name):
        return _photo(planes)


def from_pil(image: Image.Image, name: str = "picture") -> Photo:
    """Take over a PIL image: turned as its EXIF says, converted to sRGB by its profile.

    Grey of 16 bits keeps its precision; colour of 16 bits has been cut to 8 by Pillow.

    Args:
        image: a picture of any mode with up to 16 bits per channel.
        name: what an error calls it.
    """
    planes = decode_pil(image, name)
    with one_sentence_errors(name):
        return _photo(planes)


def to_pil(photo: Photo) -> Image.Image:
    """Round a photo to an 8-bit sRGB PIL image: RGB, or RGBA where it has an alpha channel."""
    channels = photo.pixels if photo.alpha is None else torch.cat((photo.pixels, photo.alpha))
    rounded = channels.detach().float().clamp(0, 1).mul(255).round().byte().cpu()  # (C, H, W)
    return Image.fromarray(rounded.permute(1, 2, 0).contiguous().numpy())


def suffix_of(source: Path | bytes) -> str:
    """The ending for a result in the format of what a picture holds; .png where it can't be."""
    known = {encoder: suffix for suffix, encoder in reversed(ENCODERS.items())} | {"MPO": ".jpg"}
    try:
        with stream(source) as file, Image.open(file) as image:
            return known.get(image.format or "", ".png")
    except (*DAMAGE, Image.DecompressionBombError):
        return ".png"


def check_writable(path: Path, height: int, width: int, alpha: Tensor | None = None) -> None:
    """Refuse what the format named by the suffix cannot hold: to be asked before the work."""
    encoder = ENCODERS.get(path.suffix.lower())
    if encoder is None:
        known = ", ".join(ENCODERS)
        raise RcodError(f"{path}: the name must end in {known}, got '{path.suffix}'; use .png")
    if max(height, width) > LONGEST[encoder]:
        raise RcodError(
            f"{path}: a {encoder} picture must be at most {LONGEST[encoder]} pixels a side, "
            f"got {width} x {height}; use another format, such as png, or a smaller size"
        )
    if encoder == "JPEG" and alpha is not None and bool((alpha < 1 - 0.5 / 65535).any()):
        raise RcodError(
            f"{path}: a JPEG picture must be opaque, and this one has see-through parts; "
            "use png or webp"
        )


def notes_of(photo: Photo, suffix: str) -> tuple[str, ...]:
    """What of a photo was lost in reading it, and what the format a suffix names can't hold."""
    return *photo.notes, *unwritable_tags(ENCODERS[suffix.lower()], photo.tags)


def write(path: str | Path, photo: Photo, quality: int | None = None) -> None:
    """Write a photo in the format its suffix names, whole or not at all.

    A file of that name is replaced. Its colours are in the photo's own profile, or sRGB.
    """
    path = Path(path)
    height, width = photo.pixels.shape[-2:]
    check_writable(path, height, width, alpha=photo.alpha)
    with placed(path) as file, sink(file, path.suffix, photo, (height, width), quality) as into:
        for top in range(0, height, STRIP):
            rows = slice(top, top + STRIP)
            alpha = None if photo.alpha is None else photo.alpha[:, rows]
            beyond = None if photo.beyond is None else photo.beyond[:, rows]
            part = dataclasses.replace(
                photo, pixels=photo.pixels[:, rows], alpha=alpha, beyond=beyond
            )
            into.put(part, top, 0)


@contextmanager
def sink(
    file: BinaryIO, suffix: str, photo: Photo, size: tuple[int, int], quality: int | None = None
) -> Iterator["Sink"]:
    """Begin a result of `size` (height, width); it is complete when the block ends.

    Args:
        file: open for writing, and able to seek.
        suffix: names the format.
        photo: whose depth, profile, alpha and tags the result has.
        size: height and width of the result.
        quality: 1 to 100, for formats that lose something; None is our choice.
    """
    encoder = ENCODERS[suffix.lower()]
    bits = photo.bits if encoder in DEEP else 8
    solid = encoder == "JPEG" or photo.alpha is None  # check_writable saw to it
    icc = photo.icc
    grey = photo.grey and encoder not in ("WEBP", "AVIF")  # they have none
    if encoder == "TIFF" and bits == 16 and not solid:
        grey = False  # few could read it
    if icc is not None and (icc[16:20] == b"GRAY") != grey:
        icc = None  # it is for colours where the result is grey, or the other way around
    channels = (1 if grey else 3) + (not solid)
    frame = PictureHeader(*size, channels, bits, icc or srgb_profile(grey), photo.tags,
                          photo.lossless)  # fmt: skip
    into = Sink(writer(file, encoder, frame, quality), frame, grey, curves_of(icc))
    yield into
    into.writer.close()


@dataclass
class Sink:
    """A file that takes pieces of a result from left to right and from top to bottom."""

    writer: Writer
    frame: PictureHeader
    grey: bool
    own: Shaper | None
    line: np.ndarray | None = None  # (h, W, C) pieces side by side, not complete yet

    def put(self, piece: Photo, top: int, left: int) -> None:
        """Take the next piece; pieces side by side are equally high."""
        rows = self.pack(piece)  # (h, w, C)
        width = rows.shape[1]
        if width == self.frame.width:
            self.writer.put(rows)
            return
        if left == 0:
            self.line = np.empty((len(rows), self.frame.width, rows.shape[2]), rows.dtype)
        assert self.line is not None, "pieces come from left to right"
        self.line[:, left : left + width] = rows
        if left + width == self.frame.width:
            self.writer.put(self.line)
            self.line = None

    def pack(self, piece: Photo) -> np.ndarray:
        """A piece in the file's colours and depth, (h, w, C) uint8 or uint16."""
        colours = piece.pixels
        if self.own is not None:
            colours = self.own.from_srgb(colours)
            if piece.beyond is not None:
                colours = colours + piece.beyond
        if self.grey and len(colours) == 3:
            colours = to_grey(colours)
        if self.frame.channels in (2, 4):
            assert piece.alpha is not None, "every piece of a picture with alpha has some"
            colours = torch.cat((colours, piece.alpha))
        most = 2**self.frame.bits - 1
        rounded = colours.clamp(0, 1).mul(most).round().permute(1, 2, 0).to(torch.int32)
        return rounded.contiguous().numpy().astype(np.uint8 if most == 255 else np.uint16)


def _photo(planes: Planes) -> Photo:
    """Upright sRGB of what was decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged tags
        tags, turn = collect(planes.image)
        adobe = adobe_profile() if planes.mode == "RGB" and is_adobe(planes.image) else None
    icc = planes.image.info.get("icc_profile")
    icc = icc if icc and isinstance(icc, bytes) else adobe  # a TIFF may hold anything there
    try:
        shown = shown_by(planes, icc)
    except ProfileError as error:  # viewers leave such a profile out, too
        shown = shown_by(planes, None)
        shown = shown._replace(note=f"has a colour profile that {error}; it is taken as sRGB")
    pixels, beyond, icc, note = shown
    notes = (*planes.notes, *((note,) if note else ()), *ignored_tags(planes.image, tags))
    pixels = _turned(pixels, turn).expand(3, -1, -1).contiguous()
    beyond = None if beyond is None else _turned(beyond, turn).contiguous()
    alpha = None if planes.alpha is None else _turned(planes.alpha, turn).contiguous()
    if alpha is not None:  # what lies there unseen would colour the edges
        pixels = spread_colours(pixels, alpha)
        beyond = None if beyond is None else spread_colours(beyond, alpha)
    return Photo(
        pixels, alpha, icc, tags.exif, tags.xmp, tags.dpi, bits=planes.bits,
        grey=planes.mode == "L", beyond=beyond, notes=notes, lossless=planes.lossless,
    )  # fmt: skip


def _turned(plane: Tensor, turn: int) -> Tensor:
    """A plane (C, H, W) made upright, by EXIF's number of its turn."""
    if turn in (5, 6, 7, 8):
        plane = plane.transpose(-1, -2)
    flips = {2: [-1], 3: [-1, -2], 4: [-2], 6: [-1], 7: [-1, -2], 8: [-2]}.get(turn, [])
    return plane.flip(flips) if flips else plane
