"""What has been done already? One line of JSON for every piece of finished work.

A journal only grows; the last line about something holds. An interruption may break the last
line, which then counts as unwritten.
"""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Line = TypeVar("Line", bound=BaseModel)


class Made(BaseModel, frozen=True):
    """One result and what it cost; a line of work.jsonl."""

    dataset: str
    label: str
    picture: str
    identity: str  # of the system that made it, and of the LR file
    sha256: str  # of the file written
    seconds: float
    peak_mb: float
    timestep: int | None = None
    estimate: float | None = None


class Scored(BaseModel, frozen=True):
    """What one result scores; a line of scores.jsonl."""

    protocol: str  # fingerprint
    sr: str  # SHA-256 of the result
    hr: str  # SHA-256 of the true picture, or nothing
    values: dict[str, float]


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """What a journal holds; a line broken by an interruption counts as unwritten."""
    if not path.is_file():
        return []
    found: list[Line] = []
    for line in filter(None, path.read_bytes().split(b"\n")):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return found


def append(path: Path, row: BaseModel) -> None:
    """Add a line to a journal; begins on a fresh line after a broken one."""
    broken = path.is_file() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + row.model_dump_json() + "\n")


def _last_byte(path: Path) -> bytes:
    """What a file ends with."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
