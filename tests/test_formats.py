"""A photo goes through a file of every kind and comes out the same: the matrix."""

import importlib.util
import io
import random
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin, features
from test_extras import SIGNATURE, box
from test_images import TURN, chunk, colours, grey_profile, swapped_profile, tensor

from rcod.errors import RcodError
from rcod.pixels import decode as decoding
from rcod.pixels import images
from rcod.pixels.decode import decode
from rcod.pixels.depth import is_cut
from rcod.pixels.encode import PictureHeader, writer
from rcod.pixels.heads import has_gain_map, is_lossless, is_unlike_srgb
from rcod.pixels.images import Photo, from_pil, read, suffix_of, write
from rcod.pixels.metadata import STRUCTURE, Tags, collect, mark
from rcod.pixels.placing import is_ours
from rcod.pixels.profiles import srgb_profile
from rcod.using.batch import run
from rcod.using.orders import Options
from rcod.using.restore import Restorer

RAMP = torch.linspace(0, 1, 60).view(1, 1, -1).expand(3, 40, -1)
MAKE, WHEN, CAMERA, EXPOSURE, GPS = 0x010F, 0x0132, 0x8769, 0x829A, 0x8825
INTEROP = 0xA005
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    b'dc:title="Heron" exif:GPSLatitude="48,1N"/></x:xmpmeta>'
)
DESCRIBED = XMP.replace(b"dc:title", b'dc:description="cat" dc:title')


def tags() -> Tags:
    """EXIF of a camera, a place, XMP and a density."""
    exif = Image.Exif()
    exif[MAKE], exif[WHEN] = "Maker", "2024:05:06 07:08:09"
    exif.get_ifd(CAMERA)[EXPOSURE] = 0.01
    exif.get_ifd(CAMERA)[0x927C] = b"maker's note" * 500
    exif.get_ifd(GPS)[1] = "N"
    return Tags(exif.tobytes(), XMP, (300.0, 300.0))


def exif_of(photo: Photo) -> dict[int, object]:
    block = Image.Exif()
    block.load(photo.exif or b"")
    found: dict[int, object] = {
        tag: value for tag, value in block.items() if tag not in (CAMERA, GPS)
    }
    below = {tag: block.get_ifd(CAMERA)[tag] for tag in block.get_ifd(CAMERA)}
    return found | below | {GPS: dict(block.get_ifd(GPS))}


MATRIX = list(
    product(["png", "tif", "jpg", "webp", "avif"], ["colour", "grey"], [8, 16],
            [None, "srgb", "own"], [False, True])
)  # fmt: skip


@pytest.mark.parametrize(("kind", "mode", "bits", "profile", "clear"), MATRIX)
def test_what_is_written_comes_back(
    tmp_path: Path, kind: str, mode: str, bits: int, profile: str | None, clear: bool
):
    if kind == "jpg" and clear:
        pytest.skip("not checked here: JPEG has no alpha")
    grey = mode == "grey"
    own = grey_profile() if grey else swapped_profile()
    icc = {None: None, "srgb": srgb_profile(), "own": own}[profile]
    if grey and profile == "srgb":
        icc = None
    alpha = RAMP[:1].flip(-1) * 0.9 + 0.05 if clear else None
    pixels = RAMP if grey else torch.stack((RAMP[0], 1 - RAMP[1], RAMP[2] * 0.5))
    given = Photo(pixels, alpha, icc, tags().exif, XMP, (300.0, 300.0), bits=bits, grey=grey)
    path = tmp_path / f"a.{kind}"
    write(path, given)
    found = read(path)
    lossy, deep = kind in ("jpg", "webp", "avif"), kind in ("png", "tif") and bits == 16
    tolerance = 0.06 if lossy else 0.002 if deep else 0.009
    if profile == "own" and not lossy:
        tolerance *= 3  # curves are steep in the dark
    assert found.pixels.shape == given.pixels.shape
    torch.testing.assert_close(found.pixels, given.pixels, rtol=0, atol=tolerance)
    as_grey = grey and not (kind in ("webp", "avif") or (kind == "tif" and bits == 16 and clear))
    assert found.icc == (icc if icc and as_grey == grey else srgb_profile(as_grey))
    assert exif_of(found) == exif_of(given) | {0x000B: mark(path.stat().st_size)}
    assert is_ours(path)
    assert found.xmp == XMP
    assert found.dpi == pytest.approx((300, 300), abs=0.01)
    assert found.bits == (16 if deep else 8)
    assert found.grey == as_grey
    if deep:
        ladder = torch.linspace(0, 1, 3000).expand(3, 2, -1)
        write(path, Photo(ladder, bits=16, grey=grey))
        assert len(read(path).pixels[0].unique()) > 2000
    if clear:
        assert found.alpha is not None and alpha is not None
        assert abs(float(found.alpha.mean() - alpha.mean())) < 1 / 255


def test_a_profile_of_another_type_is_left_out(tmp_path: Path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 5, 3), 90, np.uint8)).save(path, tiffinfo={34675: "no profile"})
    assert read(path).icc is None


def test_memory_that_lacks_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "a.png", Photo(RAMP))

    def lacks(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    for place in ("_photo", "decode.decode_pil"):
        module, name = (decoding, "decode_pil") if "." in place else (images, place)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lacks)
            with pytest.raises(RcodError, match=r"a\.png: must fit into memory"):
                read(tmp_path / "a.png")


