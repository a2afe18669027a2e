"""Blur kernels: which lens, shake or sharpening damaged this photo?

Six bell shapes imitate lenses, and a circular low-pass (sinc) imitates the ringing of
sharpening and resampling. All follow Real-ESRGAN (section 3). With the covariance of a
kernel, q = p' inv(covariance) p measures how far the pixel p lies from the centre:

    gaussian     exp(-q / 2)          the usual lens
    generalized  exp(-q^beta / 2)     beta < 1 long tails, beta > 1 a flat top
    plateau      1 / (1 + q^beta)     out of focus: a disc with soft edges
    sinc         J1(omega r) / r      rings around every edge

Every kernel is (size, size) float32 and sums to 1.
"""

from math import cos, pi, sin
from typing import Annotated, Literal, Self, get_args

import torch
from pydantic import AfterValidator, BaseModel, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

Kind = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]


def must_rise(span: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose second end is the smaller one."""
    low, high = span
    if low > high:
        raise ValueError(f"a range goes from low to high, got {low} to {high}; swap the two")
    return span


def must_be_odd(sizes: tuple[int, int]) -> tuple[int, int]:
    """Refuse kernel sizes without a middle pixel."""
    if sizes[0] > sizes[1] or sizes[0] < 1 or not all(size % 2 for size in sizes):
        raise ValueError(
            f"kernel sizes must be odd and rise from 1, got {sizes[0]} to {sizes[1]}; "
            "give for example 7 to 21"
        )
    return sizes


Chance = Annotated[float, Field(ge=0, le=1)]
Span = Annotated[tuple[float, float], AfterValidator(must_rise)]
Sizes = Annotated[tuple[int, int], AfterValidator(must_be_odd)]


class KernelSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Which kernels are drawn, and how wide."""

    shares: dict[Kind, float] = {
        "iso": 0.45,
        "aniso": 0.25,
        "generalized_iso": 0.12,
        "generalized_aniso": 0.03,
        "plateau_iso": 0.12,
        "plateau_aniso": 0.03,
    }
    sinc: Chance = 0.1  # chance of a low-pass instead of a bell
    sizes: Sizes = (7, 21)  # pixels
    sigma: Span = (0.2, 3.0)  # pixels, each axis of an aniso kernel on its own
    generalized_beta: Span = (0.5, 4.0)
    plateau_beta: Span = (1.0, 2.0)

    @model_validator(mode="after")
    def some_kind_has_a_share(self) -> Self:
        """Refuse shares that leave nothing to draw."""
        if min(self.shares.values(), default=0) < 0 or sum(self.shares.values()) <= 0:
            raise ValueError(
                f"shares must not be negative nor all zero, got {self.shares}; "
                'give for example {"iso": 1}'
            )
        if self.sigma[0] <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma[0]}; start at 0.2 or above")
        return self


def uniform(span: tuple[float, float], rng: torch.Generator) -> float:
    """Draw one number between the two ends."""
    low, high = span
    return low + (high - low) * torch.rand((), generator=rng, dtype=torch.float64).item()


def happens(chance: float, rng: torch.Generator) -> bool:
    """Throw the dice."""
    return uniform((0, 1), rng) < chance


def choose(weights: list[float], rng: torch.Generator) -> int:
    """Draw an index, each with the chance its weight gives it; the last if none has any."""
    point = uniform((0, sum(weights)), rng)
    for i, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return i
    return len(weights) - 1


def draw(settings: KernelSettings, rng: torch.Generator) -> Tensor:
    """Draw a blur kernel.

    Args:
        settings: shapes and ranges to draw from.
        rng: where the draws come from.

    Returns:
        The kernel, (size, size), summing to 1.
    """
    size = draw_size(settings.sizes, rng)
    if happens(settings.sinc, rng):
        return sinc(size, uniform((pi / 3 if size < 13 else pi / 5, pi), rng))
    kinds = get_args(Kind)
    kind: Kind = kinds[choose([settings.shares.get(kind, 0.0) for kind in kinds], rng)]
    sigma = uniform(settings.sigma, rng)
    axes = (sigma, sigma, 0.0)
    if kind.endswith("aniso"):
        axes = (sigma, uniform(settings.sigma, rng), uniform((-pi, pi), rng))
    if kind.startswith("generalized"):
        return generalized(size, *axes, beta=_draw_beta(settings.generalized_beta, rng))
    if kind.startswith("plateau"):
        return plateau(size, *axes, beta=_draw_beta(settings.plateau_beta, rng))
    return gaussian(size, *axes)


