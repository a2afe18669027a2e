"""Weights on disk: safetensors with the system's row in the header.

    save(path, system, networks) -> one file -> load(path) -> system, networks

A file is written beside its target and renamed, so a broken write never hides a whole one.
"""

import json
from importlib.resources import files
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rcod.errors import RcodError
from rcod.estimators import MetricEstimator
from rcod.onestep import OneStep
from rcod.systems import SYSTEMS, System, build

KEY = "rcod"  # header entry that holds the system's row


def save(
    path: Path, system: System, onestep: OneStep, metric: MetricEstimator, dtype: torch.dtype
) -> None:
    """Write a system's weights as `dtype` with its row in the header."""
    tensors = {f"onestep.{k}": v for k, v in onestep.state_dict().items()}
    tensors |= {f"metric.{k}": v for k, v in metric.state_dict().items()}
    small = {k: v.detach().to(dtype).contiguous() for k, v in tensors.items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(small, partial, metadata={KEY: system.model_dump_json()})
    partial.replace(path)


def load(path: Path) -> tuple[System, OneStep, MetricEstimator]:
    """Read a system's row and its networks, float32, in evaluation mode."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            if header is None:
                raise RcodError(f"{path} must carry rcod's settings in its header and has none")
            system = System.model_validate(json.loads(header))
            tensors = {key: file.get_tensor(key).float() for key in list(file.keys())}
    except FileNotFoundError:
        raise RcodError(f"no weights at {path}; name a bundled model or a file") from None
    except (SafetensorError, ValidationError, json.JSONDecodeError) as error:
        raise RcodError(f"{path} must be safetensors written by rcod, got: {error}") from None
    onestep, metric = build(system)
    for prefix, network in (("onestep.", onestep), ("metric.", metric)):
        mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            network.load_state_dict(mine, strict=True)
        except RuntimeError as error:
            raise RcodError(f"{path} doesn't fit its own settings: {error}") from None
    return system, onestep.eval(), metric.eval()


def find_weights(name: str) -> Path:
    """The weights of a bundled model, or the path itself when `name` is a file."""
    system = SYSTEMS.get(name)
    if system is not None and system.weights is not None:
        return Path(str(files("rcod") / "weights" / system.weights))
    if not Path(name).is_file():
        known = ", ".join(SYSTEMS)
        raise RcodError(f"model must be one of {known} or a .safetensors file, got {name}")
    return Path(name)
