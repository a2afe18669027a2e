"""JPEG XL tells its size and depth before any of it is decoded, bare or in boxes."""

import io
import struct
from collections.abc import Callable

import pytest
from PIL import Image
from test_images import colours

from rcod.errors import RcodError
from rcod.pixels.extras import head_of_jxl
from rcod.pixels.images import read

SIGNATURE = struct.pack(">I", 12) + b"JXL \r\n\x87\n"


def codestream(*fields: tuple[int, int]) -> bytes:
    """A head of numbers, each with its count of bits, and what may follow."""
    bits, place = 0, 0
    for number, count in fields:
        bits, place = bits | number << place, place + count
    return b"\xff\n" + bits.to_bytes(10, "little") + b"\xff" * 20


def size_of_jxl(content: bytes) -> tuple[int, int] | None:
    head = head_of_jxl(content)
    return None if head is None else head[0]


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


LARGE = codestream((0, 1), (2, 2), (69_999, 18), (0, 3), (3, 2), (899_999, 30))
HEADS = {
    "small": (codestream((1, 1), (4, 5), (0, 3), (2, 5)), (24, 40)),
    "small, 16:9": (codestream((1, 1), (8, 5), (5, 3)), (128, 72)),
    "9 bits": (codestream((0, 1), (0, 2), (299, 9), (0, 3), (0, 2), (400, 9)), (401, 300)),
    "13 bits, 3:2": (codestream((0, 1), (1, 2), (6000, 13), (4, 3)), (9001, 6001)),
    "18 and 30 bits": (LARGE, (900_000, 70_000)),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_size_is_read_from_every_kind_of_head(head: str):
    content, size = HEADS[head]
    assert size_of_jxl(content) == size
    before = SIGNATURE + box(b"ftyp", b"jxl ") + struct.pack(">I4sQ", 1, b"Exif", 20) + b"abcd"
    parts = [content[:3], content[3:5], content[5:]]
    apart = b"".join(box(b"jxlp", struct.pack(">I", i) + part) for i, part in enumerate(parts))
    for boxes in (box(b"jxlc", content), b"\0\0\0\0jxlc" + content, apart):
        assert size_of_jxl(before + boxes) == size


PLAIN = ((1, 1), (4, 5), (1, 3), (0, 1))  # a small square, not all is as usual
DEPTHS = {
    "usual": ((*PLAIN[:3], (1, 1)), 8),
    "10 bits": ((*PLAIN, (0, 1), (0, 1), (1, 2)), 10),
    "16 bits": ((*PLAIN, (0, 1), (0, 1), (3, 2), (15, 6)), 16),
    "floats": ((*PLAIN, (0, 1), (1, 1)), 32),
    "12 bits, turned": ((*PLAIN, (1, 1), (5, 3), (0, 3), (0, 1), (2, 2)), 12),
    "12 bits, shown smaller": ((*PLAIN, (1, 1), (0, 3), (1, 1), *PLAIN[:3], (0, 3), (2, 2)), 12),
    "frames": ((*PLAIN, (1, 1), (0, 3), (0, 2), (1, 1)), 8),
}


@pytest.mark.parametrize("head", DEPTHS)
def test_the_depth_is_read_from_every_kind_of_head(head: str):
    fields, bits = DEPTHS[head]
    assert head_of_jxl(codestream(*fields)) == ((40, 40), bits)


def test_jpeg_xl_of_more_bits_is_cut_and_it_is_said():
    pytest.importorskip("pillow_jxl", reason="not checked here: the extra jxl isn't there")
    colours(32, 32).save(file := io.BytesIO(), "JXL", lossless=True)
    deep = bytearray(file.getvalue())
    deep[3] |= 2 << 4  # 12 bits: behind 1 + 5 + 3 of the size, and three that are 0
    assert read(file.getvalue()).notes == ()
    assert "more than 8 bits a channel" in read(bytes(deep)).notes[0]


def test_other_content_has_none_and_boxes_without_end_are_no_picture():
    colours().save(file := io.BytesIO(), "PNG")
    assert size_of_jxl(file.getvalue()) is None
    for boxes in (b"", b"\0" * 16, box(b"free", b"") * 2000, struct.pack(">I4s", 3, b"jxlp")):
        with pytest.raises(RcodError, match=r"a\.jxl: must be a whole picture, .* codestream"):
            read(SIGNATURE + boxes, "a.jxl")


@pytest.mark.parametrize("size", [(8, 8), (30, 20), (300, 200), (513, 999), (640, 360)])
def test_the_size_is_what_a_decoder_finds(size: tuple[int, int]):
    jxl = pytest.importorskip("pillow_jxl", reason="not checked here: the extra jxl isn't there")
    assert jxl
    for options in ({}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}):
        Image.new("RGB", size, "navy").save(file := io.BytesIO(), "JXL", **options)
        assert size_of_jxl(file.getvalue()) == size


def test_a_large_picture_is_refused_before_anything_opens_it(monkeypatch: pytest.MonkeyPatch):
    def opened(*_: object) -> None:
        raise AssertionError("JPEG XL is decoded on opening")

    monkeypatch.setattr(Image, "open", opened)
    told: list[tuple[int, int]] = []
    refuse: Callable[[tuple[int, int]], None] = told.append
    with pytest.raises(RcodError, match="at most 80 megapixels, got 900000 x 70000"):
        read(LARGE, "a.jxl", refuse)
    assert told == [(900_000, 70_000)]
