"""The perceptual distance on HED's trunk, against known values and what it must mean."""

from pathlib import Path

import pytest
import torch
from test_metrics import noisy, picture

from rcod.errors import RcodError
from rcod.judging.datasets import pixels
from rcod.pixels.aids import aid
from rcod.pixels.perceptual import LpipsHed, VggTrunk

BENCH = Path(__file__).parents[2] / "shared" / "benchmarks" / "realsr"
needs_bench = pytest.mark.skipif(
    not BENCH.is_dir(), reason="the RealSR benchmark is not beside the repository"
)
needs_aids = pytest.mark.skipif(
    not aid("hed_vgg16.safetensors").is_file(), reason="no aids; run tools/fetch_aids.py"
)


def test_missing_aid_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(RcodError, match=r"hed_vgg16\.safetensors must be a file.*fetch_aids\.py"):
        VggTrunk.load(tmp_path)


def test_trunk_gives_the_taps_asked_for():
    trunk = VggTrunk()
    shapes = [tuple(tap.shape) for tap in trunk.features(picture(), depth=3)]
    assert shapes == [(1, 64, 48, 48), (1, 128, 24, 24), (1, 256, 12, 12)]


@needs_aids
def test_lpips_hed_is_zero_at_identity_and_rises_with_damage():
    metric, x = LpipsHed.load(), picture()
    damaged = torch.cat([noisy(x, sigma) for sigma in (0, 0.02, 0.05, 0.1)])
    distances = metric(damaged, x).tolist()
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances == sorted(distances)


@needs_aids
def test_trunk_runs_in_bfloat16_and_channels_last():
    metric, x = LpipsHed.load(), picture()
    exact = metric(noisy(x, 0.05), x).item()
    x = x.contiguous(memory_format=torch.channels_last)
    assert metric(noisy(x, 0.05), x).item() == pytest.approx(exact, rel=1e-4)
    assert metric.to(torch.bfloat16)(noisy(x, 0.05), x).item() == pytest.approx(exact, rel=0.03)


@needs_aids
def test_lpips_hed_can_be_trained_on():
    x = noisy(picture(), 0.05).requires_grad_()
    LpipsHed.load()(x, picture()).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


@needs_bench
@needs_aids
def test_lpips_hed_of_a_known_pair():
    name = "Canon_003_LR4.png"
    assert LpipsHed.load()(
        pixels(BENCH / "osediff" / name)[None], pixels(BENCH / "HR" / name)[None]
    ).item() == pytest.approx(0.0775, abs=1e-4)
