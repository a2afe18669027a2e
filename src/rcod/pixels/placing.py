"""How does a file get its name only when it is whole?

It is written under another name in the same folder and renamed. What a killed process leaves
bears that process's number, and the next one sweeps it away.

    .rcod-MACHINE-PROCESS-RANDOM.part -> flushed to the disk -> renamed
"""

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from rcod.errors import RcodError
from rcod.pixels.metadata import is_marked
from rcod.pixels.planes import DAMAGE

DAY = 86_400.0  # seconds after which nobody works on an unfinished file
WRITTEN = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF")  # what results are stored as


@contextmanager
def placed(path: Path) -> Iterator[BinaryIO]:
    """Open a file that bears its name only when it is complete; one there is replaced."""
    part = path.with_name(f"{own_prefix()}{uuid.uuid4().hex[:8]}.part")  # same folder, same disk
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RcodError(
            f"{path}: must be writable, and writing failed ({error.strerror or error}); "
            "choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # no such folder: nothing was written
            part.unlink(missing_ok=True)


def ensure_folder(folder: Path) -> None:
    """Make a folder that results are written to, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RcodError(f"{folder} must be a folder to write to, got: {error.strerror}") from None


def own_prefix() -> str:
    """How the unfinished files of this process start: machine and process."""
    return f"{_machine()}{os.getpid()}-"


def sweep(folder: Path) -> None:
    """Remove unfinished files of processes that have ended, elsewhere those of yesterday."""
    machine = _machine()
    for part in folder.glob(".rcod-*.part"):
        with contextlib.suppress(OSError, ValueError):
            if part.name.startswith(machine):
                process = int(part.name.removeprefix(machine).split("-")[0])
                left = process == os.getpid() or not _runs(process)
            else:
                left = time.time() - part.stat().st_mtime > DAY
            if left:
                part.unlink()


def _machine() -> str:
    """This machine, and in a container that too: there processes have numbers of their own."""
    numbered = 0
    with contextlib.suppress(OSError):
        numbered = Path("/proc/self/ns/pid").stat().st_ino
    return f".rcod-{uuid.getnode():x}.{numbered:x}-"


def _runs(process: int) -> bool:
    """Whether a process of that number is there."""
    if sys.platform == "win32":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def check_free(path: Path, overwrite: bool = False) -> None:
    """Refuse to replace a file that isn't ours, unless somebody asked for that."""
    if not overwrite and os.path.lexists(path) and not is_ours(path):
        raise RcodError(foreign(path))


def is_same(path: Path, photo: Path) -> bool:
    """Whether a name leads to a photo, as its own in other letters does on many disks."""
    try:
        return path == photo or path.samefile(photo)
    except OSError:
        return False


def foreign(path: Path | str) -> str:
    """The sentence about a file that stays."""
    return (
        f"{path} exists already and is not a result of rcod, or was changed since; "
        "pass --overwrite to replace it"
    )


def is_ours(path: Path) -> bool:
    """Whether a file is a picture as rcod has written it, and nobody has changed it since."""
    try:
        with path.open("rb") as file:
            return is_ours_open(file)
    except OSError:
        return False


def is_ours_open(file: BinaryIO) -> bool:
    """The same of an open file, however large its picture is: no pixel is decoded."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(16)
        Image.init()
        for kind in WRITTEN:  # not by `Image.open`, which refuses and warns of large pictures
            opener, accepts = Image.OPEN.get(kind, (None, None))
            if opener is not None and accepts is not None and accepts(start) is True:
                file.seek(0)
                with opener(file, "") as image:
                    return is_marked(image, size)
    except DAMAGE:
        pass
    return False
