"""Which pictures do files, folders and patterns stand for?

Folders are searched to their last corner. A picture that is named twice, or lies behind a link,
is one.

    photos/ 'shots/**/*.tif' a.jpg - -> Source(path, place below the output folder) | Lost(why)
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from rcod.errors import RcodError
from rcod.pixels.images import SUFFIXES

STDIN = Path("-")
BESIDE = (".rcod-", "._")  # how files start that are no pictures, whatever they end in
REPORT = "report.json"  # in a folder of results


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


def gather_all(photos: Sequence[Path], out: Path | None) -> list[Source | Lost]:
    """What files, folders and patterns stand for; a picture named twice is one.

    Links are other names: a picture among them goes by its own.
    """
    found: dict[Path | Lost, Source | Lost] = {}
    for one in (one for given in photos for one in gather(given, out)):
        key = one if isinstance(one, Lost) else resolved(one.path)
        known = found.setdefault(key, one)
        if isinstance(known, Source) and known.path.is_symlink() and isinstance(one, Source):
            found[key] = one  # its own name
    return list(found.values())


def gather(given: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The pictures that a file, a folder or a pattern stands for, in order of name.

    A file stands for itself, whatever its name. A folder stands for the pictures in it and below,
    known by suffix; links to folders are not followed. The output folder is left out, and so are
    folders below with the results of earlier calls, and what macOS lays beside files (`._a.jpg`).
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


def _inside(folder: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The pictures in a folder and below."""
    skipped: list[OSError] = []
    results = None if out is None else resolved(out)
    if resolved(folder) == results:
        raise RcodError(
            f"{out}: results must lie in another folder than the photos; name one by -o, which may "
            "be inside of it"
        )
    count = 0
    for top, folders, names in os.walk(folder, onerror=skipped.append):
        here = Path(top)
        folders[:] = sorted(
            name
            for name in folders
            if resolved(here / name) != results and not _has_results(here / name)
        )
        for name in sorted(names):
            path = here / name
            if path.suffix.lower() not in SUFFIXES or name.startswith(BESIDE):
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


def _has_results(folder: Path) -> bool:
    """Whether an earlier call has put its results here."""
    try:
        with (folder / REPORT).open("rb") as file:
            return b'"rcod"' in file.read(64)
    except OSError:
        return False


def _is_pattern(given: Path) -> bool:
    return any(sign in str(given) for sign in "*?[")


def _matching(pattern: Path, out: Path | None) -> Iterator[Source | Lost]:
    """The files that a pattern matches; places are counted from its first part that varies."""
    results = None if out is None else resolved(out)
    fixed = next(i for i, part in enumerate(pattern.parts) if _is_pattern(Path(part)))
    base = Path(*pattern.parts[:fixed])
    found = sorted(p for p in base.glob(str(Path(*pattern.parts[fixed:]))) if p.is_file())
    tops = {base / top for path in found for top in path.relative_to(base).parents[:-1]}
    left_out = set(filter(_has_results, tops))
    files = [
        path
        for path in found
        if (results == resolved(base) or results not in resolved(path).parents)
        and not path.name.startswith(BESIDE)
        and left_out.isdisjoint(path.parents)
    ]
    for path in files:
        yield Source(path, path.parent.relative_to(base))
    if not files:
        yield Lost(pattern, f"{pattern}: the pattern must match at least one file, and it doesn't")


def resolved(path: Path) -> Path:
    """Where a path really leads; a circle of links leads to itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
