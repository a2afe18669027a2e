"""What does the loop need to know of what it trains?

A task gives the losses of a batch one after another, so that the first one's memory is free
before the second is computed; it knows who learns from which, how to write the model as it
stands, and where in its data and its dice it is.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from safetensors import safe_open
from torch import Tensor, nn

from rcod.errors import RcodError
from rcod.networks.checkpoint import RECIPE
from rcod.networks.systems import System
from rcod.training.learner import Learner
from rcod.using.restore import Restorer

TaskState = dict[str, object]  # nested dicts, lists, numbers and tensors
FEW = 64  # numbers of a tensor that tell it from another base's
OTHERS = {
    "photos": "--photos must be the photos that the run was begun with, unchanged, in the same "
    "order; begin a new run with --start to go on with others",
    "origin": "--start must be the file that the run was begun with, or left out if there was "
    "none; begin a new run with --run FOLDER to go on from another",
    "captions": "--captions must say of every photo what it said when the run was begun; begin a "
    "new run with --run FOLDER to go on with others",
    "frozen": "--base and --vision must be the networks that the run was begun with; begin a new "
    "run with --run FOLDER to train on others",
}  # what a run is told that is given something else to go on with


class Sources(NamedTuple):
    """Where everything lies that a run is given."""

    photos: Path | str  # a folder, a list, a shard
    start: Path | None = None  # the model to continue from
    cache: Path | None = None  # crops, pairs and indices, shared between runs
    aids: Path | None = None  # what tools/fetch_aids.py has fetched, and other trunks
    base: str | None = None  # frozen networks of a published system
    vision: str | None = None  # its image tower
    captions: Path | None = None  # texts of the photos
    watch: Path | str | None = None  # photos on which the model is looked at while it learns
    device: str = "auto"


def check_cosine(recipe: str, system: System) -> None:
    """Refuse to teach a metric estimator a system that is grouped by another metric."""
    if system.groups.by != "cosine":
        raise RcodError(
            f"{recipe} learns the cosine, and --start must be grouped by it, got groups by "
            f"{system.groups.by}"
        )


def check_encoder(ours: str, start: Path) -> None:
    """Refuse to estimate a metric that another encoder measures than the one of --start's groups.

    A file that no run of ours has made doesn't say which that was.
    """
    with safe_open(start, framework="pt") as file:
        told: dict[str, str] = json.loads((file.metadata() or {}).get(RECIPE, "{}"))
    theirs = told.get("group_encoder", ours)
    if theirs != ours:
        raise RcodError(
            f"group_encoder must be {theirs}, which measured for the groups of --start, got "
            f"{ours}; set group_encoder={theirs}"
        )


def name_weights(networks: Iterable[nn.Module], learning: Iterable[Tensor]) -> str:
    """A short name for what of networks is frozen, by the first numbers of each of its tensors."""
    apart, named = {id(tensor) for tensor in learning}, hashlib.sha256()
    for network in networks:
        for tensor in network.parameters():
            if id(tensor) not in apart:
                named.update(tensor.detach().flatten()[:FEW].float().cpu().numpy().tobytes())
    return named.hexdigest()[:16]


def check_same(given: Mapping[str, str], place: TaskState) -> None:
    """Refuse to go on with something else than a run was begun with; older states name less."""
    for what, name in given.items():
        if place.get(what, name) != name:
            raise RcodError(OTHERS[what])


def check_ranks(fresh: Mapping[str, Tensor], started: Mapping[str, Tensor]) -> None:
    """Refuse a start whose adapters have other ranks than the recipe says."""
    for name in fresh.keys() & started.keys():
        ours, theirs = len(fresh[name]), len(started[name])
        if name.endswith(".down") and ours != theirs:
            part = name.partition(".")[0]
            raise RcodError(
                f"{part}_rank must be {theirs}, as the adapters of --start have it, got {ours}; "
                f"set {part}_rank={theirs}"
            )


class LearnerLoss(NamedTuple):
    """One learner's loss on a batch, and what to write into the log."""

    learner: str
    loss: Tensor  # a scalar
    values: dict[str, Tensor]  # of any shape; their means are logged


class Task(Protocol):
    """What is trained."""

    images: int  # seen in one call of `parts`
    notes: list[str]  # what happened since the loop last looked; it takes them away

    @property
    def learners(self) -> Mapping[str, Learner]:
        """Who learns, by name."""
        ...

    def begin(self, tell: Callable[[str], None]) -> bool:
        """Find out what the data decide, before the first step; whether that took anything."""
        ...

    def parts(self, n: int) -> Iterable[LearnerLoss]:
        """The losses of the next batch, at step `n`; each is used up before the next is asked."""
        ...

    def position(self) -> TaskState:
        """Where the task is in its data and its dice."""
        ...

    def seek(self, place: TaskState) -> None:
        """Go on from there."""
        ...

    def write(self, path: Path, recipe: str) -> None:
        """Write the model with its present weights, which may be their average."""
        ...

    def restorer(self) -> Restorer | None:
        """The model with its present weights, ready for photos, where it is one."""
        ...
