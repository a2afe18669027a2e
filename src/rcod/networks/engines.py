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

from rcod import __version__
from rcod.device import kept, pick_dtype
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone
from rcod.networks.exporting import ENDS, Runner, needed, open_graph, write_graph
from rcod.networks.graphs import backbone_graphs
from rcod.networks.onestep import OneStep
from rcod.networks.stable import StableBackbone
from rcod.networks.swift import SwiftBackbone

EngineName = Literal["auto", "torch", "compile", "openvino", "onnx"]
Engine = Callable[[OneStep, torch.dtype], nn.Module]  # step, precision -> backbone


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
    """Tiny's UNet as PyTorch's compiler writes it, between the two convolutions of `swift`."""

    def __init__(self, tiny: TinyBackbone) -> None:
        super().__init__(tiny)
        self._call = torch.compile(tiny.predict, dynamic=True)

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """As `TinyBackbone.predict`."""
        return self._call(z, t, tokens)


def harness(onestep: OneStep, engine: str, dtype: torch.dtype) -> None:
    """Let an engine compute a step's backbone from now on.

    Args:
        onestep: loaded, with weights as `precisions` says; nobody else holds it yet.
        engine: one of `EngineName`.
        dtype: precision of the UNet.
    """
    if engine in ("openvino", "onnx") and not isinstance(onestep.backbone, TinyBackbone):
        raise RcodError(
            f"{engine} runs tiny inside rcod; for other systems write graphs by `rcod export` and "
            "run those, or take the engine torch or compile"
        )
    onestep.backbone = ENGINES[engine](onestep, dtype)


def precisions(engine: str, name: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """In which precision an engine wants the weights, and in which it computes the UNet.

    Args:
        engine: one of `EngineName`.
        name: of a precision, as for `pick_dtype`.
        device: where the networks will run.
    """
    if engine not in get_args(EngineName):
        raise RcodError(f"engine must be one of {', '.join(get_args(EngineName))}, got {engine}")
    dtype = pick_dtype(name, device)
    if engine not in ("openvino", "onnx"):
        return dtype, dtype
    if device.type != "cpu":
        raise RcodError(f"{engine} runs on the processor here, got {device}; take --device cpu")
    if engine == "onnx" and name not in ("auto", "float32"):
        raise RcodError(f"onnx computes in float32 on the processor, got {name}; leave --dtype out")
    return torch.float32, torch.float32 if engine == "onnx" else dtype


def _torch(onestep: OneStep, dtype: torch.dtype) -> nn.Module:
    """PyTorch, operator by operator."""
    tiny = onestep.backbone
    on_processor = onestep.alphas.device.type == "cpu"
    return SwiftBackbone(tiny) if isinstance(tiny, TinyBackbone) and on_processor else tiny


def _compiled(onestep: OneStep, dtype: torch.dtype) -> nn.Module:
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

    def engine(onestep: OneStep, dtype: torch.dtype) -> nn.Module:
        needed(kind)
        folder = _traced(onestep, kind)
        precision = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
        exact = {"encode": "f32", "decode": "f32"}  # 8 bits of mantissa would show in a picture
        threads = torch.get_num_threads()
        return GraphBackbone(onestep.backbone.factor, {
            name: open_graph(folder / f"{name}{ENDS[kind]}", threads, exact.get(name, precision))
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
    folder = kept() / f"{kind}-{found.hexdigest()[:16]}"
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
