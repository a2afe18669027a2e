"""What do a model's dial, its latent metric and its estimator of it know?

dial: every level beside bicubic, ten even steps -> is the dial what it promises?
blend: a timestep, a latent or a picture between the dial's ends -> which one is worth more?
ldg:  latents -> cosine, L1, MSE  ----.
      up, hr -> psnr, ssim, ... ------+-> |Spearman|: which latent metric sees damage?
mem:  lr -> estimate; z_up, z_hr -> metric -> how far apart, and how often another group?
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from rcod.diffusion.grouping import (
    LatentMetric,
    latent_metric,
    timestep_of_metric,
    timestep_of_realism,
)
from rcod.errors import RcodError
from rcod.judging.datasets import Pair, pixels, truth_of
from rcod.judging.intervals import spearman
from rcod.judging.judge import MEASURES, Judge
from rcod.judging.peers import bicubic
from rcod.judging.promises import BICUBIC, study_dial
from rcod.judging.scoring import shared_means
from rcod.networks.framing import BORDER, continued, cut
from rcod.networks.onestep import Encode, compared, enlarge, measured
from rcod.pixels.color import match_wavelet
from rcod.pixels.images import Photo
from rcod.pixels.metrics import detail
from rcod.using.restore import Restorer

CONTENT = "true detail"  # of the picture that should have come out
REDUCED = "reduced"  # the cosine of the photo and of the true picture at its size


@dataclass(frozen=True)
class Studied:
    """What a study found, to be read and to be kept."""

    lines: tuple[str, ...]
    numbers: object  # plain JSON


def dial(restorer: Restorer, pairs: Sequence[Pair], judge: Judge) -> Studied:
    """Hold the dial to its promises: metrics along it, and its evenness."""
    if lacking := {"psnr", "detail"} - set(judge.able):
        raise RcodError(f"the dial is judged by psnr and detail, got no {sorted(lacking)[0]}")
    found = study_dial(restorer, pairs, judge)
    names = [name for name in MEASURES if name in found.means[BICUBIC]]
    lines = [" " * 10 + "".join(f"{MEASURES[name].label:>11}" for name in names)]
    for level, means in found.means.items():
        cells = "".join(f"{means[name]:11.{MEASURES[name].digits + 1}f}" for name in names)
        lines.append(f"{level:10}{cells}")
    seen, of = found.dial, f"of {found.dial.pictures} pictures"
    lines += [
        f"PSNR falls from level to level on {seen.psnr_falls} {of}, detail rises on "
        f"{seen.detail_rises}",
        f"realism differs from fidelity by {seen.travel:.2f} of 255 in the mean",
        f"fidelity's PSNR minus bicubic's: {found.psnr_gap:+.2f} dB",
    ]
    if seen.largest_step is not None:
        lines.append(f"the largest of ten even steps is {seen.largest_step:.3f} of the whole way")
    return Studied(tuple(lines), found.model_dump(mode="json"))


@torch.inference_mode()
def ldg(restorer: Restorer, pairs: Sequence[Pair], judge: Judge) -> Studied:
    """Which latent metric sees damage? |Spearman| of three with the scores of the enlarged input.

    The paper chose the cosine over L1 and MSE in the same way (RCOD, section 3.2). How detailed the
    true picture is stands beside them, since a metric may see that in place of damage.
    """
    kinds: tuple[LatentMetric, ...] = ("cosine", "l1", "mse")
    latent: dict[str, list[float]] = {kind: [] for kind in (*kinds, REDUCED)}
    scores: dict[str, list[float]] = {}
    for pair in pairs:
        lr, truth = pixels(pair.lr), pixels(truth_of(pair))
        shown = _shown(restorer, lr, truth)
        for kind in kinds:
            latent[kind].append(float(latent_metric(*compared(*shown, "enlarged"), kind)))
        latent[REDUCED].append(float(latent_metric(*compared(*shown, "reduced"))))
        (values,) = judge.values([bicubic(lr)], truth)
        for name, value in (values | {CONTENT: float(detail(truth[None]))}).items():
            scores.setdefault(name, []).append(value)
    table = {
        metric: {name: abs(spearman(mine, column)) for name, column in scores.items()
                 if len(column) == len(mine)}
        for metric, mine in latent.items()
    }  # fmt: skip
    labels = {name: MEASURES[name].label if name in MEASURES else name for name in table["cosine"]}
    lines = [f"|Spearman| over {len(pairs)} pictures, bicubic input against the true picture"]
    lines += [" " * 10 + "".join(f"{label:>12}" for label in labels.values())]
    lines += [f"{metric:10}" + "".join(f"{row[name]:12.3f}" for name in labels)
              for metric, row in table.items()]  # fmt: skip
    return Studied(tuple(lines), {"pictures": len(pairs), "spearman": table, "latent": latent})


def mem(restorer: Restorer, pairs: Sequence[Pair], judge: Judge) -> Studied:
    """How well is the latent metric guessed from the input alone, and how often the group?"""
    groups = restorer.system.groups
    true: list[float] = []
    guessed: list[float] = []
    for pair in pairs:
        lr = pixels(pair.lr)
        true.append(float(measured(*_shown(restorer, lr, pixels(truth_of(pair))), groups)))
        estimate = restorer.look(Photo(lr), True).metric
        if estimate is None:
            raise RcodError("this model has no metric estimator, so there is nothing to study")
        guessed.append(estimate)
    right, chosen = (timestep_of_metric(torch.tensor(x), groups).tolist() for x in (true, guessed))
    same = sum(a == b for a, b in zip(right, chosen, strict=True))
    error = fmean(abs(a - b) for a, b in zip(true, guessed, strict=True))
    numbers = {
        "pictures": len(pairs), "spearman": spearman(true, guessed), "error": error,
        "same_group": same, "true": true, "guessed": guessed,
    }  # fmt: skip
    lines = (
        f"true metric {fmean(true):.3f} in the mean, guessed {fmean(guessed):.3f}, "
        f"mean error {error:.3f}, Spearman {numbers['spearman']:.3f}",
        f"the guess falls into the true group on {same} of {len(pairs)} pictures",
    )
    return Studied(lines, numbers)


def blend(restorer: Restorer, pairs: Sequence[Pair], judge: Judge) -> Studied:
    """How should the dial stand between its ends? Three ways, at three places each."""
    _check_tiny(restorer, "ways between")
    scores: dict[str, list[dict[str, float]]] = {}
    for pair in pairs:
        for place in (0.25, 0.5, 0.75):
            between = _between(restorer, pixels(pair.lr), place)
            values = judge.values(list(between.values()), pixels(truth_of(pair)))
            for way, found in zip(between, values, strict=True):
                scores.setdefault(f"{way} {place}", []).append(found)
    means = {row: shared_means(found) for row, found in scores.items()}
    names = [name for name in MEASURES if all(name in found for found in means.values())]
    lines = [" " * 14 + "".join(f"{MEASURES[name].label:>11}" for name in names)]
    for row, found in sorted(means.items(), key=lambda item: item[0].split()[::-1]):
        cells = (f"{found[name]:11.{MEASURES[name].digits + 1}f}" for name in names)
        lines.append(f"{row:14}{''.join(cells)}")
    lines += [f"{MEASURES[name].label} is blank: not every result has it"
              for name in judge.able if name not in names]  # fmt: skip
    return Studied(tuple(lines), {"pictures": len(pairs), "means": means})


STUDIES: dict[str, Callable[[Restorer, Sequence[Pair], Judge], Studied]]
STUDIES = {"dial": dial, "blend": blend, "ldg": ldg, "mem": mem}


def _check_tiny(restorer: Restorer, what: str) -> None:
    """Refuse published systems: their latents depend on the photo's frame and damage."""
    if restorer.system.base is not None or restorer.system.timestep is not None:
        raise RcodError(f"{what} are studied on tiny, got {restorer.system.name}")


