"""Degradation: what a bad camera, a messenger and a website make of a good photo.

Two rounds of blur, resize, noise and JPEG (Real-ESRGAN, section 3), pure in `rng`: the same
seed gives the same bytes on the same device, and the same damage with other grains on another.

    hr -> blur -> resize -> noise -> JPEG -.
     .------------------------------------'
     '--> blur -> resize -> noise -.- resize to lr, sinc -> JPEG -.
                                   '- JPEG -> resize to lr, sinc -'-> 8 bit -> lr

The last round always ends at the size of `lr`, and its JPEG comes half the time before that
last resize and half the time after it. Without a second round, the first is the last. The
released programs enlarge before they round to 8 bits; here it is `lr` that is rounded. Our own
`camera` sharpens after the noise, as cameras do.
"""

from math import ceil, pi
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.pixels.metrics import eight_bit
from rcod.training.kernels import (
    Chance,
    KernelSettings,
    Sizes,
    Span,
    blur,
    choose,
    draw,
    draw_size,
    gaussian,
    happens,
    must_rise,
    sinc,
    uniform,
)

Mode = Literal["area", "bilinear", "bicubic"]
Above = Annotated[float, Field(gt=0)]
Scale = Annotated[float, Field(ge=0.05)]  # of hr in the first of two rounds, of lr in the last
Positive = Annotated[tuple[Above, Above], AfterValidator(must_rise)]
Quality = Annotated[float, Field(ge=1, le=100)]

