"""Could this be told from a photo, by what a frozen network sees in it? (S3Diff's road)

Small heads learn on the layers of a vision transformer that knows the world already (DINO;
vision-aided GANs, Kumari et al., 2022), so a few thousand steps are enough.

    picture -> 224 x 224 -> DINO, frozen -> layers (B, D, 14, 14) -> heads -> logits
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.networks.prompts import SIDE

if TYPE_CHECKING:
    from transformers import ViTModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, that DINO was shown
WIDTH = 256  # of a head
HUB = "facebook/dino-vitb16"

See = Callable[[Tensor], Sequence[Tensor]]


class DinoDiscriminator(nn.Module):
    """Logits of every place of several layers, positive for photos.

    What sees is no part of this module: it does not learn.
    """

    def __init__(self, see: See, channels: Sequence[int]) -> None:
        super().__init__()
        self.see = see
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide, WIDTH, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, 1, 1),
            )
            for wide in channels
        )

    def forward(self, picture: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1] -> logits (B, places)."""
        logits = [head(seen).flatten(1) for head, seen in zip(self.heads, self.see(picture),
                                                              strict=True)]  # fmt: skip
        return torch.cat(logits, dim=1).float()


def load_dino(folder: Path | None, device: torch.device) -> DinoDiscriminator:
    """Heads on DINO's third, sixth, ninth and twelfth layer (of twelve).

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
    vit = cast("ViTModel", model).eval().requires_grad_(False)
    nn.Module.to(vit, device)
    depth, wide = vit.config.num_hidden_layers, vit.config.hidden_size
    layers = sorted({max(1, depth * i // 4) for i in (1, 2, 3, 4)})

    def see(picture: Tensor) -> list[Tensor]:
        small = F.interpolate(picture, (SIDE, SIDE), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(x, device=small.device).view(1, 3, 1, 1) for x in (MEAN, STD))
        states = vit(pixel_values=(small - mean) / std, output_hidden_states=True).hidden_states
        assert states is not None
        side = SIDE // cast(int, vit.config.patch_size)
        return [
            states[layer][:, 1:].transpose(1, 2).unflatten(2, (side, side)) for layer in layers
        ]  # (B, D, side, side), without the first token, which stands for the whole

    return DinoDiscriminator(see, [wide] * len(layers)).to(device)
