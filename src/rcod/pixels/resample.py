"""How does a part of a picture get another size, as if the whole had got it?

Antialiased bicubic, an axis at a time. The weights belong to pixels of the whole result, so
a piece comes out the same wherever it was cut. Where nothing shows, colours are taken from
around before a picture is enlarged: else what lies there unseen would colour the edges.

    part of the picture --> taps of the rows asked for --> part of the result
"""

import math
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.errors import RcodError

LEAST, MOST = 1 / 16, 8.0  # how much smaller or larger a result may be than its photo
Scale = float | tuple[int, int]  # a factor, or height and width of the result
ROWS = 512  # rows of a large picture that are worked on at once


def check_scale(scale: Scale) -> None:
    """Refuse an enlargement that makes no sense."""
    if isinstance(scale, tuple):
        if len(scale) != 2 or not all(isinstance(side, int) and side > 0 for side in scale):
            raise RcodError(f"a result's height and width must be whole and 1 or more, got {scale}")
    elif not isinstance(scale, Real) or not 1 <= scale <= 8:  # NaN too
        raise RcodError(f"scale must lie in [1, 8], got {scale}; 4 enlarges four times")


def target_of(size: tuple[int, int], scale: Scale) -> tuple[int, int]:
    """Height and width of a result: of a factor, or those given."""
    height, width = size
    if isinstance(scale, tuple):
        return scale
    return max(1, round(height * scale)), max(1, round(width * scale))


def fitted(
    size: tuple[int, int],
    scale: float,
    width: int | None = None,
    height: int | None = None,
    most: int | None = None,
) -> tuple[int, int]:
    """Height and width of a result that keeps the photo's shape.

    Args:
        size: the photo's height and width.
        scale: enlargement, where neither width nor height is given.
        width: of the result.
        height: of the result; given both, the largest result that fits into them.
        most: the result's longer side is made no longer than this.
    """
    tall, wide = size
    factors = [given / side for given, side in ((width, wide), (height, tall)) if given]
    factor = min(factors, default=scale)
    if most is not None:
        factor = min(factor, most / max(size))
    if not LEAST <= factor <= MOST:
        raise RcodError(
            f"the result must be {LEAST:g} to {MOST:g} times the photo's size, got {factor:.3g} "
            f"times {wide} x {tall}; ask for another size"
        )
    result = target_of(size, factor)
    if height and factor == height / tall:
        result = height, result[1]
    if width and factor == width / wide:
        result = result[0], width
    return result