@pytest.mark.parametrize("ours", [True, False])
def test_our_own_are_known_however_large_they_are(tmp_path: Path, ours: bool):
    path = tmp_path / "a.png"
    write(path, Photo(RAMP))
    whole = bytearray(path.read_bytes())
    whole[16:24] = struct.pack(">II", 30_000, 30_000)  # what a header says; no pixel is decoded
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    if not ours:
        at = whole.index(b"eXIf")
        whole[at : at + 4] = b"eXIx"
    path.write_bytes(whole)
    with warnings.catch_warnings(action="error"):
        assert is_ours(path) is ours


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG with one more segment in front."""
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def stored(kind: str) -> tuple[bytes, torch.Tensor]:
    """A file as others write it, and the pixels that are meant."""
    image = colours(40, 60)
    made: dict[str, Callable[[], Image.Image]] = {
        "palette.png": lambda: image.quantize(16), "grey.png": lambda: image.convert("L"),
        "grey-alpha.png": lambda: image.convert("LA"), "bit.png": lambda: image.convert("1"),
        "ink.jpg": lambda: image.convert("CMYK"), "ink.tif": lambda: image.convert("CMYK"),
        "first.gif": lambda: image.quantize(16), "plain.bmp": lambda: image,
        "float.tif": lambda: Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255),
        "tiled.tif": lambda: image, "plain.jp2": lambda: image, "plain.tga": lambda: image,
    }  # fmt: skip
    source = made[kind]()
    options: dict[str, object] = {}
    if kind == "first.gif":
        options = {"save_all": True, "append_images": [Image.new("P", source.size)]}
    if kind == "tiled.tif":
        options = {"compression": "tiff_lzw", "tiffinfo": {322: 16, 323: 16}}
    if kind.endswith("jpg"):
        options = {"quality": 100, "subsampling": 0}
    source.save(file := io.BytesIO(), Image.registered_extensions()[f".{kind.split('.')[1]}"],
                **options)  # fmt: skip
    if kind == "float.tif":
        meant = torch.from_numpy(np.array(source)).expand(3, -1, -1)
    else:
        meant = torch.from_numpy(np.array(source.convert("RGB"))).permute(2, 0, 1) / 255
    return file.getvalue(), meant


@pytest.mark.parametrize(
    "kind",
    ["palette.png", "grey.png", "grey-alpha.png", "bit.png", "ink.jpg", "ink.tif", "first.gif",
     "plain.bmp", "float.tif", "plain.jp2", "plain.tga"],
)  # fmt: skip
def test_formats_of_others_are_read(kind: str):
    content, meant = stored(kind)
    photo = read(content, kind)
    atol = 0.03 if kind == "ink.jpg" else 0.5 / 255
    torch.testing.assert_close(photo.pixels, meant.float(), rtol=0, atol=atol)
    if kind.startswith("ink"):
        assert photo.notes == ("is CMYK; the result is in sRGB",)
    if kind == "first.gif":
        assert photo.notes == ("has more than one frame; the first is taken and the others are "
                               "left out",)  # fmt: skip


def test_of_several_pages_the_first_is_taken_and_it_is_said():
    pages = [colours(20, 30), colours(10, 10)]
    pages[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=pages[1:])
    photo = read(file.getvalue(), "a.tif")
    assert photo.pixels.shape == (3, 20, 30)
    assert "more than one page; the first is taken" in photo.notes[0]


@pytest.mark.parametrize("kinds", [(1, 0), (0, 1)])
def test_of_a_raw_file_the_preview_is_not_taken_for_the_photo(kinds: tuple[int, int]):
    """NewSubfileType tells a smaller version, which in a raw file comes first."""
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file, new=True) as into:
        for kind, height in zip(kinds, (20, 30), strict=True):
            colours(height, 40).save(into, "TIFF", tiffinfo={254: kind})
            into.newFrame()
    if kinds[0]:
        words = r"a\.dng: must be a developed picture, got the preview .*; export the photo first"
        with pytest.raises(RcodError, match=words):
            read(file.getvalue(), "a.dng")
    else:
        assert read(file.getvalue(), "a.tif").pixels.shape == (3, 20, 40)


def deep_file(encoder: str, values: np.ndarray) -> bytes:
    """A file of 16 bits a channel, (H, W, C)."""
    height, width, channels = values.shape
    frame = PictureHeader(height, width, channels, 16, srgb_profile(), Tags())
    into = writer(file := io.BytesIO(), encoder, frame, None)
    into.put(values)
    into.close()
    return file.getvalue()


@pytest.mark.parametrize("encoder", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_one_of_sixteen_bits_survives(encoder: str, channels: int):
    if (encoder, channels) == ("TIFF", 2):
        pytest.skip("not checked here: grey with alpha is written as colours")
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (70, 33, channels)).astype(np.uint16)
    planes = decode(deep_file(encoder, values), "a")
    colours = channels - (channels + 1) % 2
    assert planes.bits == 16
    found = planes.values.permute(1, 2, 0).numpy() * 65535
    assert np.array_equal(found.round(), values[..., :colours])
    if channels in (2, 4):
        assert planes.alpha is not None
        assert np.array_equal((planes.alpha[0].numpy() * 65535).round(), values[..., -1])


def turned(plane: torch.Tensor, turn: int) -> torch.Tensor:
    """How a camera held that way stores an upright picture, (C, H, W)."""
    if turn in (5, 6, 7, 8):
        plane = plane.transpose(-1, -2)
    flips = {2: [-1], 3: [-1, -2], 4: [-2], 6: [-2], 7: [-1, -2], 8: [-1]}.get(turn, [])
    return plane.flip(flips) if flips else plane


def test_every_kind_of_photo_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Format by mode by depth by turn by profile by alpha, enlarged as a folder."""
    (photos := tmp_path / "photos").mkdir()
    down, across = torch.meshgrid(torch.linspace(0.1, 0.9, 16), torch.linspace(0, 0.9, 24),
                                  indexing="ij")  # fmt: skip
    alpha = (0.3 + 0.6 * across * down)[None]
    given: dict[str, tuple[Photo, int]] = {}
    for kind, grey, bits, own, clear, turn in product(
        ("png", "tif", "jpg", "webp", "avif"), (0, 1), (8, 16), (0, 1), (0, 1), range(1, 9)
    ):
        if (kind == "jpg" and clear) or (bits == 16 and kind not in ("png", "tif")):
            continue
        own = own if not (grey and kind in ("webp", "avif")) else 0
        icc = (grey_profile() if grey else swapped_profile()) if own else None
        pixels = (down * across + 0.05).expand(3, -1, -1) if grey else torch.stack(
            (across, down, 1 - across))  # fmt: skip
        upright = Photo(pixels, alpha if clear else None, icc, tags().exif, XMP, (300.0, 300.0),
                        bits, bool(grey))  # fmt: skip
        block = Image.Exif()
        block.load(tags().exif or b"")
        block[TURN] = turn
        name = f"{grey}{bits}{own}{clear}{turn}.{kind}"
        given[name] = upright, turn
        with monkeypatch.context() as patch:  # as cameras do, and we don't
            patch.setattr("rcod.pixels.encode.STRUCTURE", STRUCTURE - {TURN})
            write(photos / name, replace(
                upright, pixels=turned(pixels, turn), exif=block.tobytes(),
                alpha=turned(alpha, turn) if clear else None))  # fmt: skip
    report = run(lambda: Restorer.load("tiny", "cpu"), [photos], tmp_path / "out",
                 Options("fidelity", 2.0))  # fmt: skip
    assert report.errors == [] and len(report.outcomes) == len(given) == 384
    for name, (photo, turn) in given.items():
        before, after = read(photos / name), read(tmp_path / "out" / name)
        assert after.pixels.shape == (3, 32, 48), name
        small = torch.nn.functional.avg_pool2d(after.pixels[None], 2)[0]
        assert float((small - photo.pixels).abs().mean()) < 0.03, name
        assert exif_of(before).get(TURN, 1) == exif_of(after).get(TURN, 1) == 1, (name, turn)
        kept = exif_of(after) | {0x000B: 0}
        assert kept == exif_of(photo) | {0x000B: 0} and after.xmp == XMP, name
        assert (after.icc, after.bits) == (before.icc, before.bits), name
        if photo.alpha is not None:
            assert after.alpha is not None, name
            assert abs(float(after.alpha.mean() - photo.alpha.mean())) < 1 / 255, name
        if after.bits == 16:
            assert len(after.pixels.mul(65535).round().unique()) > 256, name


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "webp"])
def test_every_turn_is_made_in_every_format(kind: str, turn: int):
    upright = torch.zeros(3, 24, 40)
    upright[0, :8, :8], upright[1, :8, -8:], upright[2, -8:, :8] = 1, 1, 1
    image = Image.fromarray((upright.permute(1, 2, 0) * 255).byte().numpy())
    undo = [None, None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90,
            Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270][turn]  # fmt: skip
    exif = Image.Exif()
    exif[TURN] = turn
    stored = image if undo is None else image.transpose(undo)
    encoder = {"tif": "TIFF", "jpg": "JPEG"}.get(kind, kind)
    stored.save(file := io.BytesIO(), encoder, exif=exif, quality=95)
    found = read(file.getvalue(), f"a.{kind}")
    assert found.pixels.shape == (3, 24, 40)
    assert float((found.pixels - upright).abs().mean()) < 0.02
    assert exif_of(found).get(TURN, 1) == 1


