"""Low-rank adapters: how does a frozen layer learn a little?

    y = layer(x) + scale * up(down(x))

`down` has rank r outputs and `up` starts at zero, so a fresh adapter changes nothing.
`merge` folds the product into the layer's own weight, after which it costs nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rcod.errors import RcodError

ALPHA = 8.0  # peft's default, which the published checkpoints rely on: scale = 8 / r


class LowRank(nn.Module):
    """A frozen Linear or Conv2d with a trainable low-rank addition."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float = ALPHA) -> None:
        super().__init__()
        if rank < 1:
            raise RcodError(f"a LoRA's rank must be at least 1, got {rank}")
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        if isinstance(base, nn.Linear):
            self.down: nn.Module = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
        else:
            inner = nn.Conv2d(
                base.in_channels,
                rank,
                _pair(base.kernel_size),
                _pair(base.stride),
                base.padding if isinstance(base.padding, str) else _pair(base.padding),
                bias=False,
            )
            self.down, self.up = inner, nn.Conv2d(rank, base.out_channels, 1, bias=False)
        self.up.weight.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer, and a little more."""
        return self.base(x) + self.scale * self.up(self.down(x))

    def merged(self) -> nn.Linear | nn.Conv2d:
        """The base layer with the product folded in."""
        down = next(self.down.parameters()).detach()
        product = self.up.weight.detach().flatten(1) @ down.flatten(1)  # (out, in * k * k)
        with torch.no_grad():
            self.base.weight += self.scale * product.view_as(self.base.weight)
        return self.base


def attach(
    network: nn.Module,
    rank: int,
    rng: torch.Generator,
    chosen: Callable[[str], bool] = lambda name: True,
) -> list[nn.Parameter]:
    """Give every chosen Linear and Conv2d of a frozen network an adapter, in place.

    Args:
        network: its own weights are frozen from here on.
        rank: rank r of each adapter.
        rng: draws the start of `down`.
        chosen: which modules, by dotted name.

    Returns:
        The adapters' parameters, the only ones that train.
    """
    network.requires_grad_(False)
    adapters: list[nn.Parameter] = []
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and chosen(name):
            adapter = LowRank(module, rank)
            down = next(adapter.down.parameters())
            down.data = torch.randn(down.shape, generator=rng) / down[0].numel() ** 0.5
            _replace(network, name, adapter)
            adapters += [*adapter.down.parameters(), *adapter.up.parameters()]
    if not adapters:
        raise RcodError("no layer of the network was chosen for an adapter; check the names")
    return adapters


def merge(network: nn.Module) -> None:
    """Fold every adapter into its layer and remove it, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LowRank):
            _replace(network, name, module.merged())


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]
