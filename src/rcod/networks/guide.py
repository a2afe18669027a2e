"""How do degradation scores steer an adapter? (S3Diff's degradation-guided LoRA)

Every adapter of rank r carries an r x r core between its two factors. The core is made for
each photo, from its scores and from an embedding of the block that the layer stands in.

    scores (B, 2) -> sines, cosines -> Linear, ReLU --.
                                                      +-> Linear -> cores (B, blocks, r, r)
    block embeddings ---------------> Linear, ReLU --'
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WAVES = 64  # frequencies for each score
STAGES = 4  # levels of Stable Diffusion's UNet and autoencoder
UNET_BLOCKS = 2 * STAGES + 2  # down, mid, up, and the rest
VAE_BLOCKS = STAGES + 2  # down, mid, and the rest


class Guide(nn.Module):
    """Degradation scores to the cores of one network's adapters."""

    def __init__(self, rank: int, blocks: int) -> None:
        super().__init__()
        self.rank = rank
        self.degree = nn.Linear(4 * WAVES, 256)
        self.place = nn.Linear(WAVES, WAVES)
        self.fuse = nn.Linear(256 + WAVES, rank * rank)
        self.blocks = nn.Parameter(torch.zeros(blocks, WAVES))
        self.rates = nn.Buffer(torch.zeros(WAVES))  # frequencies, drawn once in training

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (B, 2) in [0, 1] -> cores (B, blocks, r, r)."""
        degree = F.relu(self.degree(embed_scores(scores, self.rates)))  # (B, 256)
        place = F.relu(self.place(self.blocks))  # (blocks, 64)
        batch, blocks = len(scores), len(place)
        both = torch.cat(
            [
                degree[:, None].expand(batch, blocks, -1),
                place[None].expand(batch, blocks, -1),
            ],
            dim=2,
        )  # (B, blocks, 320)
        return self.fuse(both).unflatten(2, (self.rank, self.rank))


def embed_scores(scores: Tensor, rates: Tensor) -> Tensor:
    """Sines and cosines of each score: (B, 2), (F,) -> (B, 4 F), score after score."""
    angles = scores[:, :, None] * rates * 2 * math.pi  # (B, 2, F)
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def block_of(layer: str, blocks: int) -> int:
    """Which block embedding belongs to a layer, by its dotted name."""
    stage, _, rest = layer.removeprefix("encoder.").partition(".")
    if stage == "down_blocks":
        return int(rest.split(".")[0])
    if stage == "mid_block":
        return STAGES
    if stage == "up_blocks":
        return STAGES + 1 + int(rest.split(".")[0])
    return blocks - 1  # the first and the last convolution
