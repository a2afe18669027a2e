"""The adversary: could this be told from a sharp photo? (S3Diff's road)

A small convolutional network that learns beside the student and judges every patch of a picture
on its own (PatchGAN, Isola et al., 2017), its layers held to unit gain (Miyato et al., 2018). What
tells a result is faint beside the picture, so it is shown the fine detail apart and magnified.

    sharp photos, results -> Discriminator -> logits -> its own loss
                  results -> Discriminator -> logits -> the student's term
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (48, 96, 128, 128)
STRIDES = (1, 2, 2, 1)
BLUR = 5  # pixels a side; detail is what this mean takes away
GAIN = 10.0  # brings detail to the size of the picture


class Discriminator(nn.Module):
    """A logit for every patch of about 30 pixels, positive for sharp photos."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]  # (B, 24, H/2, W/2)
        wide = 24
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            kernel = 3 if stride == 1 else 4
            layers += [
                spectral_norm(nn.Conv2d(wide, width, kernel, stride, 1)),
                nn.LeakyReLU(0.2),
            ]
            wide = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide, 1, 1))

    def forward(self, picture: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] -> logits (B, H/8, W/8)."""
        coarse = F.avg_pool2d(picture, BLUR, 1, BLUR // 2, count_include_pad=False)
        seen = torch.cat([picture * 2 - 1, (picture - coarse) * GAIN], dim=1)
        return self.layers(seen)[:, 0].float()


def student_loss(logits: Tensor) -> Tensor:
    """What a result pays for being told from a sharp photo, (B,)."""
    return F.softplus(-logits).flatten(1).mean(dim=1)


def own_loss(photos: Tensor, results: Tensor) -> Tensor:
    """What the discriminator pays for its mistakes, a scalar; 1.39 when it guesses."""
    return F.softplus(-photos).mean() + F.softplus(results).mean()


def oppose(judge: Discriminator, results: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
    """The student's term, (K,), and the discriminator's own loss, a scalar.

    Args:
        judge: the discriminator; the student's term does not reach its weights.
        results: the student's pictures, (K, 3, H, W).
        photos: what they should be like, (K, 3, H, W).
    """
    both = torch.cat([photos, results.detach()]).contiguous(memory_format=torch.channels_last)
    real, false = judge(both).chunk(2)
    judge.requires_grad_(False)
    mine = student_loss(judge(results))
    judge.requires_grad_(True)
    return mine, own_loss(real, false)
