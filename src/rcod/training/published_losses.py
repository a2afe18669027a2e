"""What does a batch cost a published system's student, its critic and its adversary?

restore: lr -> up -> z_up -> metric -> t -> z_sr -> sr -> MSE, LPIPS -.
                                             '-> VSD or CSD ----------+-> student
                                             sr -> the judge's logits-'
         critic: denoises z_sr.  adversary: tells sr from hr
metric:  lr -> estimated metric -> squared error
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.diffusion.grouping import (
    GroupSettings,
    distill_range,
    equal_groups,
    latent_metric,
    paper_groups,
    timestep_of_metric,
)
from rcod.diffusion.schedule import STEPS
from rcod.networks.onestep import OneStep, apply_guidance, enlarge
from rcod.networks.prompts import FixedPrompt
from rcod.networks.stable import StableBackbone
from rcod.training import vsd
from rcod.training.adversary import Game, verdict_loss
from rcod.training.presets import settings_named
from rcod.training.projected import CHANCES, augment
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.published_student import Student
from rcod.training.stream import Dice, Lot

Perceive = Callable[[Tensor, Tensor], Tensor]  # sr, hr in [0, 1] -> distance (B,)


class Roles(NamedTuple):
    """Who takes part in the lessons."""

    student: Student
    perceive: Perceive | None  # LPIPS, where it is asked for
    judge: nn.Module | None  # the adversary: pictures -> logits, positive for photos
    game: Game = Game()  # what it plays for


class Heard(NamedTuple):
    """Texts that the teacher hears."""

    towards: Tensor  # (B, N, D)
    away: Tensor | None  # (1, N, D); nothing: it isn't led away from anything


class StudentOutput(NamedTuple):
    """What the student made of a batch."""

    hr: Tensor  # (B, 3, H, W) what it should have made
    truth: Tensor  # (B, 3, H, W) the photos
    worse: Tensor  # (B,) bool, whether the damage was shown as a goal, to a negative text
    sr: Tensor  # (B, 3, H, W) in [0, 1]
    z_sr: Tensor  # (B, 4, h, w)
    metric: Tensor  # (B,); ones where no group is asked for
    t: Tensor  # (B,)


def up_of(lot: Lot, recipe: PublishedRecipe) -> Tensor:
    """The enlarged photos, (B, 3, H, W): bicubic, S3Diff's too, which is bilinear at inference.

    They come from 8 bits and are not rounded again. Where the damage is to be `none` it is the
    photo itself; `lr` stays damaged, and with it the scores, as in S3Diff's training.
    """
    up, none = enlarge(lot.lr), settings_named(recipe.degradation).none
    if not none:
        return up
    spared = Dice(recipe.seed, lot.numbers, up.device, "none").uniform() < none  # (B,)
    return torch.where(spared.view(-1, 1, 1, 1), lot.hr, up)


def uncast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in float32 what decides about every sample, in training as elsewhere."""
    return torch.autocast(device.type, enabled=False)


def tuned(student: Student, lot: Lot) -> OneStep[StableBackbone]:
    """The student as it is for these photos: guided adapters follow the damage."""
    onestep = student.onestep
    if onestep.estimator is None:
        return onestep
    with uncast(lot.lr.device):
        with torch.no_grad():
            features = onestep.estimator.features(lot.lr)
        return onestep.tuned(features)


def measure(
    student: Student,
    onestep: OneStep[StableBackbone],
    up: Tensor,
    hr: Tensor,
    recipe: PublishedRecipe,
) -> Tensor:
    """The latent metric of a batch, (B,): a cosine, or a distance with its sign turned."""
    own = student.own if recipe.group_encoder == "adapted" else ()
    with torch.no_grad(), student.choir.only(*own):
        z_up, z_hr = onestep.backbone.encode(up), onestep.backbone.encode(hr)
    return latent_metric(z_up, z_hr, recipe.group_metric)


