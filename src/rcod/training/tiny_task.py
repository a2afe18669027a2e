"""How is a run of the tiny model made ready?

    recipe, sources -> crops, pairs, guides -.
                    -> networks -------------+-> TinyTask -> the loop
                    -> who learns, how fast -'

The autoencoder alone needs no loop: it is fitted in closed form.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

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
from rcod.pixels.aids import digest
from rcod.pixels.perceptual import LpipsHed
from rcod.pixels.placing import sweep
from rcod.training.adversary import PatchDiscriminator
from rcod.training.data import Batch, Pairs, build_crops, build_pairs
from rcod.training.gating import open_end, settle
from rcod.training.growing import grow
from rcod.training.learner import Learner
from rcod.training.photos import photos_in
from rcod.training.real_esrgan import Elder, build_guides, chosen
from rcod.training.recipe import Recipe
from rcod.training.rundir import RunDir
from rcod.training.task import LearnerLoss, Sources, TaskState, check_cosine
from rcod.training.tiny_losses import Networks, cost
from rcod.using.restore import Restorer

FITTED = 1024  # crops that the autoencoder is fitted to


class TinyTask:
    """The tiny model, its data and its losses, for the loop."""

    def __init__(
        self,
        recipe: Recipe,
        system: System,
        nets: Networks,
        data: Pairs,
        origin: Sequence[str] = (),
    ) -> None:
        self.recipe, self.system, self.nets, self.data = recipe, system, nets, data
        self.origin = list(origin)  # what tells these photos and this beginning from others
        self.learners = learners_of(nets, recipe)
        self.images, self.notes = recipe.batch, list[str]()
        self.rng = seeded(recipe.seed)
        self._batches = data.batches(recipe.batch, recipe.window, self.rng)

    def begin(self, tell: Callable[[str], None]) -> bool:
        """Nothing is left to find out."""
        return False

    def parts(self, n: int) -> Iterator[LearnerLoss]:
        """The losses of the next batch."""
        paid, values = cost(self.nets, next(self._batches), self.recipe, n, self.rng)
        logged: dict[str, Tensor] = {"loss": paid["student"].detach()}
        logged |= {key: torch.tensor(value) for key, value in values.items()}
        for name, loss in paid.items():
            yield LearnerLoss(name, loss, logged if name == "student" else {})

    def position(self) -> TaskState:
        """The state of the dice, which choose the data too, and what they choose from."""
        return {"rng": self.rng.get_state(), "origin": self.origin}

    def seek(self, place: TaskState) -> None:
        """Go on from there."""
        if place.get("origin", self.origin) != self.origin:
            raise RcodError(
                "a run goes on with the photos and the --start that it began with, and these are "
                "others; give those, or begin another run with --run FOLDER"
            )
        self.rng.set_state(cast(Tensor, place["rng"]))

    def write(self, path: Path, recipe: str) -> None:
        """Write the model, adapters merged."""
        onestep, metric = self._merged()
        checkpoint.save(path, self.system, onestep, metric, torch.float32, recipe)

    def restorer(self) -> Restorer:
        """The model, ready for photos."""
        onestep, metric = self._merged()
        return Restorer(self.system, onestep.eval(), copy.deepcopy(metric).eval())

    def _merged(self) -> tuple[OneStep, MetricEstimator]:
        onestep = copy.deepcopy(self.nets.onestep)
        merge(onestep)
        settle(onestep.backbone.unet)
        return onestep, self.nets.metric


def check_sources(recipe: Recipe, sources: Sources) -> None:
    """Refuse what published systems alone stand on, hear, or compute with."""
    if sources.device not in ("auto", "cpu"):
        raise RcodError(
            f"{recipe.name} trains on the processor, got --device {sources.device}; leave it out"
        )
    for option, given in (
        ("--base", sources.base),
        ("--vision", sources.vision),
        ("--captions", sources.captions),
    ):
        if given is not None:
            raise RcodError(
                f"{option} is of published systems, and {recipe.name} trains the project's own "
                f"model, got {given}; leave it out"
            )


def prepare(recipe: Recipe, sources: Sources, folder: Path) -> TinyTask:
    """Everything a run needs, its crops and pairs built where they aren't there yet."""
    cache, notes = sources.cache or folder / "cache", list[str]()
    photos = photos_in(sources.photos, cache)
    sweep(cache)
    system, nets = networks(recipe, sources.start, sources.aids)
    clean = recipe.goal in ("autoencoder", "prior")
    guided = recipe.guides and not recipe.own_guide and not clean
    load = functools.cache(lambda: Elder.load(sources.aids))
    if guided and not any(cache.glob("guides-*.npy")):
        load()  # what it lacks is missed before the long work
    crops = build_crops(photos, cache, recipe.data, tell=notes.append)
    pairs = None if clean else build_pairs(crops, recipe.data)
    if recipe.goal == "metric":  # the dial is the model's own
        recipe = recipe.model_copy(update={"groups": system.groups})
    data = Pairs(crops, pairs)
    if pairs is not None and guided:
        guides = build_guides(pairs, data.chance, recipe.guides, load)
        data.add_guides(guides, chosen(data.chance, recipe.guides))
    if recipe.goal == "restore" and recipe.formula == "residual" and lacks_gain(nets.onestep):
        fit_gain(nets.onestep, first(data, 512, recipe))
        nets.start.gain.copy_(nets.onestep.gain)
    for network in (nets.onestep, nets.start):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    origin = [path.name for path in (crops, pairs) if path is not None]
    origin += [] if sources.start is None else [digest(sources.start)]
    task = TinyTask(recipe, system, nets, data, origin)
    task.notes += [f"passed over {words}" for words in notes]
    return task


