"""Has a picture more bits than Pillow reads of it?

Of most formats Pillow keeps 8 bits a channel, whatever the file holds. What is cut is said, and
for that the file must be asked itself.

    opened picture -> what its format tells of its depth -> is_cut
"""

from collections.abc import Callable

from PIL import Image

from rcod.pixels.extras import head_of_jxl
from rcod.pixels.heads import bytes_at


def is_cut(image: Image.Image) -> bool:
    """Whether Pillow keeps 8 bits of more; the picture isn't loaded yet."""
    tells = TELLS.get(image.format or "")
    return image.mode[0] not in "IF" and tells is not None and tells(image) > 8


def _of_heif(image: Image.Image) -> int:
    return int(image.info.get("bit_depth", 8))


def _of_ppm(image: Image.Image) -> int:
    """By its highest value."""
    ways = [tile.args for tile in getattr(image, "tile", ())]
    return max((way[-1] for way in ways if isinstance(way, tuple)), default=0).bit_length()


def _of_tiff(image: Image.Image) -> int:
    """Of ink colours alone: others are read with all their bits."""
    ways = [tile.args for tile in getattr(image, "tile", ())]
    return 16 if any(str(way[0]).startswith("CMYK;16") for way in ways if way) else 8


def _of_jpeg2000(image: Image.Image) -> int:
    """By its codestream's first component (ISO/IEC 15444-1, SIZ)."""
    head = bytes_at(image, 0)
    at = head.find(b"\xff\x4f\xff\x51") + 42
    return (head[at] & 127) + 1 if 42 <= at < len(head) else 8


def _of_avif(image: Image.Image) -> int:
    """By the flag of AV1's configuration that says high bit depth."""
    head = bytes_at(image, 0)
    at = head.find(b"av1C") + 6
    return 10 if 6 <= at < len(head) and head[at] & 0x40 else 8


def _of_jxl(image: Image.Image) -> int:
    """By the file's content, which its decoder keeps."""
    head = head_of_jxl(getattr(image, "fc", b""))
    return 8 if head is None else head[1]


TELLS: dict[str, Callable[[Image.Image], int]] = {
    "HEIF": _of_heif, "PPM": _of_ppm, "TIFF": _of_tiff, "JPEG2000": _of_jpeg2000,
    "AVIF": _of_avif, "JXL": _of_jxl,
}  # fmt: skip
