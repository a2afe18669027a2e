"""Make the bundled example photos again from the public-domain originals.

    python tools/make_examples.py FOUND.txt [examples]

FOUND.txt lists the original photos' paths, one a line. Each example is a crop, reduced by area
averaging, then damaged as cheap cameras and web pages do: blur, sensor noise, JPEG.
"""

import argparse
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter


class Example(NamedTuple):
    """One bundled photo: where it comes from and what is done to it."""

    name: str
    original: str  # file name of the original photo
    sha256: str  # of the original file
    box: tuple[int, int, int, int]  # crop in the original: left, top, right, bottom
    size: tuple[int, int]  # width and height after reduction
    blur: float  # standard deviation, pixels after reduction
    noise: float  # standard deviation at mid grey, 0..255 units
    quality: int  # JPEG


EXAMPLES = (
    Example(
        "otter",
        "oakland-zoo-otters.jpg",
        "b7540dd5c076b5b30c37bb9b7c991789d2cd30a9fc6a3205c8896bb5f8b75dbc",
        (1120, 480, 2272, 1632),
        (160, 160),
        blur=0.6,
        noise=3.0,
        quality=75,
    ),
    Example(
        "heron",
        "pondering-heron.jxl",
        "f08942d8353aafb1d72144a2b6eb8dba2084726ad2ab7a5a6d558e38112833be",
        (1460, 540, 2516, 1596),
        (160, 160),
        blur=0.9,
        noise=1.5,
        quality=65,
    ),
    Example(
        "colosseum",
        "roman-colosseum.jpg",
        "3a085abab563afcdcfc3009fa126bbceb426921dd5bcdbb6f08fb0a601568030",
        (480, 500, 1856, 1704),
        (176, 154),
        blur=0.5,
        noise=4.0,
        quality=80,
    ),
)


def damage(photo: Image.Image, example: Example) -> Image.Image:
    """Crop, reduce, blur and add noise that grows with the square root of the light."""
    small = photo.crop(example.box).resize(example.size, Image.Resampling.BOX)
    blurred = np.asarray(small.filter(ImageFilter.GaussianBlur(example.blur)), np.float64)
    rng = np.random.default_rng(0)
    spread = example.noise * np.sqrt((blurred + 16) / 144)  # (H, W, 3)
    noisy = blurred + spread * rng.standard_normal(blurred.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def find_original(example: Example, listed: list[Path]) -> Path:
    """Find an example's original among the listed photos, by name and checksum."""
    for path in listed:
        if path.name != example.original:
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() == example.sha256:
            return path
    raise SystemExit(f"{example.original} is not in the list, or its checksum differs")


def main() -> None:
    """Write every example next to the others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("found", type=Path, help="list of the originals' paths, one a line")
    parser.add_argument("examples", type=Path, nargs="?", default=Path("examples"),
                        help="folder of the examples")  # fmt: skip
    options = parser.parse_args()
    if not options.found.is_file() or not options.examples.is_dir():
        parser.error("a file that lists the originals, and a folder, must be given")
    import pillow_jxl  # noqa: F401  one original is JPEG XL

    listed = [Path(line) for line in options.found.read_text().split("\n") if line]
    for example in EXAMPLES:
        with Image.open(find_original(example, listed)) as photo:
            result = damage(photo.convert("RGB"), example)
        path = options.examples / f"{example.name}.jpg"
        result.save(path, quality=example.quality)
        print(f"{path}: {result.width} x {result.height}, {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
