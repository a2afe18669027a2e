"""Laws of a photo that stays open, on the model that ships."""

import re
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.pixels.images import Photo, from_pil
from rcod.using import open_photo as sitting_module
from rcod.using.interpolation import NEAR, NODES, interpolate, most_detailed, shares_of
from rcod.using.open_photo import (
    LEAST,
    OpenPhoto,
    Setting,
    check_format,
    draw_invention,
    encode,
    encode_png,
    measure_invention,
    take,
)
from rcod.using.restore import Realism, Restorer, Result

EXAMPLE = Path(__file__).parents[1] / "examples" / "otter.jpg"


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def photo() -> Photo:
    return from_pil(Image.open(EXAMPLE).crop((20, 20, 60, 52)))  # 40 x 32


def test_every_place_equals_the_restorers_own(restorer: Restorer, photo: Photo):
    held = OpenPhoto(restorer, photo)
    asked: list[tuple[Realism, float]] = [
        ("auto", 4), ("realism", 4), (0.37, 4), ("fidelity", 2), (0.37, 4), ("auto", 4),
    ]  # fmt: skip
    for realism, scale in asked:
        mine, own = held.result(Setting(realism, scale)), restorer(photo, realism, scale)
        assert torch.equal(mine.photo.pixels, own.photo.pixels)
        assert (mine.level, mine.realism, mine.timestep, mine.metric, mine.auto) == (
            own.level, own.realism, own.timestep, own.metric, own.auto,
        )  # fmt: skip


def test_places_between_the_nodes_are_told_to_two_grey_levels(restorer: Restorer):
    photo = from_pil(Image.open(EXAMPLE).crop((10, 10, 90, 80)))
    held = OpenPhoto(restorer, photo)
    assert not held.view(Setting(0.3)).interpolated  # no node is kept yet
    for node in NODES:
        assert not held.view(Setting(node)).interpolated
    for place in (0.06, 0.4, 0.87):
        view, own = held.view(Setting(place)), restorer(photo, place)
        assert view.interpolated and not held.has(Setting(place))
        apart = (view.result.photo.pixels - own.photo.pixels).abs()
        assert float(apart.max()) < NEAR and float(apart.mean()) < 0.05 * NEAR
        assert (view.result.level, view.result.timestep) == (own.level, own.timestep)
        assert torch.equal(held.result(Setting(place)).photo.pixels, own.photo.pixels)
    assert not held.view(Setting(0.3, 2.0)).interpolated


def test_detail_counts_whichever_way_it_runs():
    bars = torch.zeros(3, 64, 160)
    bars[:, :, 128::2] = 1
    assert most_detailed(bars) == (0, 96)
    assert most_detailed(bars.transpose(1, 2)) == (96, 0)
    assert most_detailed(torch.rand(3, 1, 1)) == (0, 0)


def test_the_page_asks_ahead_for_every_node():
    script = (Path(sitting_module.__file__).parents[1] / "page" / "page.js").read_text()
    (inner,) = re.findall(r"const between = .* \[\] : \[(.*)\];", script)
    assert sorted([0.0, 0.5, 1.0, *map(float, inner.split(","))]) == list(NODES)


def test_what_is_not_smooth_is_not_told(restorer: Restorer, photo: Photo, monkeypatch):
    monkeypatch.setattr(sitting_module, "is_smooth", lambda *given: False)
    held = OpenPhoto(restorer, photo)
    for node in NODES:
        held.result(Setting(node))
    assert not held.view(Setting(0.3)).interpolated


def test_shares_add_up_and_a_node_is_itself():
    groups = GroupSettings()
    for place in (0.0, 0.1, 0.33, 0.9):
        assert sum(shares_of(place, groups)) == pytest.approx(1)
    assert shares_of(0.15, groups) == pytest.approx([0, 1, 0, 0, 0])
    ramps = [torch.full((3, 1, 1), 0.1 + 0.8 * node**4) for node in NODES]  # a quartic is exact
    assert float(interpolate(ramps, shares_of(0.6, groups))[0]) == pytest.approx(0.1 + 0.8 * 0.6**4)


def test_a_photo_is_looked_at_once_and_a_place_computed_once(
    restorer: Restorer, photo: Photo, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []
    for name in ("look", "finish"):
        own = getattr(restorer, name)
        monkeypatch.setattr(
            restorer, name, lambda *a, own=own, name=name: calls.append(name) or own(*a)
        )
    held = OpenPhoto(restorer, photo)
    chosen = held.result(Setting("auto"))
    assert not held.has(Setting(0.3))
    for realism in (chosen.realism, "auto", 0.3, 0.3):
        held.result(Setting(realism))
    assert calls == ["look", "finish", "finish"] and held.has(Setting(0.3))


def test_memory_is_bounded(restorer: Restorer, photo: Photo):
    one = 3 * 128 * 160 * 4  # bytes of a result
    held = OpenPhoto(restorer, photo, keep=2 * one)
    empty = held.size
    assert empty == LEAST + photo.pixels.nbytes
    for step in range(5):
        held.result(Setting(step / 10))
    assert [held.has(Setting(step / 10)) for step in range(5)] == [False] * 3 + [True] * 2
    assert held.size < empty + 6 * one
    tight = OpenPhoto(restorer, photo, keep=0)
    assert tight.result(Setting(0.2)).photo.pixels.shape == (3, 128, 160) and tight.has(
        Setting(0.2)
    )


def test_fidelity_invents_nothing_and_invention_rises(restorer: Restorer, photo: Photo):
    held = OpenPhoto(restorer, photo)
    levels = [held.invention(Setting(level)) for level in ("fidelity", "neutral", "realism")]
    assert levels[0].share == levels[0].mean == 0 and not levels[0].where.any()
    assert 0 < levels[1].share < levels[2].share < 1
    assert 0 < levels[1].mean < levels[2].mean
    assert levels[2].where.shape == (128, 160)


def test_invention_counts_departure_against_fine_structure():
    rng = torch.Generator().manual_seed(0)
    kept = torch.rand(1, 64, 64, generator=rng).expand(3, -1, -1) * 0.5
    spot = torch.zeros(64, 64)
    spot[20:29, 20:29] = 10 / 255
    found = measure_invention(kept + spot, kept)
    assert found.mean == pytest.approx(10 * 81 / 64**2, rel=1e-4)
    assert float(found.where[24, 24]) == pytest.approx(10 / 255, rel=1e-4)
    assert not found.where[:10].any() and not found.where[:, 40:].any()
    flat = torch.full((3, 8, 8), 0.5)
    assert measure_invention(flat, flat).share == 0
    assert measure_invention(flat + 0.1, flat).share == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("departure", "alpha"), [(0.0, 0), (2 / 255, 59), (0.5, 235)])
