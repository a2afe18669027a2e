"""What may a caller hand in as a photo?

path, PIL image, Photo or tensor (3, H, W) -> Photo
"""

from pathlib import Path

from PIL.Image import Image
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.images import Photo, from_pil, read


def as_photo(image: Photo | Image | Path | str | Tensor) -> Photo:
    """Whatever a caller holds, as a `Photo`."""
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image):
        return from_pil(image)
    if isinstance(image, Tensor):
        empty = image.numel() == 0
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point() or empty:
            raise RcodError(
                f"an image tensor must be float (3, H, W) in [0, 1], got {image.dtype} "
                f"{tuple(image.shape)}"
            )
        if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
            raise RcodError("an image tensor must lie in [0, 1]; scale or clamp it first")
        return Photo(image.float().cpu(), None, None, None)
    if isinstance(image, str | Path):
        return read(Path(image))
    raise RcodError(
        "an image must be a path, a PIL image, a Photo or a float tensor (3, H, W), got "
        f"{type(image).__name__}"
    )


def check_quality(quality: int | None) -> None:
    """Refuse what is no quality of a lossy format."""
    if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
        raise RcodError(f"quality must lie in [1, 100], got {quality!r}; 95 is a good one")
