"""How alike are two images, and how much detail does one hold?

Scores follow IQA-PyTorch: 8-bit pictures, the Y of YCbCr (BT.601), no border crop.
`lpips-hed` is a perceptual distance in the manner of LPIPS; its values are not LPIPS values.

    sr, hr -> 8 bit -> Y ------> psnr, ssim
    sr     -> 8 bit -> Y ------> detail, niqe
    sr, hr -> VggTrunk -> taps -> lpips-hed
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.errors import RcodError

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions and channels of each
HED = "hed_vgg16.safetensors"
BGR_MEAN = (103.939, 116.779, 123.68)  # what VGG16 was trained to see subtracted, 0..255


LUMA = (65.481, 128.553, 24.966)  # BT.601, for RGB in [0, 1]; Y then spans 16..235
SSIM_FLOORS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)  # C1 and C2 of Wang et al., 2004


def eight_bit(x: Tensor) -> Tensor:
    """Round an image in [0, 1] to what an 8-bit file would hold, still in [0, 1]."""
    return (x.clamp(0, 1) * 255).round() / 255


def luma(x: Tensor) -> Tensor:
    """Take the brightness of an image after 8-bit rounding.

    Args:
        x: RGB images in [0, 1], (B, 3, H, W).

    Returns:
        Y of YCbCr (BT.601), 16 to 235, (B, 1, H, W) float64.
    """
    weights = torch.tensor(LUMA, dtype=torch.float64, device=x.device).view(1, 3, 1, 1)
    return (eight_bit(x.double()) * weights).sum(1, keepdim=True) + 16


def psnr_y(sr: Tensor, hr: Tensor) -> Tensor:
    """Measure the peak signal-to-noise ratio of brightness, the peak being 255.

    Args:
        sr: results in [0, 1], (B, 3, H, W).
        hr: true images in [0, 1], (B, 3, H, W).

    Returns:
        Decibels, infinite for equal images, (B,) float64.
    """
    error = (luma(sr) - luma(hr)).square().mean((1, 2, 3))
    return 10 * (255**2 / error).log10()


def ssim_y(sr: Tensor, hr: Tensor) -> Tensor:
    """Measure the structural similarity of brightness (Wang et al., 2004).

    The window is a Gaussian of 11 pixels and sigma 1.5 that never leaves the image.

    Args:
        sr: results in [0, 1], (B, 3, H, W), at least 11 pixels a side.
        hr: true images in [0, 1], (B, 3, H, W).

    Returns:
        Similarity, 1 for equal images, (B,) float64.
    """
    x, y = luma(sr).round(), luma(hr).round()  # IQA-PyTorch rounds Y here, though not for PSNR
    window = _gaussian(11, 1.5).to(x)
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    variance_x = _blur(x * x, window) - mean_x.square()
    variance_y = _blur(y * y, window) - mean_y.square()
    covariance = _blur(x * y, window) - mean_x * mean_y
    c1, c2 = SSIM_FLOORS
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    brightness = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (brightness * structure.relu()).mean((1, 2, 3))


def detail(x: Tensor) -> Tensor:
    """Measure fine detail: the mean absolute Laplacian of brightness.

    Args:
        x: images in [0, 1], (B, 3, H, W), at least 3 pixels a side.

    Returns:
        Detail in units of 1/255, (B,) float64.
    """
    y = luma(x)
    around = y[..., :-2, 1:-1] + y[..., 2:, 1:-1] + y[..., 1:-1, :-2] + y[..., 1:-1, 2:]
    return (around - 4 * y[..., 1:-1, 1:-1]).abs().mean((1, 2, 3))


# Every measure that needs no weights, as (sr, hr) -> (B,).
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]]
METRICS = {"psnr": psnr_y, "ssim": ssim_y, "detail": lambda sr, _hr: detail(sr)}


def _gaussian(size: int, sigma: float) -> Tensor:
    """A normalised Gaussian window, (size,) float64."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return (-at.square() / (2 * sigma**2)).softmax(0)


def _blur(x: Tensor, window: Tensor, stride: int = 1) -> Tensor:
    """Average (B, 1, H, W) under a separable window, without padding."""
    x = F.conv2d(x, window.view(1, 1, -1, 1), stride=(stride, 1))
    return F.conv2d(x, window.view(1, 1, 1, -1), stride=(1, stride))


def aid(name: str, where: Path | None = None) -> Path:
    """Name the file of a judging aid: in a folder given, else in the folder RCOD_AIDS names."""
    place = where or Path(os.environ.get("RCOD_AIDS", "aids"))
    return place / name if place.is_dir() or not place.suffix else place