def target_within(size: tuple[int, int], scale: Scale) -> tuple[int, int]:
    """`target_of`, refused where a given size is no enlargement that is allowed."""
    tall, wide = size
    target = target_of(size, scale)
    least = min(target[0] / tall, target[1] / wide)
    most = max((target[0] - 0.5) / tall, (target[1] - 0.5) / wide)  # sides are rounded
    if isinstance(scale, tuple) and not (least >= LEAST and most <= MOST):
        raise RcodError(
            f"the result must be {LEAST:g} to {MOST:g} times the photo's size, got "
            f"{target[1]} x {target[0]} of {wide} x {tall}; ask for another size"
        )
    return target


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic to (height, width); nothing where the size is right.

    Args:
        image: (..., H, W).
        size: height and width of the result.
    """
    height, width = image.shape[-2:]
    return resize_part(image, size, (height, width), (0, 0), (0, size[0]), (0, size[1]))


def resize_part(
    part: Tensor,
    size: tuple[int, int],
    whole: tuple[int, int],
    corner: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> Tensor:
    """Some rows and columns of a resized picture.

    Args:
        part: what is at hand of the picture, (..., h, w).
        size: height and width of the whole result.
        whole: height and width of the whole picture.
        corner: first row and column of `part` in the picture.
        rows: first and one past the last row of the result that is wanted.
        columns: first and one past the last column.

    Returns:
        That part of the result, (..., rows, columns).
    """
    part = _along(part, -1, size[1], whole[1], corner[1], columns)
    return _along(part, -2, size[0], whole[0], corner[0], rows)


def reach(size: int, whole: int) -> int:
    """How far, in pixels of the picture, a pixel of the result looks."""
    return math.ceil(2 * max(whole / size, 1)) + 1


def taps(
    size: int, whole: int, wanted: tuple[int, int], cubic: bool = True
) -> tuple[Tensor, Tensor]:
    """Where pixels of a result look along one axis, and with which weights.

    Args:
        size: pixels of the result.
        whole: pixels of the picture.
        wanted: first and one past the last pixel of the result.
        cubic: bicubic (a = -1/2); else bilinear.

    Returns:
        Places in the picture, (n, K) int64, and weights that add up to one, (n, K) float32.
    """
    ratio = whole / size
    stretch = max(ratio, 1.0)
    wide = (2 if cubic else 1) * stretch
    centre = (torch.arange(*wanted, dtype=torch.float64) + 0.5) * ratio
    first = (centre - wide + 0.5).floor().clamp(min=0)
    steps = torch.arange(math.ceil(2 * wide) + 1, dtype=torch.float64)
    place = first[:, None] + steps  # (n, K)
    far = ((place + 0.5 - centre[:, None]) / stretch).abs()
    weight = cubic_weight(far) if cubic else (1 - far).clamp(min=0)
    weight = weight * (place < whole)
    weight = weight / weight.sum(1, keepdim=True)
    return place.clamp(max=whole - 1).long(), weight.float()


def cubic_weight(far: Tensor) -> Tensor:
    """The weight (a = -1/2) of pixels that are so far away, in pixels."""
    near = (1.5 * far - 2.5) * far * far + 1
    outer = ((-0.5 * far + 2.5) * far - 4) * far + 2
    return torch.where(far <= 1, near, torch.where(far < 2, outer, 0.0))


def spread_colours(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Give what doesn't show the colours of what shows around it.

    Args:
        pixels: (3, H, W).
        alpha: (1, H, W), 0 where nothing shows.

    Returns:
        (3, H, W); pixels that show are as they were.
    """
    if bool((alpha > 0).all()) or not bool((alpha > 0).any()):
        return pixels
    height = pixels.shape[-2]
    halves: list[Tensor] = []  # colours by alpha, and alpha, at half the size
    for top in range(0, height, ROWS):
        rows = slice(top, top + ROWS)
        halves.append(_half(torch.cat((pixels[:, rows] * alpha[:, rows], alpha[:, rows]))))
    filled = _fill(torch.cat(halves, dim=1))  # (3, ceil(H / 2), ceil(W / 2))
    out = pixels.clone()
    for top in range(0, height, ROWS):
        rows = slice(top, top + ROWS)
        around = _double(filled[:, top // 2 : (top + ROWS) // 2], out[:, rows])
        out[:, rows] = torch.where(alpha[:, rows] > 0, out[:, rows], around)
    return out


def _along(
    x: Tensor, axis: int, size: int, whole: int, start: int, wanted: tuple[int, int]
) -> Tensor:
    """Resize along one axis; what lies outside of the part at hand is its border."""
    if size == whole:
        return x.narrow(axis, wanted[0] - start, wanted[1] - wanted[0])
    place, weight = taps(size, whole, wanted)
    place = (place - start).clamp(0, x.shape[axis] - 1).to(x.device)
    weight = weight.to(x.device)
    shape = [-1, 1] if axis == -2 else [-1]
    out = x.index_select(axis, place[:, 0]) * weight[:, 0].view(shape)
    for tap in range(1, place.shape[1]):
        out.addcmul_(x.index_select(axis, place[:, tap]), weight[:, tap].view(shape))
    return out


def _half(x: Tensor) -> Tensor:
    """Mean of 2 x 2 pixels, (C, H, W) -> (C, ceil(H / 2), ceil(W / 2))."""
    return F.avg_pool2d(x[None], 2, ceil_mode=True, count_include_pad=False)[0]


def _double(small: Tensor, like: Tensor) -> Tensor:
    """Every pixel four times, as large as `like`."""
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return large[:, : like.shape[-2], : like.shape[-1]]


def _fill(weighted: Tensor) -> Tensor:
    """Colours everywhere, (3, h, w), of colours by alpha and alpha, (4, h, w)."""
    colours, alpha = weighted[:3], weighted[3:]
    if max(weighted.shape[-2:]) == 1:
        return colours / alpha.clamp(min=1e-6)
    around = _double(_fill(_half(weighted)), colours)
    return torch.where(alpha > 0, colours / alpha.clamp(min=1e-6), around)
