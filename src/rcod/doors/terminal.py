"""What does the command line say, and how does it end?

Results go to standard output, one line each; what went wrong goes to standard error, one
sentence each. Exit codes: 0 all done, 1 some pictures were not, 2 wrong use, 130 stopped.
"""

import errno
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

import typer

from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.using.orders import Outcome, Written

    Watch = Callable[[Outcome, int, int], None]
    Step = Callable[[float], None]

PIPE = Path("-")
STOPPED = "stopped; every file that was written is whole"
FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a caller can fix into one line and exit code 2, and Ctrl-C into 130."""
    try:
        yield
    except RcodError as error:
        complain(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say_aside(STOPPED)
        raise typer.Exit(130) from None


@contextmanager
def lasting() -> Iterator[None]:
    """Import what stays to the end: nothing of it is searched for garbage, then or ever.

    PyTorch is a million objects, and Python would search them while they come and when it ends.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def patience() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM wait for the picture in hand; the second stops at once.

    Yields:
        Whether to stop before the next picture.
    """
    asked: list[float] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(time.monotonic())

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: nobody presses keys
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """A file that goes to standard output when it is whole; a large one waits on the disk."""
    from rcod.using.sources import opened

    into = opened(sys.stdout, "standard output")
    try:
        with tempfile.SpooledTemporaryFile(max_size=2**26) as file:
            yield cast("BinaryIO", file)
            file.seek(0)
            _pour(cast("BinaryIO", file), into)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise RcodError(
            "a large result waits in a temporary file before it goes to standard output, got: "
            f"{error.strerror}; set TMPDIR to another folder"
        ) from None


def _pour(file: BinaryIO, into: BinaryIO) -> None:
    """Give all of a file to standard output; a closed pipe is left to who handles it for all."""
    try:
        shutil.copyfileobj(file, into, 2**20)
        into.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RcodError(
            f"standard output must take the whole picture, got: {error.strerror}; make room, or "
            "name a folder by -o"
        ) from None


def check_file(option: str, path: Path | None) -> None:
    """Refuse, before the work, a file that could not be written after it."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RcodError(f"{option} must name a file in a folder that exists, got {path}")
    if path.is_dir():
        raise RcodError(f"{option} must name a file, got the folder {path}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise RcodError(f"{option} must name a file that can be written, got {path}")


def keep(path: Path | None, text: str) -> None:
    """Write down what was found, where somebody asked for it."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = f"must be a file that can be written, got: {error.strerror}"
        raise RcodError(f"{path}: {why}; choose another folder") from None


def keep_json(path: Path | None, found: object) -> None:
    """The same of numbers."""
    keep(path, json.dumps(found, indent=1) + "\n")


@contextmanager
def progress(say_where: Callable[[str], None]) -> Iterator[tuple["Watch", "Step"]]:
    """Show on a terminal how far the work is; elsewhere only say what was done.

    Args:
        say_where: takes the lines about results.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[share]}"), TimeRemainingColumn(),
        console=console, transient=True, refresh_per_second=4, disable=not console.is_terminal,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    task = bar.add_task("enlarging", total=None, share="")

    def watch(outcome: "Outcome", done: int, total: int) -> None:
        bar.stop()  # its line is cleared, so that ours stand alone
        for written in outcome.written:
            say_where(closing_line(outcome.source, written))
        for note in outcome.notes:
            say_where(f"note: {outcome.source} {note}")
        if outcome.skipped:
            say_where(f"{outcome.source}: done already by these settings")
        if outcome.error is not None:
            complain(outcome.error)
        bar.update(task, completed=done, total=total, share="")
        bar.start()

    def step(share: float) -> None:
        bar.update(task, share=f"{share:.0%} of this one" if share < 1 else "")

    with bar:
        yield watch, step


def summary_table(summary: dict[str, float]) -> list[str]:
    """What became of a folder, as lines of a table."""
    rows = [("", "pictures", "megapixels", "seconds")]
    rows.append(("done", str(int(summary["done"])), f"{summary['megapixels']:.1f}",
                 f"{summary['seconds']:.1f}"))  # fmt: skip
    rows += [(name, str(int(summary[name])), "", "") for name in ("skipped", "failed")]
    return [f"{a:8}{b:>9}{c:>12}{d:>9}".rstrip() for a, b, c, d in rows]


def closing_line(source: Path, written: "Written") -> str:
    """What became of a picture: level, timestep, estimated metric, size, seconds."""
    facts = [f"auto chose {written.level}" if written.auto else written.level]
    if written.timestep is not None:
        facts.append(f"timestep {written.timestep}")
    if written.metric is not None:
        facts.append(f"metric {written.metric:.3f}")
    facts.append(f"{written.size[0]} x {written.size[1]}")
    facts.append(f"{written.seconds:.2f} s")
    return f"{source} -> {written.path}: {', '.join(facts)}"


def complain(sentence: str) -> None:
    """One line on standard error."""
    say_aside(f"error: {' '.join(sentence.split())}")


def say(line: str) -> None:
    """A line on standard output."""
    _tell(line, sys.stdout)


def say_aside(line: str) -> None:
    """A line on standard error, where standard output is a picture."""
    _tell(line, sys.stderr)


@contextmanager
def heard() -> Iterator[None]:
    """End in failure when standard output has lost a line, help's included."""
    out = sys.stdout
    try:
        yield
    except OSError:
        say("")  # whose failure was it? Standard output's own is told here
        if sys.stdout is out:
            raise
        raise SystemExit(1) from None
    except SystemExit as end:
        if sys.stdout is not out and not end.code:
            raise SystemExit(1) from None
        raise


def _tell(line: str, stream: TextIO | None) -> None:
    """A line to somebody; the work goes on without one who takes no more, or isn't there."""
    if stream is None:
        return
    try:
        typer.echo(_shown(line, stream.encoding), file=stream)
    except BrokenPipeError:
        raise
    except OSError as error:
        _lose(stream, error)


def _lose(stream: TextIO, error: OSError) -> None:
    """Put nothing in the place of a full stream, and say so where that can be heard."""
    silence = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # to the end
    if stream is sys.stderr:
        sys.stderr = silence
        return
    sys.stdout = silence
    complain(f"standard output must take every line, got: {error.strerror}; the work goes on")


def _shown(line: str, encoding: str | None) -> str:
    """A single line; what its encoding cannot show is escaped."""
    encoding = encoding or "utf-8"
    flat = line.replace("\r", " ").replace("\n", " ")
    return flat.encode(encoding, "backslashreplace").decode(encoding)
