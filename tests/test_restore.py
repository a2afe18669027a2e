"""Laws of the restorer, on the model that ships."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.diffusion.dial import Level, glances
from rcod.errors import RcodError
from rcod.networks.backbone import TinySettings
from rcod.networks.systems import SYSTEMS, build
from rcod.pixels.images import Photo
from rcod.using.restore import Restorer

EXAMPLE = Path(__file__).parents[1] / "examples" / "otter.jpg"


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(EXAMPLE).crop((20, 20, 60, 52))  # 40 x 32


def test_same_photo_and_settings_same_bytes(restorer: Restorer, picture: Image.Image):
    once, twice = (restorer(picture, realism=0.3).photo.pixels for _ in range(2))
    assert torch.equal(once, twice)


def test_a_result_is_saved_with_what_its_file_carried(restorer: Restorer, tmp_path: Path):
    source, out = tmp_path / "a.tif", tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x013B] = "Ann"  # artist
    deep = Image.fromarray(np.full((16, 24), 40_000, np.uint16))
    deep.save(source, exif=exif, dpi=(300, 300))
    result = restorer(source, realism=0)
    result.save(out, quality=80)
    result.save(tmp_path / "deep.png")
    with Image.open(out) as image:
        assert image.format == "JPEG" and image.size == (96, 64)
        assert image.getexif()[0x013B] == "Ann" and image.info["dpi"] == (300, 300)
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "I;16"


def test_a_level_alone_equals_the_level_among_all(restorer: Restorer, picture: Image.Image):
    names: tuple[Level, ...] = ("fidelity", "neutral", "realism", "auto")
    for name, result in zip(names, restorer.levels(picture, names), strict=True):
        alone = restorer(picture, realism=name)
        assert torch.equal(alone.photo.pixels, result.photo.pixels)
        assert (alone.level, alone.timestep, alone.metric) == (
            result.level, result.timestep, result.metric,
        )  # fmt: skip


def test_levels_are_places_of_the_dial(restorer: Restorer, picture: Image.Image):
    results = restorer.levels(picture, ["fidelity", 0.0, "neutral", 0.25, 1.0, "auto"])
    low, middle, high = sorted(restorer.system.groups.timesteps)
    between = round((low + middle) / 2)
    assert [r.timestep for r in results[:5]] == [low, low, middle, between, high]
    assert [r.level for r in results[:5]] == ["fidelity", "fidelity", "neutral", "0.25", "realism"]
    assert torch.equal(results[0].photo.pixels, results[1].photo.pixels)
    auto = results[5]
    assert auto.auto and auto.level in ("fidelity", "neutral", "realism")
    assert auto.metric is not None and 0 <= auto.metric <= 1.2
    assert results[0].metric is None


@pytest.mark.parametrize("scale", [1, 1.5, 2, 4, 8])
def test_the_result_measures_what_was_asked_for(
    restorer: Restorer, picture: Image.Image, scale: float
):
    assert restorer(picture, 0.0, scale).picture.size == (round(40 * scale), round(32 * scale))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 300)])
def test_thin_pictures_work(restorer: Restorer, size: tuple[int, int]):
    result = restorer(Image.new("RGB", size, (200, 100, 50)), realism=1.0)
    assert result.picture.size == (4 * size[0], 4 * size[1])
    # the colour stays
    mean = result.photo.pixels.mean(dim=(1, 2)) * 255
    assert (mean - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 3


def test_path_picture_photo_and_tensor_give_the_same(restorer: Restorer):
    image = Image.open(EXAMPLE).convert("RGB")
    by_path = restorer(EXAMPLE, 0.0, scale=1).photo.pixels
    assert torch.equal(by_path, restorer(str(EXAMPLE), 0.0, scale=1).photo.pixels)
    assert torch.equal(by_path, restorer(image, 0.0, scale=1).photo.pixels)
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = data.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
    assert torch.equal(by_path, restorer(pixels, 0.0, scale=1).photo.pixels)


def test_alpha_is_enlarged_along(restorer: Restorer, picture: Image.Image):
    clear = picture.convert("RGBA")
    clear.putalpha(Image.new("L", picture.size, 128))
    result = restorer(clear, 0.0)
    assert result.picture.mode == "RGBA"
    assert result.picture.getchannel("A").getextrema() == (128, 128)


def test_tiles_leave_no_seam():
    """In tiles far smaller than the restorer's own, a photo is what it is in one pass."""
    restorer = Restorer.load("tiny", device="cpu", dtype="float32")
    photo = Image.open(EXAMPLE).convert("RGB")
    photo = photo.resize((233, 171), Image.Resampling.BICUBIC)
    whole = restorer(photo, 1.0).photo.pixels
    for tile in (128, 136, 160, 192, 224):
        tiled = restorer.with_tile(tile)(photo, 1.0).photo.pixels
        error = (tiled - whole).abs() * 255
        assert float(error.max()) < 2 and float(error.mean()) < 0.1


