"""How do tiles of an autoencoder share their tones?

A group norm divides by the spread of what it sees. In a tile that is the tile's own spread, so
a tile of sky and a tile of leaves come out in different tones, and no overlap hides that. So
pieces from all over the picture go first, together: each norm takes the mean and the spread of
all of them. In the second pass every tile is normed by these.

    picture -> probes, one batch -> joint norms -> a network with settled norms -> every tile

The probes go through the norms in step, so that each finds its statistics behind norms that are
joint already. (Tiles that each had norms of their own in the first pass do not settle.)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.networks.lora import Network, replace_module, twin

GRID = 3  # probes along each side; together they are as large as a tile


class FixedNorm(nn.Module):
    """A group norm whose statistics were settled before."""

    def __init__(self, norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        each = norm.num_channels // norm.num_groups
        scale = norm.weight * (variance + norm.eps).rsqrt().repeat_interleave(each)  # (C,)
        self.scale = nn.Buffer(scale, persistent=False)
        self.shift = nn.Buffer(norm.bias - mean.repeat_interleave(each) * scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        zero, one = torch.zeros_like(self.shift), torch.ones_like(self.scale)
        return F.batch_norm(x, zero, one, self.scale, self.shift, eps=0.0)  # one rounding


class JointNorm(nn.Module):
    """A group norm over a whole batch, which hands on what it settled."""

    def __init__(self, norm: nn.GroupNorm, settled: Callable[[FixedNorm], None]) -> None:
        super().__init__()
        self.norm = norm
        self.settled = settled

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) or (B, C, N) -> the same shape."""
        groups = x.float().transpose(0, 1).reshape(self.norm.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=1, correction=0)  # (G,) each
        fixed = FixedNorm(self.norm, mean, variance)
        self.settled(fixed)
        return fixed(x)


def settle(network: Network, show: Callable[[Network], object]) -> Network:
    """A twin of a network, its norms settled by what it is shown.

    Args:
        network: stays as it is.
        show: runs the network that it is given on probes of a picture, as one batch.
    """
    found: dict[str, FixedNorm] = {}

    def joint(name: str, norm: nn.GroupNorm) -> nn.Module:
        def note(fixed: FixedNorm) -> None:
            found[name] = fixed

        return JointNorm(norm, note)

    show(_with_norms(network, joint))
    return _with_norms(network, lambda name, norm: found.get(name, norm))


def probes(x: Tensor, tile: int, unit: int = 1) -> Tensor:
    """Pieces evenly spread over a picture, which together are as large as a tile.

    Args:
        x: the picture, (1, C, H, W).
        tile: greatest side of a tile.
        unit: sides and places are multiples of this.

    Returns:
        (GRID * GRID, C, h, w).
    """
    lines: list[list[slice]] = []
    for length in x.shape[-2:]:
        side = max(min(tile, length) // GRID // unit, 1) * unit
        free = (length - side) // unit
        starts = [unit * round(i * free / (GRID - 1)) for i in range(GRID)]
        lines.append([slice(start, start + side) for start in starts])
    return torch.cat([x[..., row, column] for row in lines[0] for column in lines[1]])


def _with_norms(network: Network, change: Callable[[str, nn.GroupNorm], nn.Module]) -> Network:
    """A twin of a network with other norms."""
    other = twin(network, {})
    for name, module in list(other.named_modules()):
        if isinstance(module, nn.GroupNorm):
            replace_module(other, name, change(name, module))
    return other
