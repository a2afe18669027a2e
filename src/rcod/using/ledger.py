"""Which results are there already, made by these very settings?

`report.json` in the output folder says of every result what it was made from, how, and what
came of it. The next call leaves alone what it would make again; a changed photo, setting or
result is made anew. It is replaced as a whole, now and then while the work goes on and at its
end, so that killing the work loses seconds. What other calls have written meanwhile stays.

    photo, settings -> print --= report.json ? --> done already : to do
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NotRequired, TypedDict

from filelock import FileLock

from rcod import __version__
from rcod.errors import RcodError
from rcod.pixels.placing import placed
from rcod.using.orders import Outcome
from rcod.using.sources import REPORT, STDIN, holds, is_several

PAUSE = 20  # times what writing took, at least a second, between two times
PATIENCE = 60.0  # seconds to wait for another call that is in the report


class Entry(TypedDict):
    """One result."""

    source: str
    photo: NotRequired[str]  # where that lies, from the root
    print: str  # of the photo and the settings
    bytes: int  # of the result, which is made anew if they or its date have changed
    changed: int
    level: str
    timestep: int | None
    metric: float | None
    width: int
    height: int
    seconds: float


class Failure(TypedDict):
    """One picture that was not done."""

    source: str
    error: str


class Content(TypedDict):
    """What the file holds."""

    rcod: str
    summary: NotRequired[dict[str, float]]  # of the latest call
    failed: list[Failure]  # in the latest call
    pictures: dict[str, Entry]  # by place below the folder


class Ledger:
    """The report of one output folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / REPORT
        self.content: Content = {"rcod": __version__, "failed": [], "pictures": _read(self.path)}
        self._own: dict[str, Entry] = {}  # of this call
        self._next = time.monotonic() + 1

    def has(self, target: Path, print: str) -> bool:
        """Whether a result is there, made from the same photo by the same settings."""
        entry = self.content["pictures"].get(self._key(target))
        try:
            now = target.stat()
        except OSError:
            return False
        known = entry is not None and (entry["print"], entry["bytes"], entry["changed"])
        return known == (print, now.st_size, now.st_mtime_ns)

    def add(self, target: Path, entry: Entry) -> None:
        """Note a result that was written, unless somebody has moved it away already."""
        with suppress(OSError):
            now = target.stat()
            entry["bytes"], entry["changed"] = now.st_size, now.st_mtime_ns
            key = self._key(target)
            self.content["pictures"][key] = self._own[key] = entry

    def fail(self, source: Path, error: str) -> None:
        """Note a picture that was not done."""
        self.content["failed"].append({"source": str(source), "error": error})

    def save(self, summary: dict[str, float] | None = None) -> str | None:
        """Write the file: at the end, with a summary, or when it is time again.

        Returns:
            The sentence that says why it couldn't be written, if so.
        """
        if summary is not None:
            self.content["summary"] = summary
        elif time.monotonic() < self._next:
            return None
        order = ("rcod", "summary", "failed", "pictures")
        started = time.monotonic()
        try:
            with _alone(self.path), placed(self.path) as file:
                self.content["pictures"] = _read(self.path) | self._own
                found: dict[str, object] = dict(self.content)
                whole = {key: found[key] for key in order if key in found}
                file.write(json.dumps(whole, indent=1).encode())
        except RcodError as error:  # a full disk: pictures that fit are still made
            return str(error)
        took = time.monotonic() - started
        self._next = time.monotonic() + max(1.0, PAUSE * took)
        return None

    def _key(self, target: Path) -> str:
        return target.relative_to(self.out).as_posix()


def ledger_of(photos: Sequence[Path], out: Path) -> Ledger | None:
    """The report that a call keeps, if its folder is there."""
    return Ledger(out) if is_several(photos) and holds(out.is_dir) else None


def photos_of(ledger: Ledger | None, out: Path) -> dict[Path, str]:
    """What the results in a folder were made from, by where they lie, as far as it is known.

    A call that keeps no report still heeds that of another.
    """
    try:
        entries = _read(out / REPORT) if ledger is None else ledger.content["pictures"]
    except RcodError:  # no report of ours
        return {}
    return {out / key: entry["photo"] for key, entry in entries.items() if "photo" in entry}


def enter(ledger: Ledger | None, outcome: Outcome, print: str) -> None:
    """Note in the report, where there is one, what became of a picture."""
    if ledger is None:
        return
    if outcome.error is not None:
        ledger.fail(outcome.source, outcome.error)
    elif print:
        for file in outcome.written:
            width, height = file.size
            ledger.add(file.path, {
                "source": str(outcome.source), "photo": str(outcome.source.absolute()),
                "print": print, "bytes": 0, "changed": 0,
                "level": file.level, "timestep": file.timestep, "metric": file.metric,
                "width": width, "height": height, "seconds": round(file.seconds, 3),
            })  # fmt: skip
    ledger.save()


def print_of(source: Path, settings: str) -> str:
    """What a result depends on, in short: which photo, its size and date, and all settings.

    Nothing where the photo can't be asked.
    """
    if source == STDIN:
        return ""
    try:
        now = source.stat()
    except OSError:
        return ""
    parts = (__version__, settings, str(source.absolute()), str(now.st_size), str(now.st_mtime_ns))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def _alone(report: Path) -> Iterator[None]:
    """Keep other calls from a report while it is read and replaced.

    The system's lock ends with the call that holds it, however that ends. Where there is none to
    be had, and behind a call that hangs, we go on: at worst another call's entries are lost.
    """
    beside = report.with_name(".rcod-report.lock")
    lock = FileLock(beside, timeout=PATIENCE)
    with suppress(OSError):
        lock.acquire(poll_interval=0.01)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                beside.unlink()  # while it is ours, so that whoever waits for it sees it go
            lock.release()


def _read(path: Path) -> dict[str, Entry]:
    """Results of earlier calls that are still there."""
    try:
        found = json.loads(path.read_bytes())
        pictures = found["pictures"] if "rcod" in found else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError):
        pictures = None
    if not isinstance(pictures, dict):
        raise RcodError(
            f"{path}: the report would get this name, and a file that isn't rcod's has it; move it"
        )
    return {
        key: entry for key, entry in pictures.items() if _is_entry(entry)
        and (path.parent / key).is_file()
    }  # fmt: skip


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and {"print", "bytes", "changed"} <= entry.keys()
