"""What will a photo take, before it is begun: how many tiles, how much memory, how long?

Memory is counted, by what is alive at once for every pixel of the largest tile; seconds are
measured, on a tile small enough to be done at once. A budget of memory is kept by taking tiles
that are no larger than it allows.

    photo's size, result's size, tile -> Grid -> peak memory, seconds
    budget -> the largest tile whose peak stays below it
"""

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from rcod.errors import RcodError
from rcod.pixels.images import DEEP, ENCODERS, Photo
from rcod.pixels.tiling import Plan, plan
from rcod.using.passes import Grid, grid
from rcod.using.published_pass import latent_side
from rcod.using.restore import LEAST_TILE, Restorer

PROCESS = 330e6  # bytes of Python, PyTorch and the tiny model, where they can't be asked for
WARM = 40e6  # bytes that libraries take when they work for the first time
APPETITE = {4: (700, 158)}  # bytes a LR pixel of a tile, and a byte of precision, beside layers
HOSTED = (340_000, 100)  # bytes a latent pixel of a tile, and a pixel of the enlarged photo
SAMPLE = 96  # LR pixels a side of the tile that is timed
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Forecast:
    """What one result takes."""

    size: tuple[int, int]  # height and width of the result
    tile: int  # greatest side of a tile, LR pixels
    tiles: int
    passes: int  # UNet calls
    peak: float  # bytes
    seconds: float | None = None


def parse_memory(text: str) -> int:
    """Bytes of a size such as 4GB, 800 MB or 2000000000."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if found is None or float(found[1]) <= 0 or (not found[2] and float(found[1]) < 1e6):
        raise RcodError(f"memory must be a size such as 4GB or 800MB, got '{text}'")
    return int(float(found[1]) * UNITS[found[2]])


def foresee(
    restorer: Restorer, photo: Photo, size: tuple[int, int], suffix: str, levels: int, tile: int
) -> Forecast:
    """What a result takes in tiles of a given side.

    Args:
        restorer: the networks.
        photo: what will be enlarged.
        size: height and width of the result.
        suffix: names the format of its file.
        levels: results of this photo, or levels that its map blends.
        tile: greatest side of a tile, LR pixels.
    """
    if restorer.system.base is not None:
        return _foresee_hosted(restorer, photo, size, levels, tile)
    height, width = photo.pixels.shape[-2:]
    factor = restorer.onestep.backbone.factor
    where = grid((height, width), size, tile, restorer.system, factor)
    encoder = ENCODERS[suffix.lower()]
    channels = (1 if photo.grey else 3) + (photo.alpha is not None)
    if encoder in DEEP:  # rows of one row of tiles
        rows = max(span.last - span.first for span in where.rows)
        file = 2 * rows * size[1] * channels * photo.bits // 8
    else:  # all of it as Pillow keeps it, and as it leaves
        file = (20 if photo.lossless and encoder == "WEBP" else 5) * size[0] * size[1]
    planes = 3 + (photo.alpha is not None) + 3 * (photo.beyond is not None)
    own = 4 * planes * height * width
    pixels, values = APPETITE[factor]  # tiny's is measured
    wide, half = restorer.system.model.widths
    values += 2 * wide + 2 * half // 4  # a layer's input and result, and the same at half the sides
    precision = next(restorer.onestep.parameters()).element_size()  # of the first, the UNet's
    tile_bytes = (pixels + values * precision) * where.largest + 12 * _result_share(where)
    peak = _process() + own + file + tile_bytes
    return Forecast(size, tile, where.tiles, where.tiles * levels, peak)


def _foresee_hosted(
    restorer: Restorer, photo: Photo, size: tuple[int, int], levels: int, tile: int
) -> Forecast:
    """The same for published systems: stage after stage over the whole enlarged photo."""
    where, factor = _latent_tiles(restorer, photo, tile), restorer.onestep.backbone.factor
    latents = (where.tops[-1] + where.height) * (where.lefts[-1] + where.width)
    each, whole = HOSTED
    tiles = len(where.corners)
    peak = _process() + each * where.height * where.width + whole * latents * factor**2
    return Forecast(size, tile, tiles, tiles * levels, peak + 17 * size[0] * size[1])


def _latent_tiles(restorer: Restorer, photo: Photo, tile: int) -> Plan:
    """How a published system cuts the latent of a photo for its UNet."""
    system, factor = restorer.system, restorer.onestep.backbone.factor
    sides = [system.scale * max(side, system.least) for side in photo.pixels.shape[-2:]]
    height, width = (math.ceil(side / factor) for side in sides)
    side = latent_side(tile)
    return plan(height, width, side, side // 3)


def keep_to(
    budget: int | None, restorer: Restorer, photo: Photo, size: tuple[int, int], suffix: str
) -> Restorer:
    """The restorer in the largest tiles that keep to a budget of bytes, where there is one.

    Published systems hold a whole photo on a processor: there what is free is the budget, since
    Linux ends a process that takes more.
    """
    hosted = restorer.system.base is not None and restorer.onestep.alphas.device.type == "cpu"
    if budget is None and hosted and (free := free_memory()) is not None:
        budget = int(_process() + free)
    if budget is None:
        return restorer
    tile = restorer.tile
    least = foresee(restorer, photo, size, suffix, 1, LEAST_TILE).peak
    if least > budget:
        raise RcodError(
            f"memory must be at least {least / 1e9:.2f} GB a process for this photo, "
            f"{_process() / 1e9:.2f} of them for rcod itself, got {budget / 1e9:.2f} GB; allow "
            "more, or ask for fewer --workers, a smaller result or png"
        )
    while foresee(restorer, photo, size, suffix, 1, tile).peak > budget and tile > LEAST_TILE:
        tile = max(tile - 32, LEAST_TILE)
    return restorer if tile == restorer.tile else restorer.with_tile(tile)


def seconds_of(restorer: Restorer, photo: Photo, size: tuple[int, int], levels: int) -> float:
    """How long a result takes, by the time of a small tile of the same photo."""
    height, width = photo.pixels.shape[-2:]
    side = min(SAMPLE, height), min(SAMPLE, width)
    sample = Photo(photo.pixels[:, : side[0], : side[1]].contiguous())
    if restorer.system.base is not None:
        started = time.perf_counter()
        restorer(sample, scale=float(restorer.system.scale))  # slow enough to need no second one
        small, large = (_latent_tiles(restorer, one, restorer.tile) for one in (sample, photo))
        areas = [len(one.corners) * one.height * one.width for one in (small, large)]
        return (time.perf_counter() - started) * areas[1] / areas[0] * levels
    seen = restorer.look(sample, True)
    restorer.finish(sample, seen, 0.5, 4.0, "wavelet")  # the first call warms up
    started = time.perf_counter()
    restorer.finish(sample, seen, 0.5, 4.0, "wavelet")
    each = (time.perf_counter() - started) / (side[0] * side[1])
    factor = restorer.onestep.backbone.factor
    where = grid((height, width), size, restorer.tile, restorer.system, factor)
    return each * where.area * levels + seen.seconds.get("metric", 0.0)


def _result_share(where: Grid) -> int:
    """Pixels of the result that the largest tile gives."""
    height = max(span.last - span.first for span in where.rows)
    return height * max(span.last - span.first for span in where.columns)


def free_memory() -> int | None:
    """Bytes that this machine can still give to a process, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])


def _process() -> float:
    """Bytes that this process has in memory once it works, networks included."""
    status = Path("/proc/self/statm")
    if not status.is_file() or torch.cuda.is_available():
        return PROCESS + WARM
    import resource

    return int(status.read_text().split()[1]) * resource.getpagesize() + WARM
