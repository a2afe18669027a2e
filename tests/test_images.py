import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels import placing
from rcod.pixels.encode import PictureHeader, adler32_combine, writer
from rcod.pixels.images import Photo, check_writable, find, from_pil, read, sink, to_pil, write
from rcod.pixels.metadata import Tags
from rcod.pixels.profiles import srgb_profile

TURN = 0x0112  # EXIF's orientation


def colours(height: int = 12, width: int = 9) -> Image.Image:
    values = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((values * 255).byte().numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def swapped_profile() -> bytes:
    """An RGB profile with red and green exchanged: its effect can be told from any other's."""
    icc = bytearray(srgb_profile())
    (entries,) = struct.unpack(">I", icc[128:132])
    at = {bytes(icc[o : o + 4]): o for o in range(132, 132 + 12 * entries, 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    icc[red : red + 4], icc[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(icc).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def grey_profile() -> bytes:
    """Grey that is linear in light, as a minimal ICC file."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)  # no entries: the identity
    text = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + b"\0" * 78
    tags, data = [], b""
    for name, value in ((b"wtpt", white), (b"kTRC", curve), (b"desc", text)):
        value += b"\0" * (-len(value) % 4)
        tags.append(name + struct.pack(">2I", 128 + 4 + 36 + len(data), len(value)))
        data += value
    body = struct.pack(">I", len(tags)) + b"".join(tags) + data
    head = struct.pack(">I4sI4s4s4s12s4s", 128 + len(body), b"", 0x02100000, b"mntr", b"GRAY",
                       b"XYZ ", b"\0" * 12, b"acsp")  # fmt: skip
    head += b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


def wide_profile() -> bytes:
    """An RGB profile whose green is far greener than sRGB's (that of Adobe RGB, 1998)."""
    icc = bytearray(srgb_profile())
    (entries,) = struct.unpack(">I", icc[128:132])
    at = {bytes(icc[o : o + 4]): o for o in range(132, 132 + 12 * entries, 12)}
    columns = {
        b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }  # fmt: skip
    for name, column in columns.items():
        (start,) = struct.unpack(">I", icc[at[name] + 4 : at[name] + 8])
        icc[start + 8 : start + 20] = struct.pack(">3i", *(round(x * 65536) for x in column))
    return bytes(icc).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """A PNG of a few bytes that claims 60000 x 60000 pixels."""
    header = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def encoded(pixels: np.ndarray, cuts: list[int]) -> bytes:
    """A PNG whose rows come in pieces."""
    height, width, channels = pixels.shape
    frame = PictureHeader(height, width, channels, 8 * pixels.itemsize, srgb_profile(), Tags())
    file = io.BytesIO()
    picture = writer(file, "PNG", frame, None)
    for rows in np.split(pixels, cuts):
        picture.put(rows)
    picture.close()
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_png_is_the_same_however_its_rows_come_and_many_threads_write_it(kind: type):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (200, 40, 3), kind)
    whole = encoded(pixels, [])
    threads = torch.get_num_threads()
    try:
        for count, cuts in ((1, []), (3, [1, 64, 100]), (2, list(range(1, 200)))):
            torch.set_num_threads(count)
            assert encoded(pixels, cuts) == whole
    finally:
        torch.set_num_threads(threads)
    if kind is np.uint8:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(whole))), pixels)


