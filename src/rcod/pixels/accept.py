"""What may a caller hand in as a photo?

path, bytes, PIL image, Photo, array (H, W, 3), tensor (3, H, W) -> Photo
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.images import Photo, from_pil, read

Picture = Photo | Image.Image | Path | str | bytes | np.ndarray | Tensor


def as_photo(image: Picture) -> Photo:
    """Whatever a caller holds, as a `Photo`.

    Args:
        image: a picture's file, or what is in it; a PIL image; a `Photo`; RGB as float tensor
            (3, H, W) in [0, 1], or as array (H, W, 3), uint8 or float in [0, 1].
    """
    if isinstance(image, Photo):
        _check_unit(image.pixels, "the pixels of a Photo")
        return replace(image, pixels=image.pixels.float())
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, np.ndarray):
        return Photo(_of_array(image))
    if isinstance(image, Tensor):
        _check_unit(image, "an image tensor")
        return Photo(image.float().cpu())
    if isinstance(image, bytes):
        return read(image)
    if isinstance(image, str | Path):
        return read(Path(image))
    raise RcodError(
        "an image must be a path, bytes, a PIL image, a Photo, an array (H, W, 3) or a float "
        f"tensor (3, H, W), got {type(image).__name__}"
    )


def check_quality(quality: int | None) -> None:
    """Refuse what is no quality of a lossy format."""
    if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
        raise RcodError(f"quality must lie in [1, 100], got {quality!r}; 95 is a good one")


def _of_array(image: np.ndarray) -> Tensor:
    """An array (H, W, 3) as a tensor (3, H, W) in [0, 1]."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind not in "uf":
        raise RcodError(
            "an image array must be (H, W, 3), uint8 or float in [0, 1], got "
            f"{image.dtype} {image.shape}"
        )
    most = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    pixels = torch.from_numpy(image.astype(np.float32) / most).permute(2, 0, 1).contiguous()
    _check_unit(pixels, "an image array")
    return pixels


def _check_unit(pixels: Tensor, what: str) -> None:
    """Refuse what is no picture in [0, 1]."""
    empty = pixels.numel() == 0
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point() or empty:
        raise RcodError(
            f"{what} must be float (3, H, W) in [0, 1], got {pixels.dtype} {tuple(pixels.shape)}"
        )
    if not (pixels.isfinite().all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise RcodError(f"{what} must lie in [0, 1]; scale or clamp it first")
