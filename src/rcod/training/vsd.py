"""Variational score distillation: what would make this result likelier, says a prior?

The frozen prior (teacher) and a copy that learns the results' own distribution (critic)
denoise the same noised result. Where they differ, the result is unlike true images,
and the difference is the student's gradient.

    z_sr, t_r -> add_noise -> teacher -> x0 --.
                           -> critic  -> x0 ---+-> distill -> student
                              critic learns to denoise z_sr
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.schedule import add_noise, predict_clean

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # z_t, t, tokens -> eps


def draw_timesteps(low: Tensor, high: Tensor, rng: torch.Generator) -> Tensor:
    """Uniform timesteps in [low, high) for each sample, (B,) int64."""
    place = torch.rand(low.shape, generator=rng).to(low.device)
    return (low + place * (high - low)).long()


def distill(
    z_sr: Tensor,
    tokens: Tensor,
    t_r: Tensor,
    nets: tuple[Predict, Predict],
    noise: Tensor,
    alphas: Tensor,
) -> Tensor:
    """The distillation term, (B,), whose gradient by z_sr is (x0_critic - x0_teacher) / size.

    Args:
        z_sr: the student's clean latent, (B, C, h, w); the gradient flows into it alone.
        tokens: image tokens, (B, N, D).
        t_r: distillation timestep of each sample, (B,) int64 (see `grouping.distill_range`).
        nets: teacher and critic, each z_t, t, tokens -> eps.
        noise: standard normal, (B, C, h, w).
        alphas: the schedule's cumulative alphas, (1000,).
    """
    teacher, critic = nets
    with torch.no_grad():
        z_t = add_noise(z_sr, noise, t_r, alphas)
        x0_teacher = predict_clean(z_t, teacher(z_t, t_r, tokens), t_r, alphas)
        x0_critic = predict_clean(z_t, critic(z_t, t_r, tokens), t_r, alphas)
        size = (z_sr - x0_teacher).abs().flatten(1).mean(dim=1).clamp(min=1e-4)
        grad = (x0_critic - x0_teacher) / size.view(-1, 1, 1, 1)
        target = z_sr - grad
    return 0.5 * (z_sr - target).square().flatten(1).mean(dim=1)


def critic_loss(
    z_sr: Tensor, tokens: Tensor, t: Tensor, critic: Predict, noise: Tensor, alphas: Tensor
) -> Tensor:
    """Plain denoising of the student's results, a scalar; no gradient reaches the student."""
    z_t = add_noise(z_sr.detach(), noise, t, alphas)
    return F.mse_loss(critic(z_t, t, tokens), noise)
