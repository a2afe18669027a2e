"""The field's own perceptual distances: LPIPS and DISTS, where their trunks' weights lie here.

The trunks are torchvision's AlexNet and VGG16, files that no package registry holds; `aids` says
where they are looked for. Heads and mixing weights come with `tools/fetch_aids.py`.

    sr, hr -> trunk -> taps -> unit length, squared difference, heads -> lpips, lpips-vgg
                            -> means and covariances, mixed ----------> dists
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.pixels.aids import find_published, read_aid, read_published

TRUNKS = {
    "alex": ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
    "vgg": ("vgg16-397923af.pth",),
}
HEADS = "likeness.safetensors"
ALEX = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # layer, stride, padding
VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # layers of each block
SHIFT, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS', for [-1, 1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for [0, 1]
FLOOR = 1e-6  # of DISTS' quotients

Net = Literal["alex", "vgg"]
Weights = dict[str, Tensor]  # features.N.weight and .bias, as torchvision names them
Halve = Callable[[Tensor], Tensor]


def trunk_file(net: Net, where: Path | None = None) -> Path:
    """Find a trunk's weights; says where they would be taken from if they aren't there."""
    path = find_published(TRUNKS[net], where)
    if path is None:
        raise RcodError(
            f"needs torchvision's weights {TRUNKS[net][0]} in the folder of the aids or in "
            "PyTorch's cache"
        )
    return path


@dataclass(frozen=True)
class Lpips:
    """LPIPS v0.1 (Zhang et al., 2018); 0 for equal pictures, lower is more alike."""

    net: Net
    trunk: Weights
    heads: tuple[Tensor, ...]  # (C,) each

    @classmethod
    def load(cls, net: Net, where: Path | None = None) -> "Lpips":
        """Load trunk and heads, from the folder of the aids (default: see `aids`)."""
        trunk = read_published(trunk_file(net, where))
        tensors = read_aid(HEADS, where)
        return cls(net, trunk, tuple(tensors[f"{net}{i}"] for i in range(1, 6)))

    def to(self, device: torch.device) -> "Lpips":
        """The same on a device."""
        trunk = {name: tensor.to(device) for name, tensor in self.trunk.items()}
        return Lpips(self.net, trunk, tuple(head.to(device) for head in self.heads))

    def __call__(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Measure the distance of images (B, 3, H, W) in [0, 1] -> (B,)."""
        shift, spread = _view(SHIFT).to(sr.device), _view(SPREAD).to(sr.device)
        distance = torch.zeros(len(sr), device=sr.device)
        with torch.autocast(sr.device.type, enabled=False):  # in training, too
            a, b = (self.taps((2 * x.float() - 1 - shift) / spread) for x in (sr, hr))
            for x, y, head in zip(a, b, self.heads, strict=True):
                square = (_unit(x) - _unit(y)).square()  # (B, C, h, w)
                distance = distance + torch.einsum("bchw,c->bhw", square, head).mean((1, 2))
        return distance

    def taps(self, x: Tensor) -> list[Tensor]:
        """What the trunk sees after each block, of a normalised image (B, 3, H, W)."""
        return alex_taps(x, self.trunk) if self.net == "alex" else vgg_taps(x, self.trunk)


@dataclass(frozen=True)
class Dists:
    """DISTS (Ding et al., 2020): structure and texture; 0 for equal pictures."""

    trunk: Weights
    alpha: Tensor  # (1475,) weights of the means
    beta: Tensor  # (1475,) weights of the covariances

    @classmethod
    def load(cls, where: Path | None = None) -> "Dists":
        """Load trunk and mixing weights, from the folder of the aids (default: see `aids`)."""
        trunk = read_published(trunk_file("vgg", where))
        tensors = read_aid(HEADS, where)
        return cls(trunk, tensors["alpha"], tensors["beta"])

    def __call__(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Measure the distance of images (B, 3, H, W) in [0, 1] -> (B,)."""
        whole = self.alpha.sum() + self.beta.sum()
        alike, start = torch.zeros(len(sr)), 0
        for x, y in zip(self._taps(sr), self._taps(hr), strict=True):
            part = slice(start, start := start + x.shape[1])
            x_mean, y_mean = x.mean((2, 3)), y.mean((2, 3))  # (B, C)
            means = (2 * x_mean * y_mean + FLOOR) / (x_mean**2 + y_mean**2 + FLOOR)
            both = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
            shared = (x * y).mean((2, 3)) - x_mean * y_mean
            structure = (2 * shared + FLOOR) / (both + FLOOR)
            alike = alike + (means @ self.alpha[part] + structure @ self.beta[part]) / whole
        return 1 - alike

    def _taps(self, x: Tensor) -> list[Tensor]:
        """The picture itself and what VGG16 sees after each block."""
        x = x.float()
        return [x, *vgg_taps((x - _view(MEAN)) / _view(STD), self.trunk, _soft_halve)]


def alex_taps(x: Tensor, weights: Weights) -> list[Tensor]:
    """AlexNet's five ReLUs: (B, 3, H, W) -> (B, 64 .. 256, h, w)."""
    taps: list[Tensor] = []
    for i, (layer, stride, padding) in enumerate(ALEX):
        x = F.max_pool2d(x, 3, 2) if i in (1, 2) else x
        x = F.relu(_conv(x, weights, layer, stride, padding))
        taps.append(x)
    return taps


def _max_halve(x: Tensor) -> Tensor:
    """VGG16's own pooling."""
    return F.max_pool2d(x, 2)


def _soft_halve(x: Tensor) -> Tensor:
    """DISTS' pooling: the root of a 3 x 3 weighted mean of squares, at every other pixel."""
    line = torch.tensor([0.5, 1.0, 0.5])
    window = (torch.outer(line, line) / 4).repeat(x.shape[1], 1, 1, 1)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def vgg_taps(x: Tensor, weights: Weights, halve: Halve = _max_halve) -> list[Tensor]:
    """VGG16's last ReLU of each block: (B, 3, H, W) -> (B, 64 .. 512, h, w)."""
    taps: list[Tensor] = []
    for i, layers in enumerate(VGG):
        x = halve(x) if i else x
        for layer in layers:
            x = F.relu(_conv(x, weights, layer, 1, 1))
        taps.append(x)
    return taps


def _conv(x: Tensor, weights: Weights, layer: int, stride: int, padding: int) -> Tensor:
    """One convolution of a trunk."""
    name = f"features.{layer}"
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)


def _unit(tap: Tensor) -> Tensor:
    """Scale each pixel's channels to unit length."""
    return tap / (torch.linalg.vector_norm(tap, dim=1, keepdim=True) + 1e-10)


def _view(values: tuple[float, ...]) -> Tensor:
    """Three numbers, one for each channel, (1, 3, 1, 1)."""
    return torch.tensor(values).view(1, 3, 1, 1)
