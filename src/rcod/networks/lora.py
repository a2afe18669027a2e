"""Low-rank adapters: how does a frozen layer learn a little?

    y = layer(x) + scale * up(core(down(x)))

`down` has rank r outputs and `up` starts at zero, so a fresh adapter changes nothing.
`merge` folds the product into the layer's own weight, after which it costs nothing.

Published adapters come as `Factors`, and their `delta` is added to the weight while it is
read. Where the r x r core depends on the photo (S3Diff), the weights do too: `twin` gives a
network for that photo which shares every other tensor, and the first one is left as it is.
"""

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from rcod.errors import RcodError

Network = TypeVar("Network", bound=nn.Module)

ALPHA = 8.0  # peft's default, which the published checkpoints rely on: scale = 8 / r


class Voice:
    """Whether the adapters of one name are heard; shared by all of them, and by copies."""

    def __init__(self) -> None:
        self.on = True

    def __deepcopy__(self, memo: dict[int, object]) -> "Voice":
        return self


class LowRank(nn.Module):
    """A frozen layer, perhaps adapted already, with a trainable low-rank addition."""

    def __init__(
        self, base: "nn.Linear | nn.Conv2d | LowRank | Replaced", rank: int, alpha: float = ALPHA
    ) -> None:
        super().__init__()
        if rank < 1:
            raise RcodError(f"a LoRA's rank must be at least 1, got {rank}")
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.voice: Voice | None = None  # nothing: always heard (see `voices`)
        self.register_buffer("core", None, persistent=False)
        layer: nn.Module = base
        while isinstance(layer, LowRank | Replaced):
            layer = layer.base
        if isinstance(layer, nn.Linear):
            self.down: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            assert isinstance(layer, nn.Conv2d)
            inner = nn.Conv2d(
                layer.in_channels,
                rank,
                _pair(layer.kernel_size),
                _pair(layer.stride),
                layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
                bias=False,
            )
            self.down, self.up = inner, nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        self.up.weight.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer, and a little more."""
        if self.voice is not None and not self.voice.on:
            return self.base(x)
        inner = self.down(x)  # (B, N, r) or (B, r, h, w)
        if isinstance(self.core, Tensor):
            inner = _mix(inner, self.core.to(inner.dtype))
        return self.base(x) + self.scale * self.up(inner)

    def merged(self) -> nn.Linear | nn.Conv2d:
        """The base layer with the product folded in."""
        assert self.core is None, "a core that belongs to a photo can't be folded in for good"
        base = self.base.merged() if isinstance(self.base, LowRank) else self.base
        assert not isinstance(base, Replaced), "a layer with a stand-in has two weights"
        down = next(self.down.parameters()).detach()
        product = self.up.weight.detach().flatten(1) @ down.flatten(1)  # (out, in * k * k)
        with torch.no_grad():
            base.weight += self.scale * product.view_as(base.weight)
        return base


class Replaced(nn.Module):
    """A frozen layer, and a trained one that stands in for it while its voice is heard."""

    def __init__(self, base: nn.Module, own: nn.Module, voice: Voice) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.own = own
        self.voice = voice

    def forward(self, x: Tensor) -> Tensor:
        """One layer's answer or the other's."""
        return self.own(x) if self.voice.on else self.base(x)


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
            replace_module(network, name, adapter)
            adapters += [*adapter.down.parameters(), *adapter.up.parameters()]
    if not adapters:
        raise RcodError("no layer of the network was chosen for an adapter; check the names")
    return adapters


def merge(network: nn.Module) -> None:
    """Fold every adapter into its layer and remove it, in place."""
    within: set[nn.Module] = set()  # other adapters, which fold them in themselves
    for name, module in list(network.named_modules()):
        if isinstance(module, LowRank) and module not in within:
            within.update(module.modules())
            replace_module(network, name, module.merged())


class Factors(NamedTuple):
    """A published adapter of one layer."""

    down: Tensor  # (r, in) of a Linear, (r, in, k, k) of a Conv2d
    up: Tensor  # (out, r) or (out, r, 1, 1)

    def delta(self, core: Tensor | None = None) -> Tensor:
        """What the adapter adds to its layer's weight.

        Args:
            core: (r, r), rows by what comes in, columns by what goes out; nothing is the identity.

        Returns:
            (out, in) or (out, in, k, k), in the factors' dtype.
        """
        inner = self.down.flatten(1)  # (r, in * k * k)
        if core is not None:
            inner = core.T.to(inner.dtype) @ inner
        product = self.up.flatten(1) @ inner * (ALPHA / len(self.down))  # (out, in * k * k)
        return product.view(len(self.up), *self.down.shape[1:])


def attach_factors(
    network: nn.Module, adapters: Mapping[str, Factors], with_core: bool = False
) -> None:
    """Put published adapters onto a frozen network without folding them in, in place.

    Args:
        network: keeps its dtype, which the adapters take over.
        adapters: factors by layer.
        with_core: give each an identity as its core, for `twin` to replace.
    """
    for name, factors in adapters.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d | LowRank)
        rank = len(factors.down)
        adapter = LowRank(layer, rank)
        next(adapter.down.parameters()).data = factors.down
        adapter.up.weight.data = factors.up
        adapter.to(next(network.parameters()).dtype)
        if with_core:
            adapter.core = nn.Buffer(torch.eye(rank)[None], persistent=False)
        replace_module(network, name, adapter.requires_grad_(False).eval())


def twin(network: Network, changed: Mapping[str, Tensor]) -> Network:
    """A second network that shares the first one's layers, all but those of the named tensors."""
    own = dict((*network.named_parameters(), *network.named_buffers()))
    homes = {name.rpartition(".")[0] for name in changed}
    layers = {
        id(layer): layer
        for name, layer in network.named_modules()
        if name and name not in homes and not list(layer.children())
    }
    shared = {id(tensor): tensor for tensor in own.values()}
    others = {id(own[name]): tensor for name, tensor in changed.items()}
    return copy.deepcopy(network, {**layers, **shared, **others})


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name, dots and all."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _mix(inner: Tensor, core: Tensor) -> Tensor:
    """Each sample's core: (B, N, r) or (B, r, h, w) by (b, r, r), b dividing B."""
    core = core.repeat(len(inner) // len(core), 1, 1)  # several texts of one photo share it
    if inner.ndim == 3:
        return torch.einsum("bnk,bkr->bnr", inner, core)
    return torch.einsum("bkhw,bkr->brhw", inner, core)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]
