"""How does one end of the dial learn on, while the other stays what it is?

Time enters a block as a scale and a shift of its channels. Each block gets a vector of its own on
top of them, weighed by a gate: 1 at the end that learns, 0 from the timestep that must stay, half
a wave between. The gate is a linear map of the time embedding, found by least squares, so that
`settle` can fold the vectors into the layers: the model keeps its shape.

    t -> embedding -> modulate ------------ + -> scale, shift
             '-> gate (fixed) * learnt -----'
"""

import math

import torch
from torch import Tensor, nn

from rcod.networks.backbone import LOUDNESS, ResidualBlock, TinyUNet, embed_time

REACH = (200, 800)  # timesteps at which the gate is fitted
RIDGE = 1e-5  # of the fit; less follows the half wave nearer, by weights too large for 16 bits

End = tuple[int, int]  # timesteps: where it learns, and from where on nothing changes


class Gated(nn.Module):
    """A frozen layer of the time embedding, and a vector that is added at one end of the dial."""

    def __init__(self, base: nn.Linear, gate: Tensor) -> None:
        super().__init__()
        self.base = base
        self.gate = nn.Buffer(gate, persistent=False)  # (257,): of the embedding, and a constant
        self.more = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, emb: Tensor) -> Tensor:
        """(B, 256) -> (B, out)."""
        share = (emb.float() * self.gate[:-1]).sum(1, keepdim=True) + self.gate[-1]  # (B, 1)
        return self.base(emb) + share * self.more

    @torch.no_grad()
    def settled(self) -> nn.Linear:
        """The layer with the vector folded in."""
        self.base.weight.add_(torch.outer(self.more, self.gate[:-1]))
        self.base.bias.add_(self.more * self.gate[-1])
        return self.base


def open_end(unet: TinyUNet, end: End) -> None:
    """Freeze a network but for what time does to it at one end of the dial, in place."""
    unet.requires_grad_(False)
    gate = fit_gate(unet, end)
    for block in unet.modules():
        if isinstance(block, ResidualBlock):
            block.register_module("modulate", Gated(block.modulate, gate))


def settle(unet: TinyUNet) -> None:
    """Fold what was learnt into the layers, in place."""
    for block in unet.modules():
        if isinstance(block, ResidualBlock) and isinstance(block.modulate, Gated):
            block.register_module("modulate", block.modulate.settled())


@torch.no_grad()
def fit_gate(unet: TinyUNet, end: End) -> Tensor:
    """The gate's weights of the time embedding and its constant, (257,)."""
    learns, stays = end
    t = torch.arange(*REACH)  # (T,)
    emb = LOUDNESS * unet.time(embed_time(t, unet.waves))  # (T, 256)
    known = torch.cat([emb, torch.ones(len(t), 1)], 1).double()
    way = ((t - learns) / (stays - learns)).clamp(0, 1)  # 0 where it learns, 1 where it stays
    wanted = 0.5 + 0.5 * (math.pi * way.double()).cos()
    gram = known.T @ known
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram, known.T @ wanted).float()
