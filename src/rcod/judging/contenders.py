"""Who competes? One line of text for each.

bicubic; dir:NAME=FOLDER, somebody's results; tiny@0.3,auto, models of ours at any places of
the dial; [NAME=]FILE, a published system that was converted, an ncnn network (.param), or one
that spandrel reads.

    text -> parse -> Contender: a name, what it is made of, and what its results are called
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from rcod import __version__
from rcod.diffusion.grouping import LEVELS
from rcod.errors import RcodError
from rcod.judging.datasets import checked
from rcod.judging.judge import code
from rcod.networks.checkpoint import KEY, find_weights
from rcod.networks.systems import SYSTEMS, System
from rcod.pixels.aids import digest

Kind = Literal["bicubic", "dir", "ncnn", "spandrel", "rcod"]
EVERY = (*LEVELS, "auto")


@dataclass(frozen=True)
class Contender:
    """Somebody whose results are judged."""

    name: str
    kind: Kind
    path: str = ""
    levels: tuple[str, ...] = ()  # of a model with a dial: level, auto, or a number
    base: str | None = None  # what a published system stands on
    vision: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What its results are called: NAME, or NAME@LEVEL."""
        return tuple(self.dials)

    @property
    def dials(self) -> dict[str, str]:
        """Place of the dial of every label; `auto` is what a system without a dial gives."""
        named = {f"{self.name}@{level}": level for level in self.levels}
        return named or {self.name: "auto"}

    def weights(self) -> dict[str, str]:
        """SHA-256 of the files it is made of."""
        files = [Path(self.path)] if self.path and self.kind != "dir" else []
        files += [one.with_suffix(".bin") for one in files if self.kind == "ncnn"]
        return {one.name: digest(one) for one in files}

    def identity(self) -> str:
        """One word that changes when its results may: what it is made of, and our code."""
        ours = code("pixels", "diffusion", "networks", "using")
        parts = [self.kind, __version__, ours, *self.weights().values()]
        parts += [part for part in (self.base, self.vision) if part is not None]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def parse(text: str, base: str | None = None, vision: str | None = None) -> Contender:
    """Understand a contender: bicubic, dir:NAME=PATH, tiny@0.3,auto, or [NAME=]FILE[@...].

    Args:
        text: as typed.
        base: what published systems stand on: a folder or hub id.
        vision: likewise, the image tower of those with visual prompts.
    """
    if text == "bicubic":
        return Contender("bicubic", "bicubic")
    if text.startswith("dir:"):
        name, equals, path = text[4:].partition("=")
        if not equals or not Path(path).is_dir():
            raise RcodError(f"a folder of results is given as dir:NAME=FOLDER, got {text}")
        return Contender(_checked(name), "dir", path)
    name, path, tail = _parted(text)
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
    name = _checked(name or file.stem)
    if kind != "rcod":
        return Contender(name, kind, path)
    row = _row(file)
    if row.timestep is not None:
        if tail:
            raise RcodError(f"{row.name} has one setting and no dial; leave {tail} out")
        return Contender(name, kind, path, base=base)
    levels = _levels(tail)
    if row.base is None:
        return Contender(name, kind, path, levels)
    levels = levels if tail or row.metric else tuple(LEVELS)
    return Contender(name, kind, path, levels, base, vision)


def described(contenders: Sequence[Contender]) -> dict[str, dict[str, str]]:
    """Kind and weights of every system, by its name; one name stands for the same weights."""
    found: dict[str, dict[str, str]] = {}
    for one in contenders:
        mine = {"kind": one.kind, **one.weights()}
        if found.setdefault(one.name, mine) != mine:
            raise RcodError(f"systems of one name must have the same weights, and {one.name} names "
                            "two; give one of them another NAME=...")  # fmt: skip
    return found


def _row(file: Path) -> System:
    """The row in the header of a file of ours."""
    try:
        with safe_open(file, framework="pt") as opened:
            return System.model_validate_json((opened.metadata() or {})[KEY])
    except (SafetensorError, ValidationError, KeyError) as error:
        raise RcodError(f"{file} must be safetensors written by rcod, got: {error}") from None


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
        with file.open("rb") as opened:
            head = opened.read(1 << 20)
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


def _parted(text: str) -> tuple[str, str, str]:
    """Name, path and levels of NAME=PATH@LEVELS; a file's path may have these signs."""
    head, _, tail = text.rpartition("@")
    for whole, levels in ((text, ""), (head, tail)):
        name, equals, path = whole.partition("=")
        if Path(whole).is_file():
            return "", whole, levels
        if equals and Path(path).is_file():
            return name, path, levels
    head, _, tail = text.partition("@")
    name, equals, path = head.partition("=")
    return (name, path, tail) if equals else ("", head, tail)


def _checked(name: str) -> str:
    """A system's name, which is a folder's and a column's."""
    if name == "true":
        raise RcodError("true is what reports call the true picture; choose another name")
    return checked(name, "a system's", "NAME=...")
