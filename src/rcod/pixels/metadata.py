"""What else does a photo carry, and what of it may travel on?

EXIF, XMP and the dots per inch go from the photo to its result, without what no longer
holds: the turn (it has been made), the size (it is another) and the preview. Our own mark,
in EXIF's field for the program that processed a photo, tells a result of rcod from a file of
the user's. It says how many bytes the file has: an editor that saves a result keeps the mark and
gives it another length. The name of the camera or the editor stays as it was.
"""

import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from rcod.pixels.decode import DAMAGE

MARK_TAG = 0x000B  # EXIF's ProcessingSoftware
TURN, CAMERA, GPS, MAKER = 0x0112, 0x8769, 0x8825, 0x927C
INTEROP = 0xA005  # EXIF's directory within that of the camera
SIZE_TAGS = (0xA002, 0xA003)  # EXIF's own width and height, wrong once a photo is enlarged
MOST = 65_000  # bytes of EXIF or XMP that fit into one segment of a JPEG
WRONG = (  # XMP's turn and sizes
    r"tiff:Orientation", r"tiff:ImageWidth", r"tiff:ImageLength", r"exif:PixelXDimension",
    r"exif:PixelYDimension",
)  # fmt: skip
STRUCTURE = frozenset(  # TIFF's tags about how pixels lie, which are not the photo's
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284,
     296, 297, 301, 317, 318, 319, 320, 322, 323, 324, 325, 330, 338, 339, 347, 529, 530, 531, 532,
     700, 34675, 40965)
)  # fmt: skip
Strip = Literal["nothing", "gps", "all"]


@dataclass(frozen=True)
class Tags:
    """What a photo carries besides pixels and colours."""

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None

    def without(self, strip: Strip) -> "Tags":
        """The tags that may travel on."""
        if strip == "all":
            return Tags()
        if strip == "gps":
            return Tags(_without_gps(self.exif), _cut(self.xmp, r"exif:GPS\w+"), self.dpi)
        return self


def collect(image: Image.Image) -> tuple[Tags, int]:
    """The tags of an opened picture and its turn, 1 to 8; damaged tags are left out."""
    turn, exif = 1, None
    try:
        found = image.getexif()
        value = found.get(TURN, 1)
        turn = value if isinstance(value, int) and 1 <= value <= 8 else 1
        for tag in STRUCTURE if image.format == "TIFF" else (TURN, 256, 257):
            found.pop(tag, None)
        camera = found.get_ifd(CAMERA) if CAMERA in found else {}
        for tag in SIZE_TAGS:
            camera.pop(tag, None)
        exif = found.tobytes() if len(found) else None
    except DAMAGE:  # of the tags: not worth refusing the picture
        exif = None
    xmp = image.info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    xmp = _cut(xmp, "|".join(WRONG)) if isinstance(xmp, bytes) else None
    return Tags(exif, xmp, _density(image)), turn


def mark(size: int) -> str:
    """What marks a result of so many bytes as ours; as long for any number of them."""
    return f"rcod {size:012d}"


def exif_of(tags: Tags, most: int | None = None, size: int = 0) -> tuple[bytes, str | None]:
    """The EXIF block of a result, marked as ours, and what had to be left out to fit.

    Args:
        tags: the photo's.
        most: how many bytes the format can hold; None is any number.
        size: bytes of the file, 0 while they aren't known; the block is as long in any case.
    """
    exif = Image.Exif()
    try:
        exif.load(tags.exif or b"")
        exif[MARK_TAG] = mark(size)
        block = exif.tobytes()
    except DAMAGE:
        exif = Image.Exif()
        exif[MARK_TAG] = mark(size)
        return exif.tobytes(), "has EXIF that can't be written again; it is left out"
    if most is None or len(block) <= most:
        return block, None
    camera = exif.get_ifd(CAMERA)
    if camera.pop(MAKER, None) is not None and len(block := exif.tobytes()) <= most:
        return block, "has more EXIF than a JPEG holds; the maker's note is left out"
    bare = Image.Exif()
    bare[MARK_TAG] = mark(size)
    return bare.tobytes(), "has more EXIF than a JPEG holds; it is left out"


def is_marked(image: Image.Image, size: int) -> bool:
    """Whether an opened picture carries our mark, and its file is as long as we wrote it."""
    return image.getexif().get(MARK_TAG) == mark(size)


def _density(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, where the file tells sensible ones."""
    found = image.info.get("dpi")
    try:
        x, y = (float(value) for value in found or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 <= x <= 30_000 and 1 <= y <= 30_000 else None


def _without_gps(exif: bytes | None) -> bytes | None:
    """An EXIF block without the place."""
    if exif is None:
        return None
    try:
        block = Image.Exif()
        block.load(exif)
        block.get_ifd(GPS).clear()
        block.pop(GPS, None)
        block._ifds.pop(GPS, None)
        return block.tobytes() if len(block) else None
    except DAMAGE:  # what can't be cleaned doesn't travel
        return None


def _cut(xmp: bytes | None, names: str) -> bytes | None:
    """XMP without some properties, written as attributes or as elements of plain text.

    Where one of the names is left, in an element of elements or in none that ends, no XMP is.
    Every part of the pattern stops at the next tag: time grows as the length, whatever came.
    """
    if xmp is None:
        return None
    attribute = rf"\s(?:{names})\s*=\s*(?:\"[^\"]*\"|'[^']*')"
    element = rf"<({names})(?:\s[^<>]*)?(?:/>|>[^<]*</\1\s*>)"
    rest = re.sub(f"{attribute}|{element}".encode(), b"", xmp)
    return None if re.search(names.encode(), rest) else rest
