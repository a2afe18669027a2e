"""How does a picture file become a tensor, and how does a tensor become a file?

Whatever the file holds (a turned camera photo, a palette, ink colours, 16 bits, a colour
profile), the rest of the package sees upright sRGB in [0, 1]. What cannot be read is
refused before it is decoded, in one sentence. A file is written under another name and
then renamed, so that a half-written picture never carries the name asked for.

    file -> open -> turn -> sRGB -> Photo (3, H, W) -> ... -> Photo -> 8 bit -> file
"""

import contextlib
import io
import os
import struct
import uuid
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from rcod.errors import RcodError

MAX_PIXELS = 80_000_000  # an 80 megapixel photo is 1 GB as float32; larger files are often traps
READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga",
            ".tif", ".tiff", ".webp")  # fmt: skip
ENCODERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LONGEST = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}  # pixels a side, by format
SOFTWARE = 0x0131  # EXIF's name of the program that wrote the file
SIZE_TAGS = (0xA002, 0xA003)  # EXIF's own width and height, wrong once a photo is enlarged
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # by a profile's colour space
DAMAGE = (  # what Pillow raises on damaged files, depending on the format
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, struct.error, zlib.error
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """An upright sRGB picture and what its file carried besides colours."""

    pixels: Tensor  # (3, H, W) float32 in [0, 1]
    alpha: Tensor | None = None  # (1, H, W) float32 in [0, 1], 0 where nothing shows
    icc: bytes | None = None  # the profile the pixels are meant in; None is sRGB
    exif: bytes | None = None  # without the turn, which is already done


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


def read(path: str | Path) -> Photo:
    """Read a picture file, upright and in sRGB; of several TIFF or MPO pages, the first."""
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise RcodError(f"{path}: must hold a picture, and the file is empty; copy it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged tags; damaged pixels are errors
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return from_pil(image, str(path))
    except RcodError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RcodError(_too_large(str(path), "many more")) from None
    except Image.UnidentifiedImageError:
        raise RcodError(
            f"{path}: must be a picture that can be read ({', '.join(READABLE)}), and its content "
            "is none of these, whatever its name; convert it first"
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise RcodError(f"{path}: must be a readable file, got: {error.strerror}") from None
        raise RcodError(
            f"{path}: must be a whole picture, and decoding it failed ({error}); copy it again"
        ) from None


def from_pil(image: Image.Image, name: str = "picture") -> Photo:
    """Take over a PIL image: turned as its EXIF says, converted to sRGB by its profile.

    Grey of 16 bits keeps its precision; colour of 16 bits has been cut to 8 by Pillow.

    Args:
        image: a picture of any mode with up to 16 bits per channel.
        name: what an error calls it.
    """
    _check(image, name)
    image.load()
    upright, exif = _turn(image)
    colours, alpha = _split(upright)
    pixels = _unit(_to_srgb(colours, name)).expand(3, -1, -1).contiguous()  # (3, H, W)
    return Photo(pixels, None if alpha is None else _unit(alpha), None, exif)


def to_pil(photo: Photo) -> Image.Image:
    """Round a photo to an 8-bit PIL image: RGB, or RGBA where it has an alpha channel."""
    channels = photo.pixels if photo.alpha is None else torch.cat((photo.pixels, photo.alpha))
    rounded = channels.detach().float().clamp(0, 1).mul(255).round().byte().cpu()  # (C, H, W)
    return Image.fromarray(rounded.permute(1, 2, 0).contiguous().numpy())


def check_writable(path: Path, height: int, width: int, alpha: Tensor | None = None) -> None:
    """Refuse what the format named by the suffix cannot hold: to be asked before the work."""
    encoder = ENCODERS.get(path.suffix.lower())
    if encoder is None:
        raise RcodError(
            f"{path}: the name must end in {', '.join(ENCODERS)}, got '{path.suffix}'; use .png"
        )
    if max(height, width) > LONGEST[encoder]:
        raise RcodError(
            f"{path}: a {encoder} picture must be at most {LONGEST[encoder]} pixels a side, "
            f"got {width} x {height}; use png"
        )
    if encoder == "JPEG" and alpha is not None and bool((alpha < 1).any()):
        raise RcodError(
            f"{path}: a JPEG picture must be opaque, and this one has see-through parts; "
            "use png or webp"
        )


def write(path: str | Path, photo: Photo) -> None:
    """Write a photo with 8 bits per channel in the format its suffix names, whole or not at all.

    A file of that name is replaced. Its colour profile is the photo's own, or sRGB.
    """
    path = Path(path)
    check_writable(path, *photo.pixels.shape[-2:], alpha=photo.alpha)
    encoder = ENCODERS[path.suffix.lower()]
    image = to_pil(photo)
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    exif[SOFTWARE] = "rcod"
    options = {"icc_profile": photo.icc or srgb_profile(), "exif": exif.tobytes()}
    if encoder == "JPEG":
        image = image.convert("RGB")  # opaque, as check_writable made sure
        options |= {"quality": 95, "subsampling": 0}  # no colour resolution lost
    elif encoder == "WEBP":
        options |= {"quality": 95}
    image.save(encoded := io.BytesIO(), encoder, **options)
    write_whole(path, encoded.getbuffer())


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that `write` has written."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(SOFTWARE) == "rcod"
    except (*DAMAGE, Image.DecompressionBombError):
        return False


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Put bytes into a file of that name, whole or not at all; a file there is replaced."""
    part = path.with_name(f".rcod-{uuid.uuid4().hex}.part")  # same folder, so same disk
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RcodError(
            f"{path}: must be writable, and writing failed ({error.strerror}); "
            "choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # no such folder: nothing was written
            part.unlink(missing_ok=True)


def srgb_profile() -> bytes:
    """The ICC profile of sRGB, the same bytes on every call."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # else the time of the call
    return bytes(profile)


def _too_large(name: str, size: str) -> str:
    """The sentence for a picture with too many pixels."""
    return (
        f"{name}: a picture must have at most {MAX_PIXELS // 1_000_000} megapixels, "
        f"got {size}; cut or shrink it first"
    )


def _check(image: Image.Image, name: str) -> None:
    """Refuse, before any pixel is decoded, what this module would misread."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise RcodError(_too_large(name, f"{width} x {height}"))
    if width * height == 0:
        raise RcodError(f"{name}: a picture must have pixels, got {width} x {height}")
    if image.format is not None and image.format not in READABLE:
        raise RcodError(
            f"{name}: must be one of {', '.join(READABLE)}, got {image.format}; convert it first"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in ("MPO", "TIFF"):  # theirs are previews and masks
        raise RcodError(f"{name}: must be a single picture, got {frames} frames; extract one first")
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise RcodError(
            f"{name}: must have 8 or 16 bits per channel, got 32; convert it to 16 first"
        )


def _turn(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The picture upright, and its EXIF block without the entries that no longer hold."""
    upright = image
    try:
        upright = ImageOps.exif_transpose(image)
        exif = upright.getexif()
        camera = exif.get_ifd(0x8769) if 0x8769 in exif else {}
        for tag in SIZE_TAGS:
            camera.pop(tag, None)
        return upright, exif.tobytes() if len(exif) else None
    except DAMAGE:  # of the tags: not worth refusing the picture
        return upright, None


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


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Convert plain channels to sRGB (RGB or grey) by the profile attached to the picture."""
    icc = image.info.get("icc_profile")
    if not icc:
        return image.convert("RGB") if image.mode in ("CMYK", "LAB") else image
    mode = "L" if image.mode.startswith("I") else image.mode
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = MODES[icc[16:20].decode("latin-1").strip()]  # from the header
        if space != mode and (space, mode) != ("RGB", "L"):
            raise RcodError(
                f"{name}: the colour profile must fit the picture, and it is for {space} where "
                f"the picture is {mode}; save it again without the profile"
            )
        if ImageCms.getProfileDescription(profile).startswith("sRGB"):
            return image
        if mode != image.mode:  # the conversion knows no 16 bits
            image = Image.fromarray(_unit(image)[0].mul(255).round().byte().numpy())
        converted = ImageCms.profileToProfile(
            image.convert(space), profile, ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, KeyError) as error:
        raise RcodError(
            f"{name}: the colour profile must be readable, and it is damaged or unknown ({error}); "
            "save the picture again without it"
        ) from None
    assert converted is not None  # it is only for pictures changed in place
    return converted


def _unit(image: Image.Image) -> Tensor:
    """A grey or RGB picture of 8 or 16 bits as (1 or 3, H, W) float32 in [0, 1]."""
    values = np.asarray(image, np.float32) / (65535 if image.mode.startswith("I") else 255)
    scaled = torch.from_numpy(values).clamp_(0, 1)
    return scaled[None] if scaled.ndim == 2 else scaled.permute(2, 0, 1)
