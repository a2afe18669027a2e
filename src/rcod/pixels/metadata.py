"""What else does a photo carry, and what of it may travel on?

EXIF, XMP and the dots per inch go from the photo to its result, without what no longer holds: the
turn (it has been made), the size (it is another), the preview, and how pixels lie in the file and
on the earth. Our own mark, in EXIF's field for the program that processed a photo, tells a result
of rcod from a file of the user's. It says how many bytes the file has: an editor that saves a
result keeps the mark and gives it another length. The name of the camera or the editor stays as it
was.
"""

import contextlib
import copy
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from rcod.pixels.planes import DAMAGE

MARK_TAG = 0x000B  # EXIF's ProcessingSoftware
TURN, CAMERA, GPS, MAKER = 0x0112, 0x8769, 0x8825, 0x927C
INTEROP = 0xA005  # EXIF's directory within that of the camera
COLOURS = 0xA001  # EXIF's colour space, 1 for sRGB
SIZE_TAGS = (  # EXIF's of pixels, wrong once a photo is enlarged: size, focal plane's, subject's
    0xA002, 0xA003, 0xA20E, 0xA20F, 0xA210, 0x9214, 0xA214,
)  # fmt: skip
MOST = 65_000  # bytes of EXIF or XMP that fit into one segment of a JPEG
WRONG = (  # XMP's turn, places in pixels, and what lay behind the picture
    r"tiff:Orientation", r"tiff:ImageWidth", r"tiff:ImageLength", r"exif:PixelXDimension",
    r"exif:PixelYDimension", r"exif:Subject(?:Area|Location)", r"exif:FocalPlane\w+",
    r"GPano:(?:\w+Pixels|LargestValidInteriorRect\w+)", r"hdrgm:\w+", r"G?Container:Directory",
    r"xmpNote:HasExtendedXMP",
)  # fmt: skip
DATASETS = {  # XMP's names of IPTC's captions
    b"\x05": b"dc:title", b"\x19": b"dc:subject", b"\x50": b"dc:creator", b"\x74": b"dc:rights",
    b"\x78": b"dc:description",
}  # fmt: skip
TEXTS = {"Title": b"dc:title", "Author": b"dc:creator", "Copyright": b"dc:rights",
         "Description": b"dc:description"}  # and of PNG's  # fmt: skip
