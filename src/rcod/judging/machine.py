"""How fast can this machine multiply and copy?

Measured in the same run as what is judged by it: nobody's data sheet says what a virtual
machine with busy neighbours gives today.

    calls, matrices -> beside_products -> seconds, 10^9 operations a second
    memory          -> copy_rate       -> 10^9 bytes a second, read and written
    function        -> fresh           -> what it returns in a process of its own
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypedDict

import torch

from rcod.errors import RcodError

SIDE = 2048  # of the matrices: far larger than caches, and still a moment's work
PRODUCTS = 3  # of them after every call
BLOCK = 2**26  # bytes that are copied
CHILD = """
import json, sys
from {module} import {name}
from rcod.errors import RcodError
try:
    sys.stdout.write(json.dumps({name}(*json.loads(sys.argv[1]))))
except RcodError as error:
    sys.exit(f"error: {{error}}")
"""


class Repeats(TypedDict):
    """Repeated measurements."""

    median: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Repeats:
    """Median, least and greatest."""
    return Repeats(median=median(values), low=min(values), high=max(values))


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of every repeat."""
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def beside_products(
    call: Callable[[], object], repeats: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[float], Repeats]:
    """Seconds of every repeat, and what the machine's matrices gave meanwhile.

    Its rate moves while we look, so that calls and products take turns.

    Returns:
        The seconds, and 10^9 multiplications and additions a second in products of large square
        matrices.
    """
    left, right = torch.randn(2, SIDE, SIDE, device=device).to(dtype)

    def product() -> float:
        return float((left @ right)[0, 0])  # asked for, so that a device has finished

    product()
    calls, products = list[float](), list[float]()
    for _ in range(repeats):
        calls += timed(call, 1)
        products += timed(product, PRODUCTS)
    return calls, summarize([2 * SIDE**3 / second / 1e9 for second in products])


def copy_rate(device: torch.device, repeats: int = 7) -> Repeats:
    """10^9 bytes a second, read and written, from one block of memory to another."""
    source = torch.zeros(BLOCK // 4, device=device)
    target = torch.zeros_like(source)

    def copy() -> float:
        return float(target.copy_(source)[0])

    copy()
    return summarize([2 * BLOCK / second / 1e9 for second in timed(copy, repeats)])


def fresh(module: str, name: str, given: Sequence[object]) -> str:
    """Call a module's function in a process of its own; what it returned, as JSON."""
    child = CHILD.format(module=module, name=name)
    return run([sys.executable, "-c", child, json.dumps(given)])


def seconds_of(command: Sequence[str], settings: Mapping[str, str] | None = None) -> float:
    """Time one command, start and end included; `settings` are added to its environment."""
    started = time.perf_counter()
    run(command, settings)
    return time.perf_counter() - started


def run(command: Sequence[str], settings: Mapping[str, str] | None = None) -> str:
    """Run one command and return what it printed; what it said on failing becomes the error."""
    there = os.environ | dict(settings or {})
    done = subprocess.run(command, capture_output=True, text=True, env=there)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        if last.startswith("error: "):
            raise RcodError(last.removeprefix("error: "))
        raise RcodError(f"the timed command must succeed, it said: {done.stderr.strip()[-500:]}")
    return done.stdout
