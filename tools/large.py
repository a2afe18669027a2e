"""How do memory and time grow with the size of a result?

    python tools/large.py examples/otter.jpg 4 16 64

Enlarges the photo, stretched so that the result has so many megapixels, by the command line in a
process of its own, and prints its peak memory and seconds: with the start of the process, and
without it, less the seconds of the same command for a photo of 16 x 16. Every size takes its turn
three times, and the fastest turn counts: what slows one down is the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

import rcod

SOURCE = Path(rcod.__file__).parents[1]


def main() -> None:
    """Print one line a size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photo", type=Path, help="what is enlarged")
    parser.add_argument("sizes", type=float, nargs="*", default=[4.0, 16.0, 64.0],
                        help="megapixels of the results")  # fmt: skip
    options = parser.parse_args()
    given, sizes = options.photo, options.sizes
    if not given.is_file() or min(sizes) * 2**20 < 16:
        parser.error(f"a photo and sizes of a pixel or more must be given, got {given} {sizes}")
    first: dict[str, float] = {}
    turns = [[measure(given, size) for size in (64 * 64 / 2**20, *sizes)] for _ in range(3)]
    least = [min(turn, key=lambda found: found["seconds"]) for turn in zip(*turns, strict=True)]
    start = least[0]["seconds"]
    for found in least[1:]:
        first = first or found
        grown = (found["peak_mb"] - first["peak_mb"]) * 1e6
        room = 1.2 * 3 * (found["pixels"] - first["pixels"])  # the picture and a fifth
        found["start"] = start
        found["seconds_per_megapixel_after_start"] = round(
            (found["seconds"] - start) / found["megapixels"], 3
        )
        found["grown_by"] = round(grown / room, 3) if room else 0.0
        print(json.dumps(found))


def measure(given: Path, megapixels: float) -> dict[str, float]:
    """One size: pixels of the result, peak memory in MB, seconds, seconds a megapixel."""
    side = round((megapixels * 2**20) ** 0.5) // 4
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        with Image.open(given) as image:
            image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(photo)
        command = [sys.executable, "-m", "rcod", "upscale", str(photo), "-o", f"{folder}/out"]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"the command failed with {process.returncode}")
    peak = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
    return {
        "megapixels": round(16 * side * side / 2**20, 4), "pixels": 16 * side * side,
        "peak_mb": round(peak, 1), "seconds": round(seconds, 2),
        "seconds_per_megapixel": round(seconds / (16 * side * side / 2**20), 3),
    }  # fmt: skip


if __name__ == "__main__":
    main()
