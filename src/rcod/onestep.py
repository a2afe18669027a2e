"""The heart: an enlarged photo to a restored one in a single UNet call.

    up -> encode -> z_up -> predict(t, tokens) -> eps -> restore_clean -> z_sr -> decode -> sr

No noise is ever added to z_up. The timestep alone says how much to invent.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.backbone import TinyBackbone
from rcod.prompts import VisualPrompt
from rcod.schedule import CleanLatent, alphas, restore_clean


class Restored(NamedTuple):
    """What one step gives."""

    z_up: Tensor  # (B, C, h, w) latent of the input
    z_sr: Tensor  # (B, C, h, w) latent of the result
    sr: Tensor  # (B, 3, H, W) result, not clamped


class OneStep(nn.Module):
    """A backbone, its visual prompt and the formula of the clean latent."""

    def __init__(self, backbone: TinyBackbone, prompt: VisualPrompt, formula: CleanLatent) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.formula: CleanLatent = formula
        self.alphas = nn.Buffer(alphas(), persistent=False)
        channels = backbone.settings.latent
        self.gain = nn.Buffer(torch.ones(channels))  # how far unit noise moves each channel

    def forward(self, up: Tensor, t: Tensor, tokens: Tensor) -> Restored:
        """Restore in one UNet call (RCOD, Eq. 3).

        Args:
            up: enlarged photo, (B, 3, H, W) in [0, 1], H and W multiples of the backbone's factor.
            t: timestep of each sample, (B,) int64 in [0, 1000).
            tokens: visual tokens, (B, N, D).
        """
        z_up = self.backbone.encode(up)  # (B, C, h, w)
        z_sr = self.clean(z_up, t, tokens)  # (B, C, h, w)
        return Restored(z_up, z_sr, self.backbone.decode(z_sr))

    def clean(self, z_up: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The latent part of `forward`: (B, C, h, w) -> (B, C, h, w)."""
        eps = self.backbone.predict(z_up, t, tokens).to(z_up.dtype)
        eps = eps * self.gain.view(1, -1, 1, 1)
        return restore_clean(z_up, eps, t, self.alphas, self.formula)


def enlarge(lr: Tensor, scale: int = 4) -> Tensor:
    """The `up` of a photo: bicubic, (B, 3, h, w) -> (B, 3, scale h, scale w) in [0, 1]."""
    return F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)
