"""How many times as fast is one published system as another, at full size?

A machine's rate moves from minute to minute, so that systems take turns, every call in a
process of its own, and ratios are taken within a turn.

    rcod_o, osediff-own@float32 -> measure_all -> medians over the turns, ratios to the first
"""

import json
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from rcod.errors import RcodError
from rcod.judging import ancestor, fullsize
from rcod.judging.fullsize import SystemCost
from rcod.judging.machine import Repeats, fresh, summarize
from rcod.networks.systems import SYSTEMS

PRECISIONS = ("bfloat16", "float32")
STAGES = ("metric", "encode", "tokens", "predict", "decode", "color", "total")


class Entrant(NamedTuple):
    """Who is measured, and in which precision."""

    name: str
    dtype: str


class Standing(SystemCost):
    """Medians over the turns, and how many times as long as the first of the run."""

    times: Repeats


def measure_all(
    asked: Sequence[str],
    side: int = 128,
    dtype: str = "bfloat16",
    turns: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[Standing]:
    """Measure systems by turns.

    Args:
        asked: systems that stand on Stable Diffusion, or `osediff-own`; each as it is, or with
            a precision of its own, as in `osediff-own@float32`.
        side: pixels of the photo.
        dtype: bfloat16 or float32, of those without a precision of their own.
        turns: calls of each, every one the first of its process.
        say: told of every call.

    Raises:
        RcodError: if a system or a precision isn't known.
    """
    entrants = [_entrant(one, dtype) for one in asked]
    costs: list[list[SystemCost]] = [[] for _ in entrants]
    for turn in range(turns):
        for entrant, found in zip(entrants, costs, strict=True):
            found.append(_measure(entrant, side))
            say(f"turn {turn + 1}: {_title(found[-1])} {found[-1]['seconds']['total']:.2f} s")
    return [sum_up(found, costs[0]) for found in costs]


def sum_up(costs: Sequence[SystemCost], first: Sequence[SystemCost]) -> Standing:
    """The calls of one system beside those of the run's first."""
    seconds = {
        stage: median(one["seconds"][stage] for one in costs) for stage in costs[0]["seconds"]
    }
    ratios = [
        one["seconds"]["total"] / other["seconds"]["total"]
        for one, other in zip(costs, first, strict=True)
    ]
    peak = max(one["peak_mb"] for one in costs)
    return Standing(**{**costs[0], "seconds": seconds, "peak_mb": peak}, times=summarize(ratios))


def table(standings: Sequence[Standing]) -> list[str]:
    """Systems side by side: seconds and 10^9 multiply-adds of each stage."""
    lines = [" " * 10 + "".join(f"{_title(one):>22}" for one in standings)]
    lines.append(" " * 10 + "".join(f"{'s':>12}{'GMAC':>10}" for _ in standings))
    for stage in STAGES:
        cells = (_cells(one["seconds"].get(stage), one["gmacs"].get(stage)) for one in standings)
        lines.append(stage.ljust(10) + "".join(cells))
    lines.append("text, once" + "".join(_cells(*(one["text"] or (None,) * 2)) for one in standings))
    lines.append("peak, MB".ljust(10) + "".join(f"{one['peak_mb']:22.0f}" for one in standings))
    spread = (f"{t['median']:.2f} ({t['low']:.2f} to {t['high']:.2f})"
              for t in (one["times"] for one in standings))  # fmt: skip
    lines.append("times 1st".ljust(10) + "".join(f"{text:>22}" for text in spread))
    return lines


def _entrant(asked: str, dtype: str) -> Entrant:
    """`name` or `name@precision`."""
    name, at, own = asked.partition("@")
    known = [*(key for key, system in SYSTEMS.items() if system.base), ancestor.NAME]
    if name not in known:
        raise RcodError(f"--systems must be among {','.join(known)}, got {name}")
    precision = own if at else dtype
    if precision not in PRECISIONS:
        raise RcodError(
            f"--dtype must be {' or '.join(PRECISIONS)} for --systems, got {precision or asked}"
        )
    return Entrant(name, precision)


def _measure(entrant: Entrant, side: int) -> SystemCost:
    """One call in a process of its own."""
    if entrant.name == ancestor.NAME:
        return json.loads(fresh(ancestor.__name__, "measure_ancestor", [side, entrant.dtype]))
    return json.loads(fresh(fullsize.__name__, "measure", [entrant.name, side, entrant.dtype]))


def _title(cost: SystemCost) -> str:
    return f"{cost['system']}@{cost['dtype']}"


def _cells(seconds: float | None, gmacs: float | None) -> str:
    """A stage's two columns; empty where a system has no such stage."""
    left = " " * 12 if seconds is None else f"{seconds:12.2f}"
    return left + (" " * 10 if gmacs is None else f"{gmacs:10.1f}")
