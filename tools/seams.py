"""How much does it matter where a photo was cut into tiles?

    python tools/seams.py examples/otter.jpg

Restores a photo whole and in tiles, at every level, and prints the differences in 8-bit steps.
"""

import sys

import torch

from rcod import restore
from rcod.images import Photo, read
from rcod.restore import Restorer

SIDE = 384  # LR pixels a side
TILE = 256  # latent pixels; the restorer's own tiles are larger, so its seams are rarer


def main() -> None:
    """Compare the two at the overlaps given, or at the restorer's own."""
    restorer = Restorer.load("tiny", dtype="float32")
    pixels = read(sys.argv[1]).pixels[None]  # (1, 3, h, w)
    up = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    photo = Photo(up[0])
    own = restore.OVERLAP
    for level in ("fidelity", "neutral", "realism"):
        restore.TILE, restore.OVERLAP = SIDE, 0
        whole = restorer(photo, level).photo.pixels
        for overlap in sorted({0, 16, 32, 64, own}):
            restore.TILE, restore.OVERLAP = TILE, overlap
            error = (restorer(photo, level).photo.pixels - whole).abs() * 255
            largest, mean = float(error.max()), float(error.mean())
            print(f"{level:8}  overlap {overlap:2}  largest {largest:6.3f}  mean {mean:.5f}")


if __name__ == "__main__":
    main()
