"""Laws of metric estimation."""

import pytest
import torch

from rcod.device import seeded
from rcod.networks.estimators import MetricEstimator


def test_the_estimate_is_never_negative_and_one_a_photo():
    torch.manual_seed(0)
    estimator = MetricEstimator((4, 8))
    guess = estimator(torch.rand(3, 3, 20, 33))
    assert guess.shape == (3,)
    assert bool((guess >= 0).all())


def test_photos_of_one_pixel_work():
    assert MetricEstimator()(torch.rand(1, 3, 1, 1)).shape == (1,)


def test_branches_of_less_precision_see_almost_the_same():
    torch.manual_seed(0)
    estimator, photos = MetricEstimator(), torch.rand(4, 3, 64, 48)
    exact = estimator(photos)
    estimator.branches.to(torch.bfloat16)
    found = estimator(photos)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0.01)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (1, 1), (3, 700)])
def test_a_line_of_pixels_has_a_metric(size: tuple[int, int]):
    """What memory held before must not matter, as it did in strided convolutions of bfloat16."""
    estimator = MetricEstimator().eval()
    estimator.branches.to(torch.bfloat16)
    estimator.branches.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    photo = torch.rand(1, 3, *size, generator=seeded(0))
    with torch.inference_mode():
        for _ in range(5):
            junk = [torch.full((n,), torch.nan) for n in 2 * [5000, 20000, 60000, 160000]]
            del junk
            assert bool(estimator(photo).isfinite())
