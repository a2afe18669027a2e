"""A photo of any size: tiles that can't be told from the whole."""

import time
import weakref
from itertools import pairwise

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.dial import Dial, fit_map, realism_of_metric, shares
from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.networks.framing import BORDER
from rcod.networks.onestep import enlarge
from rcod.pixels.color import Tally, match_adain, match_stats
from rcod.pixels.images import Photo
from rcod.pixels.resample import fitted, resize, resize_part, spread_colours
from rcod.pixels.tiling import merged, spans
from rcod.using.forecast import foresee, keep_to, parse_memory
from rcod.using.passes import clock, part_of, shrunk
from rcod.using.restore import Restorer


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny", device="cpu", dtype="float32")


@pytest.mark.parametrize("size", [(40, 60), (11, 9), (33, 47), (100, 20), (1, 1)])
def test_resizing_is_that_of_pytorch_and_parts_are_parts_of_it(size: tuple[int, int]):
    x = noise(3, 33, 47)
    whole = resize(x, size)
    theirs = F.interpolate(x[None], size, mode="bicubic", antialias=True)[0]
    torch.testing.assert_close(whole, theirs, rtol=0, atol=1e-5)
    rows, columns = (size[0] // 3, size[0]), (0, (size[1] + 1) // 2)
    expected = whole[:, slice(*rows), slice(*columns)]
    assert torch.equal(resize_part(x, size, (33, 47), (0, 0), rows, columns), expected)
    assert torch.equal(part_of(x, size, rows, columns), expected)


@pytest.mark.parametrize(
    ("length", "size", "tile"), [(300, 1200, 128), (513, 700, 200), (1000, 125, 160), (5, 20, 128)]
)
def test_spans_cover_every_pixel_and_seams_meet(length: int, size: int, tile: int):
    found = spans(length, size, tile, 16, 8)
    assert found[0].start == 0 and found[-1].stop == length
    assert found[0].first == 0 and found[-1].last == size
    for before, after in pairwise(found):
        assert before.fall == after.rise == before.last - after.first
        assert after.start % 8 == 0
    assert all(span.stop - span.start <= tile + 8 for span in found)


def test_merging_the_identity_returns_the_picture():
    x = noise(3, 300, 410)
    rows, columns = (spans(side, side, 128, 16, 8) for side in x.shape[-2:])
    out = torch.zeros_like(x)
    for piece, top, left in merged(
        lambda r, c: x[:, r.first : r.last, c.first : c.last].clone(), rows, columns
    ):
        assert not out[:, top : top + piece.shape[1], left : left + piece.shape[2]].any()
        out[:, top : top + piece.shape[1], left : left + piece.shape[2]] = piece
    torch.testing.assert_close(out, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [4.0, 1.0, 2.7])
@pytest.mark.parametrize("color", ["wavelet", "adain"])
def test_tiles_equal_the_whole(restorer: Restorer, scale: float, color):
    photo = Photo(resize(noise(3, 20, 30), (150, 203)).clamp(0, 1))
    whole = restorer(photo, 1.0, scale, color).photo.pixels
    tiled = restorer.with_tile(128)(photo, 1.0, scale, color).photo.pixels
    error = (whole - tiled).abs() * 255
    assert float(error.max()) < 2 and float(error.mean()) < 0.1


def test_a_piece_that_was_taken_is_let_go_before_the_next(restorer: Restorer):
    small = restorer.with_tile(128)
    photo = Photo(noise(3, 100, 300))
    taken: list[weakref.ref[Tensor]] = []
    kept: list[bool] = []

    def watch(done: float) -> None:
        kept.extend(piece() is not None for piece in taken)

    flow = small.flow(photo, small.look(photo, False), 0.5, 4.0, "wavelet", watch)
    for piece, _, _ in flow.pieces:
        taken.append(weakref.ref(piece.pixels))
        del piece
    assert len(taken) >= 3 and kept and not any(kept)


@pytest.mark.parametrize("size", [(20, 24), (5, 6)])
def test_a_result_says_what_was_left_out_of_its_photo(restorer: Restorer, size: tuple[int, int]):
    photo = Photo(torch.rand(3, 10, 12), notes=("is CMYK; the result is in sRGB",))
    assert restorer(photo, 0.5, size).photo.notes == photo.notes


def test_a_flat_field_stays_flat_across_tiles(restorer: Restorer):
    photo = Photo(torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1).expand(3, 150, 203).contiguous())
    tiled = restorer.with_tile(128)(photo, 1.0).photo.pixels
    means = F.avg_pool2d(tiled, 16)[:, 4:-4, 4:-4]  # at realism a texture is invented even here
    assert float((means.amax((1, 2)) - means.amin((1, 2))).max()) < 1 / 255
    whole = restorer(photo, 1.0).photo.pixels
    assert float((tiled - whole).abs().max()) < 1 / 255


