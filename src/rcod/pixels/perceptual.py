"""How different do two pictures look to a network that knows textures?

`lpips-hed` is a perceptual distance in the manner of LPIPS, on a trunk that a package registry
holds; its values are not LPIPS values. For those see `likeness`.

    sr, hr -> VggTrunk -> taps -> unit length -> squared difference -> heads -> lpips-hed
"""

from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.pixels.aids import read_aid

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions and channels of each
HED = "hed_vgg16.safetensors"
BGR_MEAN = (103.939, 116.779, 123.68)  # what VGG16 was trained to see subtracted, 0..255


class VggTrunk(nn.Module):
    """VGG16's convolutions, frozen, tapped after the last ReLU of each block."""

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for block, (convs, channels) in enumerate(BLOCKS, 1):
            for i in range(1, convs + 1):
                conv = nn.Conv2d(before, channels, 3, padding=1)
                self.add_module(f"conv{block}_{i}", conv)
                before = channels
        self.register_buffer("mean", torch.tensor(BGR_MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, where: Path | None = None) -> Self:
        """Load the trunk from a folder or file of aids (default: see `aid`)."""
        trunk, tensors = cls(), read_aid(HED, where)
        trunk.load_state_dict({k: v for k, v in tensors.items() if k.startswith("conv")})
        return trunk

    def features(self, x: Tensor, depth: int = 5) -> list[Tensor]:
        """Look at an image through the first `depth` blocks.

        Args:
            x: RGB image in [0, 1], (B, 3, H, W), any dtype; the trunk's own dtype is computed in.
            depth: number of blocks, 1 to 5; fewer cost less.

        Returns:
            Taps relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 up to `depth`: (B, 64, H, W),
            (B, 128, H/2, W/2), (B, 256, H/4, W/4), (B, 512, H/8, W/8), (B, 512, H/16, W/16).
        """
        mean = cast(Tensor, self.mean).float()
        dtype = next(self.parameters()).dtype
        h = (x.float().flip(1) * 255 - mean).to(dtype)  # RGB -> BGR
        taps: list[Tensor] = []
        for block, (convs, _) in enumerate(BLOCKS[:depth], 1):
            h = F.max_pool2d(h, 2) if block > 1 else h  # halves H and W
            for i in range(1, convs + 1):
                h = F.relu(self.get_submodule(f"conv{block}_{i}")(h))
            taps.append(h)
        return taps


class LpipsHed(nn.Module):
    """Perceptual distance: LPIPS' v0.1 `vgg` heads on HED's fine-tune of VGG16."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VggTrunk()
        for block, (_, channels) in enumerate(BLOCKS, 1):
            self.register_buffer(f"head{block}", torch.zeros(channels))

    @classmethod
    def load(cls, where: Path | None = None) -> Self:
        """Load trunk and heads from a folder or file of aids (default: see `aid`)."""
        metric, tensors = cls(), read_aid(HED, where)
        names = {k: k if k.startswith("head") else f"trunk.{k}" for k in tensors}
        metric.load_state_dict({names[k]: v for k, v in tensors.items()})
        metric.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return metric.eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Measure the distance of each pair of images.

        Args:
            x: RGB images in [0, 1], (B, 3, H, W).
            y: RGB images in [0, 1], (B, 3, H, W), or (1, 3, H, W) for all of x.

        Returns:
            Distance, 0 for equal images, (B,) float32.
        """
        return self.between(self.trunk.features(x), self.trunk.features(y))

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """Measure the distance of two images' taps (`VggTrunk.features`), (B,) float32."""
        distance = torch.zeros(x[0].shape[0], device=x[0].device)
        for block, (a, b) in enumerate(zip(x, y, strict=True), 1):
            head = cast(Tensor, getattr(self, f"head{block}")).float()
            square = (_unit(a) - _unit(b)).square()  # (B, C, h, w)
            distance = distance + torch.einsum("bchw,c->bhw", square, head).mean((1, 2))
        return distance


def _unit(tap: Tensor) -> Tensor:
    """Scale each pixel's channels to unit length, in float32."""
    tap = tap.float()
    return tap / (torch.linalg.vector_norm(tap, dim=1, keepdim=True) + 1e-10)
