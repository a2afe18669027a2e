"""How does a photo come before a system's eyes, and which colours must the result keep?

Published weights are used to the resize they were trained with, down to its rounding, and to
sides that their networks can halve. What is added at the right and below is cut off again, so
a result always has the size that was asked for.

    free    bicubic, float                                     tiny
    pillow  Pillow's bicubic of 8 bits, sides multiples of 8   OSEDiff, RCOD_O, PiSA-SR
    padded  bilinear, float, sides multiples of 64             S3Diff, RCOD_S
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.networks.onestep import enlarge

Framing = Literal["free", "pillow", "padded", "shrunk"]
Sides = Sequence[int]  # four: how much at the left, the right, above and below

BORDER = 6  # latents by which tiny's photo goes on beyond its borders: zeros would show inside


class Frame(NamedTuple):
    """An enlarged photo, as the network sees it and as the result shall look."""

    up: Tensor  # (1, 3, H, W) in [0, 1], sides as the network needs them
    look: Tensor  # (1, 3, h, w) in [0, 1], the part of it that is the photo, in its top left corner


def frame(lr: Tensor, framing: Framing, scale: int, least: int) -> Frame:
    """Enlarge a photo as a system needs it.

    Args:
        lr: photo, (1, 3, h, w) in [0, 1].
        framing: whose way; `shrunk` is `pillow` as released: sides that are no multiples of 8 are
            squeezed to the next smaller one, so that the network sees another shape.
        scale: enlargement.
        least: a shorter side than this is brought to it first (`pillow` alone).
    """
    if framing == "free":
        up = enlarge(lr, scale)
        return Frame(up, up)
    if framing == "padded":
        up = F.interpolate(lr, scale_factor=scale, mode="bilinear", align_corners=False)
        up = up.clamp(0, 1)
        return Frame(pad(up, 64), truncate(up))
    look = _enlarge_bytes(lr, scale, least, squeeze=framing == "shrunk")
    return Frame(pad(look, 8), look)


def continued(z: Tensor, sides: Sides) -> Tensor:
    """A latent (B, C, h, w) that goes on beyond its borders as it ends there."""
    return F.pad(z, sides, mode="replicate")


def cut(image: Tensor, sides: Sides) -> Tensor:
    """An image (B, C, h, w) without what was added at its sides."""
    left, right, top, bottom = sides
    height, width = image.shape[-2:]
    return image[..., top : height - bottom, left : width - right]


def pad(image: Tensor, unit: int) -> Tensor:
    """Mirror an image to the right and downwards until its sides are multiples of `unit`."""
    height, width = image.shape[-2:]
    rows = _mirror(height, height + -height % unit).to(image.device)
    columns = _mirror(width, width + -width % unit).to(image.device)
    return image[..., rows, :][..., columns]


def truncate(image: Tensor) -> Tensor:
    """The image in steps of 1 / 255, rounded down as the published programs do."""
    return (255 * image.clamp(0, 1)).floor() / 255


def _mirror(length: int, target: int) -> Tensor:
    """Indices 0 .. length - 1 and back again, without repeating the edge; (target,)."""
    period = max(2 * length - 2, 1)
    place = torch.arange(target) % period
    return torch.where(place < length, place, period - place)


def _enlarge_bytes(lr: Tensor, scale: int, least: int, squeeze: bool) -> Tensor:
    """Pillow's own resize, (1, 3, h, w) -> about (1, 3, scale h, scale w) in steps of 1 / 255."""
    pixels = (255 * lr[0]).round().clamp(0, 255).byte().movedim(0, -1)  # (h, w, 3)
    picture = Image.fromarray(pixels.contiguous().cpu().numpy())
    width, height = picture.size
    if min(width, height) < least:
        factor = least / min(width, height)
        width, height = int(factor * width), int(factor * height)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    picture = picture.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    if squeeze:
        width, height = (side - side % 8 for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    array = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None]  # (1, 3, H, W)
    return array.to(lr.device, lr.dtype) / 255
