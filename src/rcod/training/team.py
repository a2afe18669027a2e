"""Who trains together?

One process, or several that `accelerate launch` has started, each with its share of every
batch. What learns beside a frozen base is small: they all hold it, and before each step they
average their gradients. The base is large: where the launch asks for FSDP, or for DeepSpeed's
third stage, each process holds its part of every frozen layer, and they put a layer together
for the length of its call. So every network may be called as often as a loss needs it.

    accelerate launch ... -> gather -> Team -> frozen layers split, mean of gradients
                                            '-> one of them writes
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rcod.device import pick_device
from rcod.errors import RcodError

if TYPE_CHECKING:
    from accelerate import PartialState

LEAST = 4096  # numbers in a layer that is worth splitting


class Team:
    """The processes of a run, seen from one of them."""

    def __init__(
        self, device: torch.device, state: "PartialState | None" = None, splits: bool = False
    ) -> None:
        self.device = device
        self.state = state  # of a launch
        self.splits = splits  # whether each holds a part of the frozen layers alone
        self.size = 1 if state is None else state.num_processes
        self.rank = 0 if state is None else state.process_index

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def mean(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all processes."""
        if self.state is None or self.size == 1:
            return tensors
        from accelerate.utils import reduce

        flat = torch.cat([tensor.float().flatten() for tensor in tensors])  # one message
        flat = reduce(flat, "mean")
        assert isinstance(flat, Tensor)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [
            part.view_as(tensor).to(tensor.dtype)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def collect(self, words: Sequence[str]) -> list[str]:
        """What all processes have to say, one after another."""
        if self.state is None or self.size == 1:
            return list(words)
        from accelerate.utils import gather_object

        return gather_object(list(words))

    def split(self, networks: Iterable[nn.Module], whole: Iterable[Tensor]) -> tuple[int, int]:
        """Split frozen layers between the processes, in place.

        Args:
            networks: whose layers are split.
            whole: what stays with every process, since it learns or is written.

        Returns:
            Bytes of these networks in this process, before and now.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor

        mesh = init_device_mesh(self.device.type, (self.size,))
        kept = {id(tensor) for tensor in whole}
        before, now = 0, 0
        for layer in {id(one): one for network in networks for one in network.modules()}.values():
            own = list(layer.parameters(recurse=False))
            before += (size := sum(tensor.nbytes for tensor in own))
            splits = sum(tensor.numel() for tensor in own) >= LEAST and not list(layer.children())
            if splits and not any(id(tensor) in kept for tensor in own):
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
                parts = [p.to_local() for p in layer.parameters() if isinstance(p, DTensor)]
                size = sum(part.nbytes for part in parts)
            now += size
        return before, now

    def any(self, asked: bool) -> bool:
        """Whether one of them is asked for something; all learn of it at the same step."""
        return bool(self.mean([torch.tensor(float(asked), device=self.device)])[0])

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.state is not None:
            self.state.wait_for_everyone()


def gather(device: str = "auto") -> Team:
    """The team that this process belongs to: those that were launched together, or itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(pick_device(device))
    try:
        from accelerate import PartialState
    except ImportError:
        raise RcodError(
            "several processes need accelerate, which is not installed; pip install 'rcod[train]'"
        ) from None
    state = PartialState(cpu=device == "cpu")
    assert state.device is not None, "accelerate names one where processes are launched"
    return Team(state.device, state, is_split(os.environ))


def is_split(environment: Mapping[str, str]) -> bool:
    """Whether a launch asks to split weights: by FSDP, or by DeepSpeed from its third stage on."""

    def says(name: str) -> bool:
        return environment.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true")

    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    return says("FSDP") or (says("DEEPSPEED") and stage == "3")
