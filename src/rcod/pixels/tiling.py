"""How does a function run on an image of any size?

Cut it into tiles that overlap, run the function on each, and blend the results. Where
tiles overlap, their weights fall smoothly towards the cut and add up to one, so a function
that only looks at its surroundings gives the picture of an uncut run, without seams.

    x -> plan -> tile, tile, ... -> function -> weight -> sum -> picture

`merged` does the same for pictures that are never in memory as a whole: tiles look further
than what they answer for, only narrow seams are blended, and pieces leave in reading order.

    spans -> tile, tile, ... -> function -> seams with the left and the upper one -> pieces
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rcod.errors import RcodError

PHASE = 8  # tiles start at multiples of this where sizes allow: strided networks see no shift
STEEPNESS = 4.5  # a tile weighs exp(-4.5), about 1 %, at its cut


@dataclass(frozen=True)
class Plan:
    """Where the tiles lie: every top meets every left, all tiles are equally large."""

    height: int  # of one tile
    width: int
    tops: tuple[int, ...]  # first row of each row of tiles, rising
    lefts: tuple[int, ...]
    overlap: int  # rows and columns that neighbours share, at least

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every tile, in reading order."""
        return [(top, left) for top in self.tops for left in self.lefts]


def plan(height: int, width: int, tile: int, overlap: int) -> Plan:
    """Spread tiles evenly over an image.

    Args:
        height: of the image.
        width: of the image.
        tile: greatest side of a tile; a side of the image that is shorter is not cut.
        overlap: what neighbours share at least; less than `tile`.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise RcodError(
            f"tiles must be at least 1 wide and overlap by less than that, got tile {tile} with "
            f"overlap {overlap}; try overlap {max(tile, 1) // 8}"
        )
    tile_height, tile_width = min(tile, height), min(tile, width)
    return Plan(
        height=tile_height,
        width=tile_width,
        tops=_starts(height, tile_height, overlap),
        lefts=_starts(width, tile_width, overlap),
        overlap=overlap,
    )


@dataclass(frozen=True)
class Span:
    """One tile along one side: what it looks at, and what of the result it answers for."""

    start: int  # of what it looks at, in pixels of the picture
    stop: int
    first: int  # of what it gives, in pixels of the result, seams included
    last: int
    rise: int = 0  # pixels of the result that it shares with the tile before
    fall: int = 0  # and with the one after


def spans(
    length: int, size: int, tile: int, margin: int, seam: int, unit: int = PHASE
) -> tuple[Span, ...]:
    """Spread as few tiles as will do along one side.

    Args:
        length: of the picture's side.
        size: of the result's side.
        tile: what a tile looks at, at most; at least twice the overlap.
        margin: what a tile looks at and doesn't answer for, at each cut.
        seam: over how many pixels of the picture neighbours are blended.
        unit: tiles start at multiples of this.
    """
    if length <= tile:
        return (Span(0, length, 0, size),)
    overlap = -(-(2 * margin + seam) // unit) * unit
    tile = tile // unit * unit
    if tile < 2 * overlap:
        raise RcodError(f"tiles must measure {2 * overlap} pixels at least, got {tile}; take more")
    count = math.ceil((length - overlap) / (tile - overlap))
    stride = (length - overlap) / count
    starts = [unit * round(i * stride / unit) for i in range(count)]
    half = round(seam / 2 * size / length)
    cuts = [round((start + overlap / 2) * size / length) for start in starts[1:]]
    found: list[Span] = []
    for i, start in enumerate(starts):
        is_last = i == count - 1
        stop = length if is_last else starts[i + 1] + overlap
        first, rise = (cuts[i - 1] - half, 2 * half) if i else (0, 0)
        last, fall = (size, 0) if is_last else (cuts[i] + half, 2 * half)
        found.append(Span(start, stop, first, last, rise, fall))
    return tuple(found)


def merged(
    function: Callable[[Span, Span], Tensor], rows: Sequence[Span], columns: Sequence[Span]
) -> Iterator[tuple[Tensor, int, int]]:
    """Run a function on every tile and give pieces that, side by side, are the result.

    Args:
        function: (row, column) -> what the tile gives, (C, height, width); ours to change.
        rows: tiles along the height.
        columns: tiles along the width.

    Yields:
        A piece (C, h, w), its top and its left in the result; in reading order.
    """
    above: Tensor | None = None  # (C, rise, W) share of the tiles above in the seam
    for row in rows:
        below: Tensor | None = None
        beside = torch.empty(0)  # (C, h, rise) share of the tile before
        for column in columns:
            piece = function(row, column)
            if column.rise:
                ramp = _ramp(column.rise, piece)
                piece[..., : column.rise].mul_(ramp).add_(beside)
            if column.fall:
                beside = piece[..., -column.fall :] * (1 - _ramp(column.fall, piece))
                piece = piece[..., : -column.fall]
            left, right = column.first, column.first + piece.shape[-1]
            if row.rise:
                assert above is not None, "every row but the first has one above"
                ramp = _ramp(row.rise, piece)[:, None]
                piece[:, : row.rise].mul_(ramp).add_(above[..., left:right])
            if row.fall:
                if below is None:
                    below = piece.new_empty(len(piece), row.fall, columns[-1].last)
                share = 1 - _ramp(row.fall, piece)[:, None]
                below[..., left:right] = piece[:, -row.fall :] * share
                piece = piece[:, : -row.fall]
            yield piece, row.first, left
            del piece  # or it would stay while the next is made
        above = below


def _ramp(length: int, like: Tensor) -> Tensor:
    """Weights of the later tile in a seam, rising from 0 to 1."""
    return (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length


def tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int,
    overlap: int,
    scale: float = 1,
) -> Tensor:
    """Run a function tile by tile; one call when the image fits in a tile.

    Args:
        function: (B, C, h, w) -> (B, C2, h * scale, w * scale).
        x: the whole image, (B, C, H, W).
        tile: greatest side of a tile, in pixels of `x`.
        overlap: what neighbouring tiles share at least, in pixels of `x`.
        scale: a whole number, or one divided by it; then `tile`, H and W must be its multiples.

    Returns:
        The blended result, (B, C2, H * scale, W * scale), in the function's dtype.
    """
    height, width = x.shape[-2:]
    where = plan(height, width, tile, overlap)
    if len(where.corners) == 1:
        return function(x)
    _check_scale(where, scale)
    rows = _weights(where.tops, where.height, where.overlap, scale)  # of each row of tiles
    columns = _weights(where.lefts, where.width, where.overlap, scale)
    out, dtype = torch.empty(0), x.dtype
    for number, (top, left) in enumerate(where.corners):
        cut = x[..., top : top + where.height, left : left + where.width]
        piece = function(cut)  # (B, C2, h * scale, w * scale)
        if number == 0:
            dtype = piece.dtype
            shape = (*piece.shape[:2], round(height * scale), round(width * scale))
            out = torch.zeros(shape, dtype=torch.float32, device=piece.device)
        down = rows[number // len(where.lefts)].to(piece.device)  # (h * scale,)
        along = columns[number % len(where.lefts)].to(piece.device)  # (w * scale,)
        assert piece.shape[-2:] == (len(down), len(along)), (piece.shape, scale)
        y, z = round(top * scale), round(left * scale)
        target = out[..., y : y + len(down), z : z + len(along)]
        target += piece.float() * down[:, None] * along
    return out.to(dtype)


def _starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """First pixel of each tile along one side, from 0 to `length - tile`, evenly spread."""
    if tile == length:
        return (0,)
    unit = math.gcd(length, tile, PHASE)
    if math.ceil(overlap / unit) >= tile // unit:
        unit = 1  # coarse steps would make the overlap a whole tile
    span = (length - tile) // unit
    stride = tile // unit - math.ceil(overlap / unit)  # the furthest two tiles may lie apart
    last = math.ceil(span / stride)
    return tuple(unit * ((2 * i * span + last) // (2 * last)) for i in range(last + 1))


def _check_scale(where: Plan, scale: float) -> None:
    """Refuse cuts that would fall between two pixels of the result."""
    edges = (where.height, where.width, *where.tops, *where.lefts)
    if scale <= 0 or any(edge * scale != round(edge * scale) for edge in edges):
        raise RcodError(
            f"tiles must start and end on whole pixels of the result, got scale {scale} and "
            f"tiles of {where.height} x {where.width}; take sides that are multiples of 8"
        )


def _weights(starts: tuple[int, ...], tile: int, overlap: int, scale: float) -> list[Tensor]:
    """Weights of the tiles along one side, (tile * scale,) each; they add up to one everywhere.

    Both sides have their own, and the weight of a pixel is the product: so the sum over
    the grid of tiles is one too, and no second picture is needed to divide by.
    """
    size = round(tile * scale)
    window = _window(size, round(overlap * scale))  # (size,) float64
    total = torch.zeros(round((starts[-1] + tile) * scale), dtype=torch.float64)
    offsets = [round(start * scale) for start in starts]
    for offset in offsets:
        total[offset : offset + size] += window
    return [(window / total[offset : offset + size]).float() for offset in offsets]


def _window(size: int, overlap: int) -> Tensor:
    """One in the middle, falling over `overlap` pixels as half a Gaussian towards both ends."""
    inward = torch.arange(size, dtype=torch.float64).add_(0.5)  # distance from the first edge
    inside = (inward / max(overlap, 0.5)).clamp(max=1)  # 0 at the edge, 1 past the overlap
    ramp = torch.exp(-STEEPNESS * (1 - inside) ** 2)
    return ramp * ramp.flip(0)
