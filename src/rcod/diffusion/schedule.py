"""The noise schedule: how much signal is left at timestep t, and how to get it back?

Stable Diffusion's scaled-linear schedule, 1000 steps. The forward process mixes a clean
latent with noise; `predict_clean` undoes the mix in one step, once the noise is known.

    z, noise, t -> add_noise -> z_t -> UNet -> eps -> predict_clean -> z
"""

from typing import Literal

import torch
from torch import Tensor

STEPS = 1000

CleanLatent = Literal["general", "constant", "residual"]


def alphas() -> Tensor:
    """Cumulative products of (1 - beta), abar_t of the paper; (1000,) float32, falling."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


def add_noise(z: Tensor, noise: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """Noise a clean latent to timestep t: sqrt(abar_t) z + sqrt(1 - abar_t) noise.

    Args:
        z: clean latent, (B, C, h, w).
        noise: standard normal, (B, C, h, w).
        t: timestep of each sample, (B,) int64 in [0, 1000).
        alphas: the schedule's cumulative alphas, (1000,).
    """
    alpha = alphas[t].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return alpha.sqrt() * z + (1 - alpha).sqrt() * noise


def predict_clean(z_t: Tensor, eps: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """Remove the noise the UNet found in a latent, in one step (RCOD, Eq. 3 and 4).

    Args:
        z_t: latent the UNet looked at, (B, C, h, w).
        eps: noise it found there, (B, C, h, w).
        t: timestep of each sample, (B,) int64 in [0, 1000).
        alphas: the schedule's cumulative alphas, (1000,).

    Returns:
        The clean latent, (B, C, h, w).
    """
    alpha = alphas[t].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return (z_t - (1 - alpha).sqrt() * eps) / alpha.sqrt()


def restore_clean(
    z_up: Tensor, eps: Tensor, t: Tensor, alphas: Tensor, formula: CleanLatent, step: int = 200
) -> Tensor:
    """The clean latent of an image to which no noise was added, by a system's own formula.

    Args:
        z_up: latent of the enlarged photo, (B, C, h, w).
        eps: what the UNet found there, (B, C, h, w).
        t: timestep of each sample, (B,) int64.
        alphas: the schedule's cumulative alphas, (1000,).
        formula: `general` is Eq. 4 at t (OSEDiff, S3Diff, the RCOD paper); `constant` is Eq. 4 at
            `step` whatever t (released RCOD: t acts through the time embedding alone);
            `residual` is z_up - eps (PiSA-SR, tiny).
        step: the fixed step of `constant`: 200 for RCOD_O, 249 for RCOD_S.
    """
    if formula == "residual":
        return z_up - eps
    return predict_clean(z_up, eps, t if formula == "general" else torch.full_like(t, step), alphas)