def test_sums_of_two_runs_make_the_sum_of_both():
    data = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    for cut in (0, 1, 70_000, 100_000):
        first, second = zlib.adler32(data[:cut]), zlib.adler32(data[cut:])
        assert adler32_combine(first, second, len(data) - cut) == zlib.adler32(data)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_what_is_written_is_read_again_and_tagged_srgb(tmp_path: Path, name: str):
    smooth = torch.linspace(0, 1, 16).repeat(3, 16, 1)
    write(tmp_path / name, Photo(smooth))
    with Image.open(tmp_path / name) as file:
        assert file.info["icc_profile"] == srgb_profile()
    atol = 0.5 / 255 + 1e-6 if name == "a.png" else 0.03
    torch.testing.assert_close(read(tmp_path / name).pixels, smooth, rtol=0, atol=atol)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_eight_bits_are_rounded_and_the_bytes_repeat(tmp_path: Path):
    values = torch.tensor([0.0, 0.4, 0.6, 254.4, 254.6, 300.0, -9.0, 127.5001]) / 255
    assert list(to_pil(Photo(values.expand(3, 1, -1))).getchannel(0).tobytes()) == [
        0, 0, 1, 254, 255, 255, 0, 128,
    ]  # fmt: skip
    write(tmp_path / "a.png", Photo(torch.rand(3, 8, 8)))
    first = (tmp_path / "a.png").read_bytes()
    write(tmp_path / "a.png", read(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes() == first


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photo_comes_upright_and_stays_so(tmp_path: Path, turn: int):
    exif = Image.Exif()
    exif[TURN], exif[0x010F] = turn, "Maker"
    upright = colours()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright if turn == 1 else upright.transpose(undo[turn])
    stored.save(tmp_path / "a.png", exif=exif)
    photo = read(tmp_path / "a.png")
    torch.testing.assert_close(photo.pixels, tensor(upright))
    write(tmp_path / "b.jpg", photo)
    again = read(tmp_path / "b.jpg")
    assert again.pixels.shape == photo.pixels.shape
    assert again.exif is not None
    kept = Image.Exif()
    kept.load(again.exif)
    assert kept[0x010F] == "Maker" and kept.get(TURN, 1) == 1


def test_a_picture_that_is_given_twice_is_turned_twice_and_keeps_its_exif():
    exif = Image.Exif()
    exif[TURN], exif[0x013B] = 6, "Painter"
    exif.get_ifd(0x8769)[0xA002] = 9
    colours().save(file := io.BytesIO(), "JPEG", exif=exif)
    with Image.open(file) as image:
        first, second = from_pil(image), from_pil(image)
        assert first.pixels.shape == second.pixels.shape == (3, 9, 12)
        assert first.exif == second.exif
        assert image.getexif()[TURN] == 6 and image.getexif().get_ifd(0x8769)[0xA002] == 9


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path):
    colours().save(tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    assert read(tmp_path / "a.png").exif is None


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_modes_without_alpha_become_rgb(mode: str):
    image = colours().quantize(16) if mode == "P" else colours().convert(mode)
    photo = from_pil(image)
    assert photo.alpha is None
    torch.testing.assert_close(photo.pixels, tensor(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "PA", "P", "L", "RGB"])
def test_alpha_is_kept(tmp_path: Path, mode: str):
    full = colours()
    full.putalpha(Image.fromarray(np.arange(0, 108, dtype=np.uint8).reshape(12, 9) + 100))
    if mode in ("P", "L", "RGB"):  # a see-through colour
        image = Image.new(mode, (3, 2), 0)
        image.putpixel((1, 1), 5 if mode != "RGB" else (5, 5, 5))
        image.info["transparency"] = 5 if mode != "RGB" else (5, 5, 5)
    else:
        image = full.convert(mode)
    photo = from_pil(image)
    assert photo.alpha is not None
    expected = torch.from_numpy(np.array(image.convert("RGBA").getchannel("A")))[None] / 255
    torch.testing.assert_close(photo.alpha, expected)
    write(tmp_path / "a.webp", photo)
    torch.testing.assert_close(read(tmp_path / "a.webp").alpha, photo.alpha)
    with pytest.raises(RcodError, match=r"a\.jpg.*opaque.*png or webp"):
        write(tmp_path / "a.jpg", photo)


def test_what_is_opaque_but_for_rounding_may_be_a_jpeg(tmp_path: Path):
    """An alpha channel of ones comes out of the resampling as .99999982."""
    almost = torch.full((1, 4, 5), 0.99999982)
    write(tmp_path / "a.jpg", Photo(torch.zeros(3, 4, 5), almost))
    assert read(tmp_path / "a.jpg").alpha is None
    with pytest.raises(RcodError, match="must be opaque"):
        write(tmp_path / "b.jpg", Photo(torch.zeros(3, 4, 5), almost - 1 / 65_535))


def test_grey_of_sixteen_bits_keeps_its_precision(tmp_path: Path):
    values = np.linspace(0, 65535, 1000).astype(np.uint16)[None]
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(3, -1, -1)
        torch.testing.assert_close(read(tmp_path / name).pixels, expected)


def test_grey_of_sixteen_bits_may_have_a_see_through_value(tmp_path: Path):
    Image.fromarray(np.array([[700, 40_000]], np.uint16)).save(tmp_path / "a.png", transparency=700)
    photo = read(tmp_path / "a.png")
    assert photo.alpha is not None and photo.alpha.tolist() == [[[0, 1]]]
    assert photo.pixels[0, 0, 1].item() == pytest.approx(40_000 / 65_535)


def test_a_profile_is_converted_to_srgb():
    image = colours()
    plain = from_pil(image).pixels
    image.info["icc_profile"] = srgb_profile()
    assert torch.equal(from_pil(image).pixels, plain)  # nothing to convert, so nothing lost
    image.info["icc_profile"] = swapped_profile()
    swapped = from_pil(image)
    torch.testing.assert_close(swapped.pixels, plain[[1, 0, 2]], rtol=0, atol=2.1 / 255)
    assert swapped.icc == swapped_profile()  # in which the result will be written


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_profile_is_converted_too(bits: int):
    values = np.full((2, 2), 0.2140 * (2**bits - 1))  # mid grey of sRGB, in linear light
    image = Image.fromarray(values.astype(f"uint{bits}"))
    image.info["icc_profile"] = grey_profile()
    assert from_pil(image).pixels.mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_grey_profile_that_leads_to_lab_tells_lightness():
    icc = grey_profile()
    image = Image.linear_gradient("L")
    image.info["icc_profile"] = icc[:20] + b"Lab " + icc[24:]
    photo = from_pil(image)
    lightness = torch.arange(256) / 255 * 100  # its curve is the identity
    light = torch.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    meant = torch.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    torch.testing.assert_close(photo.pixels[:, :, 0].mean(0), meant, rtol=0, atol=2.1 / 255)
    assert photo.icc is None and photo.grey
    assert photo.notes == ("has a profile that only reads; the result is in sRGB",)
    deep = Image.fromarray(np.zeros((2, 2), np.uint16))
    deep.info["icc_profile"] = image.info["icc_profile"]
    assert "only reads, and that with 8 bits" in from_pil(deep).notes[0]


@pytest.mark.parametrize(
    ("icc", "why"),
    [
        (b"nonsense", "is of no colour space that is known"),
        (srgb_profile()[:200], "is damaged"),
        (grey_profile(), "is for L where the picture is RGB"),
    ],
)
def test_a_profile_that_cannot_be_used_is_left_out(icc: bytes, why: str):
    image = colours()
    plain = from_pil(image).pixels
    image.info["icc_profile"] = icc
    photo = from_pil(image, "a.png")
    assert torch.equal(photo.pixels, plain) and photo.icc is None
    assert photo.notes == (f"has a colour profile that {why}; it is taken as sRGB",)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_a_profile_for_another_mode_is_left_out(mode: str):
    image = Image.new(mode, (9, 12), (90, 30, 60, 10)[: len(mode)])
    plain = from_pil(image)
    image.info["icc_profile"] = srgb_profile()
    photo = from_pil(image, "a")
    assert torch.equal(photo.pixels, plain.pixels) and plain.icc is photo.icc is None
    assert f"is for RGB where the picture is {mode}" in photo.notes[0]


def test_grey_with_a_profile_of_colours_stays_grey():
    """One that we compute, and one that LittleCMS does, since it leads to Lab."""
    by_tables = swapped_profile()[:20] + b"Lab " + swapped_profile()[24:]
    image = colours().convert("L")
    plain = from_pil(image).pixels
    for icc in (srgb_profile(), by_tables):
        image.info["icc_profile"] = icc
        found = from_pil(image)
        assert found.grey
        torch.testing.assert_close(found.pixels, plain, rtol=0, atol=1.1 / 255)


def test_bad_files_are_refused_in_one_sentence(tmp_path: Path):
    jpeg, floats, nan, wide = (io.BytesIO() for _ in range(4))
    colours(64, 64).save(jpeg, "JPEG")
    Image.new("F", (3, 3), 7).save(floats, "TIFF")
    Image.new("F", (3, 3), float("nan")).save(nan, "TIFF")
    Image.new("I", (3, 3)).save(wide, "TIFF")
    files = {
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"just words", "its content is none of these"),
        "cut.jpg": (jpeg.getvalue()[:800], "whole picture"),
        "cut.png": (huge_png()[:20], "whole picture|none of these"),
        "bomb.png": (huge_png(), "at most 80 megapixels"),
        "wide.tif": (wide.getvalue(), "8 or 16 bits per channel, got 32"),
        "floats.tif": (floats.getvalue(), r"floats must lie in \[0, 1\], got 7 to 7"),
        "nan.tif": (nan.getvalue(), "must be a number, got NaN"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RcodError, match=words) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    for path, words in ((tmp_path / "none.png", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RcodError, match=words):
            read(path)


def test_every_cut_of_a_file_is_refused_or_read_but_never_fails_otherwise(tmp_path: Path):
    for encoder, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {}), ("TIFF", {}), ("BMP", {})):
        whole = io.BytesIO()
        colours().save(whole, encoder, icc_profile=srgb_profile(), **options)
        path = tmp_path / f"a.{encoder.lower()}"
        for length in range(0, len(whole.getvalue()), 23):
            path.write_bytes(whole.getvalue()[:length])
            try:
                read(path)
            except RcodError as error:
                assert path.name in str(error)


def test_find_lists_files_as_given_and_folders_in_order(tmp_path: Path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in (
        "b.JPG",
        "a.png",
        "c.HIF",
        "d.jfif",
        "e.jpe",
        "f.j2k",
        "notes.txt",
        "deeper/c.png",
    ):
        (folder / name).touch()
    names = [path.name for path in find([folder / "notes.txt", folder])]
    assert names == ["notes.txt", "a.png", "b.JPG", "c.HIF", "d.jfif", "e.jpe", "f.j2k"]


def test_find_refuses_what_holds_no_picture(tmp_path: Path):
    for path, words in (
        (tmp_path, "at least one picture, and this one holds none"),
        (tmp_path / "none.png", "no such file or folder"),
        (Path(os.devnull), "must be a file or a folder"),
    ):
        with pytest.raises(RcodError, match=words):
            find([path])


def test_what_a_format_cannot_hold_is_refused_before_the_work():
    check_writable(Path("a.png"), 20_000, 4)
    with pytest.raises(RcodError, match=r"16383 pixels a side, got 4 x 20000; .* a smaller size"):
        check_writable(Path("a.webp"), 20_000, 4)
    with pytest.raises(RcodError, match=r"must end in \.png, \.jpg"):
        check_writable(Path("a.doc"), 4, 4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "a.png", Photo(torch.zeros(3, 2, 2)))
    old = (tmp_path / "a.png").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(placing.os, "fsync", full)
    with pytest.raises(RcodError, match="No space left"):
        write(tmp_path / "a.png", Photo(torch.ones(3, 2, 2)))
    monkeypatch.undo()
    assert (tmp_path / "a.png").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(RcodError, match="must be writable"):
        write(tmp_path / "a.png" / "b.png", Photo(torch.ones(3, 2, 2)))


@pytest.mark.parametrize("icc", [None, srgb_profile(), wide_profile()])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_grey_result_has_a_grey_profile_that_means_the_same(
    tmp_path: Path, kind: str, icc: bytes | None
):
    """PNG's specification, and programs that refuse a profile for another kind of picture."""
    ladder = torch.linspace(0, 1, 256).expand(3, 8, -1)
    write(tmp_path / f"a.{kind}", Photo(ladder, icc=icc, grey=True, bits=8))
    with Image.open(tmp_path / f"a.{kind}") as image:
        found = image.info["icc_profile"]
        shown = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(found)),
                                          ImageCms.createProfile("sRGB"),
                                          outputMode="RGB")  # fmt: skip
        assert image.mode == "L" and found == srgb_profile(grey=True) and shown is not None
        assert np.abs(np.array(shown, int) - np.array(image, int)[..., None]).max() <= 1
    photo = read(tmp_path / f"a.{kind}")
    assert photo.grey and photo.icc == srgb_profile(grey=True)
    torch.testing.assert_close(photo.pixels, ladder, rtol=0, atol=0.02 if kind == "jpg" else 1e-6)


def test_grey_with_a_profile_of_colours_is_converted_to_grey_as_of_srgb():
    icc = bytearray(srgb_profile())
    at = icc.index(b"para") + 12
    icc[at : at + 4] = struct.pack(">i", 65536)  # nearly linear: another curve than sRGB's
    image = Image.linear_gradient("L")
    image.info["icc_profile"] = bytes(icc)
    photo = from_pil(image)
    image.info.clear()
    assert float((photo.pixels - from_pil(image).pixels).abs().max()) > 0.1
    with io.BytesIO() as file:
        with sink(file, ".png", photo, (256, 256)) as into:
            into.put(photo, 0, 0)
        again = read(file.getvalue())
    torch.testing.assert_close(again.pixels, photo.pixels, rtol=0, atol=0.6 / 255)


def test_the_profile_we_write_is_valid_and_dated_once():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert ImageCms.getProfileDescription(profile).startswith("sRGB")
    assert srgb_profile() == srgb_profile()
