"""The measures agree with published numbers and with what they must mean."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rcod.errors import RcodError
from rcod.metrics import LpipsHed, Niqe, VggTrunk, aid, detail, luma, psnr_y, ssim_y

BENCH = Path(__file__).parents[2] / "shared" / "benchmarks" / "realsr"
needs_bench = pytest.mark.skipif(
    not BENCH.is_dir(), reason="the RealSR benchmark is not beside the repository"
)
needs_aids = pytest.mark.skipif(
    not aid("hed_vgg16.safetensors").is_file(), reason="no aids; run tools/fetch_aids.py"
)
needs_niqe = pytest.mark.skipif(
    not aid(Niqe.FILE).is_file(), reason="no NIQE model; run tools/fetch_aids.py"
)


def picture(seed: int = 0, side: int = 48) -> Tensor:
    """A smooth random picture, (1, 3, side, side)."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


def noisy(x: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + sigma * noise).clamp(0, 1)


def load(folder: str, name: str) -> Tensor:
    with Image.open(BENCH / folder / name) as image:
        pixels = np.asarray(image.convert("RGB"))
    return torch.tensor(pixels).permute(2, 0, 1)[None] / 255


def published(count: int) -> list[dict[str, str]]:
    with (BENCH / "osediff_published.csv").open() as file:
        rows = list(csv.DictReader(file))
    return rows[:: len(rows) // count]


def test_equal_images_score_perfectly():
    x = picture()
    assert psnr_y(x, x).item() == math.inf
    assert ssim_y(x, x).item() == pytest.approx(1)


def test_damage_lowers_psnr_and_ssim():
    x = picture()
    for measure in (psnr_y, ssim_y):
        scores = [measure(noisy(x, sigma), x).item() for sigma in (0.02, 0.05, 0.1)]
        assert scores == sorted(scores, reverse=True)


def test_psnr_of_a_known_error():
    grey = torch.full((1, 3, 16, 16), 100 / 255)
    lighter = torch.full((1, 3, 16, 16), 110 / 255)
    error = 10 * (65.481 + 128.553 + 24.966) / 255
    assert psnr_y(grey, lighter).item() == pytest.approx(20 * math.log10(255 / error))


def test_scores_are_those_of_the_8_bit_file():
    x, y = picture(0), picture(1)
    rounded = (x * 255).round() / 255
    assert psnr_y(x, y).item() == psnr_y(rounded, y).item()


def test_scores_of_a_batch_are_those_of_its_pictures():
    x, y = torch.cat([picture(0), picture(1)]), torch.cat([picture(2), picture(3)])
    for measure in (psnr_y, ssim_y):
        single = [measure(x[i : i + 1], y[i : i + 1]).item() for i in range(2)]
        assert measure(x, y).tolist() == pytest.approx(single)


def test_ssim_equals_its_definition():
    x, y = noisy(picture(0, 24), 0.05), picture(0, 24)
    a, b = luma(x).round()[0, 0].numpy(), luma(y).round()[0, 0].numpy()
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            structure = max(0, (2 * cov + c2) / (vp + vq + c2))
            values.append((2 * mp * mq + c1) / (mp**2 + mq**2 + c1) * structure)
    assert ssim_y(x, y).item() == pytest.approx(np.mean(values), abs=1e-6)


def test_detail_of_known_pictures():
    ramp = torch.arange(16.0).div(255).expand(1, 3, 16, 16)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert detail(ramp).item() == pytest.approx(0, abs=1e-9)
    assert detail(board.float().expand(1, 3, 16, 16)).item() == pytest.approx(4 * 219)


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
def test_psnr_and_ssim_equal_the_published_ones():
    for row in published(4):
        sr, hr = load("osediff", row["name"]), load("HR", row["name"])
        assert psnr_y(sr, hr).item() == pytest.approx(float(row["psnr"]), abs=1e-3)
        assert ssim_y(sr, hr).item() == pytest.approx(float(row["ssim"]), abs=1e-4)


@needs_bench
@needs_niqe
def test_niqe_equals_the_published_one():
    metric = Niqe.load()
    for row in published(2):
        assert metric(load("osediff", row["name"])).item() == pytest.approx(
            float(row["niqe"]), abs=0.02
        )


@needs_bench
@needs_aids
def test_lpips_hed_of_a_known_pair():
    name = "Canon_003_LR4.png"
    assert LpipsHed.load()(load("osediff", name), load("HR", name)).item() == pytest.approx(
        0.0775, abs=1e-4
    )