@torch.inference_mode()
def _between(restorer: Restorer, lr: Tensor, place: float) -> dict[str, Tensor]:
    """A photo (3, h, w) restored between the ends of the dial in three ways, (3, 4h, 4w) each."""
    low, at, high = (one.photo.pixels for one in restorer.levels(Photo(lr), [0.0, place, 1.0]))
    onestep = restorer.onestep
    up = enlarge(lr[None].to(onestep.alphas.device), restorer.system.scale)
    tokens = onestep.prompt(up)
    steps = (timestep_of_realism(end, restorer.system.groups) for end in (0.0, 1.0))
    z_up = continued(onestep.backbone.encode(up), 4 * [BORDER])
    sides = 4 * [BORDER * onestep.backbone.factor]
    ends = [onestep.clean(z_up, torch.tensor([t], device=z_up.device), tokens) for t in steps]
    sr = cut(onestep.backbone.decode(torch.lerp(ends[0], ends[1], place)), sides).clamp(0, 1)
    latent = match_wavelet(sr, up)[0].clamp(0, 1).cpu()
    return {"timestep": at, "latent": latent, "picture": torch.lerp(low, high, place)}


def _shown(restorer: Restorer, lr: Tensor, hr: Tensor) -> tuple[Encode, Tensor, Tensor]:
    """Who encodes, the input and the true picture, (1, 3, H, W) each, where it does."""
    _check_tiny(restorer, "latent metrics")
    device = restorer.onestep.alphas.device
    return restorer.onestep.encode, lr[None].to(device), hr[None].to(device)