def read_aid(name: str, where: Path | None = None) -> dict[str, Tensor]:
    """Read a judging aid's tensors; `where` is its folder or the file itself."""
    path = aid(name, where)
    if not path.is_file():
        raise RcodError(
            f"the judging aid {name} must be a file, but {path} is none; "
            "run `python tools/fetch_aids.py DIR` and set RCOD_AIDS=DIR"
        )
    return load_file(path)


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


class Niqe:
    """Naturalness without a reference (Mittal et al., 2013); lower is more natural."""

    FILE = "niqe.safetensors"
    BLOCK = 96  # pixels a side at full size
    SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours whose products are looked at

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, covariance  # of natural pictures, (36,), (36, 36)
        self.shapes = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)  # candidates, (S,)
        self.ratios = _gamma(2 / self.shapes, 2) / _gamma(1 / self.shapes) / _gamma(3 / self.shapes)

    @classmethod
    def load(cls, where: Path | None = None) -> Self:
        """Load the model of natural pictures from a folder or file of aids."""
        tensors = read_aid(cls.FILE, where)
        return cls(tensors["mean"], tensors["covariance"])

    def __call__(self, x: Tensor) -> Tensor:
        """Score images in [0, 1], (B, 3, H, W), at least 192 pixels a side -> (B,) float64."""
        weights = torch.tensor((76.245, 149.685, 29.07), dtype=torch.float64)  # YIQ, for [0, 1]
        y = torch.einsum("bchw,c->bhw", eight_bit(x.double().cpu()), weights).round()[:, None]
        height, width = (side // self.BLOCK * self.BLOCK for side in y.shape[2:])
        return torch.stack([self._distance(one[None, :, :height, :width]) for one in y])

    def _distance(self, y: Tensor) -> Tensor:
        """Distance of one picture (1, 1, H, W) from natural ones."""
        features = torch.cat([self._features(y, self.BLOCK), self._features(_halve(y), 48)], 1)
        covariance = features[~features.isnan().any(1)].T.cov()  # (36, 36)
        away = self.mean - features.nanmean(0)  # (36,)
        inverse = torch.linalg.pinv((self.covariance + covariance) / 2)
        return (away @ inverse @ away).sqrt()

    def _features(self, y: Tensor, block: int) -> Tensor:
        """18 numbers for each block of a picture: (1, 1, H, W) -> (N, 18)."""
        window = torch.outer(line := _gaussian(7, 7 / 6), line)[None, None]  # whole: round-off
        padded = F.pad(y, (3, 3, 3, 3), mode="replicate")  # decides the sign of flat places
        mean = F.conv2d(padded, window)
        spread = (F.conv2d(padded.square(), window) - mean.square()).abs().sqrt()
        blocks = F.unfold((y - mean) / (spread + 1), block, stride=block)[0].T
        blocks = blocks.reshape(-1, block, block)  # (N, block, block)
        shape, left, right = self._fit(blocks)
        found = [shape, (left + right) / 2]
        for shift in self.SHIFTS:
            shape, left, right = self._fit(blocks * blocks.roll(shift, (1, 2)))
            skew = (right - left) * _gamma(2 / shape) / _gamma(1 / shape)
            found += [shape, skew, left, right]
        return torch.stack(found, 1)

    def _fit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape, left and right scale of an asymmetric Gaussian, for each of (N, h, w): (N,)."""
        x = x.flatten(1)
        left = (x.square() * (x < 0)).sum(1).div((x < 0).sum(1)).sqrt()
        right = (x.square() * (x > 0)).sum(1).div((x > 0).sum(1)).sqrt()
        skew = left / right
        ratio = x.abs().mean(1).square() / x.square().mean(1)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1).square()
        shape = self.shapes[(self.ratios - ratio[:, None]).abs().argmin(1)]
        scale = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
        return shape, left * scale, right * scale


def _gamma(x: Tensor, power: float = 1) -> Tensor:
    """The gamma function, to a power."""
    return (torch.lgamma(x) * power).exp()


def _halve(y: Tensor) -> Tensor:
    """Antialiased bicubic half size with mirrored borders: (1, 1, H, W) -> (1, 1, H/2, W/2)."""
    far = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / 2  # in output pixels
    near, tail = 1.5 * far**3 - 2.5 * far**2 + 1, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    taps = torch.where(far <= 1, near, tail) / 2
    y = torch.cat([y[:, :, :3].flip(2), y, y[:, :, -3:].flip(2)], 2)
    y = torch.cat([y[..., :3].flip(3), y, y[..., -3:].flip(3)], 3)
    return _blur(y, taps, stride=2)
