"""Pixel measures mean what their definitions say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rcod.pixels.metrics import detail, luma, psnr_y, ssim_y


def picture(seed: int = 0, side: int = 48) -> Tensor:
    """A smooth random picture, (1, 3, side, side)."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


def noisy(x: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + sigma * noise).clamp(0, 1)


def test_equal_images_score_perfectly():
    x = picture()
    assert psnr_y(x, x).item() == pytest.approx(80)  # the floor of IQA-PyTorch
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
    assert psnr_y(grey, lighter).item() == pytest.approx(20 * math.log10(255 / error), abs=1e-4)


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
