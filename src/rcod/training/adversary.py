"""The adversary: could this be told from a sharp photo? (S3Diff's road)

A small convolutional network that learns beside the student and judges every patch of a picture
on its own (PatchGAN, Isola et al., 2017). What tells a result is faint beside the picture, so it
is shown the fine detail apart and magnified. The tiny model's student and the photo show the same
place, and all that counts is which of the two looks more like a photo (Jolicoeur-Martineau, 2019).

    sharp photos, results -> Discriminator -> logits -> its own loss
                  results -> Discriminator -> logits -> the student's term
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 192, 192)
STRIDES = (1, 2, 2, 1)
BLUR = 5  # pixels a side; detail is what this mean takes away
GAIN = 10.0  # brings detail to the size of the picture
TREMBLE = 0.01  # of pixels, which should not move a logit
SMOOTH = 100.0  # weight of its squared move


class Game(NamedTuple):
    """What a discriminator plays for, and who wants to fool it."""

    real: float = 1.0  # the probability that photos should get and results want
    weight: float = 1.0  # of the discriminator's own loss
    augment: bool = False  # whether it sees pictures changed at random


class PatchDiscriminator(nn.Module):
    """A logit for every patch of about 30 pixels, positive for sharp photos."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]  # (B, 24, H/2, W/2)
        wide = 24
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            kernel = 3 if stride == 1 else 4
            layers += [nn.Conv2d(wide, width, kernel, stride, 1), nn.LeakyReLU(0.2)]
            wide = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide, 1, 1))
        for layer in self.layers:  # one by one: `to` can't swap what has no memory, in a dry run
            if isinstance(layer, nn.Conv2d):
                laid = layer.weight.detach().contiguous(memory_format=torch.channels_last)
                layer.weight = nn.Parameter(laid)

    def forward(self, picture: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] -> logits (B, H/8, W/8)."""
        box = picture.new_full((3, 1, BLUR, BLUR), BLUR**-2)
        with torch.autocast(picture.device.type, enabled=False):  # 8 bits of mantissa would show
            wide = F.pad(picture, (BLUR // 2,) * 4, mode="replicate")
            detail = picture - F.conv2d(wide, box, groups=3)
        seen = torch.cat([picture * 2 - 1, detail * GAIN], dim=1)
        return self.layers(seen.contiguous(memory_format=torch.channels_last))[:, 0].float()


def verdict_loss(logits: Tensor | Sequence[Tensor], wanted: float) -> Tensor:
    """What logits D cost that should have told the probability w, (B,).

    The sum over levels of mean [- w log p - (1 - w) log(1 - p)], p = 1 / (1 + exp(-D)).

    Args:
        logits: of one level, (B, ...), or of several.
        wanted: w.
    """
    levels = [logits] if isinstance(logits, Tensor) else logits
    each = [
        F.binary_cross_entropy_with_logits(level, torch.full_like(level, wanted), reduction="none")
        for level in levels
    ]
    return torch.stack([cost.flatten(1).mean(dim=1) for cost in each]).sum(dim=0)


def relativistic_losses(
    judge: PatchDiscriminator, results: Tensor, photos: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The student's term, (K,), and the discriminator's own loss, a scalar.

    Its logits must hardly move when pixels tremble, which stands for a penalty on its gradient.

    Args:
        judge: the discriminator; the student's term does not reach its weights.
        results: the student's pictures, (K, 3, H, W).
        photos: what they should be like, the same places, (K, 3, H, W).
        rng: draws the trembling, on the CPU.
    """
    both = torch.cat([photos, results.detach()])
    logits = judge(both)  # (2K, h, w)
    noise = torch.randn(both.shape, generator=rng).to(both.device)
    moved = (judge(both + TREMBLE * noise) - logits).square().mean()
    real, false = logits.chunk(2)
    judge.requires_grad_(False)
    mine = F.softplus(real.detach() - judge(results)).flatten(1).mean(dim=1)
    judge.requires_grad_(True)
    return mine, F.softplus(false - real).mean() + SMOOTH * moved
