"""Where and in which precision do we run?

The user names a device and a precision, or leaves the choice to us. Everything
else follows the tensors it is given, and at most asks of what type their device is.

    "auto" -> pick_device -> cuda | mps | cpu
    "auto" -> pick_dtype  -> the fastest precision: measured once on a processor, and kept
    seed   -> seeded      -> rng
"""

import copy
import ctypes
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from functools import cache
from math import inf
from pathlib import Path
from typing import Literal, get_args

import torch

from rcod.errors import RcodError

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

SHORTAGE = "allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED"
PAYS = 1.25  # times as fast as float32, at least, for bfloat16 to be taken
TURNS = 6  # of the measurement; the first ones warm up
PROBED = torch.float32, torch.bfloat16


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


def await_gpus() -> None:
    """Wait until every GPU that holds something has done what it was told."""
    if torch.cuda.is_initialized():
        for place in range(torch.cuda.device_count()):
            if torch.cuda.memory_allocated(place):  # waiting for an idle one would fill its memory
                torch.cuda.synchronize(place)
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of that name; `auto` takes the fastest, on a processor by a measurement.

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
        own = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if own else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if bfloat16_pays() else torch.float32


def bfloat16_pays() -> bool:
    """Whether this processor convolves clearly faster in bfloat16; measured once, then kept."""
    return _bfloat16_pays(cache_folder())


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
    return any(sign in str(error) for sign in SHORTAGE)


def trim_memory() -> None:
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


def cache_folder() -> Path:
    """Where is kept what would take time to find again: RCOD_CACHE, or the user's own folder."""
    if named := os.environ.get("RCOD_CACHE"):
        return Path(named)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        home = tempfile.gettempdir()
    return Path(home) / "rcod"


@cache
def _bfloat16_pays(folder: Path) -> bool:
    """`bfloat16_pays`, by the folder that keeps the answer."""
    path = folder / f"bfloat16-{_processor()}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["pays"] is True
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never measured, or torn
    exact, half = _convolving()
    answer = {"pays": half * PAYS < exact, "float32": exact, "bfloat16": half}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(answer), encoding="utf-8")
        part.replace(path)
    except OSError:
        pass  # a folder that can't be written costs the measurement again
    return answer["pays"] is True


@torch.no_grad()
def _convolving() -> tuple[float, float]:
    """Seconds of a convolution as the tiny model has them, in float32 and in bfloat16.

    The best of some, by turns, of one thread's own time: what other programs take doesn't count.
    """
    layer = torch.nn.Conv2d(64, 64, 3, padding=1)
    layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.ones(1, 64, 64, 64).contiguous(memory_format=torch.channels_last)
    pairs = [(copy.deepcopy(layer).to(dtype), x.to(dtype)) for dtype in PROBED]
    best = [inf for _ in PROBED]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(TURNS):
            for i, (way, given) in enumerate(pairs):
                started = time.thread_time()
                way(given)
                best[i] = min(best[i], time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    return best[0], best[1]


def _processor() -> str:
    """One word for this processor and PyTorch; another machine may share the folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {line for line in lines if line.startswith(("model name", "flags", "CPU part"))}
    text = f"{torch.__version__} {platform.machine()} {platform.processor()} {sorted(facts)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
