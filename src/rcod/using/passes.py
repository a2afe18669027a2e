"""How does a photo of any size pass through the network at one place of the dial?

In tiles. A tile looks further than it answers for; what it gives is brought to the result's
size and blended with its neighbours over a narrow seam. What a tile can't know is settled
for the whole photo before: the tokens, the place of the dial, the spread of the colours.

    tile -> resize x4 -> z_up -> one UNet call a level -> decode -> colour -> size -> pieces
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.device import await_gpus, trim_memory
from rcod.diffusion.dial import shares
from rcod.networks.framing import BORDER, continued, cut
from rcod.networks.onestep import OneStep, enlarge
from rcod.networks.systems import System
from rcod.pixels.color import ColorFix, Tally, match_color
from rcod.pixels.images import Photo
from rcod.pixels.resample import reach, resize, resize_part, taps
from rcod.pixels.tiling import PHASE, Span, merged, spans
from rcod.using.spool import levelled

Watch = Callable[[float], None]  # told the share that is done; may raise to end the work

TILE = 536  # LR pixels a side that the network looks at; a result of 2048 x 2048 is one tile
MARGIN, SEAM = 12, 8  # LR pixels that a tile looks further than it answers for; and are blended
TOKENS = 224  # pixels a side that image towers look at
STRIP = 2**20  # pixels of the enlarged photo that the towers' view is made of at once


class Seen(NamedTuple):
    """What a photo's levels share; `up` and `z_up` are empty where it goes in tiles."""

    up: Tensor  # (1, 3, 4h, 4w) enlarged photo; of published systems as they frame it
    z_up: Tensor  # its latent, (1, C, h, w) of tiny, (1, 4, h/2, w/2) on Stable Diffusion
    tokens: Tensor  # (1, N, D)
    metric: float | None
    seconds: dict[str, float]
    onestep: OneStep | None = None  # where the networks themselves were tuned to the photo


@dataclass(frozen=True)
class Flow:
    """A result that is being made: what is known of it, and its pieces in reading order."""

    size: tuple[int, int]  # height and width
    level: str
    realism: float
    timestep: int
    metric: float | None
    auto: bool
    seconds: dict[str, float]  # grows while the pieces come
    pieces: Iterator[tuple[Photo, int, int]]  # with top and left


