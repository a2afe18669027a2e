"""One training run on disk.

RUN/recipe.json         the resolved recipe
RUN/log.jsonl           one line of numbers every few steps, and what happened in between
RUN/events.*            the same for TensorBoard
RUN/samples/            contact sheets of the photos that are watched
RUN/model.safetensors   the averaged weights, as good as they are so far
RUN/best.safetensors    the best of them, where photos are watched
RUN/state.pt            everything needed to go on as if nothing had happened

Every file is whole at every moment: it is written under another name, flushed, and renamed.
"""

import io
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from PIL import Image
from pydantic import ValidationError

from rcod.errors import RcodError, explain
from rcod.pickles import DAMAGE, unpickled
from rcod.pixels.placing import ensure_folder, placed, sweep
from rcod.training.course import Course, differences
from rcod.training.events import Events
from rcod.training.task import TaskState


class RunDir:
    """Reads and writes the folder of a run."""

    def __init__(self, folder: Path, recipe: Course, resume: bool, leads: bool = True) -> None:
        self.folder = folder
        self.recipe = recipe
        self.leads = leads  # whether this process writes
        self.started = time.monotonic()
        self.first = 0  # the step this process began with
        if self.state.exists() and not resume:
            raise RcodError(f"{folder} already holds a run; pass --resume to continue it")
        self._check_recipe()
        if leads:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RcodError(
                    f"--run must be a folder that can be made, got {folder}: {error.strerror}; "
                    "name another"
                ) from None
            sweep(folder)
            with placed(folder / "recipe.json") as file:
                file.write(f"{recipe.model_dump_json(indent=1)}\n".encode())
        self.events = Events(folder) if leads else None

    @property
    def model(self) -> Path:
        """The run's result so far."""
        return self.folder / "model.safetensors"

    @property
    def best(self) -> Path:
        """The best result so far."""
        return self.folder / "best.safetensors"

    @property
    def state(self) -> Path:
        """The training state."""
        return self.folder / "state.pt"

    def _check_recipe(self) -> None:
        """A run that was begun by another recipe can't be gone on with."""
        path = self.folder / "recipe.json"
        if not self.state.exists() or not path.exists():
            return
        try:
            begun = type(self.recipe).model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise RcodError(
                f"{path} must be a recipe of {self.recipe.name}'s kind to go on with, and is none: "
                f"{explain(error)}; name another folder with --run"
            ) from None
        if other := differences(begun, self.recipe):
            raise RcodError(
                f"{self.folder} was begun with another {', '.join(other[:3])}; leave the change "
                f"out, or begin a new run with --start {self.model}"
            )

    def log(self, step: int, values: Mapping[str, float], speed: float | None = None) -> None:
        """Append a line to the log, show it, and how long the rest will take."""
        row: dict[str, float] = {"step": step, "seconds": self.seconds()}
        row |= {key: round(value, 5) for key, value in values.items() if math.isfinite(value)}
        self._append(row)
        self._tell(lambda events: events.scalars(step, {k: row[k] for k in values if k in row}))
        done, left = step - self.first, self.recipe.steps - step
        shown = "  ".join(f"{key} {value:g}" for key, value in row.items())
        if speed is not None:
            shown += f"  {speed:.3g} images/s"
        if done > 0 and left > 0:
            shown += f"  {_span(self.seconds() / done * left)} left"
        self._say(shown)

    def note(self, step: int, words: str) -> None:
        """Write down, and say, what happened at a step."""
        self._append({"step": step, "seconds": self.seconds(), "note": words})
        self._say(f"step {step}: {words}")

    def seconds(self) -> float:
        """How long this process has been at it."""
        return round(time.monotonic() - self.started, 1)

    def show(self, step: int, sheet: Image.Image) -> Path:
        """Keep a contact sheet."""
        path = self.folder / "samples" / f"{step:07d}.png"
        ensure_folder(path.parent)
        content = io.BytesIO()
        sheet.save(content, "PNG")
        with placed(path) as file:
            file.write(content.getvalue())
        self._tell(lambda events: events.picture(step, "watched", content.getvalue(), sheet.size))
        return path

    def save_state(self, state: TaskState) -> None:
        """Write the training state; the old one stays whole until the new one is."""
        if not self.leads:
            return
        content = io.BytesIO()
        torch.save(state | {"recipe": self.recipe.model_dump_json()}, content)
        with placed(self.state) as file:
            file.write(content.getbuffer())

    def load_state(self) -> TaskState | None:
        """The saved training state, or None in a fresh run. Loaded without running code."""
        if not self.state.exists():
            return None
        try:
            return cast(TaskState, unpickled(self.state))
        except (*DAMAGE, UnpicklingError):
            raise RcodError(
                f"{self.state} must be a whole training state, and can't be read; begin another "
                f"run, perhaps with --start {self.model}"
            ) from None

    def begin(self, step: int) -> None:
        """Begin at a step: forget what the log says of later ones, which will come again."""
        self.first, log = step, self.folder / "log.jsonl"
        if not self.leads or not log.exists():
            return
        rows = log.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if _step(row) <= step]
        if len(kept) < len(rows):
            with placed(log) as file:
                file.write("".join(f"{row}\n" for row in kept).encode())

    def _append(self, row: Mapping[str, float | str]) -> None:
        if not self.leads:
            return
        try:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # a full disk; what was computed matters more than its log
            self._say(f"the log could not be written: {error.strerror}")

    def _tell(self, what: Callable[[Events], None]) -> None:
        if self.events is None:
            return
        try:
            what(self.events)
        except OSError:
            self.events = Events(self.folder)  # a broken record ends a file

    def _say(self, line: str) -> None:
        if self.leads:
            with suppress(OSError):  # a full disk; a run outlives whoever listens to it
                print(line, flush=True)


def _step(row: str) -> float:
    """The step of a line of the log; a broken last line belongs to none."""
    try:
        return json.loads(row)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf


def _span(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
