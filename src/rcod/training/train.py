"""The loop: batch -> timestep -> losses -> updates.

`run` prepares a recipe's data, networks and optimizers and repeats `step` of its goal. The
result is the averaged weights, written beside a state from which the run goes on.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor

from rcod.device import seeded
from rcod.errors import RcodError
from rcod.networks import checkpoint
from rcod.networks.backbone import fit_basis
from rcod.networks.estimators import MetricEstimator
from rcod.networks.lora import attach, merge
from rcod.networks.onestep import OneStep, enlarge
from rcod.networks.systems import SYSTEMS, System, build
from rcod.pixels.perceptual import LpipsHed
from rcod.training.adversary import Discriminator
from rcod.training.data import Batch, Pairs, build_crops, build_pairs, photos_in
from rcod.training.elder import build_guides, chosen
from rcod.training.learner import Learner
from rcod.training.objectives import Networks, cost
from rcod.training.recipe import Recipe
from rcod.training.rundir import RunDir

LOG_EVERY = 50  # steps
SAVE_EVERY = 250


def prepare(recipe: Recipe, start: Path | None, trunk: Path | None) -> tuple[System, Networks]:
    """The networks of a run, from a model file or fresh."""
    torch.manual_seed(recipe.seed)
    if start is not None:
        system, onestep, metric = checkpoint.load(start)
        system = system.model_copy(update={"groups": recipe.groups, "formula": recipe.formula})
        onestep.formula = recipe.formula
    elif recipe.goal == "autoencoder":
        base = SYSTEMS["tiny"].model_dump() | {
            "model": recipe.model,
            "groups": recipe.groups,
            "formula": recipe.formula,
        }
        system = System.model_validate(base)
        onestep, metric = build(system)
    else:
        raise RcodError(f"{recipe.name} continues from a model; name it with --start FILE")
    if not isinstance(metric, MetricEstimator):
        raise RcodError(f"{recipe.name} trains the project's own model, got {system.name}")
    teacher = copy.deepcopy(onestep.backbone.unet).requires_grad_(False)
    critic = copy.deepcopy(onestep.backbone.unet)
    if recipe.goal == "restore":
        attach(critic, recipe.critic_rank, seeded(recipe.seed))
        onestep.prompt.tower.requires_grad_(False)  # only VPIM's Linear learns on
        if recipe.rank:
            attach(onestep.backbone.unet, recipe.rank, seeded(recipe.seed))
    look = LpipsHed.load(trunk) if recipe.goal == "restore" else None
    return system, Networks(onestep, metric, teacher, critic, Discriminator(), look)


def fit_autoencoder(onestep: OneStep, crops: Tensor) -> float:
    """Set the linear autoencoder in closed form; returns its reconstruction PSNR in dB."""
    backbone = onestep.backbone
    basis, mean, std = fit_basis(crops, backbone.settings.latent, backbone.turn)
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
    """One batch: losses, then every learner's update; returns numbers."""
    n, rng = where
    paid, values = cost(nets, batch, recipe, n, rng)
    values["loss"] = float(paid["student"].detach())
    for name, loss in paid.items():
        norm = learners[name].update(loss, n)
        if name == "student":
            values["norm"] = norm
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
        trunk: folder of aids; goal `restore` needs its trunk, and its elder where it has guides.
    """
    rundir = RunDir(folder, recipe, resume)
    cache = cache or folder / "cache"
    crops = build_crops(photos_in(photos), cache, recipe.data)
    clean = recipe.goal in ("autoencoder", "prior")
    pairs = None if clean else build_pairs(crops, recipe.data)
    system, nets = prepare(recipe, start, trunk)
    data, rng = Pairs(crops, pairs), seeded(recipe.seed)
    if pairs is not None and recipe.guides:
        guides = build_guides(pairs, data.chance, recipe.guides, trunk)
        data.add_guides(guides, chosen(data.chance, recipe.guides))
    if recipe.goal == "autoencoder":
        batch = next(data.batches(1024, recipe.window, rng))
        rundir.log(0, {"psnr": fit_autoencoder(nets.onestep, batch.hr)})
        checkpoint.save(rundir.model, system, nets.onestep, nets.metric, torch.float32)
        return rundir.model
    if recipe.goal == "restore" and recipe.formula == "residual":
        fit_gain(nets.onestep, next(data.batches(512, recipe.window, seeded(recipe.seed))))
    nets.onestep.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loop(nets, data, recipe, learners_of(nets, recipe), (rundir, system, rng))
    return rundir.model


def learners_of(nets: Networks, recipe: Recipe) -> dict[str, Learner]:
    """Who learns in a run, and how fast."""
    optim = recipe.optim
    if recipe.goal != "restore":
        student = nets.metric if recipe.goal == "metric" else nets.onestep
        return {"student": Learner(student, optim, recipe.steps)}
    critic = optim.model_copy(update={"lr": recipe.critic_lr, "muon": 0.0})
    rival = optim.model_copy(update={"lr": recipe.adversary_lr, "muon": 0.0, "beta": 0.5})
    return {
        "student": Learner(nets.onestep, optim, recipe.steps),
        "critic": Learner(nets.critic, critic, recipe.steps),
        "adversary": Learner(nets.adversary, rival, recipe.steps),
    }


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