PLACE = (  # XMP's names of where a photo was taken, of EXIF, drones, Photoshop and IPTC
    r"(?!xmlns:)[\w-]+:\w*(?i:gps|latitude|longitude|TargetL(?:at|on))\w*",
    r"photoshop:(?:City|State|Country)", r"Iptc4xmp\w+:(?:Location|CountryCode)\w*",
)  # fmt: skip
IPTC, PHOTOSHOP = 33723, 34377  # TIFF's tags of what both add, the place included
EARTH = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)  # GeoTIFF's and GDAL's
DENSITY = frozenset((282, 283, 296))  # dots per inch, which `Tags.dpi` holds
STRUCTURE = DENSITY.union(  # TIFF's tags about how pixels lie, which are not the photo's
    range(254, 260), (262, 263, 266, 273, 274), range(277, 285), (297, 301), range(317, 326),
    (330,), range(332, 340), (347,), range(512, 522), range(529, 533),
    (700, PHOTOSHOP, 34675, 37724, 40965), range(50706, 50709), EARTH,
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
            return Tags(_without_place(self.exif), _cut(self.xmp, PLACE), self.dpi)
        return self


def collect(image: Image.Image) -> tuple[Tags, int]:
    """The tags of an opened picture and its turn, 1 to 8; damaged tags are left out."""
    turn, exif, dpi = 1, None, _density(image)
    try:
        value = image.getexif().get(TURN, 1)
        turn = value if isinstance(value, int) and 1 <= value <= 8 else 1
        if image.format == "JXL" and not getattr(image, "jpeg", None):
            turn = 1  # its decoder has made the codestream's turn, and EXIF's doesn't count
        dpi_elsewhere = image.format == "TIFF" or dpi is not None  # or by `Tags`
        found = copy_exif(image.getexif(), STRUCTURE if dpi_elsewhere else STRUCTURE - DENSITY)
        camera = found.get_ifd(CAMERA) if CAMERA in found else {}
        for tag in SIZE_TAGS:
            camera.pop(tag, None)
        exif = found.tobytes() if len(found) else None
    except DAMAGE:  # of the tags: not worth refusing the picture
        exif = None
    xmp = image.info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    xmp = _cut(xmp, WRONG) if isinstance(xmp, bytes) else None
    return Tags(exif, xmp, dpi), turn


class Text(str):
    """Text of EXIF, of which Pillow thinks that it is Latin-1, and would write ? beyond ASCII."""

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        """The bytes it was read from, whatever they mean."""
        return super().encode("latin-1", "replace")


def copy_exif(exif: Image.Exif, without: Collection[int] = ()) -> Image.Exif:
    """A copy of EXIF but for some of its tags, which is written with the text it was read with."""
    below = [tag for tag in (CAMERA, GPS) if tag in exif and tag not in without]
    below += [INTEROP] * (CAMERA in below)
    copied = copy.copy(exif)
    copied._ifds = {tag: _texts(exif.get_ifd(tag)) for tag in below}
    copied._data = _texts({tag: value for tag, value in exif.items() if tag not in without})
    return copied


def parse_exif(block: bytes | None, without: Collection[int] = ()) -> Image.Exif:
    """EXIF of a block but for some of its tags, which is written with the text it was read with."""
    exif = Image.Exif()
    exif.load(block or b"")
    return copy_exif(exif, without)


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
    try:
        exif = parse_exif(tags.exif)
        if tags.dpi is not None:
            exif[282], exif[283], exif[296] = *tags.dpi, 2  # inches
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


def is_adobe(image: Image.Image) -> bool:
    """Whether EXIF says that colours are Adobe RGB's, as some cameras do without a profile."""
    with contextlib.suppress(*DAMAGE):
        exif = image.getexif()
        return exif.get_ifd(INTEROP).get(1) == "R03" and exif.get_ifd(CAMERA).get(COLOURS) != 1
    return False


def ignored_tags(image: Image.Image, tags: Tags) -> tuple[str, ...]:
    """What a loaded picture says in ways that nothing here follows, and not in XMP, as notes."""
    xmp, found = tags.xmp or b"", image.info.get("photoshop")
    iptc = found.get(0x0404) if isinstance(found, dict) else None
    captions = iptc if isinstance(iptc, bytes) else b""
    numbers = re.findall(rb"\x1c\x02(.)(?!\0\0)", captions, re.DOTALL)  # of datasets with text
    names = {DATASETS[number] for number in numbers if number in DATASETS}
    alone = ["IPTC"] if captions and not (xmp and all(name in xmp for name in names)) else []
    texts = {name for key, name in TEXTS.items() if image.format == "PNG" and image.info.get(key)}
    alone += ["PNG's text"] if any(name not in xmp for name in texts) else []
    return tuple(f"has captions as {kind} alone, which stay behind" for kind in alone)


def is_marked(image: Image.Image, size: int) -> bool:
    """Whether an opened picture carries our mark, and its file is as long as we wrote it."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # where Pillow would decode all pixels to look behind them
    return image.getexif().get(MARK_TAG) == mark(size)


def _texts(part: dict[int, object]) -> dict[int, object]:
    """A directory whose text is `Text`."""
    return {tag: Text(value) if isinstance(value, str) else value for tag, value in part.items()}


def _density(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, where the file tells sensible ones."""
    try:
        exif = image.getexif()
        is_there = {282, 283} <= exif.keys()
        inches = {2: 1, 3: 2.54}.get(exif.get(296, 2)) if is_there else None  # a unit's in one
        exif_dpi = (exif[282] * inches, exif[283] * inches) if inches else ()
        told = image.format != "TIFF" or is_there
        if image.format in ("JPEG", "MPO"):  # for either Pillow makes up what isn't told
            told = image.info.get("jfif_unit") in (1, 2)
        x, y = (float(value) for value in (told and image.info.get("dpi")) or exif_dpi)
    except DAMAGE:
        return None
    return (x, y) if 1 <= x <= 30_000 and 1 <= y <= 30_000 else None


def _without_place(exif: bytes | None) -> bytes | None:
    """An EXIF block that doesn't say where the photo was taken."""
    if exif is None:
        return None
    try:
        block = parse_exif(exif, (GPS, IPTC, PHOTOSHOP, *EARTH))
        return block.tobytes() if len(block) else None
    except DAMAGE:  # what can't be cleaned doesn't travel
        return None


def _cut(xmp: bytes | None, names: tuple[str, ...]) -> bytes | None:
    """XMP without some properties, written as attributes or as elements with all that is in them.

    Where one of the names is left, as in an element that doesn't end, no XMP is. Every part of
    the patterns stops at the next tag: time grows as the length, whatever came.
    """
    if xmp is None:
        return None
    name = f"(?<![\\w-])(?:{'|'.join(names)})"
    xmp = re.sub(rf"\s{name}\s*=\s*(?:\"[^\"]*\"|'[^']*')".encode(), b"", xmp)
    kept: list[bytes] = []
    end, depth = 0, 0
    for tag in re.finditer(rf"<(/?){name}(?:\s[^<>]*)?/?>".encode(), xmp):
        if depth == 0:
            kept.append(xmp[end : tag.start()])
        if not tag[0].endswith(b"/>"):
            depth += -1 if tag[1] else 1
        end = tag.end()
    rest = b"".join([*kept, xmp[end:]])
    return None if depth or re.search(name.encode(), rest) else rest