def fit(recipe: Recipe, sources: Sources, rundir: RunDir) -> Path:
    """The autoencoder's whole run."""
    task = prepare(recipe, sources, rundir.folder)
    for words in task.notes:
        rundir.note(0, words)
    crops = first(task.data, FITTED, recipe).hr
    rundir.log(0, {"psnr": fit_autoencoder(task.nets.onestep, crops)})
    task.write(rundir.model, recipe.model_dump_json())
    return rundir.model


def first(data: Pairs, batch: int, recipe: Recipe) -> Batch:
    """A batch to measure something with, which takes nothing from the run's dice."""
    return next(data.batches(batch, recipe.window, seeded(recipe.seed)))


def networks(recipe: Recipe, start: Path | None, aids: Path | None) -> tuple[System, Networks]:
    """The networks of a run, from a model file or fresh."""
    torch.manual_seed(recipe.seed)
    system, onestep, metric = begun(recipe, start)
    look = LpipsHed.load(aids) if recipe.goal == "restore" else None
    return system, enlist(recipe, onestep, metric, look)


def begun(recipe: Recipe, start: Path | None) -> tuple[System, OneStep, MetricEstimator]:
    """The model that a run begins with."""
    if start is not None:
        system, onestep, metric = checkpoint.load(start)
        if recipe.goal != "metric":  # which leaves the step and its dial as they are
            system = system.model_copy(update={"groups": recipe.groups, "formula": recipe.formula})
            onestep.formula = recipe.formula
    elif recipe.goal == "autoencoder":
        return blank(recipe)
    else:
        raise RcodError(f"{recipe.name} continues from a model; name it with --start FILE")
    if not isinstance(metric, MetricEstimator):
        raise RcodError(f"{recipe.name} trains the project's own model, got {system.name}")
    if recipe.goal == "metric":
        check_cosine(recipe.name, system)
    return *grow(system, onestep, recipe.model), metric


def blank(recipe: Recipe) -> tuple[System, OneStep, MetricEstimator]:
    """A recipe's model that nothing was taught."""
    base = SYSTEMS["tiny"].model_dump() | {
        "model": recipe.model,
        "groups": recipe.groups,
        "formula": recipe.formula,
    }
    system = System.model_validate(base)
    return system, *build(system)


def enlist(
    recipe: Recipe, onestep: OneStep, metric: MetricEstimator, look: LpipsHed | None
) -> Networks:
    """All who take part in a run, from the model as it is."""
    start = copy.deepcopy(onestep).requires_grad_(False)
    critic = copy.deepcopy(onestep.backbone.unet)
    if recipe.goal == "restore":
        attach(critic, recipe.critic_rank, seeded(recipe.seed))
        onestep.prompt.tower.requires_grad_(False)  # only VPIM's Linear learns on
        if recipe.end:
            onestep.requires_grad_(False)
            open_end(onestep.backbone.unet, recipe.end)
        elif recipe.rank:
            attach(onestep.backbone.unet, recipe.rank, seeded(recipe.seed))
    return Networks(onestep, metric, start, critic, PatchDiscriminator(), look)


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


@torch.no_grad()
def fit_autoencoder(onestep: OneStep, crops: Tensor) -> float:
    """Set the linear autoencoder in closed form; returns its reconstruction PSNR in dB."""
    backbone = onestep.backbone
    basis, mean, std = fit_basis(crops, backbone.settings.latent, backbone.turn)
    backbone.basis.copy_(basis)
    backbone.mean.copy_(mean)
    backbone.std.copy_(std)
    error = backbone.decode(backbone.encode(crops)) - crops
    return float(-10 * error.square().mean().log10())


def lacks_gain(onestep: OneStep) -> bool:
    """Whether no run has fitted the gain yet; one that was fitted stays, or answers would move."""
    return bool((onestep.gain == 1).all())


@torch.no_grad()
def fit_gain(onestep: OneStep, batch: Batch) -> None:
    """Set how far each latent channel moves when the UNet finds unit noise there.

    Coarse channels of z_up are nearly right and fine ones are missing. With the gain, a
    residual of the usual size is noise of size one in all of them, as the prior is used to.
    """
    encode = onestep.backbone.encode
    missing = encode(enlarge(batch.lr)) - encode(batch.hr)  # (B, C, h, w)
    onestep.gain.copy_(missing.square().mean(dim=(0, 2, 3)).sqrt())
