"""Many images in, many out, nothing lost.

Every picture goes its own way: one that cannot be read or written is reported, and the
others are still done. What is there already, made from the same photo by the same settings,
is left alone. A result is written while it is computed and gets its name when it is whole.

    photos -> jobs -> read -> restorer -> pieces -> out/<place>/<stem>.<format>
                  '-> done already            all -> <stem>-<level>, <stem>-levels
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from torch import Tensor

from rcod.diffusion.dial import Dial, check_shape
from rcod.errors import RcodError
from rcod.pixels.images import Photo, check_writable, from_pil, notes_of, read, sink, write
from rcod.pixels.placing import check_free, ensure_folder, placed
from rcod.using.forecast import keep_to
from rcod.using.jobs import Job, light, make_folder, piped, plan_jobs
from rcod.using.ledger import Ledger, enter, ledger_of, photos_of, print_of
from rcod.using.orders import BatchReport, Options, Outcome, Written
from rcod.using.passes import Flow, reduced
from rcod.using.restore import ColorFix, Restorer
from rcod.using.sheet import ALL, Centre, lay_out
from rcod.using.sources import Lost


@dataclass(frozen=True)
class Elsewhere:
    """Where pictures are done besides this process."""

    begin: Callable[[Job], Future[Outcome]]
    places: int  # pictures that may be in hand at once


def run(
    load: Callable[[], Restorer],
    photos: Sequence[Path],
    out: Path,
    options: Options,
    watch: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
    stop: Callable[[], bool] = lambda: False,
    step: Callable[[float], None] = lambda share: None,
    elsewhere: Elsewhere | None = None,
) -> BatchReport:
    """Enlarge the pictures of files, folders and patterns into a folder, made if it is missing.

    Args:
        load: gives the restorer; called once, when the first picture has been read.
        photos: files, folders and patterns.
        out: the folder that receives `<place>/<stem>.<format>`.
        options: how, for all of them.
        watch: told of every picture: its outcome, how many are done, of how many.
        stop: asked before every picture whether to leave the others.
        step: told the share of the picture in hand that is done.
        elsewhere: other processes that do the pictures (see `workers`); without it this one does.
    """
    ledger = ledger_of(photos, out)
    jobs, lost = plan_jobs(photos, out, options, photos_of(ledger, out))
    hall = _Hall(load, options, options.settings(), options.mask(), step)
    if jobs:
        make_folder(out, jobs)
    ledger = hall.ledger = ledger or ledger_of(photos, out)  # the folder may have come now
    outcomes, total = list[Outcome](), len(jobs) + len(lost)

    def note(outcome: Outcome, print: str = "") -> None:
        outcomes.append(outcome)
        enter(ledger, outcome, print)
        watch(outcome, len(outcomes), total)

    for source, error in lost:
        note(Outcome(source, error=error))
    try:
        for outcome, print in _outcomes(hall, jobs, stop, elsewhere):
            note(outcome, print)
    finally:
        report = BatchReport(tuple(outcomes), stopped=len(outcomes) < total)
        if ledger is not None and (error := ledger.save(report.summary)) is not None:
            report = replace(report, outcomes=(*outcomes, Outcome(ledger.path, error=error)))
            watch(report.outcomes[-1], total, total)
    return report


@dataclass
class _Hall:
    """Where pictures are taken one after the other, with what they share."""

    load: Callable[[], Restorer]
    options: Options
    settings: str  # all that results depend on besides their photo
    mask: Tensor | None
    step: Callable[[float], None] = lambda share: None
    ledger: Ledger | None = None
    restorer: Restorer | None = None
    waiting: Future[Photo] | None = None  # the next picture, read while this one is computed
    waits: tuple[Path, str] = Path(), ""  # whose it is, and its print before it was read

    def is_done(self, job: Job, print: str) -> bool:
        """Whether the results of a picture are there, made by the same settings."""
        if self.ledger is None or not print or not self.options.skip_existing:
            return False
        return all(self.ledger.has(target, print) for target in job.targets)

    def take(self, job: Job, print: str, pool: ThreadPoolExecutor, later: Sequence[Job]) -> Outcome:
        """Do one picture; one that has changed since it was read ahead is read anew."""
        source, before = self.waits
        waiting = self.waiting if source == job.source and print in (before, "") else None
        self.waiting = None
        try:
            photo = _open(job, self.options, waiting)
        except RcodError as error:
            return Outcome(job.source, error=str(error))
        if later and light(later[0]):
            source = later[0].source
            self.waits = source, print_of(source, self.settings)
            self.waiting = pool.submit(read, source)
        self.restorer = self.restorer or self.load()  # its errors concern all: they end the run
        return _enlarge(self.restorer, photo, self.mask, job, self.options, self.step)


def _outcomes(
    hall: _Hall, jobs: Sequence[Job], stop: Callable[[], bool], elsewhere: Elsewhere | None
) -> Iterator[tuple[Outcome, str]]:
    """What became of every picture, in their order, with what its results depend on."""
    pending: deque[tuple[Future[Outcome], str]] = deque()

    def back() -> Iterator[tuple[Outcome, str]]:
        """What has come from elsewhere, and isn't waited for by one before it."""
        while pending and pending[0][0].done():
            done, print = pending.popleft()
            if not (stop() and isinstance(done.exception(), BrokenExecutor)):  # ended alike
                yield done.result(), print

    ahead = elsewhere is None and hall.options.memory is None  # whose forecast is of one picture
    with ThreadPoolExecutor(1) as pool:
        for i, job in enumerate(jobs):
            in_hand = [future for future, _ in pending if not future.done()]
            if elsewhere is not None and len(in_hand) >= elsewhere.places:
                next(as_completed(in_hand))
            if stop():
                break
            print = print_of(job.source, hall.settings)
            if hall.is_done(job, print):
                yield Outcome(job.source, skipped=True), ""
            elif elsewhere is None:
                yield hall.take(job, print, pool, jobs[i + 1 :] if ahead else ()), print
            else:
                pending.append((elsewhere.begin(job), print))
                yield from back()
    while pending:
        wait([pending[0][0]])
        yield from back()


