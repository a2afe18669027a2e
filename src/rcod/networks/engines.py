"""Who computes the three calls of a backbone?

PyTorch, with the tiny model arranged for the processor; PyTorch's compiler; OpenVINO; or ONNX
Runtime. An engine takes a backbone and gives one with the same answers: the step, the tiles and
the dial know of nothing. What has been traced is kept between calls, by the weights it holds.

    backbone -> Engine -> encode, predict, decode
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod import __version__
from rcod.device import cache_folder, pick_dtype
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone
from rcod.networks.exporting import ENDS, Runner, needed, open_graph, write_graph
from rcod.networks.graphs import backbone_graphs
from rcod.networks.onestep import OneStep
from rcod.networks.stable import StableBackbone
from rcod.networks.swift import Block, SwiftBackbone

EngineName = Literal["auto", "torch", "compile", "openvino", "onnx"]
Engine = Callable[[OneStep], nn.Module]  # step -> backbone


class GraphBackbone(nn.Module):
    """Three graphs that another program runs on the processor."""

    def __init__(self, factor: int, runners: dict[str, Runner]) -> None:
        super().__init__()
        self.factor = factor
        self.runners = runners

    def encode(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> latent (1, C, H / factor, W / factor)."""
        return self._run("encode", image)

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Latent (B, C, h, w), timesteps (B,), tokens (B, N, D) -> noise (B, C, h, w)."""
        return self._run("predict", z, t, tokens)

    def decode(self, z: Tensor) -> Tensor:
        """Latent (1, C, h, w) -> image (1, 3, h * factor, w * factor), not clamped."""
        return self._run("decode", z)

    def _run(self, name: str, *given: Tensor) -> Tensor:
        arrays: list[np.ndarray] = [one.detach().cpu().contiguous().numpy() for one in given]
        return torch.from_numpy(self.runners[name](arrays)).to(given[0].device)


class CompiledBackbone(SwiftBackbone):
    """Tiny's residual blocks as PyTorch's compiler writes them, with the same roundings.

    Not what lies between them: other roundings there would be others everywhere behind.
    """

    def __init__(self, tiny: TinyBackbone) -> None:
        super().__init__(tiny)
        self._call = torch.compile(_chained, dynamic=True)

    def room(self, width: int) -> int:
        """No columns of zeros: the compiler's loops would have to clear them."""
        return 0

    def through(
        self, x: Tensor, spare: Tensor, blocks: tuple[Block, ...], width: int
    ) -> tuple[Tensor, Tensor]:
        """As `SwiftBackbone.through`, in bands that the compiler makes."""
        return self._call(x, blocks), x


def _chained(x: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """Residual blocks one after another, (1, C, h, w)."""
    for first, second in blocks:
        x = x + F.conv2d(F.silu(F.conv2d(x, *first, padding=1)), *second, padding=1)
    return x


def use_engine(onestep: OneStep, engine: str) -> None:
    """Let an engine compute a step's backbone from now on.

    Args:
        onestep: loaded, with weights as `precision` says; nobody else holds it yet.
        engine: one of `EngineName`.
    """
    if engine in ("openvino", "onnx") and not isinstance(onestep.backbone, TinyBackbone):
        raise RcodError(
            f"{engine} runs tiny inside rcod; for other systems write graphs by `rcod export` and "
            "run those, or take the engine torch or compile"
        )
    onestep.backbone = ENGINES[engine](onestep)


def precision(engine: str, name: str, device: torch.device) -> torch.dtype:
    """In which precision an engine computes the UNet; OpenVINO and ONNX Runtime in float32 alone.

    Theirs round to 16 bits at other places than PyTorch, and some pixels would show it.

    Args:
        engine: one of `EngineName`.
        name: of a precision, as for `pick_dtype`.
        device: where the networks will run.
    """
    if engine not in get_args(EngineName):
        known = ", ".join(get_args(EngineName))
        raise RcodError(f"engine must be one of {known}, or ray to upscale on, got '{engine}'")
    if engine not in ("openvino", "onnx"):
        return pick_dtype(name, device)
    if device.type != "cpu":
        raise RcodError(f"{engine} runs on the processor here, got {device}; take --device cpu")
    if name not in ("auto", "float32"):
        raise RcodError(f"{engine} computes in float32 here, got {name}; leave --dtype out")
    return torch.float32


def _torch(onestep: OneStep) -> nn.Module:
    """PyTorch, operator by operator."""
    tiny = onestep.backbone
    on_processor = onestep.alphas.device.type == "cpu"
    return SwiftBackbone(tiny) if isinstance(tiny, TinyBackbone) and on_processor else tiny


def _compiled(onestep: OneStep) -> nn.Module:
    """PyTorch's compiler, on the UNet alone: the region that is large and always alike."""
    backbone = onestep.backbone
    if isinstance(backbone, TinyBackbone):
        return CompiledBackbone(backbone)
    assert isinstance(backbone, StableBackbone)
    if backbone.guided:  # every photo has a UNet of its own, and would be compiled for anew
        raise RcodError(
            "compile can't serve a system whose adapters follow the photo; take the engine torch"
        )
    for unet in backbone.unets:
        unet.compile(dynamic=True)
    return backbone


def _graphs(kind: str) -> Engine:
    """A program that runs traced graphs."""

    def engine(onestep: OneStep) -> nn.Module:
        needed(kind)
        folder, threads = _traced(onestep, kind), torch.get_num_threads()
        return GraphBackbone(onestep.backbone.factor, {
            name: open_graph(folder / f"{name}{ENDS[kind]}", threads)
            for name in ("encode", "predict", "decode")
        })  # fmt: skip

    return engine


def _traced(onestep: OneStep, kind: str) -> Path:
    """The folder of a backbone's graphs, traced once and kept."""
    tokens = onestep.prompt(torch.zeros(1, 3, 256, 256)).detach()
    found = hashlib.sha256(f"{__version__} {torch.__version__} {tokens.shape}".encode())
    for name, tensor in sorted(onestep.backbone.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().data)
    folder = cache_folder() / f"{kind}-{found.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        whole = Path(fresh) / "graphs"
        whole.mkdir()
        for graph in backbone_graphs(onestep.backbone, tokens).values():
            write_graph(graph, whole, kind)
        if not folder.is_dir():  # somebody else may have been faster
            whole.rename(folder)
    return folder


ENGINES: dict[str, Engine] = {
    "auto": _torch,  # the fastest of those that come with the package (docs/performance.md)
    "torch": _torch,
    "compile": _compiled,
    "openvino": _graphs("openvino"),
    "onnx": _graphs("onnx"),
}
