"""What may stand on the dial: a level, a number, or a map of numbers?

A number is a timestep. A map, painted by the user or estimated piece by piece, is a blend of
the levels, pixel by pixel: each level is made of the whole photo, and the map only says how
much of each shows where, so that it leaves no seam.

    level, number ------------------> timestep -> one picture
    mask or local metrics -> map --> levels that show, weights -> several pictures, one blend
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from numbers import Real
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.grouping import LEVELS, GroupSettings
from rcod.errors import RcodError

Level = Literal["fidelity", "neutral", "realism", "auto"]
Realism = float | Level
Dial = Realism | Literal["auto-local"] | Tensor
GLANCE = 256  # LR pixels a side of the pieces the metric is estimated on


def check_realism(realism: Realism, names: tuple[str, ...] = (*LEVELS, "auto")) -> None:
    """Refuse what is no place on the dial, and no name of one."""
    if isinstance(realism, str):
        if realism not in names:
            raise RcodError(
                f"realism must be {', '.join(names)} or a number from 0 to 1, got '{realism}'"
            )
    elif not isinstance(realism, Real):
        kind = type(realism).__name__
        raise RcodError(f"realism must be a name or a number from 0 to 1, got {kind}")
    elif not 0 <= realism <= 1:  # NaN too
        raise RcodError(
            f"realism must lie in [0, 1], got {realism}; 0 keeps the input, 1 invents detail"
        )


def check_dial(dial: Dial) -> None:
    """Refuse what is neither a place on the dial nor a map of such places."""
    if isinstance(dial, Tensor):
        if dial.ndim != 2 or not dial.is_floating_point() or dial.numel() == 0:
            raise RcodError(
                f"a realism map must be float (H, W), got {dial.dtype} {tuple(dial.shape)}"
            )
        if not (dial.isfinite().all() and dial.min() >= 0 and dial.max() <= 1):
            raise RcodError("a realism map must lie in [0, 1]; scale or clamp it first")
    elif not isinstance(dial, str) or dial != "auto-local":
        check_realism(dial, (*LEVELS, "auto", "auto-local"))


def check_dials(dials: Iterable[Dial]) -> list[Dial]:
    """Several places on the dial, or maps of such."""
    if isinstance(dials, str | Tensor) or not isinstance(dials, Iterable):
        raise RcodError(f"levels are several, as in [0.0, 'realism'], got {dials!r}")
    found = list(dials)
    for dial in found:
        check_dial(dial)
    return found


def check_shape(places: Tensor, size: tuple[int, int]) -> None:
    """Refuse a map (h, w) that was painted over another picture than one of this size."""
    tall, wide = places.shape
    height, width = size
    if abs(tall * width - height * wide) > max(0.02 * height * wide, wide, width):
        raise RcodError(
            f"the realism map must have the photo's shape, got {wide} x {tall} for a photo of "
            f"{width} x {height}; paint it over the photo"
        )


def fit_map(places: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (h, w) at the photo's size, (1, H, W), smooth between its values."""
    if tuple(places.shape) == size:
        return places[None].float()
    small = F.interpolate(
        places[None, None].float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    return small[0].clamp(0, 1)


def shares(places: Tensor, groups: GroupSettings) -> list[tuple[int, Tensor]]:
    """Which timesteps show in a part of a map, and how much of each where.

    Args:
        places: part of a map, any shape.
        groups: the timesteps between which the dial moves.

    Returns:
        Timesteps and weights of the map's shape, which add up to one everywhere.
    """
    stops = groups.timesteps[::-1]  # from fidelity to realism
    place = places * (len(stops) - 1)
    found = [(t, (1 - (place - i).abs()).clamp(min=0)) for i, t in enumerate(stops)]
    return [(t, weight) for t, weight in found if bool((weight > 0).any())]


def realism_of_metric(metric: Tensor, groups: GroupSettings) -> Tensor:
    """A smooth reading of the metric: the middle of a group is that group's place.

    Args:
        metric: latent metrics, any shape.
        groups: edges; the outer groups are taken to be as wide as those beside them.
    """
    edges = list(groups.edges)
    if not edges:
        return torch.zeros_like(metric)  # there is nowhere to turn to
    wide = edges[1] - edges[0] if len(edges) > 1 else 0.2
    bounds = [edges[0] - wide, *edges, edges[-1] + wide]
    middles = [(low + high) / 2 for low, high in pairwise(bounds)]
    places = torch.zeros_like(metric)
    for low, high in pairwise(middles):
        share = ((metric - low) / (high - low)).clamp(0, 1)
        places = places + share
    return 1 - places / (len(middles) - 1)


def glances(lr: Tensor) -> Iterator[Tensor]:
    """At most nine evenly spread pieces of a photo, (1, 3, <= 256, <= 256) each."""
    height, width = lr.shape[-2:]
    rows, columns = (min(3, math.ceil(side / GLANCE)) for side in (height, width))
    for top in _starts(height, rows):
        for left in _starts(width, columns):
            yield lr[..., top : top + GLANCE, left : left + GLANCE]


def local_pieces(lr: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    """Tops and lefts of pieces that cover a photo, for a metric of every place."""
    height, width = lr.shape[-2:]
    half = GLANCE // 2  # pieces overlap by half where a photo is small enough
    rows, columns = (min(12, math.ceil(side / half)) for side in (height, width))
    return _starts(height, rows), _starts(width, columns)


def _starts(side: int, count: int) -> list[int]:
    return [round(i * max(side - GLANCE, 0) / max(count - 1, 1)) for i in range(count)]
