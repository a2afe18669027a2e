"""How is a run of a published system made ready?

recipe, sources -> photos -> stream of pairs -.
                -> student, critic, judge ----+-> AdapterTask -> the loop
                -> texts, LPIPS --------------'
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rcod.device import DTYPES
from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.networks.checkpoint import write_tensors
from rcod.networks.systems import System
from rcod.pixels.aids import aid
from rcod.pixels.likeness import Lpips
from rcod.pixels.perceptual import LpipsHed
from rcod.training import published_losses as losses
from rcod.training.adversary import PatchDiscriminator
from rcod.training.captions import Texts, open_texts
from rcod.training.course import Precision
from rcod.training.learner import Learner
from rcod.training.photos import fingerprint, photos_in
from rcod.training.presets import settings_named
from rcod.training.projected import load_dino
from rcod.training.published_losses import Perceive, Roles
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.published_student import Student, open_student
from rcod.training.stream import Dice, Lot, Numbers, Samples, damage_all, lots
from rcod.training.task import LearnerLoss, Sources, TaskState, check_same, name_weights
from rcod.training.team import Team
from rcod.using.restore import Restorer

MEASURED = 256  # samples whose metric sets the groups, where the data do
TOLD = 32  # of them between two lines about it


class AdapterTask:
    """A published system's student, its data and its losses, for the loop."""

    def __init__(
        self, recipe: PublishedRecipe, roles: Roles, samples: Samples, texts: Texts, team: Team
    ) -> None:
        self.recipe, self.roles, self.samples, self.team = recipe, roles, samples, team
        self.texts = texts
        self.given = {  # to the run, by names that tell it from others
            "photos": fingerprint(samples.photos),
            "origin": roles.student.origin,
            "captions": texts.name,
            "frozen": name_weights(*_frozen(roles.student)),
        }
        self.groups = recipe.groups if recipe.group_by == "edges" else None  # not yet measured
        self.learners = learners_of(recipe, roles)
        self.images = recipe.batch
        self.done = 0  # samples that all processes have seen
        self.notes: list[str] = [self._split()] if team.splits else []
        self._lost: set[str] = set()  # photos that could not be used
        self._lots: Iterator[Lot] | None = None

    def begin(self, tell: Callable[[str], None]) -> bool:
        """Measure the groups, where the data set them; whether that was done."""
        if self.texts.note and not self.done:
            tell(self.texts.note)
        if self.groups is not None:
            return False
        with cast_to(self.recipe.precision, self.team.device):  # as the steps measure it
            self.groups = self.measure(tell)
        tell(f"groups: edges {', '.join(f'{edge:.4g}' for edge in self.groups.edges)}")
        return True

    def parts(self, n: int) -> Iterator[LearnerLoss]:
        """The losses of the next batch."""
        assert self.groups is not None, "`begin` measures them"
        lot = self._next()
        recipe, roles, student = self.recipe, self.roles, self.roles.student
        dice = Dice(recipe.seed, lot.numbers, self.team.device)
        if recipe.goal == "metric":
            with cast_to(recipe.precision, self.team.device):
                loss, values = losses.metric_loss(student, lot, recipe)
            yield LearnerLoss("student", loss, {"loss": loss} | values)
            return
        pixel = n < recipe.pixel_steps
        if pixel:  # the semantic adapter is silent
            student = replace(student, own=("pixel",))
        with cast_to(recipe.precision, self.team.device):
            heard = None if self.texts.hear is None else self.texts.hear(lot)
            captions = heard.towards if heard is not None and recipe.hears_captions else None
            shown = losses.restore(student, lot, recipe, self.groups, dice, captions)
            loss, values = losses.student_loss(roles, shown, heard, recipe, dice, pixel)
        values |= {"loss": loss.detach()} | self._shares(shown)
        yield LearnerLoss("pixel" if pixel else "student", loss, values)
        del loss
        if recipe.distill == "vsd" and heard is not None:
            with cast_to(recipe.precision, self.team.device):
                own = losses.critic_loss(student, shown, heard, dice)
            yield LearnerLoss("critic", own, {"critic": own})
        if roles.judge is not None and not pixel:
            with cast_to(recipe.precision, self.team.device):
                own = losses.discriminator_loss(roles, shown, dice)
            yield LearnerLoss("adversary", own, {"discriminator": own})

    def measure(self, tell: Callable[[str], None]) -> GroupSettings:
        """The groups by the metric of the first samples; each process measures its part."""
        recipe, team, student = self.recipe, self.team, self.roles.student
        found, lost = torch.zeros(MEASURED, device=team.device), list[str]()
        own = lots(self.samples, Numbers(0, 1, team.rank, team.size), recipe.workers)
        for i, lot in enumerate(islice(own, -(-MEASURED // team.size)), 1):
            lot, (number,) = self._here(lot), lot.numbers
            onestep, up = losses.tuned(student, lot), losses.up_of(lot, recipe)
            metric = losses.measure(student, onestep, up, lot.hr, recipe)
            if number < MEASURED:  # all make as many, since layers may be split between them
                found[number] = metric[0]
            lost += lot.lost
            if i % -(-TOLD // team.size) == 0:
                tell(f"measuring groups: {min(i * team.size, MEASURED)} of {MEASURED}")
        self._pass_over(lost)
        return losses.groups_of(team.mean([found])[0] * team.size, recipe)  # the sum of all parts

    def position(self) -> TaskState:
        """How many samples were seen, what names all that the run was given, and the groups."""
        return {
            **self.given,
            "done": self.done,
            "groups": None if self.groups is None else self.groups.model_dump(),
        }

    def seek(self, place: TaskState) -> None:
        """Go on from there; all that the run was given must be the same, as far as it is known."""
        check_same(self.given, place)
        self.done, self._lots = cast(int, place["done"]), None
        known = place["groups"]
        self.groups = None if known is None else GroupSettings.model_validate(known)

    def write(self, path: Path, recipe: str) -> None:
        """Write a file like a converted one."""
        student = self.roles.student
        write_tensors(path, self._row(), student.tensors(), recipe)

    def restorer(self) -> Restorer | None:
        """The student itself; its networks are not copied."""
        student = self.roles.student
        if self.recipe.goal == "metric":
            return None
        system = self._row()
        return Restorer(
            system, student.onestep, student.onestep.estimator if system.metric else None
        )

    def _row(self) -> System:
        system = self.roles.student.system
        if self.recipe.goal == "metric":  # whose dial stays as it is
            return system
        return system.model_copy(update={"groups": self.groups or self.recipe.groups})

    def _split(self) -> str:
        """Leave each process a part of what is frozen; says how much."""
        networks, learning = _frozen(self.roles.student)
        before, now = (size / 1e6 for size in self.team.split(networks, learning))
        return f"each process holds {now:.2f} MB of networks that take {before:.2f}"

    def _next(self) -> Lot:
        recipe, team = self.recipe, self.team
        if self._lots is None:
            numbers = Numbers(self.done, recipe.batch, team.rank, team.size)
            self._lots = lots(self.samples, numbers, recipe.workers)
            if recipe.overfit:
                self._lots = repeat(next(self._lots))
        lot = next(self._lots)
        self.done += 0 if recipe.overfit else recipe.batch * team.size
        self._pass_over(lot.lost)
        return self._here(lot)

    def _pass_over(self, lost: Sequence[str]) -> None:
        """Note photos that some process could not use, each once."""
        known = dict.fromkeys(self.team.collect(lost))
        self.notes += [f"passed over {words}" for words in known if words not in self._lost]
        self._lost.update(known)

    def _here(self, lot: Lot) -> Lot:
        device, recipe = self.team.device, self.recipe
        lot = lot._replace(hr=lot.hr.to(device), lr=lot.lr.to(device))
        if recipe.damage == "workers":
            return lot
        with losses.uncast(device):  # the same damage for measuring groups as for learning
            return damage_all(lot, settings_named(recipe.degradation), recipe.seed)

    def _shares(self, shown: losses.StudentOutput) -> dict[str, Tensor]:
        """Which part of the batch fell into which group, and by what metric."""
        if self.roles.student.system.timestep is not None or self.groups is None:
            return {}
        shares = {f"share/{t}": (shown.t == t).float() for t in self.groups.timesteps}
        return shares | {"metric": shown.metric}


def cast_to(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Compute in a precision whatever it suits."""
    half = precision != "float32"
    kind = DTYPES[precision] if half else torch.bfloat16
    # without a cache: a weight cast where nothing learns would serve where something does
    return torch.autocast(device.type, kind, enabled=half, cache_enabled=False)


def prepare(recipe: PublishedRecipe, sources: Sources, folder: Path, team: Team) -> AdapterTask:
    """Everything a run needs."""
    if recipe.precision == "float16" and team.device.type == "cpu":
        raise RcodError("processors can't train in float16; set precision=bfloat16 or float32")
    photos = photos_in(sources.photos, sources.cache or folder / "cache")
    settings = settings_named(recipe.degradation) if recipe.damage == "workers" else None
    perceive = perception(recipe, sources.aids, team.device)
    judge = load_discriminator(recipe, sources.aids, team.device)
    texts = open_texts(recipe, sources, photos, team.device)
    student = open_student(recipe, sources, team.device)
    samples = Samples(photos, recipe.window, settings, recipe.seed)
    return AdapterTask(recipe, Roles(student, perceive, judge, recipe.game), samples, texts, team)


def _frozen(student: Student) -> tuple[list[nn.Module], tuple[Tensor, ...]]:
    """The networks that a student stands on, and what of them learns."""
    body, tower = student.onestep.backbone, getattr(student.onestep.prompt, "tower", None)
    networks = [body.unets, body.vae, *([] if tower is None else [tower])]
    return networks, (*student.handles.values(), *student.critic)


def learners_of(recipe: PublishedRecipe, roles: Roles) -> dict[str, Learner]:
    """Who learns in a run, and how fast."""
    student, optim = roles.student, recipe.optim
    half = recipe.precision == "float16"
    starts = ("unet.", "vae.", "prompt.project.", "guide.")
    if recipe.goal == "metric":
        starts = ("estimator.head.",)
    if student.system.adapters == "pair":
        starts = ("unet.semantic.",)
    found = {"student": Learner(student.parameters(*starts), optim, recipe.steps, half)}
    if recipe.pixel_steps:
        pixel = student.parameters("unet.pixel.")
        found["pixel"] = Learner(pixel, optim, recipe.steps, half)
    if recipe.distill == "vsd" and recipe.goal == "restore":
        own = optim.model_copy(update={"lr": recipe.critic_lr, "muon": 0.0})
        found["critic"] = Learner(student.critic, own, recipe.steps, half)
    if roles.judge is not None:
        own = optim.model_copy(update={"lr": recipe.adversary_lr, "muon": 0.0})
        found["adversary"] = Learner(roles.judge, own, recipe.steps, half)
    return found


def perception(recipe: PublishedRecipe, aids: Path | None, device: torch.device) -> Perceive | None:
    """LPIPS, on the trunk asked for."""
    if not recipe.lpips or recipe.goal == "metric":
        return None
    if recipe.trunk == "hed":
        return LpipsHed.load(aids).to(device)
    try:
        return Lpips.load("vgg", aids).to(device)
    except RcodError as error:
        raise RcodError(
            f"LPIPS {error}; or set trunk=hed, whose weights tools/fetch_aids.py fetches"
        ) from None


def load_discriminator(
    recipe: PublishedRecipe, aids: Path | None, device: torch.device
) -> nn.Module | None:
    """The adversary, where it is asked for."""
    if not recipe.adversary or recipe.goal == "metric":
        return None
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        if recipe.judge == "patch":
            return PatchDiscriminator().to(device)
        folder = aid("dino", aids)
        return load_dino(folder if folder.is_dir() else None, device)
