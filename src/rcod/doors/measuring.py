"""The commands about speed: `benchmark` measures, `export` takes a model out of PyTorch.

rcod benchmark [--size 512] [--against ncnn:PATH --against bicubic] [--json FILE]
rcod benchmark --systems rcod_o,osediff-own,osediff-own@float32 --size sd --repeats 3
rcod benchmark --folder photos/ --repeats 3
rcod export --to onnx -o DIR [--model tiny]
"""

from pathlib import Path
from typing import Annotated

import typer

from rcod.doors.options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    EngineOption,
    ModelOption,
    VaeOption,
    VisionOption,
)
from rcod.doors.terminal import check_file, keep_json, plain_errors, say, say_aside
from rcod.errors import RcodError


def benchmark(
    model: ModelOption = "tiny",
    size: Annotated[str, typer.Option(help="Side of the input; sd with --systems.")] = "128",
    systems: Annotated[
        str | None, typer.Option(help="Published, at full size: rcod_o,osediff-own@float32.")
    ] = None,
    rivals: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="PEER", help="ncnn:PATH, spandrel:PATH or bicubic."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of photos: one core against all cores.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Timed calls: 5 after a first; of --systems and --folder 1."),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    engine: EngineOption = "auto",
    with_cold: Annotated[
        bool, typer.Option("--cold", help="Time whole commands from a standing start too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All that was measured.")
    ] = None,
) -> None:
    """Time every stage against what this machine can do, and against others."""
    with plain_errors():
        check_file("--json", out)
        from rcod.judging.benchmark import against, cold, table
        from rcod.judging.benchmark import benchmark as measure

        _check_one(systems, folder, rivals)
        if systems is not None:
            return _systems(systems, size, dtype, repeats or 1, out)
        if folder is not None:
            return _folder(folder, (model, device, dtype, engine), repeats or 1, out)
        times = repeats or 5
        found = measure(model, _side(size), times, device, dtype, engine)
        numbers: dict[str, object] = {**found}
        peers = against(rivals or [], found["size_in"], times, found["total"]["median"])
        for line in table(found, peers):
            say(line)
        if with_cold:
            seconds = cold()
            numbers["cold"] = seconds
            say(f"from a standing start: upscale {seconds['upscale']:.2f} s, "
                f"--help {seconds['help']:.2f} s")  # fmt: skip
        keep_json(out, {**numbers, "against": peers})


def export(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Made if missing.")],
    to: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    model: ModelOption = "tiny",
    base: BaseOption = None,
    vision: VisionOption = None,
    vae: VaeOption = None,
) -> None:
    """Write a model for programs without PyTorch, hold it against PyTorch, add an example."""
    with plain_errors():
        import torch

        from rcod.networks.assembly import Parts
        from rcod.networks.checkpoint import load_onto
        from rcod.networks.exporting import export as write

        parts = Parts(base=base, vision=vision, vae=vae)
        system, onestep, _ = load_onto(model, torch.device("cpu"), torch.float32, parts)
        found = write(system, onestep, to, out)
        worst = max(found["difference"].values())
        say(f"{out}: {', '.join(found['graphs'])} for {to}; at most {worst:.3f}/255 from PyTorch")
        say(f"{out / 'example.py'}: python {out / 'example.py'} {out} PHOTO REALISM RESULT")


def _check_one(*asked: object) -> None:
    """Refuse several measurements at once."""
    if sum(map(bool, asked)) > 1:
        raise RcodError("--systems, --folder and --against are asked for one at a time")


def _systems(systems: str, size: str, dtype: str, repeats: int, out: Path | None) -> None:
    """Published systems at full size."""
    from rcod.judging.turns import measure_all, table

    precision = "bfloat16" if dtype == "auto" else dtype
    side = 128 if size == "sd" else _side(size)
    found = measure_all(systems.split(","), side, precision, repeats, say_aside)
    for line in table(found):
        say(line)
    keep_json(out, found)


def _folder(
    photos: Path, networks: tuple[str, str, str, str], repeats: int, out: Path | None
) -> None:
    """A folder on one core and on all."""
    from rcod.judging.folder import measure_folder, table

    found = measure_folder(photos, networks, repeats)
    for line in table(found):
        say(line)
    keep_json(out, found)


def _side(text: str) -> int:
    """Pixels a side."""
    if not text.isdecimal() or int(text) < 1:
        raise RcodError(f"--size must be pixels a side, or sd with --systems, got {text}")
    return int(text)
