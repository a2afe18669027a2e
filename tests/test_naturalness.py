"""NIQE equals a second, slow and literal implementation, and costs little."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rcod.pixels.naturalness import Niqe

SHAPES = np.arange(0.2, 10.001, 0.001)
GAMMAS = [
    np.array([math.gamma(k / shape) for shape in SHAPES]) for k in (1, 2, 3)
]  # of 1, 2, 3 over shape
RATIOS = GAMMAS[1] ** 2 / (GAMMAS[0] * GAMMAS[2])


def scene(height: int = 230, width: int = 301) -> torch.Tensor:
    """A picture with edges, texture and a flat white corner, (3, H, W)."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    base = 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 13) + 0.05 * rng.standard_normal((height, width))
    base[:60, :80] = 1.0
    colours = np.stack([base, 0.9 * base + 0.05, base[::-1]])
    return torch.from_numpy(np.clip(colours, 0, 1)).float()


def window() -> np.ndarray:
    at = np.arange(7) - 3
    found = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * (7 / 6) ** 2))
    return (found / found.sum()).astype(np.float32).astype(np.float64)


def contrast(y: np.ndarray) -> np.ndarray:
    """Brightness less its local mean, over its local spread, place by place."""
    weights, padded = window(), np.pad(y, 3, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    mean = np.einsum("ijkl,kl->ij", views, weights)
    spread = np.sqrt(np.abs(np.einsum("ijkl,kl->ij", views**2, weights) - mean**2))
    return (y - mean) / (spread + 1)


def fit(values: np.ndarray) -> tuple[float, float, float]:
    left = math.sqrt(np.mean(values[values < 0] ** 2))
    right = math.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    best = int(np.argmin(np.abs(RATIOS - ratio)))
    scale = math.sqrt(GAMMAS[0][best] / GAMMAS[2][best])
    return float(SHAPES[best]), left * scale, right * scale


def features(y: np.ndarray, side: int) -> np.ndarray:
    normal, rows = contrast(y), []
    for top in range(0, y.shape[0] - side + 1, side):
        for left in range(0, y.shape[1] - side + 1, side):
            block = normal[top : top + side, left : left + side]
            shape, low, high = fit(block)
            row = [shape, (low + high) / 2]
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                shape, low, high = fit(block * np.roll(block, (dy, dx), (0, 1)))
                mean = (high - low) * math.gamma(2 / shape) / math.gamma(1 / shape)
                row += [shape, mean, low, high]
            rows.append(row)
    return np.array(rows)


def halved(line: np.ndarray) -> np.ndarray:
    """Half of a line by the cubic kernel (a = -1/2) stretched twofold, mirrored at its ends."""
    count, out = len(line), np.zeros(len(line) // 2)
    for i in range(len(out)):
        total = 0.0
        for k in range(2 * i - 3, 2 * i + 5):
            far = abs(k - (2 * i + 0.5)) / 2
            if far <= 1:
                weight = 1.5 * far**3 - 2.5 * far**2 + 1
            else:
                weight = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
            inside = -1 - k if k < 0 else 2 * count - 1 - k if k >= count else k
            out[i] += weight * line[inside]
            total += weight
        out[i] /= total
    return out


def reference(image: torch.Tensor, mean: np.ndarray, covariance: np.ndarray) -> float:
    pixels = np.round(image.numpy().astype(np.float64) * 255) / 255
    y = np.round(76.245 * pixels[0] + 149.685 * pixels[1] + 29.07 * pixels[2])
    y = y[: y.shape[0] // 96 * 96, : y.shape[1] // 96 * 96]
    half = np.apply_along_axis(halved, 1, np.apply_along_axis(halved, 0, y))
    rows = np.concatenate([features(y, 96), features(half, 48)], 1)
    away = mean - np.nanmean(rows, 0)
    mixed = (covariance + np.cov(rows[~np.isnan(rows).any(1)], rowvar=False)) / 2
    return float(np.sqrt(away @ np.linalg.pinv(mixed) @ away))


def model() -> tuple[np.ndarray, np.ndarray]:
    """Stand-in for the natural pictures: any mean and covariance will do."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((36, 36)) / 6
    return rng.random(36), mixing @ mixing.T + np.eye(36)


def test_niqe_equals_its_literal_definition():
    mean, covariance = model()
    metric = Niqe(torch.from_numpy(mean), torch.from_numpy(covariance))
    image = scene()
    assert metric(image[None]).item() == pytest.approx(reference(image, mean, covariance), rel=1e-5)


def test_niqe_of_a_batch_is_that_of_its_pictures():
    mean, covariance = model()
    metric = Niqe(torch.from_numpy(mean), torch.from_numpy(covariance))
    a, b = scene(200, 200)[None], 1 - scene(200, 200)[None]
    both = metric(torch.cat([a, b])).tolist()
    assert both == pytest.approx([metric(a).item(), metric(b).item()])


def test_a_picture_that_hardly_varies_has_no_score():
    mean, covariance = model()
    metric = Niqe(torch.from_numpy(mean), torch.from_numpy(covariance))
    flat, logo = torch.full((2, 3, 288, 288), 0.7)
    logo[:, :40, :40] = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    found = metric(torch.stack([flat, logo, scene(288, 288)]))
    assert found.isnan().tolist() == [True, True, False]


def test_missing_model_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"niqe\.safetensors must be a file"):
        Niqe.load(tmp_path)
