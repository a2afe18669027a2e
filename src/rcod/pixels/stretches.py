"""How is a picture mixed along its sides at the speed of matrix products?

A blur and an enlargement are linear maps along one side at a time, and far from the borders they
treat every stretch of pixels alike. So a long side is cut into short stretches, and each is one
small matrix product with what lies around it. The matrices are asked of the map itself, which
answers to single bright pixels; nothing is written down twice.

    x, map -> the map's answer to single pixels -> first, middle and last matrix -> products
"""

from collections.abc import Callable

import torch
from torch import Tensor

STRETCH = 64  # pixels of the input that one product answers for

Mix = Callable[[Tensor], Tensor]  # rows (n, L) -> rows (n, L * scale)


def along(x: Tensor, axis: int, mix: Mix, reach: int, scale: int = 1) -> Tensor:
    """Apply a linear map to every line of pixels along one axis.

    Args:
        x: (B, C, H, W) float32.
        axis: 2 or 3.
        mix: the map, along the last side of (n, L); alike everywhere but near the borders.
        reach: how many pixels of `x` it looks to either side, at most `STRETCH`.
        scale: how many pixels it makes of one.

    Returns:
        (B, C, H, W), `scale` times as long along the axis.
    """
    assert reach <= STRETCH
    length = x.shape[axis]
    if length <= 3 * STRETCH:
        return _product(x, axis, mix(torch.eye(length, dtype=x.dtype, device=x.device)))
    whole = mix(torch.eye(3 * STRETCH, dtype=x.dtype, device=x.device))
    shape = list(x.shape)
    shape[axis] = length * scale
    out = x.new_empty(shape)
    for start in [*range(0, length - STRETCH, STRETCH), length - STRETCH]:
        first, last = max(start - reach, 0), min(start + STRETCH + reach, length)
        origin = STRETCH - start  # from a place in `x` to the like one in `whole`: in the middle,
        if start == 0 or last == length:  # or as near to a border
            origin = 0 if start == 0 else 3 * STRETCH - length
        columns = slice((start + origin) * scale, (start + origin + STRETCH) * scale)
        matrix = whole[first + origin : last + origin, columns]
        made = _product(x.narrow(axis, first, last - first), axis, matrix)
        out.narrow(axis, start * scale, STRETCH * scale).copy_(made)
    return out


def _product(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Lines along an axis times a matrix (length, new length)."""
    with torch.autocast(x.device.type, enabled=False):  # 8 bits of mantissa would show
        return x @ matrix if axis == 3 else matrix.T @ x
