"""Pixel and perceptual terms: how wrong is the result, sample by sample?

Each term keeps the batch apart, (B,), because every sample stands at its own place on
the dial and weighs its terms accordingly.
"""

from typing import Annotated

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from rcod.pixels.perceptual import LpipsHed

BLOCK, TIMES = 8, 4  # pixels after which a weave repeats itself: two latents; how often it must
Ends = tuple[float, float]  # at the fidelity end of the dial and at the realism end
Weight = Annotated[float, Field(ge=0)]
Weights = tuple[Weight, Weight]


class LossSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What a sample pays for, at both ends of the dial; straight lines between."""

    pixel: Weights = (1.0, 0.2)  # Charbonnier distance
    guide: Weights = (0.0, 0.8)  # the same from the guide, where there is one
    latent: Weights = (0.1, 0.0)  # L1 of whitened latents, where every frequency counts alike
    outline: Weights = (0.0, 0.1)  # the same from the guide's latent
    perceptual: Weights = (0.05, 1.0)  # LPIPS over the HED trunk
    weave: Weights = (0.0, 0.0)  # patterns of a block of pixels, which that trunk likes
    distill: Weights = (0.0, 0.1)  # VSD
    adversary: Weights = (0.0, 0.05)
    share: float = Field(default=0.25, gt=0, le=1)  # part of a batch that the costly terms look at
    opposed: float = Field(default=0.5, gt=0, le=1)  # part of a batch that the adversary looks at
    sharpen: Ends = (0.0, 0.0)  # of the true pixels; below 0 softens them, as a camera's lens does


def weight_of(ends: Ends, realism: Tensor) -> Tensor:
    """The weight at each sample's place on the dial, (B,)."""
    return ends[0] + (ends[1] - ends[0]) * realism


def sharpened(hr: Tensor, amount: Tensor) -> Tensor:
    """Add `amount` (B,) times what a blur of one pixel takes away, (B, 3, H, W); -1 is the blur."""
    taps = torch.exp(-torch.arange(-3.0, 4.0, device=hr.device).square() / 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2  # (7, 7)
    wide = F.pad(hr, (3, 3, 3, 3), mode="replicate")
    soft = F.conv2d(wide, kernel.expand(3, 1, 7, 7), groups=3)  # (B, 3, H, W)
    return (hr + amount.view(-1, 1, 1, 1) * (hr - soft)).clamp(0, 1)


def pixel(sr: Tensor, hr: Tensor) -> Tensor:
    """Charbonnier distance, (B,): L1 with a rounded tip of 1e-3."""
    return ((sr - hr).square() + 1e-6).sqrt().flatten(1).mean(dim=1)


def draw_share(weights: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pick the samples that a costly term looks at, in proportion to their weights.

    Args:
        weights: each sample's weight, (B,), not negative.
        share: how many to pick, as a part of the batch.
        rng: a generator on the CPU.

    Returns:
        Indices (K,) and the factor that makes `factor * loss[indices].mean()` an unbiased
        estimate of `(weights * loss).mean()`.
    """
    count = max(1, round(share * len(weights)))
    total = weights.sum()
    if total <= 0:
        return torch.arange(count), total
    drawn = torch.multinomial(weights.cpu(), count, replacement=True, generator=rng)
    return drawn.to(weights.device), total / len(weights)


def latent(z_sr: Tensor, z_hr: Tensor) -> Tensor:
    """Mean absolute difference of two latents, (B,)."""
    return (z_sr - z_hr).abs().flatten(1).mean(dim=1)


def weave(sr: Tensor, hr: Tensor) -> Tensor:
    """How strongly the error repeats itself every `BLOCK` pixels, (B,).

    The error at each place of a block is averaged over `TIMES` x `TIMES` blocks, and compared with
    the mean of all places: a pattern that every block repeats remains, a weave that shows in smooth
    places, while texture averages out.
    """
    places = F.pixel_unshuffle(sr - hr, BLOCK)  # (B, 3 * 64, H/8, W/8)
    means = F.avg_pool2d(places, TIMES).unflatten(1, (3, -1))  # (B, 3, 64, H/32, W/32)
    return (means - means.mean(dim=2, keepdim=True)).abs().flatten(1).mean(dim=1)


def taps_at_random_scale(
    trunk: LpipsHed, sr: Tensor, target: Tensor, rng: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Taps of results and targets, (B, 3, H, W) in [0, 1] each, seen at a random reduction.

    A distance that always looks at full size can be pleased by a fine grid of dots; one that
    steps back at random can't.
    """
    scale = min(1.0, 0.5 + float(torch.rand((), generator=rng)))  # half the time at full size
    size = [round(side * scale / 8) * 8 for side in sr.shape[-2:]]
    last = torch.channels_last  # the layout in which the trunk is fastest
    seen = [
        F.interpolate(x, size, mode="bilinear", antialias=True).contiguous(memory_format=last)
        for x in (sr, target)
    ]
    with torch.no_grad():
        there = trunk.trunk.features(seen[1])
    return trunk.trunk.features(seen[0]), there
