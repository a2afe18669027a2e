"""How does a system leave PyTorch, and is it still the same?

Graphs become files that ONNX Runtime or OpenVINO open, in float32, their sizes open. What was
written is run and held against PyTorch before anybody is told that it is there, and an example
of a few lines is laid beside it that needs no PyTorch.

    onestep -> graphs -> DIR/*.onnx | DIR/*.xml -> run -> as PyTorch? -> rcod.json, example.py
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from threading import local
from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from rcod import __version__
from rcod.device import seeded
from rcod.diffusion.grouping import LEVELS, timestep_of_realism
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone
from rcod.networks.framing import BORDER, continued, cut, frame
from rcod.networks.graphs import Graph, all_graphs
from rcod.networks.onestep import OneStep
from rcod.networks.systems import System
from rcod.pixels.color import match_color
from rcod.pixels.placing import ensure_folder

Kind = Literal["onnx", "openvino"]
Runner = Callable[[Sequence[np.ndarray]], np.ndarray]

ENDS: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml"}
GIB = 2**30  # a larger graph keeps its weights in a file beside it
LIMIT = 1 / 255  # how far a picture may be from PyTorch's, at any pixel
OPENERS: dict[str, str] = {
    "onnx": """import onnxruntime


def run(name, *given):
    graph = onnxruntime.InferenceSession(f"{folder}/{name}.onnx")
    return graph.run(None, {i.name: x for i, x in zip(graph.get_inputs(), given)})[0]
""",
    "openvino": """import openvino


def run(name, *given):
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(f"{folder}/{name}.xml", "CPU", exact)(given)[0]
""",
}
EXAMPLE = '''"""Restore a photo without PyTorch: python example.py FOLDER PHOTO REALISM RESULT."""

import sys

import numpy as np
from PIL import Image, ImageOps

if len(sys.argv) != 5:
    sys.exit(__doc__)
folder, photo, realism, result = sys.argv[1:]
if not 0 <= float(realism) <= 1:
    sys.exit(f"REALISM must lie in [0, 1], got {{realism}}")
{opener}

upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
lr = np.asarray(upright, np.float32).transpose(2, 0, 1)[None] / 255
t = {timestep}  # the dial: 0 keeps, 1 invents
up, more = run("enlarge", lr), {more}
z = run("clean", run("encode", up, *more), np.array([t]), run("prompt", up), *more)
sr = run("color", run("decode", z), up)[0].transpose(1, 2, 0)
Image.fromarray((255 * sr).round().astype(np.uint8)).save(result)
'''


class Exported(TypedDict):
    """What was written; the file `rcod.json`."""

    rcod: str
    system: str
    kind: str
    graphs: dict[str, list[str]]  # names of the inputs by graph
    timesteps: dict[str, int]  # by level
    multiple: int  # of which a photo's sides must be multiples
    difference: dict[str, float]  # from PyTorch's picture at each level, greatest, in 255ths


def export(system: System, onestep: OneStep, kind: str, folder: Path) -> Exported:
    """Write a system's graphs, hold them against PyTorch, and lay an example beside them.

    Args:
        system: its row.
        onestep: in float32 on the processor.
        kind: onnx or openvino.
        folder: made if it is missing.
    """
    if kind not in get_args(Kind):
        raise RcodError(f"--to must be one of {', '.join(get_args(Kind))}, got {kind}")
    needed(kind)
    ensure_folder(folder)
    graphs = all_graphs(onestep, system)
    for graph in graphs:
        write_graph(graph, folder, kind)
    unit = next(graph.unit["z"] for graph in graphs if graph.name == "clean")
    multiple = unit * onestep.backbone.factor // system.scale if unit > 1 else 1
    steps = {name: _timestep(system, place) for name, place in LEVELS.items()}
    found = compare(system, onestep, folder, kind, steps, multiple)
    if (worst := max(found.values())) > 255 * LIMIT + 1e-3:
        raise RcodError(
            f"what was exported must give PyTorch's picture within 1/255, and differs by "
            f"{worst:.2f}/255; don't use {folder}, and tell us which versions of {kind} and torch"
        )
    exported = Exported(
        rcod=__version__, system=system.name, kind=kind, timesteps=steps, multiple=multiple,
        graphs={graph.name: list(graph.inputs) for graph in graphs}, difference=found,
    )  # fmt: skip
    (folder / "rcod.json").write_text(json.dumps(exported, indent=1) + "\n", encoding="utf-8")
    example = _example(kind, system, onestep.estimator is not None)
    (folder / "example.py").write_text(example, encoding="utf-8")
    return exported


def needed(kind: str) -> None:
    """Be sure that what traces and runs graphs is there."""
    runtime = {"onnx": "onnxruntime", "openvino": "openvino"}[kind]
    with _quiet():
        for name in (runtime, "onnx", "onnxscript"):
            try:
                import_module(name)
            except ImportError as error:
                raise RcodError(
                    f"{kind} needs {name}, got: {error}; pip install 'rcod[{kind}]'"
                ) from None


def write_graph(graph: Graph, folder: Path, kind: str) -> Path:
    """Trace a graph into a file of that kind."""
    path = folder / f"{graph.name}.onnx"
    size = sum(p.numel() * p.element_size() for p in graph.module.state_dict().values())
    with _quiet():
        program = torch.onnx.export(
            graph.module.eval(), tuple(graph.inputs.values()), dynamo=True, verbose=False,
            dynamic_shapes=graph.shapes, input_names=list(graph.inputs),
            output_names=[graph.output],
        )  # fmt: skip
        assert program is not None
        program.save(path, external_data=size > GIB)
        if kind == "onnx":
            return path
        openvino = import_module("openvino")
        whole = openvino.convert_model(path)
        path.with_suffix(".xml").unlink(missing_ok=True)
        openvino.save_model(whole, path.with_suffix(".xml"), compress_to_fp16=False)
        del whole
    for old in (path, path.with_name(f"{path.name}.data")):
        old.unlink(missing_ok=True)
    return path.with_suffix(".xml")


def open_graph(path: Path, threads: int) -> Runner:
    """A written graph, ready to be run in float32; inputs in the order of the graph's."""
    if path.suffix == ".onnx":
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return lambda given: session.run(None, dict(zip(names, given, strict=True)))[0]
    openvino = import_module("openvino")
    asked = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled, own = openvino.Core().compile_model(path, "CPU", asked), local()

    def run(given: Sequence[np.ndarray]) -> np.ndarray:
        if not hasattr(own, "request"):  # which two threads can't share
            own.request = compiled.create_infer_request()
        return own.request.infer(list(given), share_inputs=True)[0].copy()

    return run


