"""What does a file tell of itself that Pillow passes over?

An opened picture's file is asked before its pixels are decoded, since then Pillow lets go of it:
by which numbers it tells its colours, whether a gain map brightens it elsewhere, and whether it
has lost nothing.

    opened picture -> chunks, boxes, pictures behind it -> is_unlike_srgb, has_gain_map, is_lossless
"""

import struct
from collections.abc import Callable
from contextlib import suppress

from PIL import Image

HEAD = 2**16  # bytes in which a file tells about itself
CHUNKS = 1000  # searched at most
OTHERS = 16  # pictures behind the first that are asked
SRGB = (0.4546, 0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # PNG's gAMA and cHRM of it
GAIN_MAP = (  # what Adobe's and Google's, ISO's and Apple's files with one hold
    b"hdrgm:", b"urn:iso:std:iso:ts:21496:-1", b"urn:com:apple:photo:2020:aux:hdrgainmap",
)  # fmt: skip
Numbers = tuple[int, int]  # colour primaries and transfer characteristics, by H.273


def bytes_at(image: Image.Image, place: int, count: int = HEAD) -> bytes:
    """Some bytes of an opened picture's file, which goes on where it was; none once it is left."""
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    with suppress(OSError, ValueError):
        before = file.tell()
        file.seek(place)
        found = file.read(count)
        file.seek(before)
        return found
    return b""


def is_unlike_srgb(image: Image.Image) -> bool:
    """Whether numbers alone, without a profile, say that colours aren't sRGB's."""
    if "icc_profile" in image.info:
        return False
    find = NUMBERS.get(image.format or "")
    if find is not None and (numbers := find(image)) is not None:
        primaries, transfer = numbers
        return primaries not in (1, 2) or transfer in (16, 18)  # PQ, HLG
    if image.format != "PNG" or "srgb" in image.info:
        return False
    told = (image.info.get("gamma", SRGB[0]), *image.info.get("chromaticity", SRGB[1:]))
    return any(abs(one - usual) > 0.01 for one, usual in zip(told, SRGB, strict=False))


def has_gain_map(image: Image.Image) -> bool:
    """Whether a JPEG, a picture behind it, or a HEIC tells of a map that brightens it."""
    parts = [content for _, content in getattr(image, "applist", ())]  # a JPEG's segments
    places = getattr(image, "_MpoImageFile__mpoffsets", ())[1:OTHERS]
    parts += [bytes_at(image, place) for place in ((0,) if image.format == "HEIF" else places)]
    return any(sign in part for sign in GAIN_MAP for part in parts)


def is_lossless(image: Image.Image) -> bool:
    """Whether it is a WebP whose first picture's chunk is of the lossless kind (RFC 9649)."""
    place = 12
    for _ in range(CHUNKS if image.format == "WEBP" else 0):
        kind, length = struct.unpack("<4sI", bytes_at(image, place, 8).ljust(8, b"\0"))
        if kind in (b"VP8L", b"VP8 ", bytes(4)):
            return kind == b"VP8L"
        place += 24 if kind == b"ANMF" else 8 + length + length % 2  # a frame holds chunks
    return False


def _of_png(image: Image.Image) -> Numbers | None:
    """By its chunk cICP, which comes before the pixels and before gAMA and cHRM (PNG 3, 11.3.2)."""
    place = 8
    for _ in range(CHUNKS):
        data = bytes_at(image, place, 10).ljust(10, b"\0")
        length, kind, primaries, transfer = struct.unpack(">I4s2B", data)
        if kind == b"cICP":
            return primaries, transfer
        if kind in (b"IDAT", bytes(4)):
            break
        place += 12 + length
    return None


def _of_avif(image: Image.Image) -> Numbers | None:
    """By the first box of colours that holds numbers (ISO/IEC 14496-12, 12.1.5)."""
    head = bytes_at(image, 0)
    place = head.find(b"colrnclx") + 8
    if not 8 <= place <= len(head) - 4:
        return None
    primaries, transfer = struct.unpack_from(">2H", head, place)
    return primaries, transfer


def _of_heif(image: Image.Image) -> Numbers | None:
    """As its decoder tells them."""
    told = image.info.get("nclx_profile")
    if not isinstance(told, dict):
        return None
    return told.get("color_primaries", 2), told.get("transfer_characteristics", 2)  # 2: untold


NUMBERS: dict[str, Callable[[Image.Image], Numbers | None]] = {
    "PNG": _of_png, "AVIF": _of_avif, "HEIF": _of_heif,
}  # fmt: skip
