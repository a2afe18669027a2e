"""How much does it matter where a photo was cut into tiles?

    python tools/seams.py examples/otter.jpg

Restores a photo whole and in tiles, at every level, and prints the differences in 8-bit steps.
"""

import sys

import torch

from rcod import passes
from rcod.images import Photo, read
from rcod.restore import Restorer

SIDE = 384  # LR pixels a side
TILE = 256  # the restorer's own are larger, so its seams are rarer


def main() -> None:
    """Compare the two with tiles that look further and further than they answer for."""
    restorer = Restorer.load("tiny", dtype="float32")
    pixels = read(sys.argv[1]).pixels[None]  # (1, 3, h, w)
    up = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    photo = Photo(up[0])
    own = passes.MARGIN
    for level in ("fidelity", "neutral", "realism"):
        whole = restorer(photo, level).photo.pixels
        for margin in sorted({0, 4, 8, 32, own}):
            passes.MARGIN = margin
            error = (restorer.with_tile(TILE)(photo, level).photo.pixels - whole).abs() * 255
            largest, mean = float(error.max()), float(error.mean())
            print(f"{level:8}  margin {margin:2}  largest {largest:6.3f}  mean {mean:.5f}")


if __name__ == "__main__":
    main()
