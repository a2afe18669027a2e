"""How alike are two pictures, pixel by pixel, and how much detail does one hold?

Scores follow IQA-PyTorch: 8-bit pictures, the Y of YCbCr (BT.601), no border crop.

    sr, hr -> 8 bit -> Y -> psnr, ssim
    sr     -> 8 bit -> Y -> detail
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (65.481, 128.553, 24.966)  # BT.601, for RGB in [0, 1]; Y then spans 16..235
FLOOR = 1e-8  # IQA-PyTorch's, of the squared error of Y in [0, 1]
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

    IQA-PyTorch adds 1e-8 of the squared peak to the error, which caps equal images at 80 dB.

    Args:
        sr: results in [0, 1], (B, 3, H, W).
        hr: true images in [0, 1], (B, 3, H, W).

    Returns:
        Decibels, 80 for equal images, (B,) float64.
    """
    error = ((luma(sr) - luma(hr)) / 255).square().mean((1, 2, 3))
    return -10 * (error + FLOOR).log10()


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
    window = gaussian(11, 1.5).to(x)
    mean_x, mean_y = blur(x, window), blur(y, window)
    variance_x = blur(x * x, window) - mean_x.square()
    variance_y = blur(y * y, window) - mean_y.square()
    covariance = blur(x * y, window) - mean_x * mean_y
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


def gaussian(size: int, sigma: float) -> Tensor:
    """A normalised Gaussian window, (size,) float64."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return (-at.square() / (2 * sigma**2)).softmax(0)


def blur(x: Tensor, window: Tensor, stride: int = 1) -> Tensor:
    """Average (B, 1, H, W) under a separable window, without padding."""
    x = F.conv2d(x, window.view(1, 1, -1, 1), stride=(stride, 1))
    return F.conv2d(x, window.view(1, 1, 1, -1), stride=(1, stride))
