"""What does a batch cost?

prior:   clean latents -> noise -> predicted noise -> squared error
restore: lr -> metric -> t -> OneStep -> pixel, latent, guide, perceptual terms
                                     -> VSD against the prior; the adversary
                 what the run began with, or a larger restorer -> guide
metric:  lr -> estimated metric -> squared error
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.grouping import (
    distill_range,
    realism_of_timestep,
    timestep_of_metric,
)
from rcod.diffusion.schedule import STEPS, add_noise
from rcod.networks.backbone import TinyUNet
from rcod.networks.estimators import MetricEstimator
from rcod.networks.onestep import OneStep, enlarge, measured
from rcod.pixels.perceptual import LpipsHed
from rcod.training import adversary, losses, vsd
from rcod.training.adversary import PatchDiscriminator
from rcod.training.data import Batch
from rcod.training.recipe import Recipe


class Networks(NamedTuple):
    """All that a run holds; the student is `onestep`."""

    onestep: OneStep
    metric: MetricEstimator
    start: OneStep  # what the run began with, frozen; its UNet is VSD's prior
    critic: TinyUNet  # the prior with adapters that learn the student's results
    adversary: PatchDiscriminator
    trunk: LpipsHed | None


class BatchCost(NamedTuple):
    """What each learner pays for a batch, and numbers for the log."""

    losses: dict[str, Tensor]  # learner -> scalar
    values: dict[str, float]


class Drawn(NamedTuple):
    """A batch restored at the timesteps drawn for it."""

    goal: Tensor  # (B, 3, H, W) the true pixels, softer or sharper by the place on the dial
    t: Tensor  # (B,)
    realism: Tensor  # (B,) place on the dial
    tokens: Tensor  # (B, N, D)
    z_sr: Tensor  # (B, C, h, w)
    sr: Tensor  # (B, 3, H, W)


def cost(nets: Networks, batch: Batch, recipe: Recipe, n: int, rng: torch.Generator) -> BatchCost:
    """The losses of a batch at step `n` of a recipe."""
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        if recipe.goal == "prior":
            return BatchCost({"student": prior_loss(nets, batch, recipe, rng)}, {})
        if recipe.goal == "metric":
            return BatchCost({"student": metric_loss(nets, batch, recipe)}, {})
        return restore_cost(nets, batch, recipe, n, rng)


def see(onestep: OneStep, batch: Batch, shown: Tensor) -> Tensor:
    """Image tokens of the batch, (B, N, D); where `shown` (B,) is false there are none."""
    return onestep.prompt(enlarge(batch.context)).float() * shown.view(-1, 1, 1)


def draw_shown(batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Which samples see their image tokens, (B,) bool."""
    return torch.rand(len(batch.lr), generator=rng) >= recipe.blind


