"""What will the results of pictures be called?

Pictures become jobs: one each, with the names of all that it will become. Results lie below the
output folder as the pictures lie below theirs. Every name is settled before the work starts, so
that no two pictures meet in one file, and no file of the user is overwritten unasked.

    sources, places -> names -> Job | why not
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from rcod.errors import RcodError
from rcod.pixels.images import ENCODERS, SUFFIXES, suffix_of
from rcod.pixels.placing import check_free, is_same, sweep
from rcod.using.orders import Options
from rcod.using.sources import (
    STDIN,
    Lost,
    Source,
    content_of,
    gather_all,
    holds,
    is_several,
    name_of,
    resolved,
)

JPEGS = (".jfif", ".jpe")  # what few files of that kind are called
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


def place_of(photos: Sequence[Path], out: Path) -> tuple[Path, str | None]:
    """The folder of the results, and the name of the one result where `out` is a picture's."""
    if out.suffix.lower() not in SUFFIXES or holds(out.is_dir):
        return out, None
    if out.suffix.lower() not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise RcodError(f"{out}: a result's name must end in {known}, got '{out.suffix}'; use .png")
    if is_several(photos):
        raise RcodError(f"{out}: several photos must go into a folder, and this names a picture")
    return out.parent, out.name


def plan_jobs(
    photos: Sequence[Path], out: Path, options: Options, made: Mapping[Path, str]
) -> tuple[list[Job], list[Lost]]:
    """Settle every name in the folder; what can't be done is said already. Nothing is written.

    Args:
        photos: files, folders and patterns.
        out: the output folder.
        options: how pictures are enlarged.
        made: results that are there, and the photos they were made from.
    """
    lost: list[Lost] = []
    sources: dict[Path, Source] = {}  # by where it really lies
    for found in gather_all(photos, out):
        if isinstance(found, Lost):
            lost.append(found)
        else:
            sources[resolved(found.path)] = found
    alike: Spellings = {}
    for path in sources:
        alike.setdefault(str(path).casefold(), []).append(path)
    jobs: list[Job] = []
    taken: dict[str, Path] = {}  # target's name without case -> the picture it belongs to
    for source, place in sources.values():
        try:
            content = content_of(source) if source == STDIN else None
            suffix = suffix_for(source, options.format, content)
        except RcodError as error:
            lost.append(Lost(source, str(error)))
            continue
        stem = "stdin" if source == STDIN else source.stem
        named = Path(options.name or f"{stem}{suffix}")
        targets = tuple(out / place / f"{named.stem}{part}{named.suffix}" for part in options.parts)
        reasons = (_refusal(t, source, alike, taken, options.overwrite) for t in targets)
        others = (_other(t, source, made) for t in targets if not options.overwrite)
        error = next(filter(None, (*reasons, *others)), None)
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


def suffix_for(source: PurePath, format: str, content: bytes | None = None) -> str:
    """The ending of a picture's results; `same` is its own, where that can be written."""
    if format != "same":
        return f".{format}"
    known = source.suffix.lower()
    if content is not None:
        return suffix_of(content)
    if known not in SUFFIXES and isinstance(source, Path):  # a file whose name doesn't tell
        return suffix_of(source)
    return source.suffix if known in ENCODERS else ".jpg" if known in JPEGS else ".png"


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


def light(job: Job) -> bool:
    """Whether a picture may be read ahead: it then lies in memory beside the one in hand."""
    try:
        return job.source != STDIN and job.source.stat().st_size <= AHEAD
    except OSError:
        return False


def _other(target: Path, source: Path, made: Mapping[Path, str]) -> str | None:
    """Why a result that is there stays: it is another photo's."""
    photo = made.get(target)
    if photo is None or is_same(source.absolute(), Path(photo)):
        return None
    return (
        f"{source}: {target} was made from {photo}; choose another folder, or pass --overwrite to "
        "replace it"
    )


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
    place = resolved(target)
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