def groups_of(metrics: Tensor, recipe: PublishedRecipe) -> GroupSettings:
    """Groups by what was measured on some of the data (K,): Eq. 5, or equally large ones."""
    count = recipe.group_count
    if recipe.group_by == "paper":
        groups = paper_groups(float(metrics.min()), float(metrics.max()), count)
    else:
        groups = equal_groups(metrics, count)
    return groups.model_copy(update={"by": recipe.group_metric})


def restore(
    student: Student,
    lot: Lot,
    recipe: PublishedRecipe,
    groups: GroupSettings,
    dice: Dice,
    captions: Tensor | None = None,
) -> StudentOutput:
    """The student's forward pass, from damaged photos and perhaps captions to pictures."""
    onestep = tuned(student, lot)
    up, hr = up_of(lot, recipe), lot.hr
    if student.system.timestep is not None:
        t = torch.full((len(up),), student.system.timestep, device=up.device)
        group = torch.ones_like(up[:, 0, 0, 0]), t
        return make(student, onestep, up, hr, group, recipe, dice, captions)
    metric = measure(student, onestep, up, hr, recipe)
    t = timestep_of_metric(metric.nan_to_num(), groups)  # where it is NaN, so is the loss
    return make(student, onestep, up, hr, (metric, t), recipe, dice)


def make(
    student: Student,
    onestep: OneStep[StableBackbone],
    up: Tensor,
    hr: Tensor,
    group: tuple[Tensor, Tensor],
    recipe: PublishedRecipe,
    dice: Dice,
    captions: Tensor | None = None,
) -> StudentOutput:
    """The forward pass once the timesteps are known; `captions` are tokens, (B, N, D)."""
    metric, t = group
    tokens, goal = onestep.prompt(up), hr
    worse = torch.zeros(len(up), dtype=torch.bool, device=up.device)
    if isinstance(onestep.prompt, FixedPrompt):
        worse = dice.uniform() < recipe.negative_share
        goal = torch.where(worse.view(-1, 1, 1, 1), up, hr)
        away = tokens[-len(up) :]
        tokens = torch.where(worse.view(-1, 1, 1), away, tokens[: len(up)])
    if captions is not None:
        hears = dice.uniform() < recipe.caption_share
        tokens = torch.where(hears.view(-1, 1, 1), captions.to(tokens), tokens)
    with student.choir.only(*student.own):
        z_up = onestep.backbone.encode(up)  # (B, 4, h, w)
        z_sr = onestep.clean(z_up, t, tokens)  # (B, 4, h, w)
        sr = onestep.backbone.decode(z_sr).clamp(0, 1)  # (B, 3, H, W)
    return StudentOutput(goal, hr, worse, sr, z_sr, metric, t)