class Grid(NamedTuple):
    """The tiles of a photo."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def tiles(self) -> int:
        """How many there are."""
        return len(self.rows) * len(self.columns)

    @property
    def area(self) -> int:
        """LR pixels that are looked at, the same one several times where tiles overlap."""
        height = sum(span.stop - span.start for span in self.rows)
        return height * sum(span.stop - span.start for span in self.columns)

    @property
    def largest(self) -> int:
        """LR pixels of the largest tile, the photo continued on both sides."""
        height, width = (
            max(span.stop - span.start for span in sides) + 2 * BORDER
            for sides in (self.rows, self.columns)
        )
        return height * width


def grid(
    photo: tuple[int, int], size: tuple[int, int], tile: int, system: System, factor: int
) -> Grid:
    """Where the tiles lie.

    Args:
        photo: height and width of the photo.
        size: height and width of the result.
        tile: greatest side of a tile, LR pixels.
        system: knows the enlargement.
        factor: pixels a side of a latent.
    """
    unit = PHASE * factor // system.scale
    margin = MARGIN + max(reach(s, system.scale * p) for s, p in zip(size, photo, strict=True)) // 4
    rows, columns = (
        spans(p, s, tile, margin, SEAM, unit) for p, s in zip(photo, size, strict=True)
    )
    return Grid(rows, columns)


@dataclass(frozen=True)
class Order:
    """One photo at one place of the dial: what a pass is given."""

    system: System
    onestep: OneStep  # a published system's is tuned to the photo
    photo: Photo
    seen: Seen
    place: int | Tensor  # a timestep, or a map (1, h, w) of places on the dial
    size: tuple[int, int]  # height and width of the result
    color: ColorFix
    tile: int
    seconds: dict[str, float]
    watch: Watch


@dataclass(frozen=True)
class Pass(Order):
    """An order filled piece by piece."""

    def pieces(self) -> Iterator[tuple[Photo, int, int]]:
        """The result's pieces with their top and left, in reading order."""
        lr = self._lr_size
        tiles = grid(lr, self.size, self.tile, self.system, self.onestep.backbone.factor)
        done = count(1)
        tallies = (Tally(), Tally()) if self.color == "adain" and tiles.tiles > 1 else None

        @torch.no_grad()  # not around the generator: its wrapper would keep the last piece
        def made(row: Span, column: Span) -> Tensor:
            sr, up = self._restored(row, column)
            with clock(self.seconds, "color"):
                if tallies is None:
                    sr = self._matched(sr, up)
                else:
                    sr = sr.clamp(0, 1)
                    for tally, picture in zip(tallies, (sr, up), strict=True):
                        tally.add(self._own(picture, row, column))
                sr = self._sized(sr, row, column)
            self.watch(next(done) / tiles.tiles)
            return sr.cpu() if tallies else sr.clamp_(0, 1).cpu()

        made_pieces = merged(made, *tiles)
        for piece, top, left in made_pieces if tallies is None else levelled(made_pieces, *tallies):
            yield self._photo(piece, top, left), top, left
            del piece  # or it would stay while the next is made
            self._rest()

    @property
    def _lr_size(self) -> tuple[int, int]:
        height, width = self.photo.pixels.shape[-2:]
        return height, width

    def _restored(self, row: Span, column: Span) -> tuple[Tensor, Tensor]:
        """A tile before its colours are matched, and enlarged only, (1, 3, 4h, 4w) each."""
        up, z_up = self.seen.up, self.seen.z_up
        if not z_up.numel():
            cut = self.photo.pixels[None, :, row.start : row.stop, column.start : column.stop]
            with clock(self.seconds, "encode"):
                up = enlarge(cut.to(self.seen.tokens.device), self.system.scale)
                z_up = self.onestep.backbone.encode(up)
                self._rest()
        if not isinstance(self.place, Tensor):
            return self._level(z_up, self.place, row, column), up
        places = self.place[:, row.start : row.stop, column.start : column.stop]
        places = F.interpolate(  # (1, 1, 4h, 4w)
            places[None].to(up.device), up.shape[-2:], mode="bilinear", align_corners=False
        )
        sr = torch.zeros_like(up)
        for t, weight in shares(places, self.system.groups):
            sr += weight * self._level(z_up, t, row, column).clamp(0, 1)
        return sr, up

    def _level(self, z_up: Tensor, t: int, row: Span, column: Span) -> Tensor:
        """A tile's picture of one timestep, (1, C, h, w) -> (1, 3, 4h, 4w)."""
        height, width = self._lr_size
        borders = (column.start == 0, column.stop == width, row.start == 0, row.stop == height)
        sides = [BORDER * ends for ends in borders]
        factor = self.onestep.backbone.factor
        with clock(self.seconds, "predict"):
            timestep = torch.tensor([t], device=z_up.device)
            z_sr = self.onestep.clean(continued(z_up, sides), timestep, self.seen.tokens)
            self._rest()
        with clock(self.seconds, "decode"):
            sr = self.onestep.backbone.decode(z_sr)
            self._rest()
            return cut(sr, [factor * side for side in sides])

    def _rest(self) -> None:
        """Between stages of one tile of several: what one has freed is not the next one's."""
        if not self.seen.z_up.numel():
            trim_memory()

    def _matched(self, sr: Tensor, up: Tensor) -> Tensor:
        """The result in the photo's colours."""
        if self.color == "none":
            return sr
        return match_color(sr.clamp_(0, 1), up, self.color)

    def _own(self, picture: Tensor, row: Span, column: Span) -> Tensor:
        """What a tile (1, C, 4h, 4w) alone answers for, from the middle of seam to seam."""
        cuts: list[slice] = []
        for span, size, side in zip((row, column), self.size, self._lr_size, strict=True):
            share = side * self.system.scale / size
            first, last = (span.first + span.rise / 2) * share, (span.last - span.fall / 2) * share
            start = span.start * self.system.scale
            cuts.append(slice(round(first) - start, round(last) - start))
        return picture[0, :, cuts[0], cuts[1]]

    def _sized(self, sr: Tensor, row: Span, column: Span) -> Tensor:
        """What of a tile belongs to the result, at its size; (3, h, w)."""
        scale = self.system.scale
        height, width = self._lr_size
        return resize_part(
            sr[0], self.size, (height * scale, width * scale),
            (row.start * scale, column.start * scale),
            (row.first, row.last), (column.first, column.last),
        )  # fmt: skip

    def _photo(self, pixels: Tensor, top: int, left: int) -> Photo:
        """A piece with its part of what goes along with the colours."""
        rows, columns = (top, top + pixels.shape[-2]), (left, left + pixels.shape[-1])
        alpha, beyond = (
            None if plane is None else part_of(plane, self.size, rows, columns)
            for plane in (self.photo.alpha, self.photo.beyond)
        )
        alpha = None if alpha is None else alpha.clamp(0, 1)
        return replace(self.photo, pixels=pixels, alpha=alpha, beyond=beyond)