def test_the_towers_view_of_a_large_photo_is_that_of_the_whole():
    lr = noise(1, 3, 70, 90)
    small = F.interpolate(enlarge(lr), (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(shrunk(lr, 4), small, rtol=0, atol=1e-5)


def test_spread_of_pieces_is_that_of_the_whole():
    sr, up = noise(1, 3, 40, 50), noise(2, 3, 40, 50)[1:] * 0.5
    tallies = Tally(), Tally()
    for tally, x in zip(tallies, (sr, up), strict=True):
        tally.add(x[0, :, :13])
        tally.add(x[0, :, 13:])
    own, wanted = (tally.stats() for tally in tallies)
    torch.testing.assert_close(match_stats(sr, own, wanted), match_adain(sr, up))


def test_whole_statistics_of_a_tiled_photo_take_no_second_pass(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    photo, calls = Photo(noise(3, 130, 250)), list[int]()
    clean = restorer.onestep.clean
    monkeypatch.setattr(restorer.onestep, "clean", lambda *given: calls.append(0) or clean(*given))
    restorer.with_tile(128)(photo, 0.0, color="adain")
    adain = len(calls)
    restorer.with_tile(128)(photo, 0.0)
    assert adain == len(calls) - adain == 6


def test_memory_that_runs_out_shrinks_tiles_and_goes_on(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    photo = Photo(noise(3, 150, 140))
    clean = restorer.onestep.clean
    sides: list[int] = []

    def small(z_up: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        sides.append(max(z_up.shape[-2:]))
        if sides[-1] > 150:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")
        return clean(z_up, t, tokens)

    monkeypatch.setattr(restorer.onestep, "clean", small)
    result = restorer.with_tile(150)(photo, 0.0)
    assert sides[0] == 150 + 2 * BORDER and max(sides[1:]) <= 136 + BORDER
    monkeypatch.undo()
    assert torch.equal(result.photo.pixels, restorer.with_tile(128)(photo, 0.0).photo.pixels)


def test_a_budget_of_memory_is_kept_or_refused(restorer: Restorer):
    photo = Photo(torch.zeros(3, 600, 600))
    full = foresee(restorer, photo, (2400, 2400), ".png", 1, restorer.tile)
    least = foresee(restorer, photo, (2400, 2400), ".png", 1, 128)
    assert least.peak < full.peak and least.tiles > full.tiles == 4
    budget = int((least.peak + full.peak) / 2)
    fitting = keep_to(budget, restorer, photo, (2400, 2400), ".png")
    assert 128 < fitting.tile < restorer.tile
    with pytest.raises(RcodError, match=r"memory must be at least .* itself, got 0\.00"):
        keep_to(1000, restorer, photo, (2400, 2400), ".png")
    with pytest.raises(RcodError, match="memory must be a size such as 4GB or 800MB, got '4'"):
        parse_memory("4")
    assert parse_memory("4GB") == parse_memory("4 GiB") == 4 * 10**9
    assert parse_memory("1.5m") == 1_500_000


def test_a_map_blends_levels_without_a_seam(restorer: Restorer):
    photo = Photo(noise(3, 24, 40))
    ramp = torch.linspace(0, 1, 40).expand(24, 40)
    seen = {place: restorer(photo, place).photo.pixels for place in (0.0, 1.0)}
    blend = restorer(photo, ramp)
    assert blend.level == "map" and blend.realism == pytest.approx(0.5, abs=0.01)
    for place, columns in ((0.0, slice(0, 2)), (1.0, slice(-2, None))):
        left = (blend.photo.pixels - seen[place])[..., columns].abs().mean()
        assert float(left) < 0.25 * float((seen[0.0] - seen[1.0])[..., columns].abs().mean())
    wide = torch.linspace(0, 1, 100).expand(20, 100)  # half the photo's size
    tiled = restorer.with_tile(128)(Photo(noise(3, 40, 200)), wide).photo.pixels
    whole = restorer(Photo(noise(3, 40, 200)), wide).photo.pixels
    assert float((tiled - whole).abs().max()) < 2 / 255


def test_the_place_of_every_part_is_estimated(restorer: Restorer):
    result = restorer(Photo(noise(3, 40, 60)), "auto-local")
    assert result.level == "auto-local" and 0 <= result.realism <= 1


def test_shares_of_levels_add_up_and_hit_the_levels():
    groups = GroupSettings()
    places = torch.linspace(0, 1, 11).view(1, 11)
    found = shares(places, groups)
    assert [t for t, _ in found] == [249, 499, 749]
    torch.testing.assert_close(sum(weight for _, weight in found), torch.ones(1, 11))
    assert [t for t, _ in shares(torch.zeros(2, 2), groups)] == [249]
    metrics = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0])
    torch.testing.assert_close(
        realism_of_metric(metrics, groups), torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0])
    )
    assert fit_map(torch.ones(3, 4), (5, 6)).shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("dial", "words"),
    [
        (torch.full((2, 2), 2.0), r"must lie in \[0, 1\]"),
        (torch.zeros(2, 2, 2), r"must be float \(H, W\)"),
        ("auto-lokal", "realism must be fidelity"),
    ],
)
def test_maps_that_are_none_are_refused(restorer: Restorer, dial: Dial, words: str):
    with pytest.raises(RcodError, match=words):
        restorer(Photo(noise(3, 4, 4)), dial)


