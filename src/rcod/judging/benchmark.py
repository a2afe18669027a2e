"""How fast, in how much memory, against whom?

Everything is timed in a fresh process, so that neither imports nor memory of the caller
count. Nothing is printed: the numbers are returned.

    benchmark -> fresh process: load, first call, repeats -> medians, peak memory
    cold      -> `python -m rcod upscale` and `--help` from a standing start
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypedDict

from rcod.errors import RcodError

if TYPE_CHECKING:
    from torch import Tensor

    from rcod.using.restore import Restorer

COLD_SIDE = 64  # pixels a side of the picture that a cold start enlarges
CHILD = (
    "import json, sys; from rcod.judging.benchmark import measure; "
    "sys.stdout.write(json.dumps(measure(*json.loads(sys.argv[1]))))"
)


class Benchmark(TypedDict):
    """One model on this machine; times are medians in seconds."""

    model: str
    size_in: int  # pixels a side
    size_out: int
    device: str
    dtype: str
    threads: int
    load: float  # weights from disk
    first: float  # the first call, which also warms caches
    stages: dict[str, float]  # encode, tokens, metric, predict, decode, color
    total: float
    dial: float  # another place of the dial after the first result, encoded as the page shows it
    peak_mb: float  # largest resident memory of the process, model and framework included
    bicubic: float  # the same enlargement without a model


class Cold(TypedDict):
    """Whole commands from a standing start; medians in seconds."""

    upscale: float
    help: float


def benchmark(
    model: str = "tiny",
    size: int = 128,
    repeats: int = 5,
    device: str = "auto",
    dtype: str = "auto",
) -> Benchmark:
    """Time one model on a square picture, in a process of its own.

    Args:
        model: name or weights file.
        size: pixels a side going in; four times as many come out.
        repeats: calls after the first, of which the medians are taken; at least 1.
        device: as for `Restorer.load`.
        dtype: as for `Restorer.load`.
    """
    given = json.dumps([model, size, repeats, device, dtype])
    done = _run([sys.executable, "-c", CHILD, given])
    return json.loads(done)


def measure(model: str, size: int, repeats: int, device: str, dtype: str) -> Benchmark:
    """Time one model in this process; see `benchmark`."""
    import torch  # here, so that `cold` and the command line start without it

    from rcod.device import pick_device, pick_dtype, seeded
    from rcod.judging.peers import bicubic, peak_mb
    from rcod.using.restore import Restorer

    image = torch.rand(3, size, size, generator=seeded(0))
    started = time.perf_counter()
    restorer = Restorer.load(model, device=device, dtype=dtype)
    load = time.perf_counter() - started
    started = time.perf_counter()
    result = restorer(image)
    first = time.perf_counter() - started
    calls: list[float] = []
    stages: list[dict[str, float]] = []
    for _ in range(repeats):
        started = time.perf_counter()
        stages.append(restorer(image).seconds)
        calls.append(time.perf_counter() - started)
    peak = peak_mb()  # before the peer, which is not the model's
    peers: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        bicubic(image)
        peers.append(time.perf_counter() - started)
    where = pick_device(device)
    return Benchmark(
        model=model,
        size_in=size,
        size_out=result.photo.pixels.shape[-1],
        device=str(where),
        dtype=str(pick_dtype(dtype, where)).removeprefix("torch."),
        threads=torch.get_num_threads(),
        load=load,
        first=first,
        stages={stage: median(one[stage] for one in stages) for stage in stages[0]},
        total=median(calls),
        dial=_turn(restorer, image, repeats),
        peak_mb=peak,
        bicubic=median(peers),
    )


def _turn(restorer: "Restorer", image: "Tensor", repeats: int) -> float:
    """Seconds for another place of the dial, once a photo is open."""
    from rcod.pixels.images import Photo
    from rcod.using.sitting import Place, Sitting, encode

    sitting = Sitting(restorer, Photo(image))
    sitting.result(Place("auto"))
    turns: list[float] = []
    for number in range(repeats):
        started = time.perf_counter()
        encode(sitting.result(Place((number + 0.3) / repeats)).photo, "jpg")
        turns.append(time.perf_counter() - started)
    return median(turns)


def cold(repeats: int = 3) -> Cold:
    """Time `rcod upscale` of a small picture and `rcod --help`, each in fresh processes."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.radial_gradient("L").convert("RGB").resize((COLD_SIDE, COLD_SIDE)).save(picture)
        rcod = [sys.executable, "-m", "rcod"]
        upscale = [*rcod, "upscale", str(picture), "-o", str(Path(folder) / "out")]
        return Cold(
            upscale=median(_seconds(upscale) for _ in range(repeats)),
            help=median(_seconds([*rcod, "--help"]) for _ in range(repeats)),
        )


def _seconds(command: Sequence[str]) -> float:
    """Time one command."""
    started = time.perf_counter()
    _run(command)
    return time.perf_counter() - started


def _run(command: Sequence[str]) -> str:
    """Run one command and return what it printed; what it said on failing becomes the error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RcodError(f"the timed command must succeed, it said: {done.stderr.strip()[-500:]}")
    return done.stdout
