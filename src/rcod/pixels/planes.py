"""What is a decoded file, before anything is turned or converted?

file -> Planes: values (C, H, W) as stored, alpha, bits, and the opened picture with its tags
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from rcod.errors import RcodError

MAX_PIXELS = 80_000_000  # an 80 megapixel photo is 1 GB as float32; larger files are often traps
MORE = "has more than one {}; the first is taken and the others are left out"
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError,
          AttributeError, RuntimeError, struct.error, zlib.error)  # fmt: skip  # by Pillow

Refuse = Callable[[tuple[int, int]], None]  # raises what refuses a width and a height


@dataclass(frozen=True)
class Planes:
    """A decoded file: colours as stored, neither turned nor converted."""

    values: Tensor  # (1 or 3, H, W) float32 in [0, 1], in the file's own colour space
    mode: str  # L, RGB, or (still to be converted by a profile) CMYK, LAB with 8-bit `image`
    alpha: Tensor | None  # (1, H, W) float32 in [0, 1]
    bits: int  # 8 or 16 a channel
    image: Image.Image  # the file's tags; for CMYK and LAB the pixels as well
    notes: tuple[str, ...] = ()
    lossless: bool = False  # the file is a WebP of the kind that loses nothing


def check_unit(values: Tensor, name: str) -> Tensor:
    """Values that were floats, if they are what a picture is."""
    least, most = (float(x) for x in values.aminmax())  # NaN where any is
    if not -float("inf") < least <= most < float("inf"):
        raise RcodError(f"{name}: every pixel must be a number, got NaN or infinity; repair it")
    if least < -0.001 or most > 1.001:
        raise RcodError(
            f"{name}: a picture of floats must lie in [0, 1], got {least:.4g} to {most:.4g}; "
            "divide it first"
        )
    return values.clamp_(0, 1)


def stream(source: Path | bytes) -> BinaryIO:
    """A file or its bytes, to read."""
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
