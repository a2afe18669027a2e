"""Who opens HEIC and JPEG XL, which Pillow reads only with an extra?

Their modules are imported when the first such file comes. JPEG XL's decodes the whole picture
while it opens it, so how large that is must be read here, from the head of the file; and how deep,
since what its decoder gives doesn't tell.

    file -> HEIC or JPEG XL -> module imported -> opened
                      '-> boxes -> codestream -> width, height, bits
"""

import io
import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from rcod.errors import RcodError
from rcod.pixels.planes import stream

EXTRAS = {"HEIC": ("heic", "pi_heif"), "JPEG XL": ("jxl", "pillow_jxl")}  # extra, module
HEAD = 24  # bytes of a codestream that hold its size and depth
BOXES = 1000  # searched for the codestream
SIDE_BITS = (9, 13, 18, 30)  # of a side of JPEG XL's
DEPTHS = (8, 10, 12)  # bits a channel that JPEG XL has numbers for
RATIOS = ((0, 1), (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # 0: width is told


def open_by_extra(source: Path | bytes, name: str) -> Image.Image | None:
    """Open HEIC or JPEG XL, or say what is missing; None for other content."""
    kind = _kind(source)
    if kind is None:
        return None
    extra, module = EXTRAS[kind]
    try:
        if kind == "HEIC":
            from pi_heif import register_heif_opener

            register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401  (registers JPEG XL with Pillow)
    except ImportError:
        what = f"{kind} pictures need {module}, which isn't installed"
        raise RcodError(f"{name}: {what}; pip install 'rcod[{extra}]', or convert it") from None
    try:
        return Image.open(source if isinstance(source, Path) else io.BytesIO(source))
    except Image.UnidentifiedImageError:
        raise RcodError(f"{name}: must be a whole {kind} picture; copy it again") from None


def head_of_jxl(source: Path | bytes) -> tuple[tuple[int, int], int] | None:
    """Width and height of a JPEG XL picture, and bits a channel; None for other content.

    Damage is a `ValueError`. The bits are those of ISO/IEC 18181-1, SizeHeader and ImageMetadata.
    """
    if _kind(source) != "JPEG XL":
        return None
    with stream(source) as file:
        bits = int.from_bytes(_codestream(file)[2:], "little")

    def number(count: int) -> int:
        nonlocal bits
        found, bits = bits % 2**count, bits >> count
        return found

    def sides() -> tuple[int, int]:
        small = number(1)

        def side() -> int:
            return 8 * (number(5) + 1) if small else number(SIDE_BITS[number(2)]) + 1

        height = side()
        times, by = RATIOS[number(3)]
        return height * times // by if times else side(), height

    size = sides()
    if number(1):  # everything is as usual
        return size, 8
    if number(1):
        number(3)  # its turn
        if number(1):
            sides()  # at which it is meant to be shown
        if number(1) or number(1):  # a preview or several frames, told before the depth
            return size, 8
    if number(1):  # floats
        return size, 32
    kind = number(2)
    return size, DEPTHS[kind] if kind < 3 else number(6) + 1


def _kind(source: Path | bytes) -> str | None:
    """Which of the two a file is, if any."""
    with stream(source) as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC"
    return "JPEG XL" if start[:2] == b"\xff\x0a" or start[4:8] == b"JXL " else None


def _codestream(file: BinaryIO) -> bytes:
    """The first bytes of a JPEG XL codestream, which may lie in boxes, and there in parts."""
    head = file.read(HEAD)
    if head[:2] == b"\xff\x0a":
        return head
    found, place = b"", 0
    for _ in range(BOXES):
        file.seek(place)
        length, kind, wide = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        start = 16 if length == 1 else 8
        end = place + (wide if length == 1 else length or 2**62)  # 0 is all that is left
        start += place + (4 if kind == b"jxlp" else 0)  # whose part has a number
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start)
            found += file.read(max(0, min(HEAD - len(found), end - start)))
        if len(found) == HEAD or kind == b"jxlc" or end < start or end >= 2**62:
            break
        place = end
    if not found:
        raise ValueError("a JPEG XL picture has a codestream")
    return found