def test_the_turn_in_xmp_goes_when_it_has_been_made():
    turned = XMP.replace(b"dc:title", b'tiff:Orientation="6" dc:title')
    exif = Image.Exif()
    exif[TURN] = 6
    colours(20, 30).save(file := io.BytesIO(), "JPEG", xmp=turned, exif=exif)
    photo = read(file.getvalue(), "a.jpg")
    assert photo.pixels.shape == (3, 30, 20) and photo.xmp == XMP


@pytest.mark.parametrize(
    "unclosed",
    ["<tiff:Orientation>", '<tiff:Orientation a="', "<tiff:Orientation ", ' tiff:Orientation="',
     " hdrgm:a", "<hdrgm:a", "GPano:PixelsPixels", "<GPano:aPixels "],
)  # fmt: skip
def test_xmp_of_elements_without_end_is_left_out_at_once(unclosed: str):
    """It took minutes, in which nothing else ran; the limit is on the processor's time."""
    image = colours()
    image.info["xmp"] = unclosed.encode() * (1_000_000 // len(unclosed) | 1)
    before = time.process_time()
    tags, _ = collect(image)
    assert time.process_time() - before < 2
    assert tags.xmp is None


@pytest.mark.parametrize(
    "part", ["<a:gps>", "<a:gps></a:gps>", "<a:gps ", ' a:gps="', " a:gps =", "a", "-a:", "gps"]
)
def test_a_place_is_looked_for_in_any_xmp_at_once(part: str):
    told = Tags(xmp=part.encode() * (1_000_000 // len(part) | 1))
    before = time.process_time()
    assert (told.without("gps").xmp is None) == ("a:gps" in part and "/" not in part)
    assert time.process_time() - before < 2


def test_xmp_loses_elements_that_no_longer_hold_and_keeps_the_others():
    wrong = ("<tiff:Orientation>6</tiff:Orientation>", "<tiff:Orientation/>",
             '<tiff:ImageWidth rdf:about="a>b">30</tiff:ImageWidth >',
             "<exif:PixelXDimension\n>30</exif:PixelXDimension>")  # fmt: skip
    attributes = " tiff:Orientation = '6' exif:PixelYDimension=\"20\""
    kept = "<dc:title><rdf:Alt><rdf:li>A > B</rdf:li></rdf:Alt></dc:title>"
    image = colours()
    image.info["xmp"] = f"<rdf:Description{attributes} a='b'>{kept.join(wrong)}</rdf:Description>"
    tags, _ = collect(image)
    assert tags.xmp == f"<rdf:Description a='b'>{kept * 3}</rdf:Description>".encode()


@pytest.mark.parametrize(
    "place",
    ["<exif:GPSLatitude>48,1N", "<exif:GPSLatitude><exif:GPSLatitude>48,1N</exif:GPSLatitude>",
     "<!-- exif:GPSLatitude 48,1N -->", "48,1N</drone-dji:GpsLatitude>"],
)  # fmt: skip
def test_a_place_that_cannot_be_cut_out_of_xmp_takes_it_along(place: str):
    told = Tags(xmp=f"<rdf:Description>{place}</rdf:Description>".encode())
    assert told.without("gps").xmp is None and told.without("nothing") == told


SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
NAMES = (
    "exif:GPSLatitude", "drone-dji:GpsLatitude", "drone-dji:GpsLongtitude", "a:Longitude",
    "drone-dji:LRFTargetLat", "drone-dji:LRFTargetLon", "a:HomeLatitude",
    "photoshop:City", "photoshop:State", "photoshop:Country", "Iptc4xmpCore:Location",
    "Iptc4xmpCore:CountryCode", "Iptc4xmpExt:LocationCreated", "Iptc4xmpExt:LocationShown",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_place_in_xmp_goes_however_it_is_told_and_the_rest_stays(name: str):
    title, rest = "<dc:title>GPS in the City</dc:title>", 'drone-dji:FlightYaw="3"'
    inner = f"<rdf:li><{name} rdf:parseType='Resource'>48,1N</{name}></rdf:li>"
    told = (f"<{name}>48,1N</{name}>", f"<{name} />", f"<{name}>48,<!-- -->1N</{name}\n>",
            f"<{name}><rdf:Bag>{inner}{inner}</rdf:Bag></{name}>")  # fmt: skip
    attributes = f"{name}='48,1N' {rest} {name} = \"48\""
    xmp = f"<rdf:Description {attributes}>{title.join(told)}</rdf:Description>"
    found = Tags(xmp=xmp.encode()).without("gps").xmp
    assert found == f"<rdf:Description {rest}>{title * 3}</rdf:Description>".encode()


def test_a_place_in_a_tiffs_own_tags_goes_with_the_gps():
    exif = Image.Exif()
    exif[MAKE], exif[33922], exif[33723], exif[34377] = "Maker", (0.0, 48.1), b"Munich", b"City"
    exif.get_ifd(GPS)[1] = "N"
    photo = Photo(RAMP, exif=Tags(exif.tobytes()).without("gps").exif)
    assert exif_of(photo) == {MAKE: "Maker", GPS: {}}


def test_the_directory_within_the_cameras_arrives_in_every_format(tmp_path: Path):
    """As cameras write it, in EXIF's Interoperability directory."""
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    exif.get_ifd(CAMERA).update({EXPOSURE: 0.01, INTEROP: {1: "R98", 2: b"0100"}})
    colours(20, 30).save(file := io.BytesIO(), "JPEG", exif=exif.tobytes())
    photo = read(file.getvalue(), "a.jpg")
    for kind in ("tif", "png", "jpg"):
        write(tmp_path / f"a.{kind}", photo)
        with Image.open(tmp_path / f"a.{kind}") as image:
            assert image.getexif().get_ifd(INTEROP) == {1: "R98", 2: b"0100"}, kind
            assert image.getexif().get_ifd(CAMERA)[EXPOSURE] == pytest.approx(0.01)


def test_the_size_in_exif_goes_since_the_result_has_another():
    exif = Image.Exif()
    exif[MAKE], exif[256], exif[257] = "Maker", 30, 20
    exif.get_ifd(CAMERA).update({40962: 30, 40963: 20, EXPOSURE: 0.01})
    colours(20, 30).save(file := io.BytesIO(), "JPEG", exif=exif)
    found = exif_of(read(file.getvalue(), "a.jpg"))
    assert found == {MAKE: "Maker", EXPOSURE: 0.01, GPS: {}}


def test_places_in_pixels_go_from_exif_since_the_results_are_others():
    exif = Image.Exif()
    exif.get_ifd(CAMERA).update({0x9214: (20, 15, 10, 8), 0xA214: (20, 15), 0xA20E: 100.0,
                                 0xA20F: 100.0, 0xA210: 2, EXPOSURE: 0.01})  # fmt: skip
    colours(20, 30).save(file := io.BytesIO(), "JPEG", exif=exif)
    assert exif_of(read(file.getvalue(), "a.jpg")) == {EXPOSURE: 0.01, GPS: {}}


@pytest.mark.parametrize(
    "name",
    ["exif:SubjectArea", "exif:SubjectLocation", "exif:FocalPlaneXResolution",
     "exif:FocalPlaneResolutionUnit", "GPano:FullPanoWidthPixels", "GPano:CroppedAreaLeftPixels",
     "GPano:LargestValidInteriorRectTop", "hdrgm:Version", "hdrgm:GainMapMax",
     "Container:Directory", "GContainer:Directory", "xmpNote:HasExtendedXMP"],
)  # fmt: skip
def test_places_in_pixels_and_what_lay_behind_go_from_xmp_and_the_rest_stays(name: str):
    kept = " xmlns:hdrgm='a' exif:SubjectDistance='3' GPano:ProjectionType='flat'"
    image = colours()
    image.info["xmp"] = f"<a{kept} {name}='1'><{name}><rdf:li>4</rdf:li></{name}></a>"
    assert collect(image)[0].xmp == f"<a{kept}></a>".encode()


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "avif"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF"])
def test_text_beyond_ascii_arrives_byte_by_byte(tmp_path: Path, kind: str, source: str):
    """Also through --strip-gps, and as text: Pillow makes strings of ASCII's type only."""
    artist, lens, lens_tag = "Jörg Müller ©".encode(), "Größe".encode("latin-1"), 0xA434
    exif = Image.Exif()
    exif[0x013B], exif.get_ifd(CAMERA)[lens_tag] = "#" * len(artist), "+" * len(lens)
    exif.get_ifd(GPS)[1] = "N"
    block = exif.tobytes().replace(b"#" * len(artist), artist).replace(b"+" * len(lens), lens)
    colours(20, 30).save(file := io.BytesIO(), "JPEG" if source == "TIFF" else source, exif=block)
    if source == "TIFF":
        write(tmp_path / "first.tif", read(file.getvalue()))
        file = io.BytesIO((tmp_path / "first.tif").read_bytes())
    photo = read(file.getvalue())
    assert artist in file.getvalue()
    kept = photo.tags.without("gps").exif
    write(tmp_path / f"a.{kind}", replace(photo, exif=kept))
    with Image.open(tmp_path / f"a.{kind}") as image:
        found = image.getexif()
        assert found[0x013B].encode("latin-1") == artist
        assert found.get_ifd(CAMERA)[lens_tag].encode("latin-1") == lens
        assert GPS not in found


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF"])
def test_tags_that_no_longer_hold_stay_behind_whatever_the_format(tmp_path: Path, source: str):
    gone = {258: (8, 8, 8), 277: 3, 332: 1, 333: "inks", 336: (0, 255), 513: 8, 514: 900,
            33550: (0.5, 0.5, 0.0), 33922: (0.0, 48.1), 34264: (1.0,) * 16, 34735: (1, 1, 0, 0),
            34736: (1.0,), 34737: "WGS 84|", 34377: b"8BIM", 37724: b"layers", 42112: "<GDAL/>",
            42113: "0", 50706: (1, 4, 0, 0), 50708: "Camera"}  # fmt: skip
    exif = Image.Exif()
    exif[MAKE], exif[33723] = "Maker", b"press"
    for tag, value in gone.items():
        exif[tag] = value
    colours(20, 30).save(file := io.BytesIO(), source, exif=exif)
    with Image.open(file) as image:
        assert image.getexif().keys() >= {*gone, MAKE, 33723}
    found = exif_of(photo := read(file.getvalue()))
    assert found == {MAKE: "Maker", 33723: b"press", GPS: {}}
    write(tmp_path / "a.tif", photo)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif().keys().isdisjoint(gone.keys() - {258, 277})
        assert image.getexif()[MAKE] == "Maker"


def test_the_density_in_exif_stays_where_a_format_has_no_other_place(tmp_path: Path):
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 300.0, 300.0, 2
    colours(20, 30).save(file := io.BytesIO(), "WEBP", exif=exif)
    write(tmp_path / "a.webp", read(file.getvalue()))
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.getexif()[282], image.getexif()[296]) == (300, 2)


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".jpg", ".png", ".tif"])
def test_dots_per_inch_arrive_in_every_format(tmp_path: Path, suffix: str):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("not checked here: this Pillow has no AVIF")
    colours(20, 30).save(file := io.BytesIO(), "PNG", dpi=(300, 300))
    write(tmp_path / f"a{suffix}", read(file.getvalue()))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert float(image.getexif().get(282) or image.info["dpi"][0]) == pytest.approx(
            300, abs=0.1
        )


@pytest.mark.parametrize(
    ("captions", "xmp", "notes"),
    [
        ({}, None, 0), ({}, XMP, 0), ({120: b"cat"}, None, 1), ({90: b"Munich"}, None, 1),
        ({120: b"cat"}, XMP, 1), ({116: b"Ann", 120: b"cat"}, DESCRIBED, 1),
        ({120: b"cat"}, DESCRIBED, 0), ({0: b"\0\4", 116: b"", 120: b"cat"}, DESCRIBED, 0),
    ],
)  # fmt: skip
def test_captions_of_iptc_that_xmp_lacks_are_said_to_stay_behind(
    captions: dict[int, bytes], xmp: bytes | None, notes: int
):
    colours(20, 30).save(file := io.BytesIO(), "JPEG", xmp=xmp or b"")
    data = b"".join(
        b"\x1c\x02" + struct.pack(">BH", number, len(text)) + text
        for number, text in captions.items()
    )
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data
    found = read(with_segment(file.getvalue(), 0xED, iptc)).notes
    assert found == ("has captions as IPTC alone, which stay behind",) * notes


@pytest.mark.parametrize(
    ("key", "xmp", "notes"),
    [("Author", None, 1), ("Copyright", DESCRIBED, 1), ("Description", XMP, 1), ("Title", XMP, 0),
     ("Description", DESCRIBED, 0), ("Software", None, 0)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_captions_of_a_png_that_xmp_lacks_are_said_to_stay_behind(
    key: str, xmp: bytes | None, notes: int, kind: str
):
    info = PngImagePlugin.PngInfo()
    if xmp is not None:
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    if kind == "iTXt":
        info.add_itxt(key, "Ann")
    else:
        info.add_text(key, "Ann", zip=kind == "zTXt")
    colours().save(file := io.BytesIO(), "PNG", pnginfo=info)
    found = read(file.getvalue()).notes
    assert found == ("has captions as PNG's text alone, which stay behind",) * notes


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [(b"gAMA", (100_000,)), (b"cHRM", (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))],
)
def test_colours_that_a_png_tells_by_numbers_are_said_to_be_taken_as_srgb(
    kind: bytes, numbers: tuple[int, ...]
):
    for told, words in ((numbers, 1), ((45455,) if kind == b"gAMA" else SRGB_CHRM, 0)):
        info = PngImagePlugin.PngInfo()
        info.add(kind, struct.pack(f">{len(told)}I", *told))
        colours().save(file := io.BytesIO(), "PNG", pnginfo=info)
        assert len(read(file.getvalue()).notes) == words


NOT_SRGB = "tells by numbers alone that it isn't in sRGB; it is taken as sRGB"
TOLD = [(1, 13, 0), (2, 2, 0), (1, 1, 0), (9, 16, 1), (9, 18, 1), (1, 16, 1), (12, 13, 1)]


def png_told(primaries: int, transfer: int, *before: tuple[bytes, bytes]) -> bytes:
    """A PNG with a chunk cICP, and others before it."""
    colours().save(file := io.BytesIO(), "PNG")
    chunks = [*before, (b"cICP", bytes((primaries, transfer, 0, 1)))]
    head, rest = file.getvalue()[:33], file.getvalue()[33:]
    return head + b"".join(chunk(kind, data) for kind, data in chunks) + rest


@pytest.mark.parametrize(("primaries", "transfer", "notes"), TOLD)
def test_colours_that_h273_tells_are_said_to_be_taken_as_srgb(
    primaries: int, transfer: int, notes: int
):
    gamma, long = (b"gAMA", struct.pack(">I", 100_000)), (b"teSt", bytes(100_000))
    profile = (b"iCCP", b"a\0\0" + zlib.compress(srgb_profile()))
    for before, words in (((), notes), ((gamma, long), notes), ((profile,), 0)):
        assert read(png_told(primaries, transfer, *before)).notes == (NOT_SRGB,) * words
    if not features.check("avif"):
        pytest.skip("not checked here: this Pillow has no AVIF")
    colours(20, 30).save(file := io.BytesIO(), "AVIF")
    told = bytearray(file.getvalue())
    at = told.index(b"colrnclx") + 8
    told[at : at + 4] = struct.pack(">2H", primaries, transfer)
    assert read(bytes(told)).notes == (NOT_SRGB,) * notes


@pytest.mark.parametrize(("kind", "content"), [
    ("AVIF", b""), ("AVIF", b"colrnclx\0\x09\0"), ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("PNG", bytes(8) + b"\xff\xff\xff\xffteSt"), ("PNG", bytes(8) + chunk(b"teSt", b"") * 5000),
])  # fmt: skip
def test_numbers_are_looked_for_in_whatever_follows_the_head(kind: str, content: bytes):
    image = colours()
    image.format = kind
    setattr(image, "fp", io.BytesIO(content))  # noqa: B010  # as if it had been opened
    assert not is_unlike_srgb(image)


GAIN_MAPS = [b"<a hdrgm:Version='1.0'/>", b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0",
             b"<a>urn:com:apple:photo:2020:aux:hdrgainmap</a>"]  # fmt: skip


@pytest.mark.parametrize(("sign", "notes"), [*((sign, 1) for sign in GAIN_MAPS), (b"<a/>", 0)])
def test_a_gain_map_is_said_to_be_left_out(sign: bytes, notes: int):
    """By a segment of a JPEG, of the picture behind it, or by what a HEIC begins with."""
    image, behind = colours(20, 30), colours(10, 15)
    image.save(file := io.BytesIO(), "JPEG")
    single = with_segment(file.getvalue(), 0xE2, sign)
    behind.info["comment"] = sign
    image.save(file := io.BytesIO(), "MPO", save_all=True, append_images=[behind])
    segment = struct.pack(">H", len(sign) + 2) + sign
    assert file.getvalue().count(b"\xff\xfe" + segment) == 1
    several = file.getvalue().replace(b"\xff\xfe" + segment, b"\xff\xe2" + segment)
    for content in (single, several):
        assert read(content).notes == ("has a gain map (HDR); it is left out",) * notes
    with Image.open(io.BytesIO(several)) as opened:
        assert opened.format == "MPO"
    image.format = "HEIF"
    setattr(image, "fp", io.BytesIO(b"ftypheic" + sign))  # noqa: B010
    assert has_gain_map(image) == bool(notes)


def test_a_result_claims_no_gain_map(tmp_path: Path):
    """As phones write it, with the map's picture behind."""
    items = "<Container:Directory><rdf:li><Container:Item/></rdf:li></Container:Directory>"
    told = f'<rdf:Description dc:title="Heron" hdrgm:Version="1.0">{items}</rdf:Description>'
    colours(20, 30).save(file := io.BytesIO(), "JPEG", xmp=told.encode())
    colours(10, 15).save(behind := io.BytesIO(), "JPEG")
    photo = read(file.getvalue() + behind.getvalue())
    assert photo.notes == ("has a gain map (HDR); it is left out",)
    write(tmp_path / "a.jpg", photo)
    again = read(tmp_path / "a.jpg")
    assert again.xmp == b'<rdf:Description dc:title="Heron"></rdf:Description>'
    assert again.notes == ()


def test_colours_of_adobe_rgb_are_known_by_exif_alone_and_stay_what_they_are(tmp_path: Path):
    exif = Image.Exif()
    exif[CAMERA] = {0xA001: 65535, 0xA005: {1: "R03"}}
    stored = Image.new("RGB", (8, 8), (200, 60, 60))
    stored.save(file := io.BytesIO(), "PNG", exif=exif)
    photo = read(file.getvalue())
    found = [round(255 * float(part)) for part in photo.pixels[:, 0, 0]]
    assert found == [231, 57, 57] and photo.notes == ()
    write(tmp_path / "a.png", photo)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (200, 60, 60)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert ImageCms.getProfileDescription(profile).startswith("Adobe RGB (1998)")
        srgb = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert srgb is not None
    assert np.asarray(srgb)[0, 0] == pytest.approx(found, abs=1)  # LittleCMS's of 8 bits
    exif[CAMERA] = {0xA001: 1, 0xA005: {1: "R03"}}  # says both, so it was made sRGB since
    stored.save(file := io.BytesIO(), "PNG", exif=exif)
    assert read(file.getvalue()).icc is None


def test_gps_alone_may_be_dropped_and_everything():
    kept = tags().without("gps")
    photo = Photo(RAMP, exif=kept.exif, xmp=kept.xmp)
    assert exif_of(photo)[GPS] == {} and exif_of(photo)[MAKE] == "Maker"
    assert b"GPS" not in (kept.xmp or b"") and b"Heron" in (kept.xmp or b"")
    assert tags().without("all") == Tags()


def test_an_exif_block_too_large_for_jpeg_loses_the_makers_note_only(tmp_path: Path):
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    exif.get_ifd(CAMERA)[0x927C] = bytes(70_000)
    write(tmp_path / "a.jpg", Photo(RAMP, exif=exif.tobytes()))
    found = exif_of(read(tmp_path / "a.jpg"))
    assert found[MAKE] == "Maker" and 0x927C not in found


def test_colours_outside_of_srgb_survive(tmp_path: Path):
    """What a wide profile shows and sRGB can't is put back."""
    from test_images import wide_profile

    values = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    values[:, :4] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)  # the greenest green
    file = io.BytesIO()
    frame = PictureHeader(16, 16, 3, 16, wide_profile(), Tags())
    into = writer(file, "PNG", frame, None)
    stored = (values * 65535).round().permute(1, 2, 0).int().numpy().astype(np.uint16)
    into.put(stored)
    into.close()
    photo = read(file.getvalue(), "a.png")
    assert photo.beyond is not None and photo.icc == wide_profile()
    write(tmp_path / "a.png", photo)
    again = decode(tmp_path / "a.png", "a").values.permute(1, 2, 0) * 65535
    assert np.abs(again.numpy() - stored).max() < 65535 / 255


def test_what_lies_unseen_outside_of_srgb_colours_no_edge():
    from test_images import wide_profile

    stored = np.full((8, 8, 4), 128, np.uint8)
    stored[:, 4:] = (0, 255, 0, 0)  # the greenest green, which nobody sees
    image = Image.fromarray(stored)
    image.save(file := io.BytesIO(), "PNG", icc_profile=wide_profile())
    photo = read(file.getvalue())
    assert photo.beyond is not None
    assert float(photo.beyond.abs().max()) < 0.01


def test_the_format_of_bytes_is_known():
    colours().save(file := io.BytesIO(), "WEBP")
    assert suffix_of(file.getvalue()) == ".webp" and suffix_of(b"?") == ".png"
    colours().save(file := io.BytesIO(), "MPO", save_all=True, append_images=[colours()])
    assert suffix_of(file.getvalue()) == ".jpg"


def test_heic_and_jpeg_xl_come_by_an_extra(monkeypatch: pytest.MonkeyPatch):
    content = (Path(__file__).parent / "two.heic").read_bytes()  # half red, half blue
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    for given, words in (
        (content, r"HEIC pictures need pi_heif, .* pip install 'rcod\[heic\]'"),
        (content[:200], "HEIC pictures need pi_heif"),
    ):
        with pytest.raises(RcodError, match=words):
            read(given, "a.heic")
    monkeypatch.undo()
    pytest.importorskip("pi_heif", reason="not checked here: the extra heic isn't installed")
    photo = read(content, "a.heic")
    assert photo.pixels.shape == (3, 12, 16) and exif_of(photo)[MAKE] == "Maker"
    assert float(photo.pixels[0, 6, 3]) > 0.7 and float(photo.pixels[2, 6, 12]) > 0.7
    with pytest.raises(RcodError, match=r"a\.heic.*whole"):
        read(content[:400], "a.heic")


def test_jpeg_xl_is_read():
    jxl = pytest.importorskip("pillow_jxl", reason="not checked here: the extra jxl isn't there")
    assert jxl
    colours(20, 30).save(file := io.BytesIO(), "JXL", lossless=True)
    photo = read(file.getvalue(), "a.jxl")
    meant = torch.from_numpy(np.array(colours(20, 30))).permute(2, 0, 1) / 255
    torch.testing.assert_close(photo.pixels, meant)


def test_jpeg_xl_of_deep_grey_with_alpha_is_refused(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pillow_jxl", reason="not checked here: the extra jxl isn't there")
    image = Image.merge("LA", (Image.new("L", (8, 8), 90), Image.new("L", (8, 8), 255)))
    image.save(file := io.BytesIO(), "JXL", lossless=True)
    assert read(file.getvalue(), "a.jxl").alpha is not None
    from pillow_jxl import JpegXLImagePlugin as plugin

    opened = plugin.JXLImageFile._open

    def doubled(self: plugin.JXLImageFile) -> None:  # two bytes a value, as of 12 bits
        opened(self)
        setattr(self, "_data", getattr(self, "_data") * 2)  # noqa: B009, B010

    monkeypatch.setattr(plugin.JXLImageFile, "_open", doubled)
    with pytest.raises(RcodError, match=r"a\.jxl: a JPEG XL picture must have 8 bits a channel"):
        read(file.getvalue(), "a.jxl")


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_jpeg_xl_is_turned_once(tmp_path: Path, turn: int, rebuilt: bool):
    """By its decoder, whatever EXIF says, but for a JPEG that comes out as it went in."""
    jxl = pytest.importorskip("pillow_jxl", reason="not checked here: the extra jxl isn't there")
    assert jxl
    exif = Image.Exif()
    exif[MAKE], exif[TURN] = "Maker", turn
    image = colours(20, 30)
    if rebuilt:
        image.save(tmp_path / "a.jpg", exif=exif, quality=95)
        with Image.open(tmp_path / "a.jpg") as source:
            source.save(file := io.BytesIO(), "JXL", lossless_jpeg=True)
        content, meant = file.getvalue(), read(tmp_path / "a.jpg").pixels
    else:
        image.save(file := io.BytesIO(), "JXL", lossless=True)
        told = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
        content = SIGNATURE + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"Exif", told)
        content += box(b"jxlc", file.getvalue())
        meant = tensor(image)
    photo = read(content, "a.jxl")
    torch.testing.assert_close(photo.pixels, meant, rtol=0, atol=0.02)
    assert exif_of(photo) == {MAKE: "Maker", GPS: {}}


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 0), (2, 1), (4, 7), (8, 100)])
def test_grey_of_few_bits_may_have_a_see_through_value(bits: int, key: int):
    """Twice from one image, too: after the first time it is loaded."""
    levels = np.arange(2**bits, dtype=np.uint8)[None]
    packed = np.packbits(np.unpackbits(levels, axis=0).reshape(8, -1)[8 - bits :].T.ravel())
    head = struct.pack(">2I5B", 2**bits, 1, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in (
            (b"IHDR", head), (b"tRNS", struct.pack(">H", key)),
            (b"IDAT", zlib.compress(b"\0" + packed.tobytes())), (b"IEND", b""),
        )
    )  # fmt: skip
    with Image.open(io.BytesIO(content)) as image:
        photos = [read(content), from_pil(image), from_pil(image)]
    for photo in photos:
        assert photo.alpha is not None
        assert photo.alpha[0, 0].tolist() == [level != key for level in range(2**bits)]
        shown = photo.pixels[0, 0, photo.alpha[0, 0] > 0]
        meant = torch.arange(2**bits)[photo.alpha[0, 0] > 0] / (2**bits - 1)
        torch.testing.assert_close(shown, meant)


