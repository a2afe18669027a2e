"""What would a larger restorer make of the same photo?

A photograph is one of many pictures that could have been degraded to the same input, so a
network that learns from photographs alone first learns their blurred mean. A larger restorer's
answer is a function of the input, and is learnt much faster. Training draws on both: true
pixels at the dial's fidelity end, the larger restorer's picture at its realism end.

    Pairs' lr -> Elder -> guides (K, 3, S, S) uint8, for K of the N crops
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.device import seeded
from rcod.pixels.aids import read_aid
from rcod.pixels.placing import placed
from rcod.training.data import cached, digest

FILE = "realesrgan_x4plus.safetensors"  # among the aids; BSD-3
BLOCKS = 23  # residual-in-residual dense blocks
SLOPE = 0.2  # of the leaky ReLUs, and the share of a block's answer that is added
SEED = 7  # of the choice of crops
AT_ONCE = 4  # crops; what is made of them is kept until all are made


class Elder(nn.Module):
    """Real-ESRGAN x4plus (Wang et al., 2021), 16.7 M parameters: (B, 3, h, w) -> (B, 3, 4h, 4w)."""

    def __init__(self, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.enter = conv(3, width)
        self.blocks = nn.ModuleList(
            conv(width + i * growth, growth if i < 4 else width)
            for _ in range(3 * BLOCKS)
            for i in range(5)
        )
        self.join = conv(width, width)
        self.grow = nn.ModuleList(conv(width, width) for _ in range(2))
        self.finish = conv(width, width)
        self.leave = conv(width, 3)

    @classmethod
    def load(cls, aids: Path | None = None) -> Self:
        """The published weights, from a folder of aids (default: see `aid`), in bfloat16."""
        elder = cls()
        elder.load_state_dict(read_aid(FILE, aids))
        elder.to(dtype=torch.bfloat16).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return elder.eval().requires_grad_(False)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge images in [0, 1]; the result is not clamped."""
        first = x = self.enter(lr)
        for i in range(BLOCKS):
            inner = x
            for j in range(3):
                inner = inner + SLOPE * self._dense(inner, 15 * i + 5 * j)
            x = x + SLOPE * inner
        x = first + self.join(x)
        for layer in self.grow:
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        return self.leave(F.leaky_relu(self.finish(x), SLOPE))

    def _dense(self, x: Tensor, first: int) -> Tensor:
        """Five convolutions, each of which sees all before it."""
        seen = [x]
        for i in range(first, first + 4):
            seen.append(F.leaky_relu(self.blocks[i](torch.cat(seen, 1)), SLOPE))
        return self.blocks[first + 4](torch.cat(seen, 1))


def conv(inward: int, outward: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(inward, outward, 3, padding=1)


def chosen(chance: Tensor, count: int) -> Tensor:
    """Which crops get a guide, (count,) int64: drawn by their weights (N,), in order of making."""
    return torch.multinomial(chance, count, replacement=False, generator=seeded(SEED))


@torch.inference_mode()
def build_guides(pairs: Path, chance: Tensor, count: int, load: Callable[[], Elder]) -> Path:
    """Write the elder's pictures of `count` crops beside `pairs`; goes on where it was broken off.

    Args:
        pairs: degraded crops, (N, 3, S/4, S/4) uint8.
        chance: weight of each crop, (N,).
        count: how many guides to make, at most N.
        load: gives who makes them; called only where they aren't there yet.

    Returns:
        `guides-KEY.npy`, (count, 3, S, S) uint8; row i belongs to crop `chosen(chance, count)[i]`.
    """
    target = pairs.with_name(f"guides-{digest(pairs.name, str(count))}.npy")
    if target.exists():
        return target
    lr = np.load(pairs, mmap_mode="r")  # (N, 3, S/4, S/4)
    elder, order = load(), chosen(chance, count).numpy()
    pieces = {start: target.with_suffix(f".{start}.npy") for start in range(0, count, AT_ONCE)}
    with cached(target, (count, 3, 4 * lr.shape[2], 4 * lr.shape[3])) as cache:
        for start, piece in pieces.items():
            try:
                made = np.load(piece)
            except FileNotFoundError:
                some = torch.from_numpy(lr[order[start : start + AT_ONCE]]).to(torch.bfloat16) / 255
                sr = elder(some.contiguous(memory_format=torch.channels_last)).float()
                made = sr.clamp(0, 1).mul(255).round().byte().numpy()
                with placed(piece) as file:
                    np.save(file, made)
            cache[start : start + AT_ONCE] = made
    for piece in pieces.values():
        piece.unlink(missing_ok=True)
    return target
