"""What do all cores of a machine give on a folder of photos, next to one of them?

Whole commands from a standing start, their start and their end included: one process with one
thread, and a process for every core. They go by turns, since a machine's rate moves.

    photos -> rcod upscale, one thread | --workers cores -> seconds -> share of cores x one
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

from rcod.errors import RcodError
from rcod.judging.machine import Repeats, seconds_of, summarize
from rcod.pixels.images import SUFFIXES


class Folder(TypedDict):
    """A folder on this machine."""

    photos: int
    cores: int
    one: Repeats  # seconds of one process with one thread
    all: Repeats  # seconds of a process for every core
    share: Repeats  # of the cores' number of times the rate of one, turn by turn


def measure_folder(photos: Path, networks: tuple[str, str, str, str], repeats: int = 1) -> Folder:
    """Enlarge a folder again and again, on one core and on all.

    Args:
        photos: the folder.
        networks: model, device, dtype and engine, as for `rcod upscale`.
        repeats: how often each way; medians are taken.
    """
    count = sum(path.suffix.lower() in SUFFIXES for path in photos.rglob("*"))
    if not count:
        raise RcodError(f"--folder must name a folder of photos, got {photos}")
    names = "--model", "--device", "--dtype", "--engine"
    more = [word for pair in zip(names, networks, strict=True) for word in pair]
    cores = os.cpu_count() or 1
    one: list[float] = []
    every: list[float] = []
    for _ in range(repeats):
        one.append(_seconds(photos, {"OMP_NUM_THREADS": "1"}, more))
        every.append(_seconds(photos, {}, [*more, "--workers", str(cores)]))
    share = summarize([a / (cores * b) for a, b in zip(one, every, strict=True)])
    return Folder(photos=count, cores=cores, one=summarize(one), all=summarize(every), share=share)


def table(found: Folder) -> list[str]:
    """What was measured, in lines."""
    lines = [f"{found['photos']} photos: seconds from start to end, and photos a second"]
    ways = (("one process, one thread", found["one"]),
            (f"--workers {found['cores']}", found["all"]))  # fmt: skip
    for name, took in ways:
        lines.append(f"{name:24} {took['median']:8.2f} ({took['low']:.2f} to {took['high']:.2f}) "
                     f"{found['photos'] / took['median']:8.2f}")  # fmt: skip
    share = found["share"]
    return [*lines, f"{share['median']:.2f} ({share['low']:.2f} to {share['high']:.2f}) of "
            f"{found['cores']} times the rate of one"]  # fmt: skip


def _seconds(photos: Path, settings: dict[str, str], more: list[str]) -> float:
    """Time one command."""
    with tempfile.TemporaryDirectory() as out:
        rcod = [sys.executable, "-m", "rcod", "upscale", str(photos), "-o", out]
        return seconds_of([*rcod, "--realism", "neutral", *more], settings)
