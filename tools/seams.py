"""How much does it matter where a photo was cut into tiles?

    python tools/seams.py examples/*.jpg

Restores up to twelve pieces of odd shape, of each photo one to four, whole and in tiles of five
sizes, at realism, in bfloat16 and in float32, and prints the differences in 8-bit steps; then one
piece in float32 with other margins than our own.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.images import Photo, read
from rcod.pixels.resample import resize
from rcod.using import passes
from rcod.using.restore import Restorer

SHAPE = (233, 301)  # LR pixels of a piece: odd, and more than one tile in both directions
TILES = (128, 136, 160, 192, 224)
MARGINS = (0, 2, 4, 6, 8, 12, 16)


def main() -> None:
    """Print a line for every size of tiles in both precisions, and for every margin."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="+", help="files")
    photos = parser.parse_args().photos
    each = max(1, 12 // len(photos))
    try:
        cut = [piece for photo in photos for piece in islice(pieces(photo), each)]
    except RcodError as error:
        parser.error(str(error))
    for dtype in ("bfloat16", "float32"):
        restorer = Restorer.load("tiny", dtype=dtype)
        whole = [restorer(piece, 1.0).photo.pixels for piece in cut]
        for tile in TILES:
            largest, mean = compare(restorer.with_tile(tile), cut, whole)
            print(f"{dtype:8}  tile {tile:3}  pieces {len(cut):2}  largest {largest:6.3f}  "
                  f"mean {mean:.5f}")  # fmt: skip
    own = passes.MARGIN
    for margin in MARGINS:
        passes.MARGIN = margin
        largest, mean = compare(restorer.with_tile(TILES[0]), cut[:1], whole[:1])
        print(f"margin {margin:2}  largest {largest:6.3f}  mean {mean:.5f}")
    passes.MARGIN = own


def pieces(path: Path) -> Iterator[Photo]:
    """Four pieces of a photo, one at each corner; a small photo is enlarged first."""
    pixels = read(path).pixels  # (3, h, w)
    height, width = pixels.shape[-2:]
    factor = max(1.2 * SHAPE[0] / height, 1.2 * SHAPE[1] / width, 1.0)
    pixels = resize(pixels, (round(factor * height), round(factor * width))).clamp(0, 1)
    for rows in (slice(SHAPE[0]), slice(-SHAPE[0], None)):
        for columns in (slice(SHAPE[1]), slice(-SHAPE[1], None)):
            yield Photo(pixels[:, rows, columns].contiguous())


def compare(restorer: Restorer, cut: list[Photo], whole: list[Tensor]) -> tuple[float, float]:
    """Largest and mean difference over all pieces."""
    errors = [
        (restorer(piece, 1.0).photo.pixels - alone).abs() * 255
        for piece, alone in zip(cut, whole, strict=True)
    ]
    return float(max(e.max() for e in errors)), float(
        torch.stack([e.mean() for e in errors]).mean()
    )


if __name__ == "__main__":
    main()
