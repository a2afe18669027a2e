"""How does the result keep the input's colours?

A decoder shifts colours a little. Both repairs take the fine structure from the result and
the colours from the enlarged input: the wavelet way swaps the blurred halves of the two
pictures, place by place; AdaIN gives every channel the input's mean and spread, once for
the whole picture.

    sr --> fine structure --.
                             +--> picture with sr's detail in up's colours
    up --> colours ---------'
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.stretches import along

ColorFix = Literal["auto", "wavelet", "adain", "none"]  # auto is the system's own

OCTAVES = 5  # of the wavelet; the blur reaches 2**5 - 1 pixels far
FLOOR = 1e-5  # added to the variance, so that a flat channel has a spread


def check_color(color: str) -> None:
    """Refuse what is no way of keeping colours."""
    if color not in (known := get_args(ColorFix)):
        raise RcodError(f"color must be one of {', '.join(known)}, got {color}")


def match_color(sr: Tensor, up: Tensor, color: ColorFix) -> Tensor:
    """Give the result the input's colours in the way asked for; `none` leaves it as it is.

    Args:
        sr: result, (B, 3, H, W) in [0, 1].
        up: input resized to the same size, (B, 3, H, W) in [0, 1].
        color: the way, but for `auto`, which a system has settled by now.
    """
    if color == "none":
        return sr
    return match_adain(sr, up) if color == "adain" else match_wavelet(sr, up)


def match_wavelet(sr: Tensor, up: Tensor) -> Tensor:
    """Give the result the input's low frequencies, everywhere.

    The high half of `sr` plus the low half of `up` is `sr + low(up - sr)`, since the blur
    is linear: one cascade instead of two.

    Args:
        sr: result, (B, 3, H, W) in [0, 1].
        up: input resized to the same size, (B, 3, H, W) in [0, 1].

    Returns:
        The corrected result, (B, 3, H, W) in [0, 1].
    """
    return _blur(up - sr).add_(sr).clamp_(0, 1)


def match_adain(sr: Tensor, up: Tensor) -> Tensor:
    """Give every channel of the result the input's mean and standard deviation.

    Args:
        sr: result, (B, 3, H, W) in [0, 1].
        up: input resized to the same size, (B, 3, H, W) in [0, 1].

    Returns:
        The corrected result, (B, 3, H, W) in [0, 1].
    """
    return match_stats(sr, _stats_of(sr), _stats_of(up))


class ChannelStats(NamedTuple):
    """Mean and standard deviation of every channel of whole pictures, (B, C, 1, 1) each."""

    mean: Tensor
    std: Tensor


class Tally:
    """Adds up, piece by piece, what the spread of a whole picture is made of."""

    def __init__(self) -> None:
        self.pixels = 0
        self.total = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, piece: Tensor) -> None:
        """Take a piece (C, h, w); pieces don't overlap."""
        self.pixels += piece.shape[-2] * piece.shape[-1]
        values = piece.cpu()
        self.total = self.total + values.sum((1, 2), dtype=torch.float64)
        self.squares = self.squares + values.square().sum((1, 2), dtype=torch.float64)

    def stats(self) -> ChannelStats:
        """Of all pieces so far."""
        mean = self.total / self.pixels
        variance = (self.squares - self.pixels * mean.square()).clamp(min=0)
        variance = variance / max(self.pixels - 1, 1)
        std = (variance + FLOOR).sqrt()
        return ChannelStats(*(x.float().view(1, -1, 1, 1) for x in (mean, std)))


def match_stats(sr: Tensor, own: ChannelStats, wanted: ChannelStats) -> Tensor:
    """What `match_adain` does, for a part (B, 3, h, w) of pictures whose statistics are known."""
    mean, std, mean_up, std_up = (x.to(sr.device) for x in (*own, *wanted))
    return ((sr - mean) / std * std_up + mean_up).clamp_(0, 1)


def _stats_of(x: Tensor) -> ChannelStats:
    """Of whole pictures (B, 3, H, W)."""
    pixels = x.shape[2] * x.shape[3]
    centred = x - x.mean((2, 3), keepdim=True)
    variance = centred.square().sum((2, 3), keepdim=True) / max(pixels - 1, 1)  # unbiased
    return ChannelStats(x.mean((2, 3), keepdim=True), (variance + FLOOR).sqrt())


def _blur(x: Tensor) -> Tensor:
    """The low half after all levels, along both axes."""
    for axis in (3, 2):
        x = along(x, axis, cascade, 2**OCTAVES - 1)
    return x


def cascade(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 along the last side, (..., L), with reach 1, 2, 4, 8, 16 one after another."""
    for level in range(OCTAVES):
        reach = 2**level
        size = x.shape[-1]
        ends = torch.arange(-reach, size + reach, device=x.device).clamp(0, size - 1)
        padded = x[..., ends]
        outer = padded[..., :size] + padded[..., 2 * reach :]
        x = (outer + 2 * x) / 4
    return x