def prior_loss(nets: Networks, batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """The ordinary diffusion loss on clean latents."""
    onestep = nets.onestep
    with torch.no_grad():
        z = onestep.backbone.encode(batch.hr)  # (B, C, h, w)
    t = torch.randint(STEPS, (len(z),), generator=rng)
    noise = torch.randn(z.shape, generator=rng)
    tokens = see(onestep, batch, draw_shown(batch, recipe, rng))
    eps = onestep.backbone.predict(add_noise(z, noise, t, onestep.alphas), t, tokens)
    return F.mse_loss(eps.float(), noise)


def metric_loss(nets: Networks, batch: Batch, recipe: Recipe) -> Tensor:
    """MEM: the estimate against the true cosine."""
    metric = measured(nets.onestep.backbone.encode, batch.lr, batch.hr, recipe.groups)
    return F.mse_loss(nets.metric(batch.lr).float(), metric)


def restore_cost(
    nets: Networks, batch: Batch, recipe: Recipe, n: int, rng: torch.Generator
) -> BatchCost:
    """RCOD's losses; each term starts at its own step of the recipe."""
    settings, encode = recipe.losses, nets.onestep.backbone.encode
    with torch.no_grad():
        up = enlarge(batch.lr)  # (B, 3, H, W)
        metric = measured(encode, batch.lr, batch.hr, recipe.groups)
        t = choose_timestep(metric, recipe, rng)
        realism = torch.tensor([realism_of_timestep(int(x), recipe.groups) for x in t])
        shown = draw_shown(batch, recipe, rng)
        if recipe.own_guide:
            before = nets.start(up, t, see(nets.start, batch, shown)).sr
            batch = batch._replace(guide=before, guided=torch.ones(len(t)))
        goal = losses.sharpened(batch.hr, losses.weight_of(settings.sharpen, realism))
        z_goal, z_guide = encode(goal), encode(batch.guide)  # (B, C, h, w)
    tokens = see(nets.onestep, batch, shown)
    _, z_sr, sr = nets.onestep(up, t, tokens)
    drawn = Drawn(goal, t, realism, tokens, z_sr, sr)

    terms = {
        "pixel": losses.pixel(sr, goal),
        "guide": losses.pixel(sr, batch.guide) * batch.guided,
        "latent": losses.latent(z_sr, z_goal),
        "outline": losses.latent(z_sr, z_guide) * batch.guided,
        "weave": losses.weave(sr, goal),
    }  # (B,) each
    ends: dict[str, losses.Ends] = settings.model_dump(include=set(terms))
    weighted = [losses.weight_of(ends[k], realism) * term for k, term in terms.items()]
    paid = {"student": torch.stack(weighted).sum(dim=0).mean()}
    if n >= recipe.perceive_from and nets.trunk is not None:
        terms |= add_perceptual(nets, batch, drawn, (recipe, rng), paid)
    if n >= recipe.adversary_from and max(settings.adversary) > 0:
        terms |= add_adversary(nets, batch, drawn, (recipe, rng), paid)
    if n >= recipe.distill_from and max(settings.distill) > 0:
        terms |= distill(nets, drawn, (recipe, rng), paid)
    terms["metric"] = metric
    return BatchCost(paid, {k: float(v.detach().mean()) for k, v in terms.items()})


def choose_timestep(metric: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """LDG's timestep by damage; a share of the samples stands anywhere on the dial instead.

    Where one end alone learns, these stand between it and half the way to where nothing changes.
    """
    t = timestep_of_metric(metric, recipe.groups)
    low, high = min(recipe.groups.timesteps), max(recipe.groups.timesteps)
    if recipe.end:
        near, far = sorted((recipe.end[0], sum(recipe.end) // 2))
        low, high = max(low, near), min(high, far)  # what stays may lie beyond the dial
    anywhere = torch.randint(low, high + 1, t.shape, generator=rng)
    return torch.where(torch.rand(t.shape, generator=rng) < recipe.explore, anywhere, t)


def add_perceptual(
    nets: Networks,
    batch: Batch,
    drawn: Drawn,
    how: tuple[Recipe, torch.Generator],
    paid: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Add the perceptual term to what is paid; returns it, (K,)."""
    settings, rng = how[0].losses, how[1]
    assert nets.trunk is not None, "cost asks for this term only where there is a trunk"
    some, factor, target = chosen(batch, drawn, (settings.perceptual, settings.share), rng)
    term = nets.trunk.between(*losses.taps_at_random_scale(nets.trunk, drawn.sr[some], target, rng))
    paid["student"] = paid["student"] + factor * term.mean()
    return {"perceptual": term}


def add_adversary(
    nets: Networks,
    batch: Batch,
    drawn: Drawn,
    how: tuple[Recipe, torch.Generator],
    paid: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Add the adversary's term for the student and its own loss; returns them."""
    settings, rng = how[0].losses, how[1]
    some, factor, target = chosen(batch, drawn, (settings.adversary, settings.opposed), rng)
    term, own = adversary.relativistic_losses(nets.adversary, drawn.sr[some], target, rng)
    paid["student"] = paid["student"] + factor * term.mean()
    paid["adversary"] = own
    return {"adversary": term, "discriminator": own}


def chosen(
    batch: Batch, drawn: Drawn, paying: tuple[losses.Ends, float], rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples a costly term looks at, (K,), its factor, and their goals (K, 3, H, W).

    Args:
        batch: with guides.
        drawn: what came of the batch.
        paying: the term's weight at both ends of the dial, and the share of samples.
        rng: draws them.
    """
    weights = losses.weight_of(paying[0], drawn.realism)
    some, factor = losses.draw_share(weights, paying[1], rng)
    return some, factor, models(batch, drawn, some, rng)


def models(batch: Batch, drawn: Drawn, some: Tensor, rng: torch.Generator) -> Tensor:
    """What the chosen samples should look like, (K, 3, H, W).

    The truth at the fidelity end of the dial, the guide at the realism end, where there is one.
    """
    led = torch.rand(len(some), generator=rng) < drawn.realism[some] * batch.guided[some]
    return torch.where(led.view(-1, 1, 1, 1), batch.guide[some], drawn.goal[some])


def distill(
    nets: Networks,
    drawn: Drawn,
    how: tuple[Recipe, torch.Generator],
    paid: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Add VSD for the student and plain denoising for the critic; returns them."""
    recipe, rng = how
    weights = losses.weight_of(recipe.losses.distill, drawn.realism)
    some, factor = losses.draw_share(weights, recipe.losses.share, rng)
    z_sr, tokens, t = drawn.z_sr[some], drawn.tokens[some].detach(), drawn.t[some]
    alphas = nets.onestep.alphas
    t_r = vsd.draw_timesteps(*distill_range(t, recipe.distill_way), rng)
    noise = torch.randn(z_sr.shape, generator=rng)
    part = vsd.distill(z_sr, tokens, t_r, (nets.start.backbone.unet, nets.critic), noise, alphas)
    t_c = torch.randint(STEPS, t.shape, generator=rng)
    fresh = torch.randn(z_sr.shape, generator=rng)
    paid["student"] = paid["student"] + factor * part.mean()
    paid["critic"] = vsd.critic_loss(z_sr, tokens, t_c, nets.critic, fresh, alphas)
    return {"distill": part, "critic": paid["critic"]}
