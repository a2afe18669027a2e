"""Could this be told from a photo, by what a frozen network sees in it? (S3Diff's road)

Small heads learn on a vision transformer that knows the world already (DINO; vision-aided GANs,
Kumari et al., 2022), so a few thousand steps are enough. Two of them judge places, one the whole.

    picture -> augment -> 224 x 224 -> DINO, frozen -> layers 5 and 9, their places -> (B, 3, 3)
                                               '-> the last layer, its first token -> (B, 1)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from rcod.errors import RcodError
from rcod.networks.prompts import SIDE
from rcod.networks.shapes import lay
from rcod.training.adversary import PatchDiscriminator

if TYPE_CHECKING:
    from transformers import ViTModel

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.229, 0.224, 0.225)  # CLIP's, ImageNet's
LAYERS = (5, 9)  # of twelve, whose places are judged
WIDTH = 128  # of a head
BELL = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
CHANCES = 7  # numbers that `augment` takes for a picture
HUB = "facebook/dino-vitb16"


class Blur(nn.Module):
    """A bell along both sides, so that a stride after it leaves nothing out (Zhang, 2019)."""

    def __init__(self, border: int) -> None:
        super().__init__()
        self.border = border  # of zeros around

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + 2 border - 3, W + 2 border - 3)."""
        bell, channels = x.new_tensor(BELL), x.shape[1]
        kernel = torch.outer(bell, bell).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, padding=self.border, groups=channels)


class DinoDiscriminator(nn.Module):
    """Logits of three levels, positive for photos; DINO is in it and does not learn.

    The norm of every layer of a head is 1 (Miyato et al., 2018), so no logit can grow at will.
    """

    def __init__(self, dino: "ViTModel") -> None:
        super().__init__()
        self.dino = dino.eval().requires_grad_(False)
        wide = dino.config.hidden_size
        self.places = nn.ModuleList(
            nn.Sequential(
                Blur(2),  # (B, D, 14, 14) -> (B, D, 15, 15)
                spectral_norm(nn.Conv2d(wide, WIDTH, 3, 2)),  # (B, WIDTH, 7, 7)
                nn.LeakyReLU(0.2),
                Blur(1),  # (B, WIDTH, 6, 6)
                spectral_norm(nn.Conv2d(WIDTH, 1, 1, 2)),  # (B, 1, 3, 3)
            )
            for _ in LAYERS
        )
        self.whole = nn.Sequential(
            spectral_norm(nn.Linear(wide, WIDTH)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(WIDTH, 1)),
        )

    def forward(self, picture: Tensor) -> list[Tensor]:
        """RGB (B, 3, H, W) in [0, 1] -> logits, (B, 3, 3) twice and (B, 1)."""
        small = F.interpolate(picture, (SIDE, SIDE), mode="area")
        mean, std = (small.new_tensor(x).view(3, 1, 1) for x in (MEAN, STD))
        seen = self.dino(pixel_values=(small - mean) / std, output_hidden_states=True)
        assert seen.hidden_states is not None and seen.last_hidden_state is not None
        side = SIDE // cast(int, self.dino.config.patch_size)
        logits: list[Tensor] = []
        with torch.autocast(picture.device.type, enabled=False):  # spectral norms are float32
            for layer, head in zip(LAYERS, self.places, strict=True):
                tokens = self.dino.layernorm(seen.hidden_states[layer].float())  # (B, 197, D)
                logits.append(head(tokens[:, 1:].mT.unflatten(2, (side, side)))[:, 0])
            return [*logits, self.whole(seen.last_hidden_state[:, 0].float())]


def augment(picture: Tensor, chances: Tensor) -> Tensor:
    """Change pictures at random, lest photos be learnt by heart (DiffAugment, Zhao et al., 2020).

    x in [-1, 1] becomes x + b, then g + s (x - g) with g the mean of its channels, then
    m + c (x - m) with m its mean; it moves along both sides, by an eighth at most, and a square of
    half its sides is taken out. What came in or was taken out is 0.

    Args:
        picture: RGB (B, 3, H, W) in [0, 1].
        chances: numbers in [0, 1) that decide all this, (B, CHANCES).

    Returns:
        As `picture`, beyond [0, 1] where light or contrast leads there.
    """
    light, colour, contrast, *places = chances.view(-1, CHANCES, 1, 1, 1).unbind(dim=1)
    x = picture * 2 - 1 + light - 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * colour * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (contrast + 0.5) * (x - mean)
    out = torch.ones((), dtype=torch.bool, device=x.device)
    for dim, shift, middle in ((2, *places[:2]), (3, *places[2:])):
        side = x.shape[dim]
        at = torch.arange(side, device=x.device).view(-1, *(1,) * (3 - dim))
        most, hole = int(side / 8 + 0.5), int(side / 2 + 0.5)
        source = at - most + (shift * (2 * most + 1)).long()  # (B, 1, H, 1) or (B, 1, 1, W)
        moved = x.gather(dim, source.clamp(0, side - 1).expand_as(x))
        x = moved.masked_fill((source < 0) | (source >= side), 0)
        begin = (middle * (side + 1 - hole % 2)).long() - hole // 2
        out = out & (at >= begin) & (at < begin + hole)
    return x.masked_fill(out, 0) / 2 + 0.5


def load_dino(folder: Path | None, device: torch.device) -> DinoDiscriminator:
    """Fresh heads on DINO.

    Args:
        folder: weights in transformers' layout; nothing takes the hub's cache or fetches them.
        device: where they see.
    """
    try:
        from transformers import ViTModel
    except ImportError as error:
        raise RcodError(
            f"the adversary sees with DINO, which needs transformers, got: {error}; "
            "pip install 'rcod[sd]'"
        ) from None
    try:
        model = ViTModel.from_pretrained(str(folder or HUB), add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise RcodError(
            f"the adversary sees with DINO, which is neither in {folder or 'a folder of aids'} nor "
            f"on the hub ({str(error).splitlines()[0]}); put {HUB} into dino/ beside the aids, or "
            "set judge=patch, which needs no weights"
        ) from None
    return DinoDiscriminator(cast("ViTModel", model)).to(device)


def hollow_judge(kind: Literal["dino", "patch"]) -> nn.Module:
    """An adversary of the true shape, in memory of whatever kind is at hand, that knows nothing."""
    if kind == "patch":
        return PatchDiscriminator()
    from transformers import ViTConfig, ViTModel

    with torch.device("meta"):
        dino = ViTModel(ViTConfig(), add_pooling_layer=False)
    lay(dino)
    return DinoDiscriminator(dino)