@pytest.mark.parametrize(("most", "notes"), [(255, 0), (1023, 1), (65_535, 1)])
@pytest.mark.parametrize("kind", ["P3", "P6"])
def test_a_ppm_of_more_bits_is_cut_and_it_is_said(kind: str, most: int, notes: int):
    numbers = [0, most // 2, most]
    if kind == "P3":
        body = b" ".join(b"%d" % number for number in numbers)
    else:
        body = struct.pack(">3H" if most > 255 else ">3B", *numbers)
    photo = read(b"%s\n1 1\n%d\n" % (kind.encode(), most) + body + b"\n", "a.ppm")
    assert photo.pixels.flatten().tolist() == pytest.approx([0, 0.5, 1], abs=0.005)
    assert photo.bits == 8 and len(photo.notes) == notes
    assert all("more than 8 bits a channel; 8 are read" in note for note in photo.notes)


def test_deep_grey_of_a_pgm_is_not_cut():
    photo = read(b"P5\n2 1\n65535\n" + struct.pack(">2H", 1, 65_535), "a.pgm")
    assert (photo.notes, photo.bits) == ((), 16)
    assert photo.pixels[0, 0].tolist() == pytest.approx([1 / 65_535, 1])


def test_heic_of_more_bits_is_cut_and_it_is_said():
    image = colours()
    image.format, image.info["bit_depth"] = "HEIF", 10
    assert "more than 8 bits a channel" in from_pil(image).notes[0]


@pytest.mark.parametrize(
    ("kind", "sign", "at", "bits"),
    [("jpg_2000", b"\xff\x4f\xff\x51", 42, 11), ("avif", b"av1C", 6, 64)],
)
def test_what_a_file_says_of_its_depth_is_heard(kind: str, sign: bytes, at: int, bits: int):
    if not features.check(kind):
        pytest.skip(f"not checked here: this Pillow has no {kind}")
    encoder = {"jpg_2000": "JPEG2000", "avif": "AVIF"}[kind]
    colours(20, 30).save(file := io.BytesIO(), encoder)
    deep = bytearray(file.getvalue())
    deep[deep.index(sign) + at] |= bits
    for content, cut in ((file.getvalue(), False), (bytes(deep), True)):
        with Image.open(file) as image:
            setattr(image, "fp", io.BytesIO(content))  # noqa: B010  # as if it had been opened
            assert is_cut(image) == cut


def test_ink_of_sixteen_bits_is_cut_and_it_is_said():
    image = Image.new("CMYK", (4, 4))
    image.format = "TIFF"
    assert not is_cut(image)
    way = SimpleNamespace(args=("CMYK;16L", 0, 1))
    setattr(image, "tile", [way])  # noqa: B010  # as a file that isn't loaded yet has
    assert is_cut(image)


def test_mutated_files_are_read_or_refused_in_one_sentence():
    """A few of the thousand of `tools/endure.py fuzz`."""
    path = Path(__file__).parents[1] / "tools" / "endure.py"
    spec = importlib.util.spec_from_file_location("endure", path)
    assert spec is not None and spec.loader is not None
    endure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(endure)
    for i, (kind, content) in zip(range(150), endure.mutants(random.Random(1)), strict=False):
        try:
            assert read(content, f"{i}.{kind}").pixels.isfinite().all()
        except RcodError as error:
            assert str(error).startswith(f"{i}.{kind}: ") and "\n" not in str(error).strip()


def test_a_tiff_without_a_resolution_gets_none(tmp_path: Path):
    colours(20, 30).save(tmp_path / "a.tif")
    photo = read(tmp_path / "a.tif")
    assert photo.dpi is None
    write(tmp_path / "b.tif", photo)
    with Image.open(tmp_path / "b.tif") as image:
        assert not {282, 283} & set(image.getexif())


def test_a_jpeg_without_a_resolution_gets_none(tmp_path: Path):
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    for kind in ("JPEG", "MPO"):
        options = {"save_all": True, "append_images": [colours()]} if kind == "MPO" else {}
        colours(20, 30).save(file := io.BytesIO(), kind, exif=exif, **options)
        photo = read(file.getvalue())
        assert photo.dpi is None
    write(tmp_path / "b.jpg", photo)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["jfif_unit"] == 0 and not {282, 283} & set(image.getexif())


@pytest.mark.parametrize(
    ("unit", "jfif", "dpi"),
    [(None, 0, 300), (2, 0, 300), (3, 0, 762), (1, 0, None), (None, 1, 72), (2, 2, 182.88)],
)
def test_the_resolution_of_a_jpeg_is_what_it_tells(unit: int | None, jfif: int, dpi: float | None):
    exif = Image.Exif()
    exif[282], exif[283] = 300.0, 300.0
    if unit is not None:
        exif[296] = unit
    colours(20, 30).save(file := io.BytesIO(), "JPEG", exif=exif)
    told = bytearray(file.getvalue())
    told[13:18] = struct.pack(">B2H", jfif, 72, 72)
    found = read(bytes(told)).dpi
    assert found == (None if dpi is None else pytest.approx((dpi, dpi)))


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_that_lost_nothing_gives_one_unless_a_quality_is_asked_for(
    tmp_path: Path, clear: bool, frames: int, lossless: bool
):
    image = colours(20, 30)
    if clear:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    behind = [image.rotate(180)] * (frames - 1)
    image.save(file := io.BytesIO(), "WEBP", lossless=lossless, exact=True, save_all=frames > 1,
               append_images=behind, icc_profile=srgb_profile() + b"a")  # fmt: skip
    photo = read(file.getvalue(), "a.webp")
    assert photo.lossless == lossless
    for quality, same in ((None, lossless), (100, False)):
        write(tmp_path / "a.webp", photo, quality)
        again = read(tmp_path / "a.webp")
        assert again.lossless == same
        assert torch.equal(again.pixels, photo.pixels) == same
    write(tmp_path / "a.png", photo)
    assert not read(tmp_path / "a.png").lossless


@pytest.mark.parametrize("content", [b"RIFF", b"RIFF\4\0\0\0WEBP" + b"teSt\0\0\0\0" * 5000])
def test_what_a_webp_loses_is_looked_for_in_whatever_follows_the_head(content: bytes):
    image = colours()
    image.format = "WEBP"
    setattr(image, "fp", io.BytesIO(content))  # noqa: B010  # as if it had been opened
    assert not is_lossless(image)