def finished(photo: Photo, sr: Tensor, size: tuple[int, int]) -> Photo:
    """The result with what the input carried: alpha enlarged, profile, tags and notes kept."""
    alpha, beyond = (
        None if plane is None else resize(plane, size) for plane in (photo.alpha, photo.beyond)
    )
    alpha = None if alpha is None else alpha.clamp(0, 1)  # (1, H, W)
    return replace(photo, pixels=sr, alpha=alpha, beyond=beyond)


def reduced(photo: Photo, size: tuple[int, int]) -> Photo:
    """The photo itself, or at the result's size where that is smaller: less is to be restored."""
    if size[0] >= photo.pixels.shape[-2] and size[1] >= photo.pixels.shape[-1]:
        return photo
    return finished(photo, resize(photo.pixels, size).clamp(0, 1), size)


def part_of(
    plane: Tensor, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Some rows and columns of a resized plane (C, H, W), without resizing all of it."""
    whole = plane.shape[-2], plane.shape[-1]
    window: list[slice] = []
    for (first, last), length, side in zip((rows, columns), size, whole, strict=True):
        far = reach(length, side)
        start, stop = first * side // length - far, -(-last * side // length) + far
        window.append(slice(max(start, 0), min(stop, side)))
    corner = window[0].start, window[1].start
    return resize_part(plane[:, window[0], window[1]], size, whole, corner, rows, columns)


def shrunk(lr: Tensor, scale: int) -> Tensor:
    """The enlarged photo as image towers see it, (1, 3, 224, 224), made strip by strip."""
    height, width = lr.shape[-2:]
    place, weight = taps(TOKENS, height * scale, (0, TOKENS), cubic=False)
    out = lr.new_zeros(1, 3, TOKENS, TOKENS)
    step = max(1, STRIP // (scale * scale * width))
    for top in range(0, height, step):
        before, after = max(top - 2, 0), min(top + step + 2, height)
        up = enlarge(lr[..., before:after, :], scale)
        first, last = top * scale, min(top + step, height) * scale
        up = up[..., first - before * scale : last - before * scale, :]
        across = F.interpolate(
            up, (last - first, TOKENS), mode="bilinear", align_corners=False, antialias=True
        )
        inside = (place >= first) & (place < last)
        down = torch.zeros(TOKENS, last - first)
        down.scatter_add_(1, (place - first).clamp(0, last - first - 1), weight * inside)
        out += down.to(lr.device) @ across
    return out


@contextmanager
def clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add a stage's seconds; a GPU, whose calls return before their work is done, is awaited."""
    start = time.perf_counter()
    yield
    await_gpus()
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
