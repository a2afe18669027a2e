"""The adversary: could this be told from a photograph? (S3Diff's road)

Small heads learn on the taps of a frozen trunk, so that a few thousand steps are enough
(projected GANs, Sauer et al., 2021; S3Diff puts its heads on DINO).

    taps of photos, taps of results -> Discriminator -> logits -> own loss
                     taps of results -> Discriminator -> logits -> the student's term
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = {1: 128, 2: 256, 3: 512}  # trunk taps that are looked at -> channels
WIDTH = 64


class Discriminator(nn.Module):
    """One head per tap; each place of each tap gives a logit, positive for photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, WIDTH, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, 1, 1),
            )
            for channels in TAPS.values()
        )

    def forward(self, taps: list[Tensor]) -> list[Tensor]:
        """Taps (B, C_i, h_i, w_i) of the trunk -> logits (B, h_i, w_i), one map per head."""
        logits = []
        for head, (i, channels) in zip(self.heads, TAPS.items(), strict=True):
            unit = F.normalize(taps[i].float(), dim=1) * channels**0.5  # contrast must not tell
            logits.append(head(unit)[:, 0])
        return logits


def student_loss(logits: list[Tensor]) -> Tensor:
    """What a result pays for being told from a photograph, (B,)."""
    return torch.stack([F.softplus(-x).flatten(1).mean(1) for x in logits]).mean(0)


def own_loss(photos: list[Tensor], results: list[Tensor]) -> Tensor:
    """What the discriminator pays for its mistakes, a scalar."""
    wrong = [F.softplus(-x).mean() for x in photos] + [F.softplus(x).mean() for x in results]
    return torch.stack(wrong).sum() / len(photos)
