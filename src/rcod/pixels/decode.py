"""What is in a picture file, before anybody judges its colours?

Every format ends as float planes in the file's own colours, stored turn and all. Whatever
would be misread, take too much memory or lie about itself is refused before it is decoded.
Pillow keeps 8 bits of every colour; where a file has 16, its decoder is run a second time with
the byte order exchanged, and that gives the other halves.

    file -> open -> check -> 8 bits             -.
                         '-> high and low bytes -+-> planes (C, H, W) in [0, 1], alpha, info
"""

import io
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile
from torch import Tensor

from rcod.device import is_out_of_memory
from rcod.errors import RcodError, TooLarge
from rcod.pixels.depth import is_cut
from rcod.pixels.extras import head_of_jxl, open_by_extra
from rcod.pixels.heads import has_gain_map, is_lossless, is_unlike_srgb
from rcod.pixels.planes import DAMAGE, MAX_PIXELS, MORE, Planes, Refuse, check_unit
from rcod.pixels.tiff import as_meant, check_tiff, is_tiff, read_tiff

READABLE = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PPM", "TGA",
            "TIFF", "WEBP")  # fmt: skip
CUT = "has more than 8 bits a channel; 8 are read and the others are left out"
NUMBERS = "tells by numbers alone that it isn't in sRGB; it is taken as sRGB"
GAIN_MAP = "has a gain map (HDR); it is left out"
Pair = tuple[int, np.ndarray, np.ndarray]  # first row, high bytes, low bytes
STRIP = 256  # rows turned to floats at once, so that a large photo is in memory only twice


def decode(source: Path | bytes, name: str, refuse: Refuse = lambda size: None) -> Planes:
    """Read a picture file or its bytes; what is wrong with it is one sentence naming it.

    Args:
        source: the file, or what is in it.
        name: what an error calls it.
        refuse: is told width and height before anything is decoded, and raises if it is too large.
    """
    with one_sentence_errors(name):
        before = source.stat() if isinstance(source, Path) else None
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise RcodError(f"{name}: must hold a picture, and the file is empty; copy it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged tags; damaged pixels are errors
            if (head := head_of_jxl(source)) is not None:
                refuse(head[0])
                _check_size(head[0], name)
            planes = read_tiff(source, name, refuse)
            if planes is None:
                with _opened(source, name) as image:
                    refuse(image.size)
                    planes = decode_pil(image, name, lambda: _opened(source, name))
        if isinstance(source, Path) and before is not None:
            _check_unchanged(source, before.st_size, before.st_mtime_ns, name)
        return planes


@contextmanager
def one_sentence_errors(name: str) -> Iterator[None]:
    """Turn whatever decoding a picture raises into one sentence that names it."""
    try:
        yield
    except RcodError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name, "many more") from None
    except (MemoryError, *DAMAGE) as error:
        if is_out_of_memory(error):
            words = f"{name}: must fit into memory, and it doesn't; shrink it first"
            raise RcodError(words) from None
        if isinstance(error, OSError) and error.errno:
            raise RcodError(f"{name}: must be a readable file, got: {error.strerror}") from None
        why = " ".join(str(error).split()).partition(". ")[0]  # some add advice to programmers
        raise RcodError(
            f"{name}: must be a whole picture, and decoding it failed ({why}); copy it again"
        ) from None


def decode_pil(
    image: Image.Image,
    name: str,
    again: Callable[[], AbstractContextManager[Image.Image]] | None = None,
) -> Planes:
    """Take over a PIL image of any mode.

    Args:
        image: opened, loaded or made.
        name: what an error calls it.
        again: opens its file once more, for the other half of 16-bit colours.
    """
    notes, lossless = _check(image, name), is_lossless(image)
    if again is not None and (halves := _halves(image)) is not None:
        values, alpha = _deep(image, again, *halves)
        return Planes(values, "RGB" if len(values) == 3 else "L", alpha, 16, image, notes)
    _widen_key(image)
    image.load()
    colours, alpha = _split(image)
    bits = 16 if colours.mode[0] in "IF" else 8
    if colours.mode in ("CMYK", "LAB"):
        return Planes(torch.empty(0), colours.mode, None, 8, colours, notes)
    if colours.mode == "F":
        values = check_unit(torch.from_numpy(np.array(colours, np.float32))[None], name)
    else:
        values = unit(colours)
    values, shown = as_meant(image, values), None if alpha is None else unit(alpha)
    mode = "RGB" if len(values) == 3 else "L"
    return Planes(values, mode, shown, bits, image, notes, lossless)


