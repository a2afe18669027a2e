"""How far is every engine's picture from PyTorch's, on photos and at all levels?

python tools/engines.py PHOTO... [--side 64] [--engines openvino,onnx] [--dtype float32]
"""

import argparse
import time
from pathlib import Path

import torch

from rcod.diffusion.grouping import LEVELS
from rcod.pixels.images import read
from rcod.using.restore import Dial, Restorer


def main() -> None:
    """Print the greatest difference at any pixel, and how many pixels differ by more than one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=64, help="of the middle that is cut from each")
    parser.add_argument("--engines", default="openvino,onnx")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    photos = [middle(read(path).pixels, given.side) for path in given.photos]
    plain = Restorer.load("tiny", "cpu", given.dtype, engine="torch")
    for name in given.engines.split(","):
        dtype = "float32" if name == "onnx" else given.dtype
        started = time.perf_counter()
        other = Restorer.load("tiny", "cpu", dtype, engine=name)
        loaded = time.perf_counter() - started
        levels: list[Dial] = [*LEVELS.values(), "auto"]
        for level in levels:
            apart = torch.stack([
                (plain(photo, level).photo.pixels - other(photo, level).photo.pixels).abs()
                for photo in photos
            ])  # fmt: skip
            print(
                f"{name} {dtype} against torch {given.dtype}, {level}: {len(photos)} photos, at "
                f"most {255 * float(apart.max()):.1e}/255, mean {255 * float(apart.mean()):.1e}, "
                f"further than 1/255: {float((apart > 1 / 255).float().mean()):.2e}; "
                f"loaded in {loaded:.1f} s"
            )


def middle(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """The middle of a photo, (3, side, side)."""
    top, left = ((length - side) // 2 for length in pixels.shape[-2:])
    return pixels[:, top : top + side, left : left + side].contiguous()


if __name__ == "__main__":
    main()
