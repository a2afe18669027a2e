"""The way from `rcod upscale --engine ray` to a cluster.

rcod upscale photos/ -o out --engine ray [--workers 2]
rcod upscale s3://bucket/photos -o gs://bucket/large --engine ray
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rcod.doors.terminal import PIPE, complain, say
from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.using.cluster_plan import Record
    from rcod.using.orders import Networks, Options


def upscale_on_ray(
    photos: Sequence[Path],
    out: Path,
    options: "Options",
    networks: "Networks",
    workers: int | None,
    dry_run: bool,
) -> None:
    """Enlarge photos on a cluster; exit 1 if one was not done."""
    from rcod.using.cluster import run_on_ray

    if dry_run:
        raise RcodError("--dry-run tells what this machine would do; leave out --engine ray")
    if out == PIPE:
        raise RcodError("a cluster stores results below an address, and -o - has none; name one")
    if options.name is not None:
        raise RcodError(f"-o must name a folder with --engine ray, got {out / options.name}")
    if workers is not None and workers < 1:
        raise RcodError(f"--workers must be at least 1, got {workers}")

    def watch(record: "Record", done: int, total: int) -> None:
        if record["error"] is not None:
            complain(record["error"])
            return
        say(f"{done} of {total}: {record['source']} -> {', '.join(record['files'])}, "
            f"{record['seconds']:.2f} s")  # fmt: skip
        for note in record["notes"]:
            say(f"note: {record['source']} {note}")

    given = [address(photo) for photo in photos]
    planned, failed = run_on_ray(networks, given, address(out), options, workers, watch)
    for sentence in planned.refused:
        complain(sentence)
    say(f"done {planned.tasks - len(failed)}, done already {planned.done}, "
        f"failed {len(failed) + len(planned.refused)}")  # fmt: skip
    if failed or planned.refused:
        raise typer.Exit(1)


def address(path: Path) -> str:
    """An address as it was typed: a path has one slash where a protocol has two, or file three."""
    given = re.sub(r"(^|::)(file|local):/+", r"\1\2:///", str(path))
    return re.sub(r"(^|::)([a-z][a-z0-9+.-]+):/(?!/)", r"\1\2://", given)
