"""Which photos go to a cluster, and which are there already?

Photos lie behind addresses of any kind that fsspec knows: folders, s3://, gs://, lists of
addresses in text files. They are written down line by line in portions beside the results, and
never held in memory as a whole; what earlier calls have recorded as done is left out.

    addresses -> names settled, done ones left out -> rcod-plan-ID/*.jsonl
    records   -> rcod-done/*.jsonl, files still there -> a number for each -> left out next time
"""

import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TextIO, TypedDict, cast

from rcod import __version__
from rcod.errors import RcodError
from rcod.pixels.images import SUFFIXES
from rcod.using.jobs import suffix_for
from rcod.using.sources import BESIDE
from rcod.using.store import Store, found_by, is_here, name_of, opened, reaching, whole

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Listing = tuple[str, Sequence[str], Callable[[str], str]]  # folder, names, stamp of a name

PLAN, DONE = "rcod-plan", "rcod-done"
PORTION = 1000  # lines of a file of the plan


class PhotoTask(TypedDict):
    """One photo, as a line of the plan."""

    source: str  # address
    place: str  # of its results below the output folder, without the end that names the format
    print: str  # of the photo, as far as its listing tells, and all settings


class Record(TypedDict):
    """What became of one photo, as a line of the records."""

    source: str
    print: str
    files: list[str]  # below the output folder
    sizes: list[int]  # of the files, in bytes: another photo's result has another
    notes: list[str]  # what of the photo could not be kept
    error: str | None
    worker: int  # process that did it
    seconds: float


@dataclass(frozen=True)
class Planned:
    """What is to be done."""

    portions: tuple[str, ...]  # files of the plan
    tasks: int
    done: int  # left out, since records say they are done
    refused: tuple[str, ...]  # why some photos can't be done


def plan(
    photos: Sequence[str], out: str, folder: str, settings: str, format: str, skip: bool
) -> Planned:
    """Write down what is to be done, in portions; of photos, numbers of eight bytes are held.

    Args:
        photos: addresses of photos, of folders of them, and of lists (.txt), one address a line.
        out: the output folder's address.
        folder: of the plan, below the output folder.
        settings: all that results depend on besides their photo.
        format: ending of the results, or `same`.
        skip: leave out what is recorded as done.
    """
    store = Store(out)
    done = _done(store) if skip else array("Q")
    names, seen = _Names(store), set[int]()
    listed = any(name_of(given).endswith(".txt") for given in photos)
    several = listed or len(photos) != 1  # one folder names each photo once
    portions, waiting, refused = [], [], []
    tasks = left = 0
    for source, name, stamp in _found(photos, store):
        if (number := _number(source)) in seen:
            continue
        if several:
            seen.add(number)
        print = str(_number(f"{__version__}\n{settings}\n{source}\n{stamp}"))
        place = PurePosixPath(name)
        if not place.name:
            refused.append(f"{source}: must be a photo's address, and names no file")
            continue
        target = place.with_suffix(suffix_for(place, format))
        if (why := names.refuse(source, str(target))) is not None:
            refused.append(why)
            continue
        at = bisect_left(done, _number(print))
        if done[at : at + 1] == array("Q", [_number(print)]):
            left += 1
            continue
        where = str(place.with_suffix(""))
        waiting.append(json.dumps(PhotoTask(source=source, place=where, print=print)))
        tasks += 1
        if len(waiting) == PORTION:
            portions.append(store.add_lines(folder, waiting))
            waiting = []
    if waiting:
        portions.append(store.add_lines(folder, waiting))
    return Planned(tuple(portions), tasks, left, tuple(refused))


class _Names:
    """Names below the output folder: of results, and of photos that lie there. Only numbers."""

    def __init__(self, store: Store) -> None:
        self.top = store.fs.unstrip_protocol(store.root).rstrip("/") + "/"
        self.results, self.photos = set[int](), set[int]()

    def refuse(self, source: str, target: str) -> str | None:
        """Why a photo can't have this name for its result; else it has it from now on."""
        number = _number(target.casefold())
        if source.startswith(self.top):
            self.photos.add(photo := _number(source.removeprefix(self.top).casefold()))
            if photo in self.results:
                raise RcodError(f"{source}: a photo to enlarge is never overwritten, and another "
                                "one's result would replace it; choose another folder")  # fmt: skip
        if number in self.photos:
            return (f"{source}: a photo to enlarge is never overwritten, and the result would "
                    f"replace {self.top}{target}; choose another folder")  # fmt: skip
        if number in self.results:
            return (f"{source}: every photo needs an output name of its own, and another becomes "
                    f"{target} too; rename one or use two folders")  # fmt: skip
        self.results.add(number)
        return None


