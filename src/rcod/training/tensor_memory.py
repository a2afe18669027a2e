"""How many bytes are alive in tensors, now and at most?

every operation -> its results' storages, each counted once, until it is gone
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MB = 1e6
PROGRAM = 450.0  # MB: Python and PyTorch themselves, on a processor
KEPT = 1.1  # what a process holds for each byte alive: the C library keeps some of what was freed


class Need(NamedTuple):
    """What a run takes."""

    learning: dict[str, int]  # parameters that learn, by part
    frozen: dict[str, int]  # and that don't
    megabytes: dict[str, float]  # at rest, and at most in each part of a step


class Meter(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.most = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return found

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is gone."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self.alive += size
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.alive -= size

    @contextmanager
    def stage(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Write down the most that is alive within."""
        self.most = self.alive
        yield
        into[name] = self.most / MB

    def see_all(self, network: nn.Module) -> None:
        """Count a network's tensors."""
        for tensor in (*network.parameters(), *network.buffers()):
            self.see(tensor)


def on_processor(megabytes: float) -> float:
    """What a process holds on a processor while so many MB are alive in tensors."""
    return PROGRAM + KEPT * megabytes
