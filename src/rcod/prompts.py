"""Visual prompt injection: the picture itself says what it shows, instead of a text.

An image tower turns the enlarged photo into tokens, and one Linear (VPIM) fits them to the
cross-attention of the backbone. The tokens belong to the whole photo: they are made
once, and every tile and every level shares them.

    up -> 224 x 224 -> tower -> (B, N, D) -> Linear -> tokens (B, N, E)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 224  # pixels, what image towers look at


class TinyTower(nn.Module):
    """The tiny model's image tower: 224 x 224 pixels to 7 x 7 tokens of `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 48, 8, stride=8),  # (B, 48, 28, 28)
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),  # (B, 96, 14, 14)
            nn.SiLU(),
            nn.Conv2d(96, width, 3, stride=2, padding=1),  # (B, width, 7, 7)
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.place = nn.Parameter(torch.zeros(49, width))

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, 224, 224) in [-1, 1] -> (B, 49, width)."""
        return self.layers(picture).flatten(2).transpose(1, 2) + self.place


class VisualPrompt(nn.Module):
    """Image -> visual tokens (RCOD's VPIM)."""

    def __init__(self, tower: nn.Module, seen: int, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.project = nn.Linear(seen, width)

    def forward(self, up: Tensor) -> Tensor:
        """Tokens of a photo of any size.

        Args:
            up: enlarged photo, (B, 3, H, W) in [0, 1].

        Returns:
            Tokens, (B, N, width). All zeros is the empty prompt.
        """
        small = F.interpolate(
            up, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        return self.project(self.tower(2 * small - 1))
