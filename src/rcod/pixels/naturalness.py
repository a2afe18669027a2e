"""How natural is one picture, with nothing to compare it to?

NIQE (Mittal et al., 2013) as IQA-PyTorch computes it: statistics of normalised brightness in blocks
of 96 pixels, at full and at half size, and their distance from those of natural pictures.

    sr -> 8 bit -> Y -> local contrast -> blocks -> 36 numbers each -> mean, covariance -> distance
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.pixels.aids import read_aid
from rcod.pixels.metrics import blur, eight_bit, gaussian


class Niqe:
    """Naturalness without a reference (Mittal et al., 2013); lower is more natural."""

    FILE = "niqe.safetensors"
    BLOCK = 96  # pixels a side at full size
    SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours whose products are looked at

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, covariance  # of natural pictures, (36,), (36, 36)
        self.shapes = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)  # candidates, (S,)
        self.ratios = _gamma(2 / self.shapes, 2) / _gamma(1 / self.shapes) / _gamma(3 / self.shapes)

    @classmethod
    def load(cls, where: Path | None = None) -> Self:
        """Load the model of natural pictures from a folder or file of aids."""
        tensors = read_aid(cls.FILE, where)
        return cls(tensors["mean"], tensors["covariance"])

    def __call__(self, x: Tensor) -> Tensor:
        """Score images in [0, 1], (B, 3, H, W), at least 192 pixels a side -> (B,) float64.

        NaN where fewer than two blocks of a picture vary.
        """
        weights = torch.tensor((76.245, 149.685, 29.07), dtype=torch.float64)  # YIQ, for [0, 1]
        y = torch.einsum("bchw,c->bhw", eight_bit(x.double().cpu()), weights).round()[:, None]
        height, width = (side // self.BLOCK * self.BLOCK for side in y.shape[2:])
        return torch.stack([self._distance(one[None, :, :height, :width]) for one in y])

    def _distance(self, y: Tensor) -> Tensor:
        """Distance of one picture (1, 1, H, W) from natural ones."""
        features = torch.cat([self._features(y, self.BLOCK), self._features(_halve(y), 48)], 1)
        whole = features[~features.isnan().any(1)]
        if len(whole) < 2:  # nothing of it is textured
            return torch.tensor(torch.nan, dtype=torch.float64)
        covariance = whole.T.cov()  # (36, 36)
        away = self.mean - features.nanmean(0)  # (36,)
        inverse = torch.linalg.pinv((self.covariance + covariance) / 2)
        return (away @ inverse @ away).sqrt()

    def _features(self, y: Tensor, block: int) -> Tensor:
        """18 numbers for each block of a picture: (1, 1, H, W) -> (N, 18)."""
        line = gaussian(7, 7 / 6)
        window = torch.outer(line, line).float().double()[None, None]  # rounded as IQA-PyTorch's:
        padded = F.pad(y, (3, 3, 3, 3), mode="replicate")  # that decides the sign of flat places
        mean = F.conv2d(padded, window)
        spread = (F.conv2d(padded.square(), window) - mean.square()).abs().sqrt()
        blocks = F.unfold((y - mean) / (spread + 1), block, stride=block)[0].T
        blocks = blocks.reshape(-1, block, block)  # (N, block, block)
        shape, left, right = self._fit(blocks)
        found = [shape, (left + right) / 2]
        for shift in self.SHIFTS:
            shape, left, right = self._fit(blocks * blocks.roll(shift, (1, 2)))
            skew = (right - left) * _gamma(2 / shape) / _gamma(1 / shape)
            found += [shape, skew, left, right]
        return torch.stack(found, 1)

    def _fit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape, left and right scale of an asymmetric Gaussian, for each of (N, h, w): (N,)."""
        x = x.flatten(1)
        left = (x.square() * (x < 0)).sum(1).div((x < 0).sum(1)).sqrt()
        right = (x.square() * (x > 0)).sum(1).div((x > 0).sum(1)).sqrt()
        skew = left / right
        ratio = x.abs().mean(1).square() / x.square().mean(1)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1).square()
        shape = self.shapes[(self.ratios - ratio[:, None]).abs().argmin(1)]
        scale = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
        return shape, left * scale, right * scale


def _gamma(x: Tensor, power: float = 1) -> Tensor:
    """The gamma function, to a power."""
    return (torch.lgamma(x) * power).exp()


def _halve(y: Tensor) -> Tensor:
    """Antialiased bicubic half size with mirrored borders: (1, 1, H, W) -> (1, 1, H/2, W/2)."""
    far = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / 2  # in output pixels
    near, tail = 1.5 * far**3 - 2.5 * far**2 + 1, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    taps = torch.where(far <= 1, near, tail) / 2
    y = torch.cat([y[:, :, :3].flip(2), y, y[:, :, -3:].flip(2)], 2)
    y = torch.cat([y[..., :3].flip(3), y, y[..., -3:].flip(3)], 3)
    return blur(y, taps, stride=2)
