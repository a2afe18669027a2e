"""Does a folder survive damaged files and being killed?

    python tools/endure.py fuzz 1000
    python tools/endure.py kill 200 20

`fuzz` mutates files of every format by a seed and enlarges them as one folder: no traceback, no
file that takes over 10 s, no memory over 3 GB, one sentence naming the file for every failure.
`kill` ends a folder's run so many times at random moments, starts it again each time, and
compares the results with those of an unbroken run, byte for byte.
"""

import argparse
import importlib
import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import rcod

ROOT = Path(__file__).parents[1]
SOURCE = Path(rcod.__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_tiff import make_tiff, picture  # noqa: E402

KINDS = ("png", "jpg", "webp", "tif", "bmp", "gif", "avif", "jp2", "tga", "ppm", "heic", "jxl",
         "ink.jpg", "lzw.tif", "float.tif", "deep.png")  # fmt: skip


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("fuzz", "kill"), help="damage files, or kill runs")
    parser.add_argument("count", type=int, nargs="?", help="of files (1000) or of photos (200)")
    parser.add_argument("times", type=int, nargs="?", help="to kill a run (20)")
    options = parser.parse_args()
    if options.what == "fuzz" and options.times is not None:
        parser.error("fuzz takes one number, of files")
    counts = [number for number in (options.count, options.times) if number is not None]
    if any(number < 1 for number in counts):
        parser.error("numbers must be 1 or more")
    print(json.dumps(fuzz(*counts) if options.what == "fuzz" else kill(*counts)))


def fuzz(count: int = 1000) -> dict[str, float]:
    """Enlarge mutated files as one folder."""
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "photos", Path(place) / "out"
        folder.mkdir()
        for i, (kind, content) in zip(range(count), mutants(random.Random(0)), strict=False):
            (folder / f"{i:04}.{kind}").write_bytes(content)
        command = [sys.executable, "-m", "rcod", "upscale", str(folder), "-o", str(out),
                   "--max-side", "64", "--realism", "fidelity"]  # fmt: skip
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)  # fmt: skip
        assert process.stdout is not None
        longest, last, lines = 0.0, time.monotonic(), list[str]()
        for line in process.stdout:
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            lines.append(line)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors = [line for line in lines if line.startswith("error: ")]
        named = sum(str(folder) in line for line in errors)
        report = json.loads((out / "report.json").read_text())["summary"]
        outside = sorted(p.name for p in Path(place).iterdir())
        return report | {
            "exit": process.returncode, "tracebacks": sum("Traceback" in line for line in lines),
            "errors": len(errors), "errors_that_name_their_file": named,
            "longest_seconds": round(longest, 2), "peak_mb": round(used.ru_maxrss / 1024, 1),
            "outside": len(set(outside) - {"photos", "out"}),
        }  # fmt: skip


def mutants(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Endless files: whole ones with bytes changed, cut, doubled, or numbers made huge."""
    seeds = {kind: whole(kind) for kind in KINDS}
    while True:
        for kind, content in seeds.items():
            data = bytearray(content)
            for _ in range(rng.choice((1, 1, 3, 10, 50))):
                at = rng.randrange(max(1, len(data) if rng.random() < 0.5 else min(64, len(data))))
                way = rng.randrange(5) if len(data) > 64 else 3
                if way == 0:
                    data[at] = rng.randrange(256)
                elif way == 1:
                    data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff"))
                elif way == 2:
                    del data[rng.randrange(len(data) // 2, len(data)) :]
                elif way == 3:
                    data[at:at] = data[: rng.randrange(64)]
                else:
                    data[at : at + 8] = rng.randbytes(8)
            yield kind, bytes(data)


def whole(kind: str) -> bytes:
    """A small picture of some kind, with tags."""
    if kind == "heic":
        return (ROOT / "tests" / "two.heic").read_bytes()
    if kind == "float.tif":
        return make_tiff(picture(4).astype(np.float32), compression=8, predictor=3, tile=16)
    if kind == "jxl" and importlib.util.find_spec("pillow_jxl") is not None:
        importlib.import_module("pillow_jxl")  # registers the format
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    suffix = kind.rpartition(".")[2]
    options: dict[str, object] = (
        {"exif": exif} if suffix not in ("bmp", "gif", "tga", "ppm", "jp2", "jxl") else {}
    )
    if kind == "gif":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    if kind == "lzw.tif":
        options = {"compression": "tiff_lzw", "save_all": True, "append_images": [image]}
    if kind == "deep.png":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    if kind == "ink.jpg":
        image = image.convert("CMYK")
    encoder = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix)
    image.save(file := io.BytesIO(), encoder, **options)
    return file.getvalue()


def kill(photos: int = 200, times: int = 20) -> dict[str, float]:
    """Kill a run again and again."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        for i in range(photos):
            values = np.random.default_rng(i).integers(0, 256, (16, 24, 3)).astype(np.uint8)
            Image.fromarray(values).save(folder / f"{i:03}.png")
        run(folder, Path(place) / "whole").wait()
        broken, killed = Path(place) / "broken", 0
        for left in range(times, 0, -1):
            done = len(list(broken.glob("*.png")))
            process = run(folder, broken)
            enough = done + rng.random() * (photos - done) / (left + 1)
            while process.poll() is None and len(list(broken.glob("*.png"))) < enough:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)  # anywhere in the next one
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            process.wait()
        run(folder, broken).wait()
        one, other = contents(Path(place) / "whole"), contents(broken)
        return {"killed": killed, "pictures": len(one), "same": int(one == other)}


def run(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """Begin to enlarge a folder."""
    command = [sys.executable, "-m", "rcod", "upscale", str(folder), "-o", str(out)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)


def environment() -> dict[str, str]:
    """Where the package is."""
    return os.environ | {"PYTHONPATH": str(SOURCE)}


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the report, hidden ones included."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "report.json"}


if __name__ == "__main__":
    main()
