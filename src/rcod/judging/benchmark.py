"""How fast, in how much memory, against whom, and how fast could it be?

Everything is timed in a fresh process, so that neither imports nor memory of the caller
count. Nothing is printed: the numbers are returned, and `table` puts them into lines.

    benchmark -> fresh process: load, first call, repeats -> medians, peak memory
                 the machine's own rates, the work of every stage -> share of what can be had
    against   -> fresh processes: other networks on the same picture
    cold      -> `python -m rcod upscale` and `--help` from a standing start
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from rcod.judging.contenders import Kind
    from rcod.judging.machine import Repeats
    from rcod.judging.workload import Work
    from rcod.using.restore import Restorer

COLD_SIDE = 64  # pixels a side of the picture that a cold start enlarges


class Stage(TypedDict):
    """One stage of a call."""

    seconds: "Repeats"
    gmacs: float  # 10^9 multiply-adds of its networks
    gbytes: float  # 10^9 bytes it must read or write
    share: float  # of the machine's achievable rate: the least time it could take, to its time


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
    engine: str
    matrix: "Repeats"  # the machine's rate in products of matrices, 10^9 operations a second
    copy: "Repeats"  # 10^9 bytes a second, read and written
    stages: dict[str, Stage]  # encode, tokens, metric, predict, decode, color
    total: "Repeats"
    share: float  # of the matrix rate, over the whole picture
    dial: float | None  # another place of it after the first result, encoded as the page shows it
    peak_mb: float  # largest resident memory of the process, model and framework included
    bicubic: float  # the same enlargement without a model


class Cold(TypedDict):
    """Whole commands from a standing start; medians in seconds."""

    upscale: float
    help: float


class Peer(TypedDict):
    """Another network on the same picture, in the same run."""

    name: str
    device: str  # the processor, wherever the model runs
    seconds: "Repeats"
    peak_mb: float
    times: float  # how many times as long as the model


def benchmark(
    model: str = "tiny",
    size: int = 128,
    repeats: int = 5,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> Benchmark:
    """Time one model on a square picture, in a process of its own.

    Args:
        model: name or weights file.
        size: pixels a side going in; four times as many come out.
        repeats: calls after the first, of which the medians are taken; at least 1.
        device: as for `Restorer.load`.
        dtype: as for `Restorer.load`.
        engine: as for `Restorer.load`.
    """
    from rcod.judging.machine import fresh

    return json.loads(fresh(__name__, "measure", [model, size, repeats, device, dtype, engine]))


def against(texts: Sequence[str], size: int, repeats: int, total: float) -> list[Peer]:
    """Time others on the same picture, on the processor, each in a process of its own.

    Args:
        texts: ncnn:PATH, spandrel:PATH or bicubic.
        size: pixels a side going in.
        repeats: calls after the first.
        total: seconds of the model they are held against.
    """
    from rcod.judging.contenders import parse_peer
    from rcod.judging.machine import fresh

    contenders = [parse_peer(text) for text in texts]  # wrong ones are refused before any is run
    found: list[Peer] = []
    for one in contenders:
        given = [one.name, one.kind, one.path, size, repeats]
        seconds, peak = json.loads(fresh(__name__, "measure_peer", given))
        times = seconds["median"] / total
        found.append(Peer(name=one.name, device="cpu", seconds=seconds, peak_mb=peak, times=times))
    return found


def measure(model: str, size: int, repeats: int, device: str, dtype: str, engine: str) -> Benchmark:
    """Time one model in this process; see `benchmark`."""
    import torch  # here, so that `cold` and the command line start without it

    from rcod.device import pick_device
    from rcod.judging.machine import beside_products, copy_rate, summarize, timed
    from rcod.judging.peers import bicubic, peak_mb
    from rcod.judging.workload import workload
    from rcod.networks.engines import precision
    from rcod.using.restore import Restorer

    image, where = picture(size), pick_device(device)
    sums = precision(engine, dtype, where)
    started = time.perf_counter()
    restorer = Restorer.load(model, device, dtype, engine=engine)
    load = time.perf_counter() - started
    first, _ = timed(lambda: restorer(image), 2)
    peak = peak_mb()  # before the machine's matrices and the peer, which are not the model's
    stages: list[dict[str, float]] = []
    calls, multiply = beside_products(
        lambda: stages.append(restorer(image).seconds), repeats, sums, where
    )
    copy = copy_rate(where)
    works = workload(model, size, sums) if restorer.system.base is None else {}  # or `fullsize`
    table = {
        stage: _stage(summarize([one[stage] for one in stages]), works.get(stage), multiply, copy)
        for stage in stages[0]
    }
    total = summarize(calls)
    gmacs = sum(stage["gmacs"] for stage in table.values())
    return Benchmark(
        model=model, size_in=size, size_out=4 * size, device=str(where),
        dtype=str(sums).removeprefix("torch."), threads=torch.get_num_threads(),
        engine=engine, load=load, first=first, matrix=multiply, copy=copy, stages=table,
        total=total, share=2 * gmacs / total["median"] / multiply["median"],
        dial=_turn(restorer, image, repeats) if restorer.system.timestep is None else None,
        peak_mb=peak,
        bicubic=median(timed(lambda: bicubic(image), repeats)),
    )  # fmt: skip


def measure_peer(
    name: str, kind: "Kind", path: str, size: int, repeats: int
) -> "tuple[Repeats, float]":
    """Time another network in this process, and its peak memory; see `against`."""
    import torch

    from rcod.judging.contenders import Contender
    from rcod.judging.machine import summarize, timed
    from rcod.judging.peers import maker, peak_mb

    image = picture(size)
    with torch.inference_mode():
        make = maker(Contender(name, kind, path))
        make(image)
        return summarize(timed(lambda: make(image), repeats)), peak_mb()


def picture(size: int) -> "Tensor":
    """The square picture that everybody enlarges, (3, size, size) in [0, 1]."""
    import torch

    from rcod.device import seeded

    return torch.rand(3, size, size, generator=seeded(0))


def _stage(seconds: "Repeats", work: "Work | None", multiply: "Repeats", copy: "Repeats") -> Stage:
    """A stage's times beside its work."""
    from rcod.judging.workload import Work, least_seconds

    work = work or Work(gmacs=0, gbytes=0)
    least = least_seconds(work, multiply["median"], copy["median"])
    return Stage(seconds=seconds, share=least / max(seconds["median"], 1e-9), **work)