@pytest.mark.parametrize("colour", [(0.8, 0.4, 0.2), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)])
@pytest.mark.parametrize("realism", [0.0, 0.5, 1.0])
def test_what_is_flat_stays_flat_across_tiles(
    restorer: Restorer, realism: float, colour: tuple[float, float, float]
):
    """Of 8 bits, up to the photo's own border."""
    flat = torch.tensor(colour).view(3, 1, 1).expand(3, 150, 210)
    tiled = restorer.with_tile(128)(flat, realism).photo.pixels
    steps = (255 * tiled).round() - (255 * flat[:, :1, :1]).round()
    assert float(steps.abs().max()) <= 1
    whole = restorer(flat, realism).photo.pixels
    assert float((tiled - whole).abs().max()) * 255 < 0.1


def test_every_tile_is_told_of_and_a_watcher_may_end_the_work(
    restorer: Restorer, picture: Image.Image
):
    restorer = restorer.with_tile(128)
    picture = picture.resize((200, 150))
    told: list[float] = []
    photo = Photo(restorer(picture, 0.0, scale=1).photo.pixels)
    seen = restorer.look(photo, False)
    restorer.finish(photo, seen, 0.0, 4, "wavelet", told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]

    def leave(done: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        restorer.finish(photo, seen, 0.0, 4, "wavelet", leave)
    told.clear()
    restorer.levels(photo, (place for place in (0.0, 1.0)), watch=told.append)
    assert told == [0.125 * step for step in range(1, 9)]
    with pytest.raises(RcodError, match=r"levels are several, .* got 'auto'"):
        restorer.levels(photo, "auto")  # pyright: ignore[reportArgumentType]


def test_whatever_holds_a_photo_gives_the_same_result(
    restorer: Restorer, picture: Image.Image, tmp_path: Path
):
    file = tmp_path / "photo.png"
    picture.save(file)
    expected = restorer(picture, 0.5).photo.pixels
    whole = np.asarray(picture)
    floats = torch.from_numpy(whole.astype(np.float64) / 255).permute(2, 0, 1)
    held = (file, str(file), file.read_bytes(), whole, whole / 255, floats, Photo(floats))
    for one in held:
        assert torch.equal(restorer(one, 0.5).photo.pixels, expected)


def test_glances_cover_large_photos_and_take_small_ones_whole():
    assert [p.shape[-2:] for p in glances(torch.zeros(1, 3, 100, 30))] == [(100, 30)]
    pieces = list(glances(torch.zeros(1, 3, 2000, 300)))
    assert [p.shape[-2:] for p in pieces] == [(256, 256)] * 6


def test_bfloat16_is_close_to_float32(picture: Image.Image):
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("not checked here: this processor emulates bfloat16")
    a, b = (
        Restorer.load("tiny", "cpu", dtype)(picture, 1.0).photo.pixels
        for dtype in ("float32", "bfloat16")
    )
    assert -10 * math.log10(float((a - b).square().mean())) > 38


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"realism": "strong"}, "realism must be fidelity, neutral, realism, auto, auto-local or"),
        ({"realism": float("nan")}, r"realism must lie in \[0, 1\], got nan"),
        ({"realism": 1.1}, r"realism must lie in \[0, 1\], got 1.1"),
        ({"realism": None}, "realism must be a name or a number from 0 to 1, got NoneType"),
        ({"realism": np.zeros((4, 4))}, "realism must be a name or a number .* got ndarray"),
        ({"realism": torch.zeros(16, 128)}, "the realism map must have the photo's shape"),
        ({"scale": (48, 0.5)}, "height and width must be whole and 1 or more"),
        ({"scale": "2"}, r"scale must lie in \[1, 8\], got 2"),
        ({"image": b"bytes"}, "picture: must be a picture that can be read"),
        ({"image": [1.0]}, "an image must be a path, .* got list"),
        (
            {"image": np.zeros((3, 4, 4))},
            r"must be \(H, W, 3\), uint8 or float .* got float64",
        ),
        ({"image": Photo(torch.full((3, 4, 4), 1.5))}, r"of a Photo must lie in \[0, 1\]"),
        ({"scale": -1.0}, r"scale must lie in \[1, 8\], got -1.0"),
        ({"scale": float("inf")}, r"scale must lie in \[1, 8\], got inf"),
        ({"color": "sepia"}, "color must be one of auto, wavelet, adain, none, got sepia"),
    ],
)
def test_errors_say_what_must_hold(call: dict, words: str):
    restorer = Restorer(SYSTEMS["tiny"], *build(SYSTEMS["tiny"]))
    with pytest.raises(RcodError, match=words):
        restorer(**{"image": torch.zeros(3, 4, 4), **call})


def test_tensors_out_of_range_are_refused():
    small = SYSTEMS["tiny"].model_copy(
        update={"model": TinySettings(latent=12, widths=(8, 8), blocks=(1, 1, 1), tokens=8)}
    )
    restorer = Restorer(small, *build(small))
    for tensor in (torch.full((3, 4, 4), 2.0), torch.full((3, 4, 4), float("nan"))):
        with pytest.raises(RcodError, match=r"must lie in \[0, 1\]; scale or clamp"):
            restorer(tensor)
    for tensor in (torch.zeros(4, 4, 3), torch.zeros(3, 0, 4)):
        with pytest.raises(RcodError, match=r"must be float \(3, H, W\)"):
            restorer(tensor)
    assert isinstance(restorer(torch.zeros(3, 4, 4), 0.0, color="none").photo, Photo)
