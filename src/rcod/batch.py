"""Many images in, many out, nothing lost.

Every picture goes its own way: one that cannot be read or written is reported, and the
others are still done. Names are settled before the work starts, so that no two pictures
meet in one file and no file of the user is overwritten unasked.

    photos -> plan_jobs -> read -> restorer -> out/<stem>.png
                                      all  -> out/<stem>-<level>.png, out/<stem>-levels.png
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from rcod.device import seeded
from rcod.errors import RcodError
from rcod.images import Photo, check_writable, find, from_pil, is_ours, read, write
from rcod.restore import (
    ColorFix,
    Realism,
    Restorer,
    Result,
    check_realism,
    check_scale,
    target_size,
)
from rcod.sheet import ALL, draw_sheet

FORMATS = ("png", "jpg", "webp")


@dataclass(frozen=True)
class Options:
    """How every picture of a call is enlarged."""

    realism: Realism | Literal["all"] = "auto"
    scale: float = 4.0
    color: str = "wavelet"  # wavelet, adain or none
    seed: int = 0
    format: str = "png"  # png, jpg or webp
    overwrite: bool = False  # replace files that rcod did not write, too

    def __post_init__(self) -> None:
        if self.realism != "all":
            check_realism(self.realism)
        check_scale(self.scale)
        for name, value, allowed in (
            ("color", self.color, get_args(ColorFix)),
            ("format", self.format, FORMATS),
        ):
            if value not in allowed:
                raise RcodError(f"{name} must be one of {', '.join(allowed)}, got '{value}'")
        seeded(self.seed)  # refuses what is no seed


@dataclass(frozen=True)
class Job:
    """One picture and the files it becomes: one, or those of ALL and the sheet."""

    source: Path
    targets: tuple[Path, ...]


@dataclass(frozen=True)
class Written:
    """One file that was written."""

    path: Path
    level: str  # fidelity, neutral, realism, a number, or sheet
    auto: bool  # whether the metric chose the level
    timestep: int | None
    metric: float | None
    size: tuple[int, int]  # width, height
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: files, or the sentence that says why not."""

    source: Path
    written: tuple[Written, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """What became of all pictures, in the order they were finished."""

    outcomes: tuple[Outcome, ...]

    @property
    def errors(self) -> list[str]:
        """One sentence for every picture that was not done."""
        return [outcome.error for outcome in self.outcomes if outcome.error is not None]


def run(
    load: Callable[[], Restorer],
    photos: Sequence[Path],
    out: Path,
    options: Options,
    watch: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
) -> Report:
    """Enlarge pictures into a folder, which is made if it is missing.

    Args:
        load: gives the restorer; called once, when the first picture has been read.
        photos: files and folders of pictures.
        out: the folder that receives `<stem>.<format>`.
        options: how, for all of them.
        watch: told of every picture: its outcome, how many are done, of how many.
    """
    jobs, lost = plan_jobs(photos, out, options)
    if jobs:
        _make_folder(out)
    outcomes: list[Outcome] = []
    total = len(jobs) + len(lost)
    for outcome in lost:
        outcomes.append(outcome)
        watch(outcome, len(outcomes), total)
    restorer: Restorer | None = None
    for job in jobs:
        try:
            photo = _open(job, options)
        except RcodError as error:
            outcome = Outcome(job.source, error=str(error))
        else:
            restorer = restorer or load()  # its errors concern all pictures, so they end the run
            outcome = _enlarge(restorer, photo, job, options)
        outcomes.append(outcome)
        watch(outcome, len(outcomes), total)
    return Report(tuple(outcomes))


def plan_jobs(
    photos: Sequence[Path], out: Path, options: Options
) -> tuple[list[Job], list[Outcome]]:
    """Settle every name; what cannot be done is an outcome already. Nothing is written."""
    lost: list[Outcome] = []
    sources: dict[Path, Path] = {}  # by where it really lies, so a picture named twice is one
    for given in photos:
        try:
            sources |= {photo.resolve(): photo for photo in find([given])}
        except RcodError as error:
            lost.append(Outcome(given, error=str(error)))
    jobs: list[Job] = []
    taken: dict[str, Path] = {}  # target's name without case -> the picture it belongs to
    for source in sources.values():
        parts = [f"-{part}" for part in (*ALL, "levels")] if options.realism == "all" else [""]
        targets = tuple(out / f"{source.stem}{part}.{options.format}" for part in parts)
        error = next(
            filter(None, (_refusal(t, source, sources, taken, options) for t in targets)), None
        )
        if error is not None:
            lost.append(Outcome(source, error=error))
            continue
        taken |= {target.name.casefold(): source for target in targets}
        jobs.append(Job(source, targets))
    return jobs, lost


def _refusal(
    target: Path, source: Path, sources: dict[Path, Path], taken: dict[str, Path], options: Options
) -> str | None:
    """Why a name cannot be used for this picture, if so."""
    other = taken.get(target.name.casefold())
    if other is not None:
        return (
            f"{source}: every picture needs an output name of its own, and {other} becomes "
            f"{target} too; rename one or use two folders"
        )
    if target.resolve() in sources:
        return (
            f"{source}: a photo to enlarge is never overwritten, and the result would replace "
            f"{target}; choose another folder or format"
        )
    if target.is_dir():
        return f"{source}: the result would be named {target}, and a folder has that name; move it"
    if target.exists() and not options.overwrite and not is_ours(target):
        return (
            f"{source}: {target} exists already and is not a result of rcod; "
            "pass --overwrite to replace it"
        )
    return None


def _make_folder(out: Path) -> None:
    """Make the folder and be sure that files can be put there, before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        why = "it is a file" if out.is_file() else error.strerror
        raise RcodError(
            f"{out}: the output must be a folder that can be written to, and it cannot ({why}); "
            "choose another folder"
        ) from None


def _open(job: Job, options: Options) -> Photo:
    """Read a picture and be sure that its files can hold the result."""
    photo = read(job.source)
    height, width = target_size(photo, options.scale)
    for target in job.targets:
        check_writable(target, height, width, photo.alpha)
    return photo


def _enlarge(restorer: Restorer, photo: Photo, job: Job, options: Options) -> Outcome:
    """Restore one picture and write its files."""
    color = cast(ColorFix, options.color)  # Options made sure
    start = time.perf_counter()
    try:
        if options.realism == "all":
            results = restorer.levels(photo, ALL, options.scale, color)
        else:
            results = [restorer(photo, options.realism, options.scale, color, options.seed)]
    except RcodError as error:
        return Outcome(job.source, error=f"{job.source}: {error}")
    written: list[Written] = []
    try:
        for target, result in zip(job.targets, results, strict=False):  # the sheet has no result
            write(target, result.photo)
            written.append(_written(target, result))
        if options.realism == "all":
            sheet = draw_sheet(photo, results, job.source.name)
            write(job.targets[-1], from_pil(sheet))
            seconds = time.perf_counter() - start
            path = job.targets[-1]
            written.append(Written(path, "sheet", False, None, None, sheet.size, seconds))
    except RcodError as error:
        return Outcome(job.source, tuple(written), str(error))
    return Outcome(job.source, tuple(written))


def _written(path: Path, result: Result) -> Written:
    """What there is to say about a result."""
    height, width = result.photo.pixels.shape[-2:]
    seconds = sum(result.seconds.values())
    return Written(
        path, result.level, result.auto, result.timestep, result.metric, (width, height), seconds
    )
