"""The loop: batch -> timestep -> losses -> updates.

`run` prepares a recipe's data, networks and optimizers and repeats `step` of its goal. The
result is the averaged weights, written beside a state from which the run goes on.
"""

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod import checkpoint, losses, vsd
from rcod.backbone import TinyUNet, fit_basis
from rcod.data import Batch, Pairs, build_crops, build_pairs, photos_in
from rcod.device import seeded
from rcod.errors import RcodError
from rcod.estimators import MetricEstimator
from rcod.grouping import distill_range, latent_metric, realism_of_timestep, timestep_of_metric
from rcod.learner import Learner
from rcod.lora import attach, merge
from rcod.metrics import LpipsHed
from rcod.onestep import OneStep, enlarge
from rcod.recipe import Recipe
from rcod.rundir import RunDir
from rcod.schedule import STEPS, add_noise
from rcod.systems import SYSTEMS, System, build

LOG_EVERY = 50  # steps
SAVE_EVERY = 250


class Networks(NamedTuple):
    """All that a run holds; the student is `onestep`."""

    onestep: OneStep
    metric: MetricEstimator
    teacher: TinyUNet  # the frozen prior
    critic: TinyUNet  # the prior with adapters that learn the student's results
    trunk: LpipsHed | None


def see(nets: Networks, batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Image tokens of the batch; a share of the samples sees none."""
    tokens = nets.onestep.prompt(enlarge(batch.context)).float()  # (B, N, D)
    keep = torch.rand(len(tokens), generator=rng) >= recipe.blind
    return tokens * keep.view(-1, 1, 1)


def prior_step(nets: Networks, batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """The ordinary diffusion loss on clean latents."""
    onestep = nets.onestep
    with torch.no_grad():
        z = onestep.backbone.encode(batch.hr)  # (B, C, h, w)
    t = torch.randint(STEPS, (len(z),), generator=rng)
    noise = torch.randn(z.shape, generator=rng)
    tokens = see(nets, batch, recipe, rng)
    eps = onestep.backbone.predict(add_noise(z, noise, t, onestep.alphas), t, tokens)
    return F.mse_loss(eps.float(), noise)


def choose_timestep(metric: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """LDG's timestep by damage; a share of the samples stands anywhere on the dial instead."""
    t = timestep_of_metric(metric, recipe.groups)
    low, high = min(recipe.groups.timesteps), max(recipe.groups.timesteps)
    anywhere = torch.randint(low, high + 1, t.shape, generator=rng)
    return torch.where(torch.rand(t.shape, generator=rng) < recipe.explore, anywhere, t)


def restore_step(
    nets: Networks, batch: Batch, recipe: Recipe, rng: torch.Generator, distilling: bool
) -> tuple[Tensor, Tensor | None, dict[str, float]]:
    """RCOD's losses: the student's, the critic's (None without distillation), and numbers."""
    onestep, settings = nets.onestep, recipe.losses
    with torch.no_grad():
        up = enlarge(batch.lr)  # (B, 3, H, W)
        z_hr = onestep.backbone.encode(batch.hr)  # (B, C, h, w)
        metric = latent_metric(onestep.backbone.encode(up), z_hr)
    t = choose_timestep(metric, recipe, rng)
    realism = torch.tensor([realism_of_timestep(int(x), recipe.groups) for x in t])
    tokens = see(nets, batch, recipe, rng)
    _, z_sr, sr = onestep(up, t, tokens)

    terms = {
        "pixel": losses.pixel(sr, batch.hr),
        "latent": losses.latent(z_sr, z_hr),
        "texture": losses.texture(z_sr, z_hr),
    }  # (B,) each
    ends = {"pixel": settings.pixel, "latent": settings.latent, "texture": settings.texture}
    weighted = [losses.weight_of(ends[k], realism) * term for k, term in terms.items()]
    loss = torch.stack(weighted).sum(dim=0).mean()
    values = terms | {"metric": metric}
    critic_loss = None
    if nets.trunk is not None:
        weights = losses.weight_of(settings.perceptual, realism)
        some, factor = losses.draw_share(weights, settings.share, rng)
        looks = losses.perceptual(nets.trunk, sr[some], batch.hr[some], rng)
        loss = loss + factor * looks.mean()
        values["perceptual"] = looks
    if distilling:
        weights = losses.weight_of(settings.distill, realism)
        some, factor = losses.draw_share(weights, settings.share, rng)
        part, critic_loss = distill_step(nets, z_sr[some], tokens[some], t[some], (recipe, rng))
        loss = loss + factor * part
        values |= {"distill": part, "critic": critic_loss}
    return loss, critic_loss, {k: float(v.detach().mean()) for k, v in values.items()}


def distill_step(
    nets: Networks, z_sr: Tensor, tokens: Tensor, t: Tensor, how: tuple[Recipe, torch.Generator]
) -> tuple[Tensor, Tensor]:
    """VSD for the student and plain denoising for the critic, both scalars."""
    recipe, rng = how
    alphas, tokens = nets.onestep.alphas, tokens.detach()
    t_r = vsd.draw_timesteps(*distill_range(t, recipe.distill_way), rng)
    noise = torch.randn(z_sr.shape, generator=rng)
    part = vsd.distill(z_sr, tokens, t_r, (nets.teacher, nets.critic), noise, alphas).mean()
    t_c = torch.randint(STEPS, t.shape, generator=rng)
    fresh = torch.randn(z_sr.shape, generator=rng)
    return part, vsd.critic_loss(z_sr, tokens, t_c, nets.critic, fresh, alphas)


def metric_step(nets: Networks, batch: Batch) -> Tensor:
    """MEM: the estimate against the true cosine."""
    with torch.no_grad():
        encode = nets.onestep.backbone.encode
        metric = latent_metric(encode(enlarge(batch.lr)), encode(batch.hr))
    return F.mse_loss(nets.metric(batch.lr).float(), metric)


def prepare(recipe: Recipe, start: Path | None, trunk: Path | None) -> tuple[System, Networks]:
    """The networks of a run, from a model file or fresh."""
    if start is not None:
        system, onestep, metric = checkpoint.load(start)
        system = system.model_copy(update={"groups": recipe.groups, "formula": recipe.formula})
        onestep.formula = recipe.formula
    elif recipe.goal == "autoencoder":
        torch.manual_seed(recipe.seed)
        base = SYSTEMS["tiny"].model_dump() | {
            "model": recipe.model,
            "groups": recipe.groups,
            "formula": recipe.formula,
        }
        system = System.model_validate(base)
        onestep, metric = build(system)
    else:
        raise RcodError(f"{recipe.name} continues from a model; name it with --start FILE")
    teacher = copy.deepcopy(onestep.backbone.unet).requires_grad_(False)
    critic = copy.deepcopy(onestep.backbone.unet)
    if recipe.goal == "restore":
        attach(critic, recipe.critic_rank, seeded(recipe.seed))
        onestep.prompt.tower.requires_grad_(False)  # only VPIM's Linear learns on
        if recipe.rank:
            attach(onestep.backbone.unet, recipe.rank, seeded(recipe.seed))
    look = LpipsHed.load(trunk) if recipe.goal == "restore" else None
    return system, Networks(onestep, metric, teacher, critic, look)


def fit_autoencoder(onestep: OneStep, crops: Tensor) -> float:
    """Set the linear autoencoder in closed form; returns its reconstruction PSNR in dB."""
    backbone = onestep.backbone
    basis, mean, std = fit_basis(crops, backbone.settings.latent)
    backbone.basis.copy_(basis)
    backbone.mean.copy_(mean)
    backbone.std.copy_(std)
    error = backbone.decode(backbone.encode(crops)) - crops
    return float(-10 * error.square().mean().log10())


def step(
    nets: Networks,
    batch: Batch,
    recipe: Recipe,
    learners: dict[str, Learner],
    where: tuple[int, torch.Generator],
) -> dict[str, float]:
    """One batch: losses, the student's update, the critic's update; returns numbers."""
    n, rng = where
    critic_loss, values = None, {}
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        if recipe.goal == "prior":
            loss = prior_step(nets, batch, recipe, rng)
        elif recipe.goal == "metric":
            loss = metric_step(nets, batch)
        else:
            distilling = n >= recipe.distill_from and max(recipe.losses.distill) > 0
            loss, critic_loss, values = restore_step(nets, batch, recipe, rng, distilling)
    values |= {"loss": float(loss.detach()), "norm": learners["student"].update(loss, n)}
    if critic_loss is not None:
        learners["critic"].update(critic_loss, n)
    return values


def run(
    recipe: Recipe,
    photos: Path,
    folder: Path,
    *,
    start: Path | None = None,
    resume: bool = False,
    cache: Path | None = None,
    trunk: Path | None = None,
) -> Path:
    """Train a recipe; returns the model file.

    Args:
        recipe: what to compute (see `recipe.RECIPES`).
        photos: a folder of photos, or a text file with a path a line.
        folder: the run's folder.
        start: the model file this run continues from.
        resume: go on from the run's own state.
        cache: where crops and pairs are kept; by default inside the run.
        trunk: `hed_vgg16.safetensors`, needed by goal `restore`.
    """
    rundir = RunDir(folder, recipe, resume)
    cache = cache or folder / "cache"
    crops = build_crops(photos_in(photos), cache, recipe.data)
    clean = recipe.goal in ("autoencoder", "prior")
    pairs = None if clean else build_pairs(crops, recipe.data)
    system, nets = prepare(recipe, start, trunk)
    data, rng = Pairs(crops, pairs), seeded(recipe.seed)
    if recipe.goal == "autoencoder":
        batch = next(data.batches(1024, recipe.window, rng))
        rundir.log(0, {"psnr": fit_autoencoder(nets.onestep, batch.hr)})
        checkpoint.save(rundir.model, system, nets.onestep, nets.metric, torch.float32)
        return rundir.model
    if recipe.goal == "restore" and recipe.formula == "residual":
        fit_gain(nets.onestep, next(data.batches(512, recipe.window, seeded(recipe.seed))))
    nets.onestep.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    student = nets.metric if recipe.goal == "metric" else nets.onestep
    learners = {"student": Learner(student, recipe.optim, recipe.steps)}
    if recipe.goal == "restore":
        rate = recipe.optim.model_copy(update={"lr": recipe.critic_lr})
        learners["critic"] = Learner(nets.critic, rate, recipe.steps)
    loop(nets, data, recipe, learners, (rundir, system, rng))
    return rundir.model


def fit_gain(onestep: OneStep, batch: Batch) -> None:
    """Set how far each latent channel moves when the UNet finds unit noise there.

    Coarse channels of z_up are nearly right and fine ones are missing. With the gain, a
    residual of the usual size is noise of size one in all of them, as the prior is used to.
    """
    encode = onestep.backbone.encode
    missing = encode(enlarge(batch.lr)) - encode(batch.hr)  # (B, C, h, w)
    onestep.gain.copy_(missing.square().mean(dim=(0, 2, 3)).sqrt())


def loop(
    nets: Networks,
    data: Pairs,
    recipe: Recipe,
    learners: dict[str, Learner],
    where: tuple[RunDir, System, torch.Generator],
) -> None:
    """Repeat `step`, log the means, and save model and state every so often."""
    rundir, system, rng = where
    first = go_on(rundir, learners, rng)
    batches = data.batches(recipe.batch, recipe.window, rng)
    sums: dict[str, list[float]] = {}
    for n in range(first, recipe.steps):
        for key, value in step(nets, next(batches), recipe, learners, (n, rng)).items():
            sums.setdefault(key, []).append(value)
        if (n + 1) % LOG_EVERY == 0:
            rundir.log(n + 1, {key: sum(v) / len(v) for key, v in sums.items()})
            sums.clear()
        if (n + 1) % SAVE_EVERY == 0 or n + 1 == recipe.steps:
            states = {name: learner.state() for name, learner in learners.items()}
            rundir.save_state({"step": n + 1, "rng": rng.get_state()} | states)
            save_average(nets, learners["student"], system, rundir)


def save_average(nets: Networks, student: Learner, system: System, rundir: RunDir) -> None:
    """Write the model with averaged weights, adapters merged."""
    student.swap()
    onestep = copy.deepcopy(nets.onestep)
    merge(onestep)
    checkpoint.save(rundir.model, system, onestep, nets.metric, torch.float32)
    student.swap()


def go_on(rundir: RunDir, learners: dict[str, Learner], rng: torch.Generator) -> int:
    """Restore a saved state, if there is one; returns the step to begin with."""
    state = rundir.load_state()
    if state is None:
        return 0
    for name, learner in learners.items():
        learner.restore(state[name])
    rng.set_state(state["rng"])
    return state["step"]
