"""The loop: batch -> losses -> updates, and never a run lost.

`run` makes a recipe's task ready and repeats `step`. State and model are written every so
often and when the process is asked to end; a step whose numbers aren't finite moves nothing,
and after several in a row the run goes back to its last state and learns more slowly.

    step -> finite? -> n + 1 -> log, look, save -> step
              '-- again and again -> back to the last state, at a lower rate
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import torch

from rcod.errors import RcodError
from rcod.training import published_task, tiny_task
from rcod.training.course import Course
from rcod.training.interrupts import asked_to_end, enough_memory
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.recipe import Recipe
from rcod.training.rundir import RunDir
from rcod.training.task import Sources, Task, TaskState
from rcod.training.team import Team, gather
from rcod.training.watch import Watch

SLOWER = "steps in a row that weren't finite: {misses}; back to step {to}, {slow:g} times as fast"
KEPT = "steps in a row that weren't finite: {misses}; state and model stay those of step {to}"
TRY = "state and model could not be written ({error}); those of step {last} are whole"


class RunOutcome(NamedTuple):
    """How a run ended."""

    model: Path
    step: int
    stopped: int | None  # by which signal


def run(recipe: Course, sources: Sources, folder: Path, resume: bool = False) -> RunOutcome:
    """Train a recipe.

    Args:
        recipe: what to compute (see `catalog.RECIPES`).
        sources: where everything lies that it needs.
        folder: the run's folder.
        resume: go on from the run's own state.
    """
    if isinstance(recipe, Recipe):
        tiny_task.check_sources(recipe, sources)
    team = gather(sources.device)
    rundir = RunDir(folder, recipe, resume, team.leads)
    if isinstance(recipe, Recipe) and recipe.goal == "autoencoder":
        return RunOutcome(tiny_task.fit(recipe, sources, rundir), 1, None)
    watch = Watch.open(sources, recipe) if team.leads or team.splits else None
    task = prepare(recipe, sources, folder, team)
    return Loop(task, recipe, team, rundir, watch).go()


def prepare(recipe: Course, sources: Sources, folder: Path, team: Team) -> Task:
    """The task of a recipe."""
    if isinstance(recipe, PublishedRecipe):
        return published_task.prepare(recipe, sources, folder, team)
    assert isinstance(recipe, Recipe)
    if team.size > 1:
        raise RcodError(f"{recipe.name} runs in one process; start it without accelerate launch")
    return tiny_task.prepare(recipe, sources, folder)


def step(task: Task, recipe: Course, n: int, team: Team) -> dict[str, float]:
    """One step: losses of every batch it takes, then every learner's update; returns numbers.

    `norm` is the first learner's gradient. Where any learner's isn't finite nobody moves, and
    `norm` is NaN, but for a scale that float16 tries: then it is 0.
    """
    sums: dict[str, torch.Tensor] = {}
    learning: dict[str, None] = {}
    for _ in range(recipe.accumulate):
        for part in task.parts(n):
            learning[part.learner] = None
            task.learners[part.learner].add(part.loss, 1 / recipe.accumulate)
            for key, value in part.values.items():
                mean = value.detach().float().mean() / recipe.accumulate
                sums[key] = sums[key] + mean if key in sums else mean
    learners = [task.learners[name] for name in learning]
    norms = [learner.weigh(team) for learner in learners]
    norm = norms[0]
    if all(map(math.isfinite, norms)):
        for learner in learners:
            learner.move(n)
    else:
        failed = [one.refuse(found) for one, found in zip(learners, norms, strict=True)]
        norm = math.nan if any(failed) else 0.0
    means = team.mean([torch.stack(list(sums.values()))])[0].tolist() if sums else []
    return dict(zip(sums, means, strict=True)) | {"norm": norm}


class Loop:
    """A run while it runs."""

    def __init__(
        self, task: Task, recipe: Course, team: Team, rundir: RunDir, watch: Watch | None
    ) -> None:
        self.task, self.recipe, self.team = task, recipe, team
        self.rundir, self.watch = rundir, watch
        self.n = 0  # steps done
        self.saved = 0  # the step of the state on disk
        self.skipped, self.misses, self.retreats = 0, 0, 0  # bad steps: all, in a row, given way to
        self.best = math.inf, recipe.best  # the best score so far, and by what it was measured
        self.sums: dict[str, list[float]] = {}  # since the last line of the log
        self.since = time.monotonic()

    def go(self) -> RunOutcome:
        """Repeat `step` until all is done or somebody asks to end."""
        self._begin()
        with asked_to_end() as asked, enough_memory(lambda: self.saved):
            while self.n < self.recipe.steps:
                self._once()
                stop = self.team.any(asked() is not None) if self.team.size > 1 else bool(asked())
                if stop:
                    self._save(must=True)
                    return RunOutcome(self.rundir.model, self.saved, asked() or signal.SIGTERM)
        self._save(must=True)
        return RunOutcome(self.rundir.model, self.n, None)

    def _begin(self) -> None:
        state = self.rundir.load_state()
        self.team.wait()  # nobody writes before everybody has looked
        if state is None:
            self._save(must=True)  # so that there is always something to go back to
        else:
            self.task.seek(cast(TaskState, state["place"]))
            self.n = self._restore(state)
            counts = cast(list[int], state["counts"])
            self.skipped, self.misses, self.retreats = counts
            self.best = cast(float, state["best"]), _measure(state)
            if self.watch is not None and self.watch.by == self.best[1]:
                self.watch.best = self.best[0]
        self.saved = self.n
        self.rundir.begin(self.n)
        for words in () if self.watch is None else self.watch.lost:
            self.rundir.note(self.n, f"passed over of --watch: {words}")
        with enough_memory(lambda: self.saved):
            if self.task.begin(lambda words: self.rundir.note(self.n, words)):
                self._save(must=True)
        self.since = time.monotonic()

    def _once(self) -> None:
        """One step and what it calls for."""
        values = step(self.task, self.recipe, self.n, self.team)
        self.n += 1
        while self.task.notes:
            self.rundir.note(self.n, self.task.notes.pop(0))
        for key, value in values.items():
            self.sums.setdefault(key, []).append(value)
        last = self.n == self.recipe.steps
        if math.isnan(values["norm"]):
            self.skipped, self.misses = self.skipped + 1, self.misses + 1
            if last or self.misses >= self.recipe.patience:
                self._retreat()
                return
        else:
            self.misses = 0
        if self.n % self.recipe.log_every == 0 or last:
            self._log()
        aside = time.monotonic()
        if self.watch is not None and (self.n % self.recipe.watch_every == 0 or last):
            self._look()
        if self.n % self.recipe.save_every == 0 and not last:
            self._save()
        self.since += time.monotonic() - aside  # which no step has taken

    def _log(self) -> None:
        means: dict[str, float] = {}
        for key, values in self.sums.items():
            finite = [value for value in values if math.isfinite(value)]
            means[key] = sum(finite) / len(finite) if finite else math.nan
        done = len(self.sums["norm"])
        now = time.monotonic()
        speed = done * self.task.images * self.recipe.accumulate * self.team.size
        means["skipped"] = self.skipped
        self.rundir.log(self.n, means, speed / max(now - self.since, 1e-9))
        self.sums, self.since = {}, now

    def _look(self) -> None:
        """Restore the watched photos with the averaged weights; keep the best model."""
        assert self.watch is not None
        with self._averaged():
            restorer = self.task.restorer()
            if restorer is None:
                return
            seen = self.watch.look(restorer)
            self.rundir.log(self.n, seen.scores)
            if not self.rundir.leads:  # it looks along, since its parts of the layers are needed
                return
            try:
                if self.watch.is_best(seen.scores):
                    self.task.write(self.rundir.best, self.rundir.recipe.model_dump_json())
                    self.watch.keep(seen.scores)
                    self.rundir.note(self.n, f"best {self.recipe.best} so far")
                self.rundir.show(self.n, seen.sheet)
            except RcodError as error:  # a full disk
                self.rundir.note(self.n, f"{error}; going on")

    def _retreat(self) -> None:
        """Go back to the last good state, with a lower rate; data and dice go on."""
        if self.retreats >= self.recipe.retreats:
            raise RcodError(
                f"the numbers are still not finite after {self.retreats} retreats; the state of "
                f"step {self.saved} is whole; look for bad pictures with rcod data check, or begin "
                "with a lower optim.lr or precision=float32"
            )
        state = self.rundir.load_state()
        assert state is not None
        gone, misses = self.n, self.misses
        self.n = self._restore(state)
        self.retreats, self.misses, self.sums = self.retreats + 1, 0, {}
        slow = self.recipe.retreat**self.retreats
        for learner in self.task.learners.values():
            learner.slow = slow
        self.rundir.note(gone, SLOWER.format(misses=misses, to=self.n, slow=slow))
        self._save()
        self.since = time.monotonic()  # as the sums begin anew

    def _restore(self, state: TaskState) -> int:
        for name, learner in self.task.learners.items():
            learner.restore(cast(dict[str, object], state[name]))
        return cast(int, state["step"])

    def _save(self, must: bool = False) -> None:
        """Write model and state; when the disk is full the old ones stay, and the run goes on.

        They stay after bad steps, too: weights that make no numbers may be the cause.
        """
        if self.misses:
            self.rundir.note(self.n, KEPT.format(misses=self.misses, to=self.saved))
            return
        learners = {name: learner.state() for name, learner in self.task.learners.items()}
        if self.watch is not None and self.watch.best < math.inf:
            self.best = self.watch.best, self.watch.by
        counts = [self.skipped, self.misses, self.retreats]
        own: TaskState = {"step": self.n, "place": self.task.position(), "counts": counts}
        own |= {"best": self.best[0], "measure": self.best[1]}
        try:
            if self.rundir.leads:
                with self._averaged():
                    self.task.write(self.rundir.model, self.rundir.recipe.model_dump_json())
                self.rundir.save_state(own | learners)
        except RcodError as error:
            words = TRY.format(error=error, last=self.saved)
            if must:
                raise RcodError(words) from None
            self.rundir.note(self.n, f"{words}; going on")
        else:
            self.saved = self.n
        self.team.wait()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Everybody with their averaged weights, for a while."""
        for learner in self.task.learners.values():
            learner.swap()
        try:
            yield
        finally:
            for learner in self.task.learners.values():
                learner.swap()


def _measure(state: TaskState) -> str:
    """By what a state's best score was measured; older ones leave it to their recipe."""
    if "measure" in state:
        return cast(str, state["measure"])
    return json.loads(cast(str, state["recipe"]))["best"]
