"""TIFFs of float colours, as others write them: every layout gives the same picture."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.errors import RcodError, TooLarge
from rcod.pixels.images import from_pil, read, write

HEIGHT, WIDTH = 37, 50  # no multiples of strips or tiles


def picture(channels: int) -> np.ndarray:
    """Smooth colours, (H, W, channels) in [0, 1]; the last channel of 2 or 4 shows everywhere."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 60
    planes = [0.2 + 0.5 * x, y, 0.9 - 0.6 * x * y][: channels - (channels % 2 == 0)]
    if channels % 2 == 0:
        planes.append(0.25 + 0.75 * y)
    return np.stack(planes, -1)


def packed(raw: np.ndarray, compression: int) -> bytes:
    """Bytes (rows, line) as one block."""
    if compression == 8:
        return zlib.compress(raw.tobytes())
    if compression == 5:
        Image.fromarray(raw).save(file := io.BytesIO(), "TIFF", compression="tiff_lzw",
                                  tiffinfo={278: len(raw)})  # fmt: skip
        with Image.open(file) as image:
            start, size = image.tag_v2[273][0], image.tag_v2[279][0]  # pyright: ignore
        return file.getvalue()[start : start + size]
    return raw.tobytes()


def predicted(values: np.ndarray, predictor: int, order: str) -> np.ndarray:
    """A block's numbers (h, w, c) as the bytes that are packed, (h, line) uint8."""
    rows, _, c = values.shape
    size = values.dtype.itemsize
    if predictor == 3:
        parts = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
        parts = parts.reshape(rows, -1, size).transpose(0, 2, 1).reshape(rows, -1, c)
        return np.diff(parts, axis=1, prepend=np.uint8(0)).reshape(rows, -1)
    if predictor == 2:
        whole = np.diff(values.view(f"u{size}"), axis=1, prepend=np.array(0, f"u{size}"))
        return whole.astype(f"{order}u{size}").view(np.uint8).reshape(rows, -1)
    return values.astype(f"{order}{values.dtype.kind}{size}").view(np.uint8).reshape(rows, -1)


def make_tiff(
    values: np.ndarray, order: str = "<", compression: int = 1, predictor: int = 1,
    tile: int | None = None, apart: bool = False, extra: int = 2, more: tuple = (),
    inverted: bool = False,
) -> bytes:  # fmt: skip
    """A TIFF of numbers (H, W, C)."""
    height, width, channels = values.shape
    values = np.ascontiguousarray(values)
    cuts = [values[..., i : i + 1] for i in range(channels)] if apart else [values]
    blocks: list[bytes] = []
    high = tile or 16
    for cut in cuts:
        if tile:
            cut = np.pad(cut, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
        for top in range(0, len(cut), high):
            for left in range(0, cut.shape[1], tile or width):
                part = np.ascontiguousarray(cut[top : top + high, left : left + (tile or width)])
                blocks.append(packed(predicted(part, predictor, order), compression))
    sizes = [len(block) for block in blocks]
    starts = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    entries: list[tuple[int, int, list[int] | bytes]] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * values.dtype.itemsize] * channels),
        (259, 3, [compression]), (262, 3, [2 if channels > 2 else 1 - inverted]), (274, 3, [3]),
        (277, 3, [channels]), (284, 3, [2 if apart else 1]), (317, 3, [predictor]),
        (339, 3, [3 if values.dtype.kind == "f" else 1] * channels), *more,
    ]  # fmt: skip
    if channels % 2 == 0:
        entries.append((338, 3, [extra]))
    entries += (
        [(322, 3, [tile]), (323, 3, [tile]), (324, 4, starts), (325, 4, sizes)]
        if tile
        else [(273, 4, starts), (278, 3, [high]), (279, 4, sizes)]
    )
    body, place = b"".join(blocks), 8 + sum(sizes)
    directory, beyond = struct.pack(f"{order}H", len(entries)), b""
    after = place + 2 + 12 * len(entries) + 4
    for tag, kind, numbers in sorted(entries):
        data = struct.pack(f"{order}{len(numbers)}{'_BBHI'[kind]}", *numbers)
        if len(data) > 4:
            beyond, data = beyond + data, struct.pack(f"{order}I", after + len(beyond))
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0")
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, place)
    return head + body + directory + bytes(4) + beyond


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("compression", "predictor"), [(1, 1), (8, 3), (8, 2), (5, 1), (5, 3)])
@pytest.mark.parametrize(("tile", "apart"), [(None, False), (16, False), (None, True), (16, True)])
def test_every_layout_gives_the_same_picture(
    order: str, compression: int, predictor: int, tile: int | None, apart: bool
):
    meant = picture(3)
    content = make_tiff(meant.astype(np.float32), order, compression, predictor, tile, apart)
    photo = read(content)
    upright = torch.from_numpy(meant[::-1, ::-1].copy()).permute(2, 0, 1).float()
    torch.testing.assert_close(photo.pixels, upright, rtol=0, atol=1e-6)
    assert (photo.bits, photo.grey, photo.alpha) == (16, False, None)