def _turn(restorer: "Restorer", image: "Tensor", repeats: int) -> float:
    """Seconds for another place of the dial, once a photo is open and its levels are there."""
    from rcod.pixels.images import Photo, read
    from rcod.pixels.resample import resize
    from rcod.using.interpolation import NODES
    from rcod.using.open_photo import OpenPhoto, Setting, encode

    otter = read(Path(__file__).parents[1] / "page" / "otter.jpg")  # noise is no photo to turn
    side = image.shape[-2], image.shape[-1]
    held = OpenPhoto(restorer, Photo(resize(otter.pixels, side).clamp(0, 1)))
    for node in NODES:
        held.result(Setting(node))
    held.view(Setting(0.1))  # where the page asks whether places tell of others
    turns: list[float] = []
    for number in range(repeats):
        started = time.perf_counter()
        encode(held.view(Setting((number + 0.3) / repeats)).result.photo, "jpg")
        turns.append(time.perf_counter() - started)
    return median(turns)


def cold(repeats: int = 3) -> Cold:
    """Time `rcod upscale` of a small picture and `rcod --help`, each in fresh processes."""
    from PIL import Image

    from rcod.judging.machine import seconds_of

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.radial_gradient("L").convert("RGB").resize((COLD_SIDE, COLD_SIDE)).save(picture)
        rcod = [sys.executable, "-m", "rcod"]
        upscale = [*rcod, "upscale", str(picture), "-o", str(Path(folder) / "out")]
        return Cold(
            upscale=median(seconds_of(upscale) for _ in range(repeats)),
            help=median(seconds_of([*rcod, "--help"]) for _ in range(repeats)),
        )


def table(found: Benchmark, peers: Sequence[Peer] = ()) -> list[str]:
    """What was measured, in lines."""
    matrix, copy = found["matrix"], found["copy"]
    lines = [
        f"{found['model']} on {found['engine']}, {found['device']}, {found['dtype']}, "
        f"{found['threads']} threads: {found['size_in']} to {found['size_out']} pixels a side",
        f"this machine: {matrix['median']:.0f} GFLOP/s in products of matrices "
        f"({matrix['low']:.0f} to {matrix['high']:.0f}), copies {copy['median']:.1f} GB/s "
        f"({copy['low']:.1f} to {copy['high']:.1f})",
        f"{'stage':8} {'seconds':>8} {'from':>8} {'to':>8} {'GMAC':>8} {'GB':>7} {'share':>6}",
    ]
    for name, stage in found["stages"].items():
        took = stage["seconds"]
        lines.append(
            f"{name:8} {took['median']:8.4f} {took['low']:8.4f} {took['high']:8.4f} "
            f"{stage['gmacs']:8.2f} {stage['gbytes']:7.3f} {stage['share']:6.0%}"
        )
    total = found["total"]
    turn = found["dial"]
    dial = "" if turn is None else f"another place of the dial {turn:.3f} s; "
    gmacs = sum(stage["gmacs"] for stage in found["stages"].values())
    lines += [
        f"{'total':8} {total['median']:8.4f} {total['low']:8.4f} {total['high']:8.4f} "
        f"{gmacs:8.2f} {'':7} {found['share']:6.0%} of the matrix rate",
        f"{dial}load {found['load']:.2f} s, first "
        f"call {found['first']:.2f} s; peak memory {found['peak_mb']:.0f} MB",
    ]
    for peer in peers:
        took = peer["seconds"]
        lines.append(
            f"{peer['name']}: {took['median']:.4f} s ({took['low']:.4f} to {took['high']:.4f}) "
            f"on {peer['device']}, {peer['times']:.2f} times as long, {peer['peak_mb']:.0f} MB"
        )
    return lines
