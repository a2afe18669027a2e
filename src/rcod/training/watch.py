"""How does the model look while it learns?

A few photos that it is not trained on are damaged once and for all, and restored every so
often at every level: one contact sheet, and the mean of every measure at every level. The best
model by one of them is kept.

    photos -> pairs (fixed) -> Restorer at every level -> sheet, scores -> best so far?
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.dial import Dial
from rcod.errors import RcodError
from rcod.pixels.aids import aid
from rcod.pixels.metrics import psnr_y, ssim_y
from rcod.pixels.perceptual import HED, LpipsHed
from rcod.training.course import Course
from rcod.training.photos import photos_in
from rcod.training.presets import SETTINGS, settings_named
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.recipe import Recipe
from rcod.training.stream import Samples
from rcod.training.task import Sources
from rcod.using.restore import Restorer
from rcod.using.sheet import draw_rows

MOST = 8  # photos on a sheet
HIGHER = ("psnr", "ssim")  # is better; of the others lower is
LEVELS: tuple[Dial, ...] = ("fidelity", "neutral", "realism")


class Look(NamedTuple):
    """One look at the model."""

    scores: dict[str, float]  # as in neutral/psnr
    sheet: Image.Image


def measure_of(best: str) -> str:
    """The measure of a best such as neutral/psnr, without its level."""
    return best.rpartition("/")[2]


class Watch:
    """The watched photos, and the best score so far."""

    def __init__(
        self,
        pairs: Sequence[tuple[Tensor, Tensor]],
        by: str,
        far: LpipsHed | None,
        lost: Sequence[str] = (),
    ) -> None:
        self.pairs = pairs  # hr (3, S, S), lr (3, S/4, S/4), in [0, 1]
        self.lost = lost  # what is wrong with the photos that could not be watched
        self.by = by
        self.far = far
        self.best = math.inf  # lower is better; others stand here with their sign turned

    @classmethod
    def open(cls, sources: Sources, recipe: Course) -> "Watch | None":
        """The photos to watch, if the run was given some."""
        if sources.watch is None:
            if recipe.best != Course.model_fields["best"].default:
                raise RcodError(
                    f"best={recipe.best} is of photos that are watched; name them with --watch, or "
                    "leave it out"
                )
            return None
        side, damage = recipe.window, SETTINGS["osediff"]
        if isinstance(recipe, PublishedRecipe):
            damage = settings_named(recipe.degradation)
        elif isinstance(recipe, Recipe):
            side, mix = recipe.data.crop, recipe.data.mix
            damage = recipe.data.damage(max(mix, key=lambda name: mix[name]))
        photos = photos_in(sources.watch, sources.cache)[:MOST]
        samples = Samples(photos, side, damage, seed=0)
        try:
            found = [samples[number] for number in range(len(photos))]
        except RcodError as error:  # not even another in the place of one that is unfit
            raise RcodError(f"--watch must hold a photo that is fit, got none: {error}") from None
        made = [one for one in found if not one.lost]
        lost = list(dict.fromkeys(words for one in found for words in one.lost))
        file = aid(HED, sources.aids)
        far = LpipsHed.load(sources.aids) if file.is_file() else None
        if measure_of(recipe.best) == "lpips-hed" and far is None:
            raise RcodError(f"best={recipe.best} needs {file}; fetch it with tools/fetch_aids.py "
                            "and name its folder with --aids, or set best=psnr")  # fmt: skip
        pairs = [(one.hr.float() / 255, one.lr.float() / 255) for one in made]
        return cls(pairs, recipe.best, far, lost)

    @property
    def measure(self) -> str:
        """The measure of the best, without its level."""
        return measure_of(self.by)

    @torch.no_grad()
    def look(self, restorer: Restorer) -> Look:
        """Restore every photo at every level."""
        levels = LEVELS if restorer.system.timestep is None else ("auto",)
        device = restorer.onestep.alphas.device
        sums: dict[str, list[float]] = {}
        rows: list[list[Tensor]] = []
        for hr, lr in self.pairs:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                results = restorer.levels(lr, list(levels), color=restorer.system.color)
            pictures = [result.photo.pixels for result in results]
            for level, sr in zip(levels, pictures, strict=True):
                for key, value in self._score(sr[None], hr[None]).items():
                    name = key if len(levels) == 1 else f"{level}/{key}"
                    sums.setdefault(name, []).append(value)
            up = F.interpolate(lr[None], hr.shape[-2:], mode="bicubic")[0].clamp(0, 1)
            rows.append([up, *pictures, hr])
        titles = ["input", *map(str, levels), "truth"]
        return Look({k: float(np.mean(v)) for k, v in sums.items()}, draw_rows(rows, titles))

    def is_best(self, scores: dict[str, float]) -> bool:
        """Whether these scores are better than those that were kept."""
        return self._value(scores) < self.best

    def keep(self, scores: dict[str, float]) -> None:
        """Let these scores be the best so far; their model is on the disk."""
        self.best = self._value(scores)

    def _value(self, scores: dict[str, float]) -> float:
        of = [v for k, v in scores.items() if k == self.by or k.rpartition("/")[2] == self.by]
        return sum(of) / len(of) * (-1 if self.measure in HIGHER else 1)

    def _score(self, sr: Tensor, hr: Tensor) -> dict[str, float]:
        scores = {"psnr": float(psnr_y(sr, hr)), "ssim": float(ssim_y(sr, hr))}
        if self.far is not None:
            scores["lpips-hed"] = float(self.far(sr, hr))
        return scores