@pytest.mark.parametrize(("kind", "atol"), [("f2", 1e-3), ("f4", 1e-6), ("f8", 1e-6)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_precision_and_alpha(kind: str, atol: float, channels: int):
    meant = picture(channels)
    for extra in (1, 2):
        stored = meant.copy()
        if extra == 1 and channels in (2, 4):
            stored[..., :-1] *= stored[..., -1:]
        photo = read(make_tiff(stored.astype(kind), extra=extra))
        upright = torch.from_numpy(meant[::-1, ::-1].copy()).permute(2, 0, 1).float()
        colours = upright[:3] if channels > 2 else upright[:1].expand(3, -1, -1)
        torch.testing.assert_close(photo.pixels, colours, rtol=0, atol=4 * atol)
        assert photo.grey == (channels < 3)
        if channels in (1, 3):
            assert photo.alpha is None
        else:
            assert photo.alpha is not None
            torch.testing.assert_close(photo.alpha[0], upright[-1], rtol=0, atol=atol)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("compression", "predictor"), [(1, 1), (8, 2), (5, 1)])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_plane_by_plane_are_read_in_full(
    order: str, compression: int, predictor: int, channels: int
):
    """Pillow takes their bytes for 8 bits, or gives them as 8."""
    meant = (picture(channels) * 65535).round().astype(np.uint16)
    photo = read(make_tiff(meant, order, compression, predictor, apart=True))
    upright = torch.from_numpy(meant[::-1, ::-1].astype(np.float32)).permute(2, 0, 1) / 65535
    torch.testing.assert_close(photo.pixels, upright[:3], rtol=0, atol=1e-7)
    assert photo.bits == 16 and (photo.alpha is not None) == (channels == 4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "apart"),
    [("u1", True), ("u1", False), ("u2", True), ("u2", False), ("f2", False), ("f4", False),
     ("f8", False)],
)  # fmt: skip
def test_every_layout_of_grey(
    order: str, inverted: bool, extra: int | None, kind: str, apart: bool
):
    """White may be 0, and a channel that is no alpha be beside."""
    most = 1 if kind[0] == "f" else 2 ** (8 * int(kind[1])) - 1
    meant = picture(2)
    stored = meant.copy()
    if inverted:
        stored[..., 0] = 1 - stored[..., 0]
    if extra == 1:
        stored[..., 0] *= stored[..., 1]
    stored = stored[..., : 1 if extra is None else 2] * most
    stored = (stored if most == 1 else stored.round()).astype(kind)
    content = make_tiff(stored, order, 8, 2, apart=apart, extra=extra or 0, inverted=inverted)
    photo = read(content, "a.tif")
    atol = {"u1": 3, "f2": 1}.get(kind, 0.03) / 255
    upright = torch.from_numpy(meant[::-1, ::-1].copy()).float()
    torch.testing.assert_close(photo.pixels[0], upright[..., 0], rtol=0, atol=atol)
    assert photo.grey and photo.notes == () and photo.bits == (8 if kind == "u1" else 16)
    assert (photo.alpha is not None) == (extra in (1, 2))
    if photo.alpha is not None:
        torch.testing.assert_close(photo.alpha[0], upright[..., 1], rtol=0, atol=atol)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_grey_that_pillow_opened_is_turned_around_as_well(kind: str, inverted: bool):
    most = 1 if kind == "f4" else 65_535
    values = picture(1)
    stored = ((1 - values if inverted else values) * most).astype(kind)
    with Image.open(io.BytesIO(make_tiff(stored, inverted=inverted))) as image:
        photo = from_pil(image)
    upright = torch.from_numpy(values[::-1, ::-1, 0].copy()).float()
    torch.testing.assert_close(photo.pixels[0], upright, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kind", "photometric"), [("u4", 1), ("u2", 3), ("f4", 32_803)])
def test_a_tiff_of_another_kind_is_refused_as_such(kind: str, photometric: int):
    """Whole numbers of 32 bits, a palette of 16 and what a sensor saw."""
    content = bytearray(make_tiff(picture(1).astype(kind), order=">"))
    at = content.index(struct.pack(">HHI", 262, 3, 1)) + 8
    content[at : at + 2] = struct.pack(">H", photometric)
    with pytest.raises(RcodError, match=r"a\.tif: .* and this kind of TIFF can't be; convert it"):
        read(bytes(content), "a.tif")


def test_whole_numbers_a_little_above_the_alpha_they_are_times_by_are_white():
    stored = np.full((HEIGHT, WIDTH, 4), 20_100, np.uint16)
    stored[..., 3] = 20_000
    photo = read(make_tiff(stored, apart=True, extra=1))
    assert bool((photo.pixels == 1).all())


def test_ink_of_sixteen_bits_plane_by_plane_is_refused():
    content = make_tiff((picture(4) * 65535).astype(np.uint16), apart=True)
    ink = bytearray(content)
    at = ink.index(struct.pack("<HHIH", 262, 3, 1, 2))
    ink[at + 8] = 5
    ink[ink.index(struct.pack("<HHIH", 338, 3, 1, 2))] = 0xFF  # no longer the tag of alpha
    with pytest.raises(RcodError, match=r"a\.tif: must have its 16-bit CMYK channels side by side"):
        read(bytes(ink), "a.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_grey_where_white_is_zero_is_turned_around(compression: str):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", compression=compression, tiffinfo={262: 0})
    with Image.open(file) as image:
        assert image.getexif()[262] == 0
    expected = torch.from_numpy(1 - values.astype(np.float32) / 65535)
    torch.testing.assert_close(read(file.getvalue()).pixels[0], expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("width", [30, 25])
def test_grey_of_twelve_bits_reaches_white(order: str, inverted: bool, width: int):
    values = np.linspace(0, 4095, 20 * width).round().astype(np.uint16).reshape(20, width)
    bits = (values[..., None] >> np.arange(11, -1, -1) & 1).reshape(20, -1)
    packed = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
    entries = ((256, width), (257, 20), (258, 12), (259, 1), (262, 1 - inverted), (273, 122),
               (277, 1), (278, 20), (279, len(packed)))  # fmt: skip
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    photo = read(head + directory + bytes(4) + packed)
    expected = torch.from_numpy(values.astype(np.float32) / 4095)
    torch.testing.assert_close(photo.pixels[0], 1 - expected if inverted else expected)
    assert photo.grey and photo.bits == 16


def test_tags_travel_and_the_result_has_16_bits(tmp_path: Path):
    content = make_tiff(picture(3).astype(np.float32), more=((282, 4, [300]), (0x9999, 4, [7])))
    photo = read(content)
    write(tmp_path / "out.tif", photo)
    with Image.open(tmp_path / "out.tif") as image:
        assert image.getexif().get(0x9999) == 7 and 274 not in image.getexif()
    again = read(tmp_path / "out.tif")
    assert again.bits == 16 and len(again.pixels[0].unique()) > 256 // 6
    torch.testing.assert_close(again.pixels, photo.pixels, rtol=0, atol=1 / 65535)


def test_text_beyond_ascii_and_the_cameras_directory_come_along(tmp_path: Path):
    artist, lens = "Jörg Müller".encode() + b"\0", b"f/2.8 \xe0 vis\0"
    values = picture(3).astype(np.float32)
    end = len(make_tiff(values, more=((315, 2, artist), (0x8769, 4, [0]))))
    below = struct.pack("<HHHIII", 1, 0xA434, 2, len(lens), end + 18, 0) + lens
    content = make_tiff(values, more=((315, 2, artist), (0x8769, 4, [end]))) + below
    write(tmp_path / "out.png", read(content))
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[315].encode("latin-1") + b"\0" == artist
        assert image.getexif().get_ifd(0x8769)[0xA434].encode("latin-1") + b"\0" == lens


def test_what_is_no_picture_is_one_sentence():
    good = picture(3).astype(np.float32)
    nan, bright = good.copy(), 3 * good
    nan[3, 4, 1] = np.nan
    whole = make_tiff(good, compression=8)
    large = bytearray(make_tiff(good))
    for cut, words in (
        (make_tiff(nan), "every pixel must be a number"),
        (make_tiff(bright), r"must lie in \[0, 1\]"),
        (whole[: len(whole) // 2], r"whole picture, .* \(its directory is cut off\)"),
        (make_tiff(good, predictor=7), "predictor 7"),
        (make_tiff(good, compression=9999), "whole picture"),
    ):  # fmt: skip
        with pytest.raises(RcodError, match=words) as told:
            read(cut, "shot.tif")
        assert str(told.value).startswith("shot.tif: ") and "\n" not in str(told.value)
    at = large.index(struct.pack("<HHII", 256, 4, 1, WIDTH))
    large[at + 8 : at + 12] = struct.pack("<I", 2**20)
    large[at + 20 : at + 24] = struct.pack("<I", 2**20)
    with pytest.raises(TooLarge, match="at most 40 megapixels"):  # which a server tells as such
        read(bytes(large), "shot.tif")
