"""How good are the pictures, and does the dial do what it promises?

Every level of a model is scored against the true picture and beside plain bicubic;
then the dial is held to its promises: turning it towards realism spends PSNR, buys
detail, and moves the picture without jumps.

    lr -> bicubic ------------------------.
    lr -> Restorer at each level -> sr ----+-> Score -> means -> Report
    hr ------------------------------------'     '----> Dial <- Sweep (ten steps)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Self

import torch
from pydantic import BaseModel
from torch import Tensor

from rcod.errors import RcodError
from rcod.images import find, read
from rcod.metrics import METRICS, LpipsHed, Niqe, aid, eight_bit
from rcod.onestep import enlarge
from rcod.restore import Level, Restorer, Result

SCALE = 4.0  # LR to HR in every benchmark here
BICUBIC = "bicubic"
DIAL = ("fidelity", "neutral", "realism")  # from keeping to inventing
LEVELS: tuple[Level, ...] = ("fidelity", "neutral", "realism", "auto")
ROLE = re.compile(r"_(LR|HR|SR)\d*$|_x\d$", re.IGNORECASE)  # what follows a picture's name

Seen = Callable[[str, str, Tensor], None]  # picture, level, sr (3, H, W) in [0, 1]


class Score(BaseModel, frozen=True):
    """One result judged."""

    picture: str
    level: str  # bicubic, a level of the dial, auto, or a folder's name
    values: dict[str, float]  # psnr, ssim, detail, and lpips_hed, niqe where they could be had
    color_shift: float | None = None  # mean over R, G, B of |mean(sr) - mean(bicubic)|, 1/255
    timestep: int | None = None
    estimate: float | None = None  # the latent metric the model guessed from the input


class Sweep(BaseModel, frozen=True):
    """One picture at evenly spaced positions of the dial."""

    steps: tuple[float, ...]  # mean absolute difference of neighbours, 1/255
    way: float  # mean absolute difference of the two ends, 1/255

    @property
    def largest(self) -> float:
        """The largest step as a share of the whole way; 1 when the dial moves nothing."""
        return max(self.steps) / self.way if self.way else 1.0


class Dial(BaseModel, frozen=True):
    """What the dial did, counted over the pictures."""

    pictures: int
    psnr_falls: int  # pictures with PSNR(fidelity) > PSNR(neutral) > PSNR(realism)
    psnr_falls_in_mean: bool
    detail_rises: int  # pictures with detail(fidelity) < detail(neutral) < detail(realism)
    detail_rises_in_mean: bool
    detail_gains: int  # pictures with detail(fidelity) < detail(realism)
    travel: float  # mean |realism - fidelity|, 1/255
    largest_step: float | None  # worst of the sweeps, as a share of the whole way


class Report(BaseModel, frozen=True):
    """A model on a benchmark."""

    scores: tuple[Score, ...]
    means: dict[str, dict[str, float]]  # level -> measure -> mean over the pictures
    lpips_ratio: dict[str, float]  # level -> mean lpips_hed over bicubic's
    psnr_gap: float  # fidelity's mean PSNR minus bicubic's, dB
    dial: Dial
    sweeps: dict[str, Sweep]  # picture -> its sweep


@dataclass(frozen=True)
class Judge:
    """Everything that can score a picture; the measures with weights may be missing."""

    lpips: LpipsHed | None = None
    niqe: Niqe | None = None

    @classmethod
    def load(cls, where: Path | None = None, dtype: torch.dtype = torch.float32) -> Self:
        """Load `lpips-hed`, and NIQE where its file lies beside it.

        Args:
            where: folder of the aids; default the one RCOD_AIDS names.
            dtype: what the trunk computes in; bfloat16 takes half the time, 0.3 % off.
        """
        lpips = LpipsHed.load(where).to(dtype)
        niqe = Niqe.load(where) if aid(Niqe.FILE, where).is_file() else None
        return cls(lpips, niqe)

    @torch.inference_mode()
    def values(self, results: Sequence[Tensor], hr: Tensor) -> list[dict[str, float]]:
        """Measure several results (3, H, W) of one true picture (3, H, W)."""
        layout = torch.channels_last  # the faster one for the trunk
        truth = eight_bit(hr)[None].contiguous(memory_format=layout)  # (1, 3, H, W)
        taps = self.lpips.trunk.features(truth) if self.lpips else []
        found: list[dict[str, float]] = []
        for result in results:
            sr = eight_bit(result)[None].contiguous(memory_format=layout)  # (1, 3, H, W)
            if sr.shape != truth.shape:
                raise RcodError(
                    f"a result must be as large as its true picture, {_size(hr)}, "
                    f"got {_size(result)}; compare pictures of the same benchmark"
                )
            values = {name: float(measure(sr, truth)) for name, measure in METRICS.items()}
            if self.lpips:
                values["lpips_hed"] = float(self.lpips.between(self.lpips.trunk.features(sr), taps))
            if self.niqe:
                values["niqe"] = float(self.niqe(sr))
            found.append(values)
        return found


def evaluate(
    restorer: Restorer,
    pairs: Sequence[tuple[Path, Path]],
    judge: Judge,
    sweeps: int = 3,
    seen: Seen = lambda *_: None,
) -> Report:
    """Run bicubic and every level over a benchmark.

    Args:
        restorer: the model.
        pairs: (lr, hr) files, HR four times as large; see `match`.
        judge: what scores.
        sweeps: on how many pictures, evenly spread, the dial is moved in ten steps.
        seen: called with each picture, level and result as they come.

    Returns:
        Scores, means, and what the dial did.
    """
    scores: list[Score] = []
    travels: list[float] = []
    swept: dict[str, Sweep] = {}
    chosen = {i * len(pairs) // sweeps for i in range(sweeps)}
    for i, (lr_path, hr_path) in enumerate(pairs):
        picture, lr = stem(lr_path), read(lr_path).pixels
        answers = restorer.levels(lr, LEVELS, scale=SCALE)
        results: dict[str, Result] = dict(zip(LEVELS, answers, strict=True))
        images = {BICUBIC: bicubic(lr)} | {k: v.photo.pixels for k, v in results.items()}
        values = judge.values(list(images.values()), read(hr_path).pixels)
        for (level, image), found in zip(images.items(), values, strict=True):
            result = results.get(level)
            score = Score(
                picture=picture,
                level=level,
                values=found,
                color_shift=_color_shift(image, images[BICUBIC]),
                timestep=result.timestep if result else None,
                estimate=result.metric if result else None,
            )
            scores.append(score)
            seen(picture, level, image)
        travels.append(_difference(images["realism"], images["fidelity"]))
        if i in chosen:
            swept[picture] = sweep(restorer, lr)
    return report(scores, travels, swept)


def sweep(restorer: Restorer, lr: Tensor, steps: int = 10) -> Sweep:
    """Move the dial from fidelity to realism in even steps on one image (3, h, w)."""
    positions = [i / steps for i in range(steps + 1)]
    images = [result.photo.pixels for result in restorer.levels(lr, positions, scale=SCALE)]
    moves = tuple(_difference(after, before) for before, after in pairwise(images))
    return Sweep(steps=moves, way=_difference(images[-1], images[0]))


def report(
    scores: Sequence[Score], travels: Sequence[float], sweeps: Mapping[str, Sweep]
) -> Report:
    """Sum up the scores of bicubic and every level.

    Args:
        scores: of every picture at every level.
        travels: mean |realism - fidelity| of each picture, 1/255.
        sweeps: picture -> its sweep.
    """
    means = average(scores)
    reference = means[BICUBIC].get("lpips_hed")
    ratios = {k: v["lpips_hed"] / reference for k, v in means.items()} if reference else {}
    return Report(
        scores=tuple(scores),
        means=means,
        lpips_ratio=ratios,
        psnr_gap=means[DIAL[0]]["psnr"] - means[BICUBIC]["psnr"],
        dial=_watch_dial(scores, travels, sweeps),
        sweeps=dict(sweeps),
    )


def average(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Average every measure over the pictures of a level: level -> measure -> mean."""
    grouped: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        extra = {} if score.color_shift is None else {"color_shift": score.color_shift}
        for measure, value in (score.values | extra).items():
            grouped.setdefault(score.level, {}).setdefault(measure, []).append(value)
    return {
        level: {measure: fmean(values) for measure, values in measures.items()}
        for level, measures in grouped.items()
    }


