"""Which pictures are meant, and what will their results be called?

Files, folders and patterns become jobs: one picture each, with the names of all that it will
become. Folders are searched to their last corner, and results lie in the same places below
the output folder. Every name is settled before the work starts, so that no two pictures meet in
one file, and no file of the user is overwritten unasked.

    photos/ 'shots/**/*.tif' a.jpg -> sources, places -> names -> Job | why not
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from rcod.errors import RcodError
from rcod.pixels.images import ENCODERS, SUFFIXES, suffix_of
from rcod.pixels.placing import check_free, is_same, sweep
from rcod.using.orders import Options

STDIN = Path("-")
AHEAD = 8_000_000  # bytes of a file that is read while the one before is computed, at most
Spellings = dict[str, list[Path]]  # photos by their places, without case


@dataclass(frozen=True)
class Job:
    """One picture and the files it becomes: one, or every level and the sheet."""

    source: Path
    targets: tuple[Path, ...]
    content: bytes | None = None  # of a picture that isn't to be read from its file

    @property
    def name(self) -> str:
        """What an error calls the picture."""
        return name_of(self.source)


class Lost(NamedTuple):
    """A picture that can't be done, and why."""

    source: Path
    error: str


class Source(NamedTuple):
    """A picture that was found, and where its result belongs below the output folder."""

    path: Path
    place: Path


def is_several(photos: Sequence[Path]) -> bool:
    """Whether a call names more than one file: then it keeps a report."""
    if len(photos) != 1 or holds(photos[0].is_dir):
        return True
    return _is_pattern(photos[0]) and not holds(photos[0].is_file)


def holds(question: Callable[[], bool]) -> bool:
    """What a path says of itself; no where its name is too long for any file."""
    try:
        return question()
    except OSError:
        return False


def opened(stream: TextIO | None, name: str) -> BinaryIO:
    """The bytes of a standard stream, which whoever started this process may have closed."""
    if stream is None:
        raise RcodError(f"{name} must be open, and it is closed; name files and a folder instead")
    return stream.buffer


def content_of(source: Path) -> bytes:
    """All of a picture's file, or of standard input."""
    if source == STDIN:
        return opened(sys.stdin, "standard input").read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise RcodError(f"{source}: must be a readable file, got: {error.strerror}") from None


def name_of(source: Path) -> str:
    """What an error calls a picture."""
    return "standard input" if source == STDIN else str(source)


def place_of(photos: Sequence[Path], out: Path) -> tuple[Path, str | None]:
    """The folder of the results, and the name of the one result where `out` is a picture's."""
    if out.suffix.lower() not in SUFFIXES or holds(out.is_dir):
        return out, None
    if is_several(photos):
        raise RcodError(f"{out}: several photos must go into a folder, and this names a picture")
    return out.parent, out.name


def plan_jobs(photos: Sequence[Path], out: Path, options: Options) -> tuple[list[Job], list[Lost]]:
    """Settle every name in the folder; what can't be done is said already. Nothing is written."""
    lost: list[Lost] = []
    sources: dict[Path, Source] = {}  # by where it really lies, so a picture named twice is one
    for given in photos:
        for found in gather(given, out):
            if isinstance(found, Lost):
                lost.append(found)
            else:
                sources.setdefault(_resolved(found.path), found)
    alike: Spellings = {}
    for path in sources:
        alike.setdefault(str(path).casefold(), []).append(path)
    jobs: list[Job] = []
    taken: dict[str, Path] = {}  # target's name without case -> the picture it belongs to
    for source, place in sources.values():
        try:
            content = content_of(source) if source == STDIN else None
        except RcodError as error:
            lost.append(Lost(source, str(error)))
            continue
        stem = "stdin" if source == STDIN else source.stem
        named = Path(options.name or f"{stem}{suffix_for(source, options.format, content)}")
        targets = tuple(out / place / f"{named.stem}{part}{named.suffix}" for part in options.parts)
        reasons = (_refusal(t, source, alike, taken, options.overwrite) for t in targets)
        error = next(filter(None, reasons), None)
        if error is not None:
            lost.append(Lost(source, error))
            continue
        taken |= {str(target).casefold(): source for target in targets}
        jobs.append(Job(source, targets, content))
    return jobs, lost


def piped(source: Path, format: str) -> Job:
    """One picture for standard output; `same` is the format of what it holds."""
    content = content_of(source)
    return Job(source, (Path(f"standard output{suffix_for(source, format, content)}"),), content)


def suffix_for(source: Path, format: str, content: bytes | None = None) -> str:
    """The ending of a picture's results; `same` is its own, where that can be written."""
    if format != "same":
        return f".{format}"
    if content is not None:
        return suffix_of(content)
    return source.suffix if source.suffix.lower() in ENCODERS else ".png"


