import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.pixels.tiling import plan, tiled


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"),
    [(64, 64, 32, 8), (57, 91, 24, 7), (1, 100, 16, 15), (100, 3, 16, 0), (32, 300, 96, 32)],
)
def test_tiling_the_identity_returns_the_image(height, width, tile, overlap):
    x = noise(2, 3, height, width)
    torch.testing.assert_close(tiled(lambda cut: cut, x, tile, overlap), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 64, 97, 500])
@pytest.mark.parametrize(
    ("tile", "overlap"), [(16, 0), (16, 4), (16, 15), (17, 5), (64, 63), (1, 0)]
)
def test_tiles_cover_the_image_overlap_enough_and_lie_evenly(length, tile, overlap):
    where = plan(length, 1, tile, overlap)
    assert where.height == min(tile, length) and where.lefts == (0,)
    assert where.tops[0] == 0 and where.tops[-1] + where.height == length
    gaps = [after - before for before, after in zip(where.tops, where.tops[1:], strict=False)]
    assert all(0 < gap <= where.height - overlap for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 8


def test_tiles_keep_the_phase_of_strided_networks_when_sizes_allow():
    where = plan(200, 136, 64, 10)
    assert all(start % 8 == 0 for start in where.tops + where.lefts)


def test_an_image_that_fits_is_one_call():
    calls: list[tuple[int, ...]] = []

    def watched(cut: Tensor) -> Tensor:
        calls.append(tuple(cut.shape))
        return cut

    assert torch.equal(tiled(watched, x := noise(1, 3, 10, 16), 16, 8), x)
    assert calls == [(1, 3, 10, 16)]


def test_channels_and_scale_may_change_both_ways():
    def enlarge(cut: Tensor) -> Tensor:
        return F.interpolate(cut[:, :2], scale_factor=4, mode="nearest")

    x = noise(1, 3, 40, 70)
    torch.testing.assert_close(tiled(enlarge, x, 32, 6, scale=4), enlarge(x), rtol=0, atol=1e-6)
    x = noise(1, 3, 64, 104)
    shrunk = tiled(lambda cut: F.avg_pool2d(cut, 8), x, 32, 8, scale=1 / 8)
    torch.testing.assert_close(shrunk, F.avg_pool2d(x, 8), rtol=0, atol=1e-6)


def test_a_blur_shows_no_seam():
    def blur(cut: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(cut, (2, 2, 2, 2), mode="replicate"), 5, stride=1)

    x = noise(1, 3, 96, 96)
    shifted = (tiled(blur, x, 48, 24) - blur(x)).abs()
    assert shifted.max() < 0.02  # the edges of tiles weigh about 1 %
    assert (shifted > 1e-5).float().mean() < 0.2  # and everything else is exact


def test_half_precision_comes_back_as_half_precision():
    x = noise(1, 3, 40, 40).bfloat16()
    assert torch.equal(tiled(lambda cut: cut, x, 16, 4), x)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 16), (16, 99), (16, -1), (0, 0)])
def test_an_impossible_overlap_is_refused(tile, overlap):
    with pytest.raises(RcodError, match=f"tile {tile} with overlap {overlap}"):
        plan(300, 32, tile, overlap)


def test_cuts_between_pixels_of_the_result_are_refused():
    with pytest.raises(RcodError, match="multiples of 8"):
        tiled(lambda cut: F.avg_pool2d(cut, 8), noise(1, 3, 60, 60), 32, 8, scale=1 / 8)
