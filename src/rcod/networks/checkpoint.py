"""Weights on disk: safetensors with the system's row in the header.

    save(path, system, networks) -> one file -> load(path) -> system, networks
    published files -> convert -> one file -> load(path, parts) -> the same

A file is written beside its target and renamed, so a broken write never hides a whole one.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from rcod.device import bfloat16_pays
from rcod.errors import RcodError, explain
from rcod.networks.assembly import Parts, assemble, check_fit, check_parts, fixed_texts
from rcod.networks.bases import find_base
from rcod.networks.estimators import DegradationEstimator, MetricEstimator
from rcod.networks.onestep import OneStep
from rcod.networks.published import convert as read_published
from rcod.networks.storage import hasten
from rcod.networks.subpixel import by_phases
from rcod.networks.systems import SYSTEMS, System, build, sized
from rcod.pixels.placing import ensure_folder, placed

Estimator = MetricEstimator | DegradationEstimator

KEY = "rcod"  # header entry that holds the system's row
RECIPE = "rcod.recipe"  # and the recipe of the run that made the file


def save(
    path: Path,
    system: System,
    onestep: OneStep,
    metric: MetricEstimator,
    dtype: torch.dtype,
    recipe: str | None = None,
) -> None:
    """Write tiny's weights as `dtype` with its row, and the recipe of their run, in the header."""
    tensors = {f"onestep.{k}": v for k, v in onestep.state_dict().items()}
    tensors |= {f"metric.{k}": v for k, v in metric.state_dict().items()}
    small = {k: v.detach().to(dtype).contiguous() for k, v in tensors.items()}
    write_tensors(path, system, small, recipe)


def companions(files: Sequence[Path], name: str) -> list[Path]:
    """The estimator and the metric head that a system needs, where they lie beside its file."""
    system = SYSTEMS.get(name)
    if system is None or system.adapters != "guided" or len(files) != 1:
        return []
    names = ["de_net.pth"]
    if system.metric:
        names += [f"{files[0].stem}_mem{end}" for end in (".pkl", ".pth")]
    return [path for one in names if (path := files[0].with_name(one)).is_file()]