def test_overlay_shows_nothing_where_nothing_departs(departure: float, alpha: int):
    overlay = draw_invention(torch.full((4, 6), departure))
    assert overlay.size == (6, 4) and overlay.mode == "RGBA"
    assert overlay.getchannel("A").getextrema() == pytest.approx((alpha, alpha), abs=1)


def test_bytes_are_those_of_the_file(restorer: Restorer, photo: Photo, tmp_path: Path):
    from rcod.pixels.images import write

    for format in ("png", "jpg", "webp", "tif", "avif"):
        write(tmp_path / f"a.{format}", photo)
        assert encode(photo, format) == (tmp_path / f"a.{format}").read_bytes()


def test_errors_name_no_file():
    for content in (b"", b"not a picture", EXAMPLE.read_bytes()[:2000]):
        with pytest.raises(RcodError) as error:
            take(content)
        assert "rcod-" not in str(error.value) and "/" not in str(error.value)
        assert str(error.value).startswith("must ")
    clear = Photo(torch.zeros(3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(RcodError, match=r"^a JPEG picture must be opaque"):
        encode(clear, "jpg")
    with pytest.raises(RcodError, match=r"^a JPEG picture must be opaque"):
        check_format(clear, 4, "jpg")
    with pytest.raises(RcodError, match=r"^a WEBP picture must be at most"):
        check_format(Photo(torch.zeros(3, 1, 5000)), 4, "webp")
    check_format(clear, 4, "png")


def test_before_is_the_photo_at_the_results_size(restorer: Restorer, photo: Photo):
    before = OpenPhoto(restorer, Photo(photo.pixels, photo.pixels[:1])).before(2.5)
    assert before.pixels.shape == (3, 80, 100)
    assert before.alpha is not None and before.alpha.shape == (1, 80, 100)


def test_sheet_shows_all_levels(restorer: Restorer, photo: Photo):
    sheet = OpenPhoto(restorer, photo).sheet("otter", 2)
    assert sheet.width > 3 * 80 and encode_png(sheet).startswith(b"\x89PNG")


def test_levels_are_made_once_and_held_one_at_a_time(
    restorer: Restorer, photo: Photo, monkeypatch: pytest.MonkeyPatch
):
    made: list[weakref.ref[torch.Tensor]] = []
    finish = restorer.finish

    def watched(*given: Any) -> Result:
        assert not any(pixels() is not None for pixels in made)
        result = finish(*given)
        made.append(weakref.ref(result.photo.pixels))
        return result

    monkeypatch.setattr(restorer, "finish", watched)
    seen: list[str] = []
    OpenPhoto(restorer, photo, keep=0).sheet("a", each=lambda level, _: seen.append(level))
    assert len(made) == 4 and seen == ["fidelity", "neutral", "realism", "auto"]


def test_levels_tell_of_every_tile_and_may_be_given_up_there(restorer: Restorer, photo: Photo):
    tiles: list[float] = []
    wide = from_pil(Image.open(EXAMPLE).crop((0, 10, 150, 50)))
    OpenPhoto(restorer.with_tile(96), wide).sheet("a", watch=tiles.append)
    assert tiles == sorted(tiles) and len(tiles) > 2 * 4 and tiles[-1] == 1

    def stop(done: float) -> None:
        if done > 0:
            raise InterruptedError

    held = OpenPhoto(restorer, photo)
    with pytest.raises(InterruptedError):
        held.sheet("a", watch=stop)
    with pytest.raises(InterruptedError):
        held.invention(Setting(1.0), stop)
    assert not held.has(Setting("fidelity"))


def test_what_a_file_says_besides_takes_memory(restorer: Restorer, photo: Photo):
    plain = OpenPhoto(restorer, photo).size
    for name in ("icc", "exif", "xmp"):
        assert OpenPhoto(restorer, replace(photo, **{name: bytes(1000)})).size == plain + 1000


def test_see_through_and_wide_pictures_take_more_memory(restorer: Restorer, photo: Photo):
    rich = Photo(photo.pixels, photo.pixels[:1].contiguous(), beyond=photo.pixels.clone())
    one = 7 * 128 * 160 * 4  # bytes of a result
    held = OpenPhoto(restorer, rich, keep=2 * one)
    assert held.size == LEAST + 7 * 32 * 40 * 4
    for step in range(3):
        held.result(Setting(step / 10))
    assert [held.has(Setting(step / 10)) for step in range(3)] == [False, True, True]
    assert held.size > 2 * one


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("strong",), "realism must be"),
        (("auto", 9.0), "scale must lie"),
        (("auto", 4.0, "sepia"), "color must be"),
    ],
)
def test_places_are_checked(values: tuple, words: str):
    with pytest.raises(RcodError, match=words):
        Setting(*values)
