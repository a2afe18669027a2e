"""Who competes, and what does each make of a photo, in what time and memory?

bicubic; a folder of somebody's results; models of ours at any places of the dial; ncnn models;
and whatever spandrel reads. Those that run do so in a process of their own, so that neither
imports nor memory of others count.

    text -> parse -> Contender -> child process: lr -> result.png, seconds, peak memory
                         '-> dir: results that lie there already
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import Tensor

from rcod import __version__
from rcod.aids import digest
from rcod.checkpoint import KEY, find_weights
from rcod.datasets import SCALE, pixels
from rcod.errors import RcodError
from rcod.grouping import LEVELS
from rcod.images import Photo, write
from rcod.onestep import enlarge
from rcod.restore import Realism, Restorer
from rcod.systems import SYSTEMS

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


class Work(TypedDict):
    """One result that was made."""

    label: str
    picture: str
    seconds: float
    peak_mb: float  # of its process so far
    timestep: int | None
    estimate: float | None


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


def bicubic(lr: Tensor) -> Tensor:
    """Enlarge an image four times without a model: (3, h, w) -> (3, 4h, 4w)."""
    return enlarge(lr[None], SCALE)[0]


Maker = Callable[[Tensor], Tensor]  # (3, h, w) in [0, 1] -> (3, 4h, 4w)


def maker(contender: Contender) -> Maker:
    """Load a contender that has no dial."""
    if contender.kind == "ncnn":
        return _ncnn(Path(contender.path))
    if contender.kind == "spandrel":
        return _spandrel(Path(contender.path))
    return bicubic


def _ncnn(param: Path) -> Maker:
    """A network of Tencent's ncnn, on the CPU, through the `peers` extra."""
    try:
        import ncnn
        import numpy as np
    except ImportError:
        raise RcodError(f"{param} needs ncnn: pip install 'rcod[peers]'") from None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = torch.get_num_threads()
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RcodError(f"{param} must be a whole ncnn network with its .bin")
    first, last = net.input_names()[0], net.output_names()[0]

    def make(lr: Tensor) -> Tensor:
        values = np.ascontiguousarray(lr.numpy())  # ncnn reads it later: keep it alive
        with net.create_extractor() as run:
            run.input(first, ncnn.Mat(values))
            code, out = run.extract(last)
            if code:
                raise RcodError(f"{param} must enlarge a picture, ncnn returned {code}")
            return torch.from_numpy(np.array(out)).clamp(0, 1)

    return make


def _spandrel(path: Path) -> Maker:
    """A network that spandrel knows (Real-ESRGAN, SwinIR, DAT, ...)."""
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
        from spandrel import UnsupportedModelError as Unknown
    except (ImportError, RuntimeError) as error:  # torchvision may not fit torch
        raise RcodError(
            f"{path} needs spandrel and torchvision: pip install 'rcod[peers]'; here: "
            f"{str(error).splitlines()[0]}"
        ) from None
    try:
        model = ModelLoader(device="cpu").load_from_file(str(path))
    except (Unknown, RuntimeError, OSError, ValueError) as error:
        raise RcodError(f"{path} must be a network spandrel knows, got: {error}") from None
    if not isinstance(model, ImageModelDescriptor) or model.scale != SCALE:
        raise RcodError(f"{path} must enlarge pictures {SCALE} times, it doesn't")
    model.eval()
    return lambda lr: model(lr[None])[0].clamp(0, 1)


def perform(
    contender: Contender, jobs: Sequence[tuple[str, str, dict[str, str]]], device: str, dtype: str
) -> Iterator[Work]:
    """Make results, one picture after another; to be run in a process of its own.

    Args:
        contender: who.
        jobs: name, LR file, and label -> the file to write; labels not named are not made.
        device: as for `Restorer.load`.
        dtype: as for `Restorer.load`.
    """
    with torch.inference_mode():
        if contender.kind == "rcod":
            restorer = Restorer.load(contender.path, device, dtype)
            yield from _levels_of(restorer, contender, jobs)
            return
        make = maker(contender)
        for picture, source, targets in jobs:
            lr = pixels(Path(source))
            started = time.perf_counter()
            sr = make(lr)
            seconds = time.perf_counter() - started
            _keep(Path(targets[contender.name]), sr)
            yield Work(label=contender.name, picture=picture, seconds=seconds, peak_mb=peak_mb(),
                       timestep=None, estimate=None)  # fmt: skip


def _levels_of(
    restorer: Restorer,
    contender: Contender,
    jobs: Sequence[tuple[str, str, dict[str, str]]],
) -> Iterator[Work]:
    """A model of ours: every photo is looked at once for all levels."""
    for picture, source, targets in jobs:
        levels = [level for level in contender.levels if f"{contender.name}@{level}" in targets]
        dials: list[Realism] = [_dial(level) for level in levels]
        results = restorer.levels(pixels(Path(source)), dials, scale=float(SCALE))
        for level, result in zip(levels, results, strict=True):
            label = f"{contender.name}@{level}"
            _keep(Path(targets[label]), result.photo.pixels)
            yield Work(
                label=label,
                picture=picture,
                seconds=sum(result.seconds.values()),
                peak_mb=peak_mb(),
                timestep=result.timestep,
                estimate=result.metric,
            )


def _dial(level: str) -> Realism:
    """A level's name, or its number."""
    if level in EVERY:
        return level  # pyright: ignore[reportReturnType]
    return float(level)


def _keep(path: Path, sr: Tensor) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, Photo(sr.float().cpu()))


def main() -> None:
    """Read a contender and its jobs from standard input; a line of JSON for each result."""
    given = json.load(sys.stdin)
    contender = Contender(**given["contender"] | {"levels": tuple(given["contender"]["levels"])})
    try:
        for work in perform(contender, given["jobs"], given["device"], given["dtype"]):
            sys.stdout.write(json.dumps(work) + "\n")
            sys.stdout.flush()
    except RcodError as error:
        sys.exit(f"error: {error}")


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB.

    Linux lets `ru_maxrss` survive exec, so a child starts with its parent's peak; the status
    file is this process's own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024**2 if sys.platform == "darwin" else used / 1024


def task(contender: Contender, jobs: object, device: str, dtype: str) -> str:
    """What `main` reads."""
    given = {"contender": asdict(contender), "jobs": jobs, "device": device, "dtype": dtype}
    return json.dumps(given)
