"""One training run on disk.

RUN/recipe.json   the resolved recipe
RUN/log.jsonl     one line of numbers every few steps
RUN/model.safetensors   the averaged weights, as good as they are so far
RUN/state.pt      everything needed to go on as if nothing had happened
"""

import json
import time
from pathlib import Path

import torch

from rcod.errors import RcodError
from rcod.training.recipe import Recipe

State = dict  # nested dicts, lists, numbers and tensors


class RunDir:
    """Reads and writes the folder of a run."""

    def __init__(self, folder: Path, recipe: Recipe, resume: bool) -> None:
        self.folder = folder
        self.recipe = recipe
        self.started = time.monotonic()
        if self.state.exists() and not resume:
            raise RcodError(f"{folder} already holds a run; pass --resume to continue it")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")

    @property
    def model(self) -> Path:
        """The run's result so far."""
        return self.folder / "model.safetensors"

    @property
    def state(self) -> Path:
        """The training state."""
        return self.folder / "state.pt"

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append a line to the log and print it."""
        row = {"step": step, "seconds": round(time.monotonic() - self.started, 1)}
        row |= {key: round(value, 5) for key, value in values.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print("  ".join(f"{key} {value:g}" for key, value in row.items()), flush=True)

    def save_state(self, state: State) -> None:
        """Write the training state; the old one stays whole until the new one is."""
        partial = self.state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state)

    def load_state(self) -> State | None:
        """The saved training state, or None in a fresh run. Loaded without running code."""
        if not self.state.exists():
            return None
        return torch.load(self.state, map_location="cpu", weights_only=True)