@torch.inference_mode()
def compare(
    system: System, onestep: OneStep, folder: Path, kind: str, steps: dict[str, int], multiple: int
) -> dict[str, float]:
    """How far pictures of written graphs are from PyTorch's at each level, in 255ths.

    Of two photos, of sizes that no graph was traced with, both with an odd side; towers look at
    one of them enlarged and at the other shrunk.
    """
    run = {path.stem: open_graph(path, torch.get_num_threads())
           for path in sorted(folder.glob(f"*{ENDS[kind]}"))}  # fmt: skip
    found = dict.fromkeys(steps, 0.0)
    sides = ((37, 50), (96, 71)) if multiple == 1 else ((multiple, 2 * multiple),)
    for size in sides:
        coarse = torch.rand(1, 3, 9, 9, generator=seeded(0))
        lr = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
        made, more, tuned = run["enlarge"]([lr.numpy()]), [], onestep
        up = torch.from_numpy(made)  # from here on; Pillow's own may be a step of 8 bits away
        apart = 255 * float((up - frame(lr, system.framing, system.scale, 1).up).abs().max())
        tokens = onestep.prompt(up)
        if onestep.estimator is not None:
            tuned = onestep.tuned(onestep.estimator.features(lr))
            more = [run["scores"]([lr.numpy()])]
        z, heard = run["encode"]([made, *more]), run["prompt"]([made])
        for name, t in steps.items():
            given = torch.tensor([t])
            own = _restored(tuned, up, given, tokens).clamp(0, 1)
            expected = match_color(own, up, system.color)
            sr = run["decode"]([run["clean"]([z, given.numpy(), heard, *more])])
            restored = torch.from_numpy(run["color"]([sr, made]))
            found[name] = max(found[name], 255 * float((restored - expected).abs().max()), apart)
    return found


def _restored(onestep: OneStep, up: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
    """PyTorch's own picture of an enlarged photo, (1, 3, H, W), not clamped."""
    sides = 4 * [BORDER * isinstance(onestep.backbone, TinyBackbone)]
    z = onestep.clean(continued(onestep.backbone.encode(up), sides), t, tokens)
    return cut(onestep.backbone.decode(z), [onestep.backbone.factor * side for side in sides])


def _timestep(system: System, place: float) -> int:
    if system.timestep is not None:
        return system.timestep
    return timestep_of_realism(place, system.groups)


def _example(kind: str, system: System, scored: bool) -> str:
    """The example's text."""
    stops = system.groups.timesteps[::-1]
    timestep = str(_timestep(system, 0.0))
    if system.timestep is None and len(stops) > 1:  # the line through all groups' timesteps
        turned = f"{len(stops) - 1} * float(realism)"
        timestep = f"round(np.interp({turned}, range({len(stops)}), {stops}))"
    more = '[run("scores", lr)]' if scored else "[]"
    return EXAMPLE.format(opener=OPENERS[kind], timestep=timestep, more=more)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracers talk about themselves; a caller hears errors alone."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