# Quantization of a JPEG block at quality 50 (ITU-T T.81, annex K); luma transposed as in
# Real-ESRGAN, chroma without the 99s that fill up its 8 x 8.
LUMA_STEPS = (
    (16, 12, 14, 14, 18, 24, 49, 72),
    (11, 12, 13, 17, 22, 35, 64, 92),
    (10, 14, 16, 22, 37, 55, 78, 95),
    (16, 19, 24, 29, 56, 64, 87, 98),
    (24, 26, 40, 51, 68, 81, 103, 112),
    (40, 58, 57, 87, 109, 104, 121, 100),
    (51, 60, 69, 80, 103, 113, 120, 103),
    (61, 55, 56, 62, 77, 92, 101, 99),
)
CHROMA_STEPS = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
# JFIF: luma and both chromas of RGB, and back.
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class Round(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One round of blur, resize, noise and JPEG. A chance of 0 turns a stage off."""

    blur: Chance = 1.0
    kernel: KernelSettings = KernelSettings()
    resize: tuple[Chance, Chance, Chance] = (0.2, 0.7, 0.1)  # weights of up, down, keep
    scale: Annotated[tuple[Scale, Scale], AfterValidator(must_rise)] = (0.15, 1.5)
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("area", "bilinear", "bicubic")
    noise: Chance = 1.0
    gaussian: Chance = 0.5  # share of Gaussian noise, the rest is Poisson
    sigma: Span = (1.0, 30.0)  # of the Gaussian noise, of 255
    poisson: Span = (0.05, 3.0)  # strength of the Poisson noise, 1 is natural
    gray: Chance = 0.4  # share of noise that is alike in all three channels
    unsharp: Chance = 0.0  # a camera's own sharpening, which the noise goes through
    radius: Positive = (0.5, 1.3)  # pixels, of the bell it subtracts
    amount: Span = (0.3, 2.0)  # how much of the difference is added
    jpeg: Chance = 1.0
    quality: Annotated[tuple[Quality, Quality], AfterValidator(must_rise)] = (30.0, 95.0)


class DegradeSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How `hr` becomes `lr`."""

    first: Round
    second: Round | None = None  # None: one round is all
    final_sinc: Chance = 0.8  # chance of a low-pass on the finished size
    final_sizes: Sizes = (7, 21)  # pixels, of that low-pass
    factor: Annotated[int, Field(ge=1)] = 4  # hr is so many times larger than lr
    none: Chance = 0.0  # of a published student being shown hr as `up`; lr is damaged all the same


def degrade(hr: Tensor, settings: DegradeSettings, rng: torch.Generator) -> Tensor:
    """Damage a good photo.

    Args:
        hr: the photo, (3, H, W) in [0, 1]; sides multiples of `settings.factor`, 32 at least.
            Where it lies, its damage is done.
        settings: what may happen to it; `presets.SETTINGS` holds the known ones.
        rng: where all chance comes from, on the CPU.

    Returns:
        The damaged photo, (3, H / factor, W / factor), on the 8-bit grid in [0, 1].
    """
    factor = settings.factor
    if hr.ndim != 3 or len(hr) != 3 or any(n < 32 or n % factor for n in hr.shape[1:]):
        raise RcodError(
            f"hr must be (3, H, W) with sides of 32 or more that are multiples of {factor}, "
            f"got {tuple(hr.shape)}; crop it first"
        )
    goal = (hr.shape[1] // factor, hr.shape[2] // factor)
    x, last = hr.float(), settings.first
    if settings.second is not None:
        first, last = settings.first, settings.second
        x = _soften(x, first, rng)
        x = resize(x, _draw_scale(first, rng), _draw_mode(first, rng))
        x = _compress(_sharpen(_add_noise(x, first, rng), first, rng), first, rng)
    x = _soften(x, last, rng)
    scale = _draw_scale(last, rng)
    middle = (int(goal[0] * scale) or 1, int(goal[1] * scale) or 1)
    x = _add_noise(resize(x, middle, _draw_mode(last, rng)), last, rng)
    x = _sharpen(x, last, rng)
    jpeg_first = happens(0.5, rng)
    if jpeg_first:
        x = _compress(x, last, rng)
    x = resize(x, goal, _draw_mode(last, rng))  # (3, H / factor, W / factor)
    if happens(settings.final_sinc, rng):
        x = blur(x, sinc(draw_size(settings.final_sizes, rng), uniform((pi / 3, pi), rng)))
    if not jpeg_first:
        x = _compress(x, last, rng)
    return eight_bit(x)


def resize(x: Tensor, target: float | tuple[int, int], mode: Mode) -> Tensor:
    """Resize an image without antialiasing.

    Args:
        x: image, (3, H, W).
        target: a scale, or the new height and width.
        mode: how new pixels are made.

    Returns:
        The resized image, (3, h, w).
    """
    if target in (1, tuple(x.shape[-2:])):
        return x
    size, scale = (target, None) if isinstance(target, tuple) else (None, target)
    return F.interpolate(x[None], size, scale, mode, None if mode == "area" else False)[0]


def gaussian_noise(x: Tensor, sigma: float, gray: bool, rng: torch.Generator) -> Tensor:
    """Draw Gaussian noise for an image.

    Args:
        x: image, (3, H, W).
        sigma: strength, of 255.
        gray: the same noise for all three channels.
        rng: where it comes from, on the image's device.

    Returns:
        The noise to add, (1 if gray else 3, H, W).
    """
    shape = (1 if gray else 3, *x.shape[-2:])
    return torch.randn(shape, generator=rng, device=x.device) * (sigma / 255)


def poisson_noise(x: Tensor, scale: float, gray: bool, rng: torch.Generator) -> Tensor:
    """Draw the noise of counted light: `scale` is its strength, 1 natural.

    The fuller the image's range of 8-bit levels, the more light is counted. The rest as
    `gaussian_noise`.
    """
    if gray:
        x = 0.2989 * x[:1] + 0.587 * x[1:2] + 0.114 * x[2:]  # (1, H, W)
    levels = (x.clamp(0, 1) * 255).round()
    used = int(levels.byte().flatten().bincount(minlength=256).count_nonzero())
    light = 2 ** (used - 1).bit_length()  # the next power of two
    x = levels / 255
    return (torch.poisson(x * light, generator=rng) / light - x) * scale


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Compress images as JPEG does, with colours at half resolution.

    Args:
        x: images, (B, 3, H, W) in [0, 1]; what lies outside is clipped.
        quality: 1 to 100 for each image, (B,).

    Returns:
        The images with the compression's losses, (B, 3, H, W) in [0, 1].
    """
    batch, _, height, width = x.shape
    x = F.pad(x, (0, -width % 16, 0, -height % 16)).clamp(0, 1)  # whole blocks of 16
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).clamp(min=1e-6)  # (B,)
    ycbcr = ((255 * x.new_tensor(YCBCR)) @ x.reshape(batch, 3, -1)).view(x.shape)
    ycbcr[:, 0] -= 128  # all three now lie around 0
    luma = _quantize(ycbcr[:, :1], LUMA_STEPS, factor, 8)
    chroma = _quantize(ycbcr[:, 1:], CHROMA_STEPS, factor, 16)
    rgb = x.new_tensor(RGB) @ torch.cat([luma, chroma], 1).view(batch, 3, -1)
    return rgb.add_(128).div_(255).clamp_(0, 1).view(x.shape)[..., :height, :width]


def _quantize(x: Tensor, steps: tuple[tuple[int, ...], ...], factor: Tensor, side: int) -> Tensor:
    """Round the 8 x 8 cosine coefficients of every block; (B, C, H, W) to the same.

    Blocks of side 16 are halved by averaging and doubled by repeating, both in the basis.
    """
    batch, _, _, width = x.shape
    basis = _cosines(side).to(x.device)  # (8, side)
    back = basis * (side / 8)
    strips = x.reshape(batch, -1, side, width)  # (B, C * H / side, side, W)
    found = (basis @ strips).view(batch, -1, 8, width // side, side) @ basis.T
    step = F.pad(torch.tensor(steps, device=x.device), (0, 8 - len(steps)) * 2, value=99).view(
        8, 1, 8
    )
    step = step * factor.view(-1, 1, 1, 1, 1)  # (B, 1, 8, 1, 8)
    found = found.div_(step).round_().mul_(step)  # (B, C * H / side, 8, W / side, 8)
    return (back.T @ (found @ back).view(batch, -1, 8, width)).view(x.shape)


def _cosines(side: int) -> Tensor:
    """Eight cosines over a block's side, halved to 8 pixels by averaging, (8, side)."""
    i = torch.arange(8)
    basis = torch.cos((2 * i + 1) * i[:, None] * (pi / 16)) / 2  # (8 waves, 8 pixels)
    basis[0] /= 2**0.5
    return basis.repeat_interleave(side // 8, dim=1) * (8 / side)


def _soften(x: Tensor, settings: Round, rng: torch.Generator) -> Tensor:
    """Blur with a drawn kernel, or not."""
    return blur(x, draw(settings.kernel, rng)) if happens(settings.blur, rng) else x


def _add_noise(x: Tensor, settings: Round, rng: torch.Generator) -> Tensor:
    """Add drawn noise and clip, or do not."""
    if not happens(settings.noise, rng):
        return x
    make, span = poisson_noise, settings.poisson
    if happens(settings.gaussian, rng):
        make, span = gaussian_noise, settings.sigma
    strength, gray = uniform(span, rng), happens(settings.gray, rng)
    noise = make(x, strength, gray, _on(x.device, rng))
    return (x + noise).clamp_(0, 1)


def _sharpen(x: Tensor, settings: Round, rng: torch.Generator) -> Tensor:
    """Sharpen by an unsharp mask, or not; without a chance no dice are thrown for it."""
    if not settings.unsharp or not happens(settings.unsharp, rng):
        return x
    sigma, amount = uniform(settings.radius, rng), uniform(settings.amount, rng)
    size = 2 * ceil(3 * sigma) + 1
    return x.lerp(blur(x, gaussian(size, sigma, sigma, 0.0)), -amount).clamp_(0, 1)


def _on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """The generator for a device: `rng` where it lies there, else one that is seeded from it."""
    if rng.device == device:
        return rng
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.Generator(device).manual_seed(seed)


def _compress(x: Tensor, settings: Round, rng: torch.Generator) -> Tensor:
    """Compress at a drawn quality, or not."""
    if not happens(settings.jpeg, rng):
        return x
    return jpeg(x[None], x.new_tensor([uniform(settings.quality, rng)]))[0]


def _draw_scale(settings: Round, rng: torch.Generator) -> float:
    """Draw up, down or keep, and then how far."""
    low, high = settings.scale
    middle = min(max(1.0, low), high)  # of a range without 1 the end that is nearest
    span = ((middle, high), (low, middle), (middle, middle))[choose(list(settings.resize), rng)]
    return uniform(span, rng)


def _draw_mode(settings: Round, rng: torch.Generator) -> Mode:
    """Draw how a resize makes new pixels."""
    return settings.modes[choose([1.0] * len(settings.modes), rng)]
