"""Who competes? One line of text for each.

bicubic; dir:NAME=FOLDER, somebody's results; tiny@0.3,auto, models of ours at any places of
the dial; [NAME=]FILE, an ncnn network (.param) or one that spandrel reads.

    text -> parse -> Contender: a name, what it is made of, and what its results are called
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rcod import __version__
from rcod.diffusion.grouping import LEVELS
from rcod.errors import RcodError
from rcod.networks.checkpoint import KEY, find_weights
from rcod.networks.systems import SYSTEMS
from rcod.pixels.aids import digest

Kind = Literal["bicubic", "dir", "ncnn", "spandrel", "rcod"]
EVERY = (*LEVELS, "auto")
NAME = re.compile(r"[\w .+-]+")


@dataclass(frozen=True)
class Contender:
    """Somebody whose results are judged."""

    name: str
    kind: Kind
    path: str = ""
    levels: tuple[str, ...] = ()  # of a model of ours: level, auto, or a number

    @property
    def labels(self) -> tuple[str, ...]:
        """What its results are called: NAME, or NAME@LEVEL."""
        return tuple(f"{self.name}@{level}" for level in self.levels) or (self.name,)

    def weights(self) -> dict[str, str]:
        """SHA-256 of the files it is made of."""
        files = [Path(self.path)] if self.path and self.kind != "dir" else []
        files += [one.with_suffix(".bin") for one in files if self.kind == "ncnn"]
        return {one.name: digest(one) for one in files}

    def identity(self) -> str:
        """One word that changes when its results may: what it is made of, and our version."""
        parts = [self.kind, __version__, *self.weights().values()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def parse(text: str) -> Contender:
    """Understand a contender: bicubic, dir:NAME=PATH, tiny@0.3,auto, or [NAME=]FILE[@...]."""
    if text == "bicubic":
        return Contender("bicubic", "bicubic")
    if text.startswith("dir:"):
        name, equals, path = text[4:].partition("=")
        if not equals or not Path(path).is_dir():
            raise RcodError(f"a folder of results is given as dir:NAME=FOLDER, got {text}")
        return Contender(_checked(name), "dir", path)
    head, _, tail = text.partition("@")
    name, equals, path = head.partition("=")
    if not equals:
        name, path = "", head
    if path in SYSTEMS:
        weights = str(find_weights(path))
        return Contender(_checked(name or path), "rcod", weights, _levels(tail))
    file = Path(path)
    if not file.is_file():
        known = ", ".join(key for key, row in SYSTEMS.items() if row.weights is not None)
        raise RcodError(
            f"a system must be bicubic, {known}, dir:NAME=FOLDER or a file of weights, got {text}"
        )
    kind = _kind(file)
    if tail and kind != "rcod":
        raise RcodError(f"only models of rcod have a dial, and {path} is none; leave {tail} out")
    levels = _levels(tail) if kind == "rcod" else ()
    return Contender(_checked(name or file.stem), kind, path, levels)


def parse_peer(text: str) -> Contender:
    """Understand who is to be timed: bicubic, ncnn:PATH or spandrel:PATH."""
    if text == "bicubic":
        return parse(text)
    kind, colon, path = text.partition(":")
    if not colon or kind not in ("ncnn", "spandrel"):
        raise RcodError(f"--against takes ncnn:PATH, spandrel:PATH or bicubic, got {text}")
    found = parse(path)
    if found.kind != kind:
        raise RcodError(f"{path} must be a network of {kind}, and looks like one of {found.kind}")
    return found


def _kind(file: Path) -> Kind:
    """Which program reads a file of weights."""
    if file.suffix == ".param":
        if not file.with_suffix(".bin").is_file():
            raise RcodError(f"{file} needs {file.with_suffix('.bin').name} beside it")
        return "ncnn"
    if file.suffix == ".safetensors":
        head = file.open("rb").read(1 << 20)
        return "rcod" if f'"{KEY}"'.encode() in head else "spandrel"
    if file.suffix in (".pth", ".pt", ".ckpt"):
        return "spandrel"
    raise RcodError(f"{file} must end in .safetensors, .pth or .param")


def _levels(text: str) -> tuple[str, ...]:
    """Places of the dial, all four named ones by default."""
    levels = tuple(text.split(",")) if text else EVERY
    for level in levels:
        number = re.fullmatch(r"0?\.\d+|[01](\.0*)?", level)
        if level not in EVERY and not number:
            raise RcodError(f"a level must be {', '.join(EVERY)} or 0 to 1, got {level}")
    return levels


def _checked(name: str) -> str:
    """A name that can be a folder's."""
    if not NAME.fullmatch(name) or name.strip(". ") != name:
        raise RcodError(f"a system's name must be letters, digits, '.', '+' and '-', got {name!r}")
    return name
