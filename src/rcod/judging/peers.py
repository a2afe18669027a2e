"""What does each contender make of a photo, in what time and memory?

Bicubic, models of ours, ncnn networks, and whatever spandrel reads, each in a process of its own,
so that neither imports nor memory of others count.

    Contender, lr -> child process -> result.png, seconds, peak memory
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.judging.contenders import EVERY, Contender
from rcod.judging.datasets import SCALE, pixels
from rcod.networks.assembly import Parts
from rcod.networks.onestep import enlarge
from rcod.pixels.images import Photo, write
from rcod.using.restore import Dial, Restorer


class MadeResult(TypedDict):
    """One result that was made."""

    label: str
    picture: str
    seconds: float
    peak_mb: float  # of its process so far
    timestep: int | None
    estimate: float | None


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
        ncnn = import_module("ncnn")
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
        spandrel = import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # torchvision may not fit torch
        raise RcodError(
            f"{path} needs spandrel and torchvision: pip install 'rcod[peers]'; here: "
            f"{str(error).splitlines()[0]}"
        ) from None
    try:
        model = spandrel.ModelLoader(device="cpu").load_from_file(str(path))
    except (spandrel.UnsupportedModelError, RuntimeError, OSError, ValueError) as error:
        raise RcodError(f"{path} must be a network spandrel knows, got: {error}") from None
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.scale != SCALE:
        raise RcodError(f"{path} must enlarge pictures {SCALE} times, it doesn't")
    model.eval()
    return lambda lr: model(lr[None])[0].clamp(0, 1)


def perform(
    contender: Contender, jobs: Sequence[tuple[str, str, dict[str, str]]], device: str, dtype: str
) -> Iterator[MadeResult]:
    """Make results, one picture after another; to be run in a process of its own.

    Args:
        contender: who.
        jobs: name, LR file, and label -> the file to write; labels not named are not made.
        device: of models of ours, as for `Restorer.load`; others run on the processor.
        dtype: of models of ours, as for `Restorer.load`.
    """
    with torch.inference_mode():
        if contender.kind == "rcod":
            parts = Parts(base=contender.base, vision=contender.vision)
            restorer = Restorer.load(contender.path, device, dtype, parts)
            yield from _levels_of(restorer, contender, jobs)
            return
        make = maker(contender)
        for picture, source, targets in jobs:
            lr = pixels(Path(source))
            started = time.perf_counter()
            sr = make(lr)
            seconds = time.perf_counter() - started
            _check_scale(contender, lr, sr)
            _keep(Path(targets[contender.name]), sr)
            yield MadeResult(
                label=contender.name, picture=picture, seconds=seconds, peak_mb=peak_mb(),
                timestep=None, estimate=None,
            )  # fmt: skip


def _check_scale(contender: Contender, lr: Tensor, sr: Tensor) -> None:
    """Refuse results (3, H, W) of another size than four times the input's."""
    (height, width), (tall, wide) = lr.shape[1:], sr.shape[1:]
    if (tall, wide) != (SCALE * height, SCALE * width):
        raise RcodError(
            f"{contender.path} must enlarge pictures {SCALE} times, got {wide} x {tall} from "
            f"{width} x {height}"
        )


def _levels_of(
    restorer: Restorer,
    contender: Contender,
    jobs: Sequence[tuple[str, str, dict[str, str]]],
) -> Iterator[MadeResult]:
    """A model of ours: every photo is looked at once for all levels."""
    for picture, source, targets in jobs:
        asked = {label: dial for label, dial in contender.dials.items() if label in targets}
        dials: list[Dial] = [_dial(level) for level in asked.values()]
        results = restorer.levels(pixels(Path(source)), dials, float(SCALE))
        for label, result in zip(asked, results, strict=True):
            _keep(Path(targets[label]), result.photo.pixels)
            yield MadeResult(
                label=label,
                picture=picture,
                seconds=sum(result.seconds.values()),
                peak_mb=peak_mb(),
                timestep=result.timestep,
                estimate=result.metric,
            )


def _dial(level: str) -> Dial:
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
    try:
        import resource
    except ImportError:  # Windows, which isn't asked
        return 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024**2 if sys.platform == "darwin" else used / 1024


def task(contender: Contender, jobs: object, device: str, dtype: str) -> str:
    """What `main` reads."""
    given = {"contender": asdict(contender), "jobs": jobs, "device": device, "dtype": dtype}
    return json.dumps(given)