def score_folder(sr_dir: Path, hr_dir: Path, judge: Judge) -> list[Score]:
    """Score a folder of finished pictures against the true ones of the same names."""
    return [
        Score(picture=stem(sr), level=sr_dir.name, values=values)
        for sr, hr in match(sr_dir, hr_dir)
        for values in judge.values([read(sr).pixels], read(hr).pixels)
    ]


def match(folder: Path, hr_dir: Path) -> list[tuple[Path, Path]]:
    """Pair each picture of a folder with the true one of the same name, sorted by name.

    What a file name says about its role does not count: Canon_001_LR4.png meets Canon_001_HR.png.
    """
    truths = {stem(path): path for path in find([hr_dir])}
    pairs: list[tuple[Path, Path]] = []
    for path in sorted(find([folder])):
        if stem(path) not in truths:
            raise RcodError(
                f"{hr_dir} must hold the true picture of {path.name}, found none named "
                f"{stem(path)}; give matching folders"
            )
        pairs.append((path, truths[stem(path)]))
    return pairs


def stem(path: Path) -> str:
    """Name the picture a file shows: its name without suffix and without _LR4, _HR and the like."""
    return ROLE.sub("", path.stem)


def bicubic(lr: Tensor) -> Tensor:
    """Enlarge an image four times without a model: (3, h, w) -> (3, 4h, 4w)."""
    return enlarge(lr[None], int(SCALE))[0]


def _watch_dial(
    scores: Sequence[Score], travels: Sequence[float], sweeps: Mapping[str, Sweep]
) -> Dial:
    """Count on how many pictures the dial keeps its promises."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for score in scores:
        table.setdefault(score.picture, {})[score.level] = score.values
    psnr = [[levels[level]["psnr"] for level in DIAL] for levels in table.values()]
    detail = [[levels[level]["detail"] for level in DIAL] for levels in table.values()]
    return Dial(
        pictures=len(table),
        psnr_falls=sum(_rises(values[::-1]) for values in psnr),
        psnr_falls_in_mean=_rises([fmean(column) for column in zip(*psnr, strict=True)][::-1]),
        detail_rises=sum(_rises(values) for values in detail),
        detail_rises_in_mean=_rises([fmean(column) for column in zip(*detail, strict=True)]),
        detail_gains=sum(values[0] < values[-1] for values in detail),
        travel=fmean(travels),
        largest_step=max((one.largest for one in sweeps.values()), default=None),
    )


def _rises(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before it."""
    return all(before < after for before, after in pairwise(values))


def _difference(x: Tensor, y: Tensor) -> float:
    """Mean absolute difference of two images, 1/255."""
    return float((x - y).abs().mean() * 255)


def _color_shift(sr: Tensor, up: Tensor) -> float:
    """How far the mean colour moved: mean over R, G, B of the absolute change, 1/255."""
    return float((sr.mean((1, 2)) - up.mean((1, 2))).abs().mean() * 255)


def _size(image: Tensor) -> str:
    """Width x height of (3, H, W)."""
    return f"{image.shape[2]} x {image.shape[1]}"