def unit(image: Image.Image) -> Tensor:
    """A grey or RGB picture of 8 or 16 bits as (1 or 3, H, W) float32 in [0, 1]."""
    channels = len(image.getbands())
    out = torch.empty(channels, image.height, image.width)
    most = 65535 if image.mode.startswith("I") else 255
    for top, rows in _strips(image):
        values = torch.from_numpy(rows.astype(np.float32)).view(len(rows), -1, channels)
        out[:, top : top + len(rows)] = values.permute(2, 0, 1).div_(most).clamp_(0, 1)
    return out


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture; formats that come by an extra are asked for when nothing else fits."""
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source))
    except Image.UnidentifiedImageError:
        image = open_by_extra(source, name)
    if image is None:
        why = "its content is none of these, whatever its name"
        if is_tiff(source):
            why = "this kind of TIFF can't be"
        known = ", ".join(READABLE)
        raise RcodError(
            f"{name}: must be a picture that can be read ({known}), and {why}; convert it first"
        )
    with image:
        yield image


def _check_unchanged(path: Path, size: int, changed: int, name: str) -> None:
    """Refuse a file that somebody wrote to meanwhile: half of it may be another picture's."""
    try:
        after = path.stat()
    except OSError:
        raise RcodError(f"{name}: the file must stay while it is read; call again") from None
    if (after.st_size, after.st_mtime_ns) != (size, changed):
        raise RcodError(f"{name}: the file changed while it was read; call again when it is done")


def _too_large(name: str, size: str) -> TooLarge:
    """The sentence for a picture with too many pixels."""
    return TooLarge(
        f"{name}: a picture must have at most {MAX_PIXELS // 1_000_000} megapixels, "
        f"got {size}; cut or shrink it first"
    )


def _check_size(size: tuple[int, int], name: str) -> None:
    """Refuse what is too large for memory, or nothing."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height}")
    if width * height == 0:
        raise RcodError(f"{name}: a picture must have pixels, got {width} x {height}")


def _check(image: Image.Image, name: str) -> tuple[str, ...]:
    """Refuse, before any pixel is decoded, what would be misread; say what will be left out."""
    _check_size(image.size, name)
    if image.format is not None and image.format not in READABLE:
        known = ", ".join(READABLE)
        raise RcodError(f"{name}: must be one of {known}, got {image.format}; convert it first")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff(image, name)
    twice = len(getattr(image, "_data", b"")) > 2 * image.width * image.height
    if image.format == "JXL" and image.mode == "LA" and twice:  # of what its decoder gives
        why = "must have 8 bits a channel where it is grey with alpha, got more"
        raise RcodError(f"{name}: a JPEG XL picture {why}; convert it to PNG first")
    asked = ((is_cut, CUT), (is_unlike_srgb, NUMBERS), (has_gain_map, GAIN_MAP))
    notes = [note for ask, note in asked if ask(image)]
    several = getattr(image, "is_animated", False)  # counting frames could take for ever
    if several and image.format != "MPO":  # whose others are previews
        notes.append(MORE.format("page" if image.format == "TIFF" else "frame"))
    return tuple(notes)


def _halves(image: Image.Image) -> tuple[str, str] | None:
    """The raw modes that read the high and the low bytes of 16-bit colours, where it has such."""
    modes = _raw_modes(image)
    if len(modes) != 1 or image.mode not in ("RGB", "RGBA"):
        return None
    base, _, order = next(iter(modes)).partition(";16")
    if order not in ("B", "L", "N"):
        return None
    if base == "LA":  # all four bytes of a pixel at once
        return "RGBA", ""
    base = "RGBA" if base == "RGBa" else base  # premultiplied colours are divided later
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    other = "L" if big else "B"
    return f"{base};16{order}", f"{base};16{other}"


def _raw_modes(image: Image.Image) -> set[str]:
    """How the pixels of a file lie in its tiles; none once they are loaded."""
    ways = (tile.args for tile in getattr(image, "tile", ()))
    firsts = (way[0] if isinstance(way, tuple) and way else way for way in ways)
    return {first for first in firsts if isinstance(first, str)}


def _widen_key(image: Image.Image) -> None:
    """Multiply grey's see-through value of 2 or 4 bits, as Pillow does its pixels on loading."""
    key, modes = image.info.get("transparency"), _raw_modes(image)
    for raw, most in (("L;2", 3), ("L;4", 15)):
        if raw in modes and isinstance(key, int) and key <= most:
            image.info["transparency"] = key * 255 // most


