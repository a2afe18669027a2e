"""Does the dial do what it promises?

Every level of a model is scored against the true picture and beside plain bicubic; turning
towards realism should spend PSNR, buy detail, and move the picture without jumps.

    lr -> bicubic ------------------------.
    lr -> Restorer at each level -> sr ----+-> Score -> means -> Report
    hr ------------------------------------'     '----> Dial <- Sweep (ten steps)
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from pydantic import BaseModel
from torch import Tensor

from rcod.diffusion.dial import Level
from rcod.judging.datasets import SCALE, Pair, pixels, truth_of
from rcod.judging.judge import Judge
from rcod.judging.peers import bicubic
from rcod.judging.scoring import shared_means
from rcod.using.restore import Restorer, Result

BICUBIC = "bicubic"
DIAL = ("fidelity", "neutral", "realism")  # from keeping to inventing
LEVELS: tuple[Level, ...] = ("fidelity", "neutral", "realism", "auto")

OnResult = Callable[[str, str, Tensor], None]  # picture, level, sr (3, H, W) in [0, 1]


class Score(BaseModel, frozen=True):
    """One result judged."""

    picture: str
    level: str  # bicubic, a level of the dial, auto, or a folder's name
    values: dict[str, float]  # psnr, ssim, detail, and lpips-hed, niqe where they could be had
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


class DialReport(BaseModel, frozen=True):
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
    lpips_ratio: dict[str, float]  # level -> mean lpips-hed over bicubic's
    psnr_gap: float  # fidelity's mean PSNR minus bicubic's, dB
    dial: DialReport
    sweeps: dict[str, Sweep]  # picture -> its sweep


def study_dial(
    restorer: Restorer,
    pairs: Sequence[Pair],
    judge: Judge,
    sweeps: int = 3,
    seen: OnResult = lambda *_: None,
) -> Report:
    """Run bicubic and every level over a benchmark.

    Args:
        restorer: the model.
        pairs: with true pictures.
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
    for i, pair in enumerate(pairs):
        picture, lr = pair.name, pixels(pair.lr)
        answers = restorer.levels(lr, LEVELS, scale=float(SCALE))
        results: dict[str, Result] = dict(zip(LEVELS, answers, strict=True))
        images = {BICUBIC: bicubic(lr)} | {k: v.photo.pixels for k, v in results.items()}
        values = judge.values(list(images.values()), pixels(truth_of(pair)))
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
    images = [result.photo.pixels for result in restorer.levels(lr, positions, scale=float(SCALE))]
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
    reference = means[BICUBIC].get("lpips-hed")
    ratios = {k: v["lpips-hed"] / reference for k, v in means.items()} if reference else {}
    return Report(
        scores=tuple(scores),
        means=means,
        lpips_ratio=ratios,
        psnr_gap=means[DIAL[0]]["psnr"] - means[BICUBIC]["psnr"],
        dial=_watch_dial(scores, travels, sweeps),
        sweeps=dict(sweeps),
    )


def average(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The mean of every measure that all pictures of a level have: level -> measure -> mean."""
    grouped: dict[str, list[dict[str, float]]] = {}
    for score in scores:
        extra = {} if score.color_shift is None else {"color_shift": score.color_shift}
        grouped.setdefault(score.level, []).append(score.values | extra)
    return {level: shared_means(rows) for level, rows in grouped.items()}


def _watch_dial(
    scores: Sequence[Score], travels: Sequence[float], sweeps: Mapping[str, Sweep]
) -> DialReport:
    """Count on how many pictures the dial keeps its promises."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for score in scores:
        table.setdefault(score.picture, {})[score.level] = score.values
    psnr = [[levels[level]["psnr"] for level in DIAL] for levels in table.values()]
    detail = [[levels[level]["detail"] for level in DIAL] for levels in table.values()]
    return DialReport(
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