def draw_size(sizes: tuple[int, int], rng: torch.Generator) -> int:
    """Draw an odd kernel size between the two."""
    low, high = sizes
    return low + 2 * int(torch.randint((high - low) // 2 + 1, (), generator=rng))


def _draw_beta(span: tuple[float, float], rng: torch.Generator) -> float:
    """Draw an exponent: as often below 1 as above; of a range without 1, half are its near end."""
    low, high = span
    middle = min(max(1.0, low), high)
    return uniform((low, middle) if happens(0.5, rng) else (middle, high), rng)


def gaussian(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """Build a Gaussian kernel.

    Args:
        size: side in pixels, odd.
        sigma_x: width along the first axis, pixels.
        sigma_y: width along the second axis, pixels.
        theta: turn of both axes, radians.

    Returns:
        The kernel, (size, size), summing to 1.
    """
    return _normalize(torch.exp(-0.5 * _distance(size, sigma_x, sigma_y, theta)))


def generalized(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> Tensor:
    """Build a generalized Gaussian; `beta` 1 is the Gaussian. The rest as `gaussian`."""
    return _normalize(torch.exp(-0.5 * _distance(size, sigma_x, sigma_y, theta) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> Tensor:
    """Build a plateau; `beta` sharpens its edge. The rest as `gaussian`."""
    return _normalize(1 / (1 + _distance(size, sigma_x, sigma_y, theta) ** beta))


def sinc(size: int, omega: float) -> Tensor:
    """Build a circular low-pass.

    Args:
        size: side in pixels, odd.
        omega: frequency where it cuts, radians per pixel; pi keeps nearly everything.

    Returns:
        The kernel, (size, size), summing to 1; its rings are negative.
    """
    y, x = _grid(size)
    r = torch.hypot(x, y)  # (size, size)
    rings = torch.special.bessel_j1(omega * r) / r.clamp(min=1e-9)
    return _normalize(torch.where(r == 0, omega / 2, rings))  # J1(omega r) / r -> omega / 2


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter an image (by Fourier transforms: at 21 x 21 they are faster than sliding).

    Its edges are reflected, or repeated where the kernel reaches past the whole image.

    Args:
        x: image, (3, H, W).
        kernel: weights, (k, k), k odd, from any device.

    Returns:
        The filtered image, (3, H, W).
    """
    height, width = x.shape[-2:]
    reach = kernel.shape[-1] // 2
    mode = "reflect" if reach < min(height, width) else "replicate"
    x = F.pad(x, (reach,) * 4, mode=mode)  # (3, H + k - 1, W + k - 1)
    sides = (_fast_length(height + 2 * reach), _fast_length(width + 2 * reach))
    spectrum = torch.fft.rfft2(x, s=sides)
    spectrum *= torch.fft.rfft2(
        kernel.to(x.device).flip(0, 1), s=sides
    )  # flipped: filters do not convolve
    x = torch.fft.irfft2(spectrum, s=sides)
    return x[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _fast_length(length: int) -> int:
    """The next length with no prime factor but 2, 3 and 5: Fourier transforms like it."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _distance(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """Squared distance from the centre in sigmas, (size, size) float64."""
    y, x = _grid(size)
    along = (cos(theta) * x + sin(theta) * y) / sigma_x
    across = (cos(theta) * y - sin(theta) * x) / sigma_y
    return along**2 + across**2


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Pixel offsets from the centre: a column (size, 1) and a row (1, size), float64."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    return offsets[:, None], offsets[None, :]


def _normalize(kernel: Tensor) -> Tensor:
    """Make a kernel sum to 1, as float32."""
    return (kernel / kernel.sum()).float()