def convert(files: Sequence[Path], name: str, out: Path, base: str | None = None) -> System:
    """Turn a system's published files into one safetensors file.

    Args:
        files: the checkpoint first; de_net.pth and a metric head after it where there are some.
        name: which system's.
        out: the file to write.
        base: its base, where it is at hand: then every layer is checked against it, and the
            system's own texts are embedded once and for all.
    """
    system = SYSTEMS.get(name)
    if system is None or system.base is None:
        known = ", ".join(key for key, row in SYSTEMS.items() if row.base is not None)
        raise RcodError(f"--system must be one of {known}, got {name}")
    if out.suffix != ".safetensors":
        raise RcodError(f"-o must name a .safetensors file, got {out}")
    system, tensors = read_published(files, system)
    if base is not None:
        folder = find_base(system.base, base) if system.base is not None else Path(base)
        check_fit(system, tensors, folder)
        tensors |= fixed_texts(system, folder)
    ensure_folder(out.parent)
    write_tensors(out, system, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return system


def load(
    path: Path, parts: Parts | None = None, dtype: torch.dtype = torch.float32
) -> tuple[System, OneStep, Estimator | None]:
    """Read a system's row and its networks, in evaluation mode.

    Args:
        path: a file written by `save` or `convert`.
        parts: where a published system's frozen networks lie, and what the caller asks of it.
        dtype: of a published system's large networks; tiny is float32 here.

    Returns:
        The row, the networks, and what estimates the metric, where something does.
    """
    system, tensors = read_tensors(path)
    parts = parts or Parts()
    if system.base is not None:
        onestep = assemble(system, tensors, parts, dtype)
        return system, onestep, onestep.estimator if system.metric else None
    check_parts(system, parts)
    with torch.device("meta"):  # without memory: a header may ask for any amount
        for prefix, network in sized(system).items():
            _fill(path, prefix, network, tensors, assign=True)
    onestep, metric = build(system)
    _fill(path, "onestep.", onestep, tensors)
    _fill(path, "metric.", metric, tensors)
    estimated = system.groups.by == "cosine"  # which alone the estimator knows
    system = system.model_copy(update={"metric": estimated})
    return system, onestep.eval(), metric.eval()


def _fill(
    path: Path, prefix: str, network: nn.Module, tensors: Mapping[str, Tensor], assign: bool = False
) -> None:
    """Give a network of tiny's the file's tensors of that prefix: all, and each where it fits."""
    mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        network.load_state_dict(mine, strict=True, assign=assign)
    except RuntimeError as error:
        raise RcodError(f"{path} doesn't fit its own settings: {error}") from None


def load_onto(
    name: str, device: torch.device, dtype: torch.dtype, parts: Parts | None = None
) -> tuple[System, OneStep, Estimator | None]:
    """Read a system by its name or file, on a device, frozen, its large networks in `dtype`."""
    system, onestep, metric = load(find_weights(name), parts, dtype)
    onestep = onestep.to(device).requires_grad_(False)
    if system.base is not None:
        arrange(onestep, device, dtype)
    else:
        unet = onestep.backbone.unet.to(dtype)
        unet.to(memory_format=torch.channels_last)
        if onestep.backbone.touch is not None:
            onestep.backbone.touch.to(dtype, memory_format=torch.channels_last)
    if isinstance(metric, MetricEstimator):
        branches = metric.branches.to(dtype)
        branches.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if metric is None or not system.metric:
        return system, onestep, None
    return system, onestep, metric.to(device).requires_grad_(False)


def arrange(onestep: OneStep, device: torch.device, dtype: torch.dtype) -> None:
    """Arrange a published system's networks for the device where they lie, in place."""
    if device.type != "cpu":
        vae = onestep.backbone.vae
        onestep.backbone.unets.to(dtype)  # norms too: there everything is computed in it
        vae.to(vae.dtype)
    else:
        by_phases(onestep.backbone.vae)
        for layer in onestep.backbone.vae.modules():
            if isinstance(layer, nn.SiLU):
                layer.inplace = True  # what comes in is a norm's answer, which nothing else reads
        if dtype == torch.bfloat16 and bfloat16_pays():
            hasten(onestep)
    if dtype != torch.float32:  # whose norms add up ten times less exactly with channels last
        onestep.backbone.to(memory_format=torch.channels_last)


def read_tensors(path: Path) -> tuple[System, dict[str, Tensor]]:
    """The row in a file's header, and its tensors in float32."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            if header is None:
                raise RcodError(f"{path} must carry rcod's settings in its header and has none")
            system = System.model_validate_json(header)
            return system, {key: file.get_tensor(key).float() for key in list(file.keys())}
    except FileNotFoundError:
        raise RcodError(f"no weights at {path}; name a bundled model or a file") from None
    except ValidationError as error:
        why = explain(error, "its header")
        raise RcodError(f"{path} must be safetensors written by rcod, got: {why}") from None
    except SafetensorError as error:
        raise RcodError(f"{path} must be safetensors written by rcod, got: {error}") from None


def write_tensors(
    path: Path, system: System, tensors: Mapping[str, Tensor], recipe: str | None = None
) -> None:
    """Write tensors with a system's row in the header; the name appears with the whole file."""
    header = {KEY: system.model_dump_json()} | ({RECIPE: recipe} if recipe else {})
    content = serialize(dict(tensors), header)
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    head["__metadata__"] = header  # in our order; safetensors' own changes from call to call
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with placed(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(content)[8 + size :])


def find_weights(name: str) -> Path:
    """The weights of a bundled model, or the path itself when `name` is a file."""
    system = SYSTEMS.get(name)
    if system is not None and system.weights is not None:
        return Path(str(files("rcod") / "weights" / system.weights))
    if system is not None:
        raise RcodError(
            f"{name} does not ship inside; convert its published file first: "
            f"rcod convert FILE --system {name} -o {name}.safetensors"
        )
    if not Path(name).is_file():
        known = ", ".join(key for key, row in SYSTEMS.items() if row.weights is not None)
        raise RcodError(f"model must be one of {known} or a .safetensors file, got {name}")
    return Path(name)