def test_colours_spread_under_what_does_not_show():
    red = torch.zeros(3, 9, 11)
    alpha = torch.zeros(1, 9, 11)
    red[0, 3:6, 4:7], alpha[:, 3:6, 4:7] = 1, 1
    spread = spread_colours(red, alpha)
    assert torch.equal(spread, torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 9, 11))
    assert torch.equal(spread_colours(red, torch.ones_like(alpha)), red)


def test_edges_of_alpha_have_no_fringe(restorer: Restorer):
    """A red disk on nothing: laid over red, nothing of a border shows."""
    disk = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    disk.paste((220, 30, 30, 255), (8, 8, 24, 24))
    photo = restorer(disk, 0.0).photo
    assert photo.alpha is not None
    over = photo.pixels * photo.alpha + torch.tensor([220, 30, 30]).view(3, 1, 1) / 255 * (
        1 - photo.alpha
    )
    assert float((over - torch.tensor([220, 30, 30]).view(3, 1, 1) / 255).abs().max()) < 0.02
    source = Photo(noise(3, 32, 32), noise(1, 32, 32))
    mean = restorer(source, 0.0).photo.alpha
    assert mean is not None and source.alpha is not None
    assert abs(float(mean.mean() - source.alpha.mean())) < 1 / 255


def test_a_size_keeps_the_photos_shape():
    assert fitted((100, 200), 4.0) == (400, 800)
    assert fitted((100, 200), 4.0, width=333) == (166, 333)
    assert fitted((100, 200), 4.0, most=300) == (150, 300)
    with pytest.raises(RcodError, match="got 9 times 200 x 100"):
        fitted((100, 200), 9.0)


def test_a_stage_ends_when_the_gpus_that_work_are_done(monkeypatch: pytest.MonkeyPatch):
    awaited, seconds = list[object](), dict[str, float]()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda place: 4 * place)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", awaited.append)
    monkeypatch.setattr("torch.mps.synchronize", lambda: (awaited.append("mps"), time.sleep(0.05)))
    with clock(seconds, "predict"):
        pass
    assert awaited == [1, "mps"] and seconds["predict"] >= 0.05