def gather(given: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The pictures that a file, a folder or a pattern stands for, in order of name.

    A file stands for itself, whatever its name. A folder stands for the pictures in it and below,
    known by suffix; links to folders are not followed. The output folder is left out.
    """
    if given == STDIN:
        yield Source(given, Path())
        return
    try:
        if given.is_dir():
            yield from _inside(given, out)
        elif given.is_file():
            yield Source(given, Path())
        elif given.exists():
            why = "must be a file or a folder, got a device or a pipe; copy it"
            yield Lost(given, f"{given}: {why}")
        elif _is_pattern(given):
            yield from _matching(given, out)
        else:
            yield Lost(given, f"{given}: no such file or folder; check the name")
    except RcodError:  # a ValueError that ends the call
        raise
    except (OSError, ValueError) as error:  # a name that is too long, a circle of links
        reason = error.strerror if isinstance(error, OSError) else str(error)
        yield Lost(given, f"{given}: must be readable, got: {reason}")


def make_folder(out: Path, jobs: Sequence[Job]) -> None:
    """Make the folder and be sure that files can be put there, before any work is done.

    Where results will lie, what killed processes have left unfinished is swept away.
    """
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
    for place in {out, *(target.parent for job in jobs for target in job.targets)}:
        if place.is_dir():
            sweep(place)


def make_place(folder: Path) -> None:
    """Make the folder of a result below the output folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RcodError(f"{folder}: must be a folder, got: {error.strerror}; move it") from None


def light(job: Job) -> bool:
    """Whether a picture may be read ahead: it then lies in memory beside the one in hand."""
    try:
        return job.source != STDIN and job.source.stat().st_size <= AHEAD
    except OSError:
        return False


def _inside(folder: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The pictures in a folder and below."""
    skipped: list[OSError] = []
    results = None if out is None else _resolved(out)
    if _resolved(folder) == results:
        raise RcodError(
            f"{out}: results must lie in another folder than the photos; name one by -o, which may "
            "be inside of it"
        )
    count = 0
    for top, folders, names in os.walk(folder, onerror=skipped.append):
        here = Path(top)
        folders[:] = sorted(name for name in folders if _resolved(here / name) != results)
        for name in sorted(names):
            path = here / name
            if path.suffix.lower() not in SUFFIXES or name.startswith(".rcod-"):
                continue
            count += 1
            if path.is_file():
                yield Source(path, here.relative_to(folder))
            else:
                yield Lost(path, f"{path}: must be a file, got a device, or a link to nothing")
    for error in skipped:
        yield Lost(Path(error.filename), f"{error.filename}: must be readable, got: "
                   f"{error.strerror}")  # fmt: skip
    if not count and not skipped:
        yield Lost(
            folder,
            f"{folder}: a folder must hold at least one picture, and this one holds none; "
            f"pictures end in {', '.join(SUFFIXES)}",
        )


def _is_pattern(given: Path) -> bool:
    return any(sign in str(given) for sign in "*?[")


def _matching(pattern: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The files that a pattern matches; places are counted from its first part that varies."""
    results = None if out is None else _resolved(out)
    fixed = next(i for i, part in enumerate(pattern.parts) if _is_pattern(Path(part)))
    base = Path(*pattern.parts[:fixed])
    found = sorted(p for p in base.glob(str(Path(*pattern.parts[fixed:]))) if p.is_file())
    files = [p for p in found if results == _resolved(base) or results not in _resolved(p).parents]
    for path in files:
        yield Source(path, path.parent.relative_to(base))
    if not files:
        yield Lost(pattern, f"{pattern}: the pattern must match at least one file, and it doesn't")


def _resolved(path: Path) -> Path:
    """Where a path really leads; a circle of links leads to itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _refusal(
    target: Path, source: Path, alike: Spellings, taken: dict[str, Path], overwrite: bool
) -> str | None:
    """Why a name cannot be used for this picture, if so."""
    other = taken.get(str(target).casefold())
    if other is not None:
        return (
            f"{source}: every picture needs an output name of its own, and {other} becomes "
            f"{target} too; rename one or use two folders"
        )
    place = _resolved(target)
    if any(is_same(place, photo) for photo in alike.get(str(place).casefold(), ())):
        return (
            f"{source}: a photo to enlarge is never overwritten, and the result would replace "
            f"{target}; choose another folder or format"
        )
    try:
        if target.is_dir():
            return f"{source}: the result would be named {target}, a folder's name; move it"
        check_free(target, overwrite)
    except RcodError as error:
        return f"{source}: {error}"
    except OSError as error:
        return f"{source}: the result would be named {target}, got: {error.strerror}; rename it"
    return None
