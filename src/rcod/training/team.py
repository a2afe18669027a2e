"""Who trains together?

One process, or several that `accelerate launch` has started, each with its share of every
batch. They hold the same weights, and before each step they average their gradients: what
trains beside a frozen base is small, so this costs less than wrapping every network, and every
network may be called as often as a loss needs it.

    accelerate launch ... -> gather -> Team -> mean of gradients, one of them writes
"""

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rcod.device import pick_device
from rcod.errors import RcodError

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


class Team:
    """The processes of a run, seen from one of them."""

    def __init__(self, device: torch.device, accelerator: "Accelerator | None" = None) -> None:
        self.device = device
        self.accelerator = accelerator
        self.size = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def mean(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all processes."""
        if self.accelerator is None or self.size == 1:
            return tensors
        flat = torch.cat([tensor.float().flatten() for tensor in tensors])  # one message
        flat = self.accelerator.reduce(flat, "mean")
        assert isinstance(flat, Tensor)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [
            part.view_as(tensor).to(tensor.dtype)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def any(self, asked: bool) -> bool:
        """Whether one of them is asked for something; all learn of it at the same step."""
        return bool(self.mean([torch.tensor(float(asked), device=self.device)])[0])

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def gather(device: str = "auto") -> Team:
    """The team that this process belongs to: those that were launched together, or itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(pick_device(device))
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise RcodError(
                f"{name} splits weights between processes, and what trains here is small enough "
                "for each of them; launch with --multi_gpu (or --cpu) instead"
            )
    try:
        from accelerate import Accelerator
    except ImportError:
        raise RcodError(
            "several processes need accelerate, which is not installed; pip install 'rcod[train]'"
        ) from None
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    return Team(accelerator.device, accelerator)