def _deep(
    image: Image.Image,
    again: Callable[[], AbstractContextManager[Image.Image]],
    high: str,
    low: str,
) -> tuple[Tensor, Tensor | None]:
    """Colours (1 or 3, H, W) and alpha of a picture with 16 bits a channel."""
    premultiplied = any(raw.startswith("RGBa") for raw in _raw_modes(image))
    see_through = image.info.get("transparency")
    _load_as(image, high)
    if not low:
        pairs = [(top, rows[..., ::2], rows[..., 1::2]) for top, rows in _strips(image)]
        out = _joined(pairs, 2, image.height, image.width)
        return out[:1], out[1:]
    with again() as other:
        _load_as(other, low)
        strips = zip(_strips(image), _strips(other), strict=True)
        pairs = ((top, rows, more) for (top, rows), (_, more) in strips)
        out = _joined(pairs, len(image.getbands()), image.height, image.width)
    if len(out) == 3:
        if not isinstance(see_through, tuple):
            return out, None
        key = torch.tensor(see_through, dtype=torch.float32)[:, None, None] / 65535
        return out, ((out - key).abs() > 0.5 / 65535).any(0, keepdim=True).float()
    if premultiplied:
        out[:3] = (out[:3] / out[3:].clamp(min=1e-6)).clamp_(0, 1)
    return out[:3], out[3:]


def _load_as(image: Image.Image, raw: str) -> None:
    """Decode with another raw mode of the same width."""
    opened = cast(ImageFile, image)
    ways = [(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw for tile in opened.tile]
    opened.tile = [tile._replace(args=way) for tile, way in zip(opened.tile, ways, strict=True)]
    opened.load()


def _joined(pairs: Iterable[Pair], channels: int, height: int, width: int) -> Tensor:
    """High and low bytes, strip by strip, as (C, H, W) float32 in [0, 1]."""
    out = torch.empty(channels, height, width)
    for top, high, low in pairs:
        values = (high.astype(np.int32) * 256 + low).astype(np.float32)  # (h, W, C or 4)
        part = torch.from_numpy(values[..., :channels]).permute(2, 0, 1)
        out[:, top : top + len(values)] = part.div_(65535)
    return out


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a picture, a few at a time: the first one's number and (h, W[, C])."""
    for top in range(0, image.height, STRIP):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + STRIP, image.height))))


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in a mode of plain channels, and the alpha channel if there is one."""
    if image.mode.startswith("I") and "transparency" in image.info:  # a see-through value
        shows = np.asarray(image) != image.info["transparency"]
        return image, Image.fromarray(shows.astype(np.uint8) * 255)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        full = image.convert("LA" if grey else "RGBA")
        return full.convert("L" if grey else "RGB"), full.getchannel("A")
    if image.mode in ("1", "P", "RGBX", "YCbCr", "HSV"):
        image = image.convert("L" if grey else "RGB")
    return image, None
