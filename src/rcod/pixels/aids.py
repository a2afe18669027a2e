"""Where are the weights that judge and teach?

Aids never ship and are never needed to enlarge a picture. Those of `tools/fetch_aids.py` lie in
one folder, named by RCOD_AIDS; the field's own files are found there by their published names,
or in PyTorch's cache, where other programs may have put them.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rcod.errors import RcodError
from rcod.pickles import DAMAGE, unpickled


def aid(name: str, where: Path | None = None) -> Path:
    """Name the file of an aid: in a folder given, else in the folder RCOD_AIDS names."""
    place = where or Path(os.environ.get("RCOD_AIDS", "aids"))
    return place / name if place.is_dir() or not place.suffix else place


def read_aid(name: str, where: Path | None = None) -> dict[str, Tensor]:
    """Read an aid's tensors; `where` is its folder or the file itself."""
    path = aid(name, where)
    if not path.is_file():
        raise RcodError(
            f"the aid {name} must be a file, but {path} is none; "
            "run `python tools/fetch_aids.py DIR` and set RCOD_AIDS=DIR"
        )
    return _read_safe(path)


def find_published(names: tuple[str, ...], where: Path | None = None) -> Path | None:
    """Find a file that others publish, by any of its names: among the aids, then in the cache."""
    folder = where or Path(os.environ.get("RCOD_AIDS", "aids"))
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    places = [place / name for place in (folder, cache) for name in names]
    return next((path for path in places if path.is_file()), None)


def read_published(path: Path) -> dict[str, Tensor]:
    """Read a state dict (.pth, .pt or .safetensors) without running code it may hold."""
    if path.suffix == ".safetensors":
        return _read_safe(path)
    try:
        loaded = unpickled(path)
    except UnpicklingError:
        raise RcodError(
            f"{path} must be a plain state dict, and is no such file or asks to run code; "
            "download it again"
        ) from None
    except DAMAGE as error:
        raise RcodError(f"{path} must be a plain state dict, got: {error}") from None
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise RcodError(f"{path} must be a plain state dict of tensors, got {type(loaded)}")
    return loaded


def _read_safe(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RcodError(
            f"{path} must be whole safetensors, got: {error}; download it again"
        ) from None


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file that has not changed since."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    facts = path.stat()
    return _digest(path, facts.st_size, facts.st_mtime_ns)