def _found(photos: Sequence[str], store: Store) -> Iterator[tuple[str, str, str]]:
    """Address, name below the output folder, and what the listing tells of size and date."""
    for given in photos:
        fs, path = opened(given)
        with reaching(f"{given} must be a photo, a folder or a list to read"):
            if name_of(given).endswith(".txt"):
                for address in _listed(fs, path, given):
                    name = name_of(address)
                    yield whole(address) if name else address, name, ""
            elif fs.isdir(path):
                if fs.unstrip_protocol(path) == store.fs.unstrip_protocol(store.root):
                    raise RcodError(f"{given}: results must lie in another folder than the photos")
                yield from _inside(fs, path, given, store.root)
            elif fs.exists(path):
                yield found_by(given, fs, path), name_of(given), _stamp(fs.info(path))
            else:
                raise RcodError(f"{given}: no such file or folder; check the address")


def _listed(fs: "AbstractFileSystem", path: str, given: str) -> Iterator[str]:
    """The addresses in a list."""
    try:
        with cast("TextIO", fs.open(path, "rt", encoding="utf-8-sig")) as lines:
            yield from filter(None, map(str.strip, lines))
    except (OSError, UnicodeError) as error:
        raise RcodError(f"{given} must be a list of addresses in UTF-8, got: {error}") from None


def _inside(
    fs: "AbstractFileSystem", path: str, given: str, out: str
) -> Iterator[tuple[str, str, str]]:
    """The photos in a folder and below, folder after folder; the output folder is left out."""
    for top, names, stamp in _walk(fs, path, out):
        for name in names:  # as text: Python keeps what a Path was made of as long as its parts
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(BESIDE):  # noqa: PTH122
                place = f"{top.rstrip('/')}/{name}" if top else name  # of an archive's own top
                below = place.removeprefix(path.rstrip("/") + "/")
                yield found_by(given, fs, place), below, stamp(name)


def _walk(fs: "AbstractFileSystem", path: str, out: str) -> Iterator[Listing]:
    """Folders but for the output folder; of a store's fsspec holds about a kilobyte a file."""
    if is_here(fs):
        yield from _walk_here(path, out)
        return
    for top, folders, files in fs.walk(path, detail=True):
        for name in [name for name in folders if not _is_other(str(top), name, out)]:
            del folders[name]
        listed = cast("dict[str, dict[str, object]]", files)
        yield str(top), sorted(listed), lambda name, listed=listed: _stamp(listed[name])


def _walk_here(path: str, out: str) -> Iterator[Listing]:
    """Folders of this machine; of a million files only the names are held."""

    def refuse(error: OSError) -> None:
        raise RcodError(f"{error.filename} must be a readable folder, got: {error.strerror}")

    for top, folders, names in os.walk(path, onerror=refuse):
        folders[:] = sorted(name for name in folders if _is_other(top, name, out))

        def stamp(name: str, top: str = top) -> str:
            try:
                now = os.stat(f"{top}/{name}")  # noqa: PTH116
            except OSError:  # whoever does the photo says why it can't be read
                return ""
            return f"{now.st_size} {now.st_mtime}"

        names.sort()
        yield top, names, stamp


def _is_other(top: str, name: str, out: str) -> bool:
    """Whether a folder is another one than the output folder."""
    return f"{top.rstrip('/')}/{name}" != out.rstrip("/")


def _stamp(info: dict[str, object]) -> str:
    """Size and date of a file, or its tag, as its listing has them."""
    names = ("size", "mtime", "LastModified", "ETag", "updated", "md5Hash")
    return " ".join(str(info[name]) for name in names if name in info)


def _done(store: Store) -> "array[int]":
    """Prints of the photos whose results are there still: a file is whose it became last."""
    found = array("Q")
    with store.reached():
        store.fs.invalidate_cache()  # what was listed before may be old
        walk = _walk(store.fs, store.root, "") if store.fs.isdir(store.path(DONE)) else ()
        there = {_sized(f"{top}/{name}".removeprefix(store.path("")), stamp(name).split(" ")[0])
                 for top, names, stamp in walk for name in names}  # fmt: skip
        store.fs.invalidate_cache()  # about a kilobyte a file
    for line in store.lines(DONE):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a store that was filled up
            continue
        if record.get("error") is None and record.get("sizes") and "print" in record:
            files = set(map(_sized, record["files"], record["sizes"]))
            if files <= there:
                found.append(_number(record["print"]))
            there -= files
    return array("Q", sorted(found))


def _sized(name: str, size: int | str) -> int:
    """The number of a result as its record and its listing know it."""
    return _number(f"{size} {name}")


def _number(text: str) -> int:
    """60 bits that stand for a text: among a million two are alike once in 2 million times."""
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) >> 4
