"""Where and in which precision do we run?

The user names a device and a precision, or leaves the choice to us. Nothing else in the
package names a device: every function follows the tensors it is given.

    "auto" -> pick_device -> cuda | mps | cpu
    "auto" -> pick_dtype  -> the fastest precision that this device computes natively
    seed   -> seeded      -> rng
"""

import ctypes
import sys
from typing import Literal, get_args

import torch

from rcod.errors import RcodError

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes the first of cuda, mps and cpu that is there."""
    if name == "auto":
        found = [kind for kind in ("cuda", "mps") if _is_there(torch.device(kind))]
        return torch.device(found[0] if found else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RcodError(
            f"device must be auto, cpu, cuda, cuda:N or mps, got '{name}'; auto takes the fastest"
        ) from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise RcodError(
            f"device must be auto, cpu, cuda, cuda:N or mps, got '{name}'; auto takes the fastest"
        )
    if not _is_there(device):
        raise RcodError(
            f"device '{name}' must be present on this machine, and PyTorch finds none such; "
            "use cpu, or auto to take what is there"
        )
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of that name; `auto` takes the fastest that the device computes natively.

    Args:
        name: one of auto, float32, bfloat16, float16.
        device: where the networks will run.
    """
    if name not in get_args(DtypeName):
        raise RcodError(
            f"dtype must be one of {', '.join(get_args(DtypeName))}, got '{name}'; "
            "auto takes the fastest that the device can do"
        )
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random generator that always starts at the same place.

    Args:
        seed: any whole number from 0 to 2**63 - 1.
        device: where the numbers will be drawn.
    """
    if not 0 <= seed < 2**63:
        raise RcodError(f"seed must lie in [0, 2**63), got {seed}; any small whole number will do")
    return torch.Generator(device=device).manual_seed(seed)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is about memory; PyTorch has no class of its own for the processor's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error) or "not enough memory" in str(error)


def release() -> None:
    """Give freed memory back to the system: glibc keeps what it could use again, in pieces."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _is_there(device: torch.device) -> bool:
    """Whether this PyTorch, on this machine, can compute on the device."""
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available() and (device.index or 0) == 0
    return True


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 products; emulated ones are slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