def student_loss(
    roles: Roles,
    shown: StudentOutput,
    heard: Heard | None,
    recipe: PublishedRecipe,
    dice: Dice,
    pixel: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The student's loss and its terms; `pixel` is PiSA-SR's first stage, MSE alone."""
    mse = (2 * (shown.sr - shown.hr)).square().flatten(1).mean(dim=1)  # of pictures in [-1, 1]
    terms = {"mse": mse}
    loss = (recipe.mse or 1.0) * mse.mean() if pixel else recipe.mse * mse.mean()
    if pixel:
        return loss, terms
    if roles.perceive is not None and recipe.lpips:
        terms["lpips"] = roles.perceive(shown.sr, shown.hr)
        loss = loss + recipe.lpips * terms["lpips"].mean()
    if roles.judge is not None:
        cost = verdict_loss(judged(roles, shown.sr, dice), roles.game.real)
        terms["adversary"] = fairly(cost, shown)
        loss = loss + recipe.adversary * terms["adversary"]
    if heard is not None and recipe.distill != "off":
        # `vsd.distill` is half the published sum of squares
        terms["distill"] = 2 * distilled(roles.student, shown, heard, recipe, dice)
        loss = loss + recipe.distill_weight * terms["distill"].mean()
    return loss, terms


def distilled(
    student: Student, shown: StudentOutput, heard: Heard, recipe: PublishedRecipe, dice: Dice
) -> Tensor:
    """VSD (the critic's noise against the teacher's) or CSD (the teacher's own), (B,)."""
    onestep, z_sr = student.onestep, shown.z_sr
    low, high = (torch.full_like(shown.t, x) for x in recipe.distill_range)
    if recipe.das != "off":
        low, high = distill_range(shown.t, recipe.das)
    # CSD asks for it twice, of the very same tensors
    away = None if heard.away is None else lru_cache(1)(away_of(student, heard.away))
    critic = away if recipe.distill == "csd" else critic_of(student)
    assert critic is not None, "csd with text=none is refused"
    nets = (teacher_of(student, away, recipe.guidance), critic)
    noise, t_r = dice.normal(z_sr), dice.between(low, high)
    return vsd.distill(z_sr, heard.towards, t_r, nets, noise, onestep.alphas)


def critic_loss(student: Student, shown: StudentOutput, heard: Heard, dice: Dice) -> Tensor:
    """The critic's own: to denoise what the student makes, a scalar."""
    z_sr = shown.z_sr.detach()
    t, noise = dice.between(0, STEPS * torch.ones_like(shown.t)), dice.normal(z_sr)
    return vsd.critic_loss(
        z_sr, heard.towards, t, critic_of(student), noise, student.onestep.alphas
    )


def discriminator_loss(roles: Roles, shown: StudentOutput, dice: Dice) -> Tensor:
    """The adversary's own: to tell results from photos, a scalar.

    v [cost(D(hr), w) + cost(D(sr), 0)] with the game's w and v and `verdict_loss`; where it
    guesses, D = 0, that is 2 v log 2 for every level: 1.39 plainly, 2.08 with DINO and v = .5.
    """
    photos, results = judged(roles, shown.truth, dice), judged(roles, shown.sr.detach(), dice)
    told = fairly(verdict_loss(results, 0), shown)
    return roles.game.weight * (verdict_loss(photos, roles.game.real).mean() + told)


def judged(roles: Roles, pictures: Tensor, dice: Dice) -> Tensor | list[Tensor]:
    """The adversary's logits of pictures, (B, 3, H, W), which the game may change beforehand."""
    assert roles.judge is not None
    if roles.game.augment:
        chances = torch.stack([dice.uniform() for _ in range(CHANCES)], dim=1)  # (B, CHANCES)
        pictures = augment(pictures, chances)
    return roles.judge(pictures)


def fairly(terms: Tensor, shown: StudentOutput) -> Tensor:
    """The mean of terms (B,) over what was to become a photo, a scalar."""
    fair = terms.masked_fill(shown.worse, 0)
    return fair.sum() / (~shown.worse).sum().clamp(min=1)


def metric_loss(
    student: Student, lot: Lot, recipe: PublishedRecipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """MEM: the estimate against the true metric."""
    onestep = tuned(student, lot)
    metric = measure(student, onestep, up_of(lot, recipe), lot.hr, recipe)
    estimator = student.onestep.estimator
    assert estimator is not None
    with uncast(lot.lr.device):
        loss = F.mse_loss(estimator(lot.lr), metric)
    return loss, {"metric": metric}


def teacher_of(student: Student, away: vsd.Predict | None, guidance: float) -> vsd.Predict:
    """The frozen base, led away from its answer to the negative text, where there is one."""

    def predict(z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with student.choir.only():
            towards = student.onestep.backbone.predict(z_t, t, tokens)
        if away is None:
            return towards
        negative = away(z_t, t, tokens)
        return apply_guidance(towards, negative, guidance)

    return predict


def away_of(student: Student, text: Tensor) -> vsd.Predict:
    """The frozen base, which hears the negative text, (1, N, D)."""

    def predict(z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with student.choir.only():
            return student.onestep.backbone.predict(z_t, t, text.expand_as(tokens))

    return predict


def critic_of(student: Student) -> vsd.Predict:
    """The base with the critic's adapters."""

    def predict(z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with student.choir.only("critic"):
            return student.onestep.backbone.predict(z_t, t, tokens)

    return predict