def take(load: Callable[[], Restorer], job: Job, options: Options) -> Outcome:
    """Do one picture of a call that was planned elsewhere; its folder is there."""
    hall = _Hall(load, options, "", options.mask())
    with ThreadPoolExecutor(1) as pool:
        return hall.take(job, "", pool, ())


def rehearse(
    photos: Sequence[Path], out: Path, options: Options
) -> tuple[list[tuple[Job, bool]], list[Lost]]:
    """What a call would do: its jobs, whether they are done already, and what can't be done."""
    ledger = ledger_of(photos, out)
    jobs, lost = plan_jobs(photos, out, options, photos_of(ledger, out))
    hall = _Hall(Restorer.load, options, options.settings(), None, ledger=ledger)
    return [(job, hall.is_done(job, print_of(job.source, hall.settings))) for job in jobs], lost


def pipe(load: Callable[[], Restorer], source: Path, into: BinaryIO, options: Options) -> Outcome:
    """Enlarge one picture into an empty file; `same` is the format of what the picture holds."""
    try:
        job = piped(source, options.format)
        photo = _open(job, options, None)
    except RcodError as error:
        return Outcome(source, error=str(error))
    mask = options.mask()
    written: list[Written] = []

    def work(restorer: Restorer) -> None:
        into.seek(0)
        into.truncate()
        flow = _flows(restorer, photo, mask, options, lambda share: None)[0]
        written.append(_pour(flow, into, job.targets[0], photo, options)[0])

    return _within_memory(load(), photo, job, options, work, written)


def _open(job: Job, options: Options, waiting: Future[Photo] | None) -> Photo:
    """Read a picture and be sure that its files can hold the result."""
    if job.content is not None:
        photo = read(job.content, job.name)
    else:
        photo = read(job.source) if waiting is None else waiting.result()
    photo = options.stripped(photo)
    try:
        height, width = options.size(photo)
        for target in job.targets:
            check_writable(target, height, width, photo.alpha)
    except RcodError as error:
        sentence = str(error).removeprefix(f"{job.targets[0]}: ")
        raise RcodError(f"{job.name}: {sentence}") from None
    return reduced(photo, (height, width))


def _enlarge(
    restorer: Restorer,
    photo: Photo,
    mask: Tensor | None,
    job: Job,
    options: Options,
    step: Callable[[float], None],
) -> Outcome:
    """Restore one picture and write its files."""
    written: list[Written] = []

    def work(restorer: Restorer) -> None:
        written.clear()
        started = time.perf_counter()
        flows = _flows(restorer, photo, mask, options, step)
        centres: list[Centre] = []
        for target, flow in zip(job.targets, flows, strict=False):  # the sheet has no flow
            ensure_folder(target.parent)
            with placed(target) as file:
                done, centre = _pour(flow, file, target, photo, options)
                check_free(target, options.overwrite)  # it may have come meanwhile
            written.append(done)
            centres.append(centre)
        if options.realism == "all":
            path = job.targets[-1]
            drawn = lay_out(photo, flows, centres, job.source.name)
            check_free(path, options.overwrite)
            write(path, from_pil(drawn), options.quality)
            seconds = time.perf_counter() - started
            written.append(Written(path, "sheet", False, None, None, drawn.size, seconds))

    return _within_memory(restorer, photo, job, options, work, written)


def _within_memory(
    restorer: Restorer,
    photo: Photo,
    job: Job,
    options: Options,
    work: Callable[[Restorer], None],
    written: list[Written],
) -> Outcome:
    """Do the work on one picture; what it has written is in the list."""
    size, suffix = options.size(photo), job.targets[0].suffix
    try:
        keep_to(options.memory, restorer, photo, size, suffix).within_memory(work)
    except RcodError as error:
        sentence = str(error)
        named = sentence if job.name in sentence else f"{job.name}: {sentence}"
        return Outcome(job.source, tuple(written), named)
    return Outcome(job.source, tuple(written), notes=notes_of(photo, suffix))


def _flows(
    restorer: Restorer,
    photo: Photo,
    mask: Tensor | None,
    options: Options,
    step: Callable[[float], None],
) -> list[Flow]:
    """The results of a photo, not begun yet."""
    dials: Sequence[Dial] = ALL if options.realism == "all" else [options.realism]
    if mask is not None:
        check_shape(mask, (photo.pixels.shape[-2], photo.pixels.shape[-1]))
        dials = [mask]
    measure = any(isinstance(dial, str) and dial == "auto" for dial in dials)
    seen = restorer.look(photo, measure)
    size, color = options.size(photo), cast(ColorFix, options.color)  # Options made sure
    return [restorer.flow(photo, seen, dial, size, color, step) for dial in dials]


def _pour(
    flow: Flow, file: BinaryIO, target: Path, photo: Photo, options: Options
) -> tuple[Written, Centre]:
    """Write a result while it is computed."""
    centre = Centre(flow.size)
    with sink(file, target.suffix, photo, flow.size, options.quality) as into:
        for piece, top, left in flow.pieces:
            into.put(piece, top, left)
            if options.realism == "all":
                centre.take(piece, top, left)
            del piece  # or it would stay while the next is made
    height, width = flow.size
    done = Written(target, flow.level, flow.auto, flow.timestep, flow.metric, (width, height),
                   sum(flow.seconds.values()))  # fmt: skip
    return done, centre
