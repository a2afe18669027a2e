"""What is in the TIFFs that Pillow can't open, or misreads?

Of floating point colours, and of 16-bit colours that lie plane by plane, strips and tiles are
unpacked here, the predictor is undone, and values become planes. What the file carries besides
is found where Pillow looks for it. Other TIFFs are refused, or their values mended.

    file -> directory -> strip or tile -> bytes -> predictor undone -> floats -> planes (C, H, W)
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from torch import Tensor

from rcod.errors import RcodError

MAX_PIXELS = 40_000_000  # of a picture of floats, which is up to four times as large as others
MAX_BLOCK = 80_000_000  # bytes of a strip that Pillow unpacks
DEFLATED = (8, 32946)
KINDS = {16: "f2", 32: "f4", 64: "f8"}  # by bits
WHOLE = "u2"  # numbers that are no floats
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError,
          AttributeError, RuntimeError, struct.error, zlib.error)  # fmt: skip  # by Pillow


Refuse = Callable[[tuple[int, int]], None]  # raises what refuses a width and a height


class Floats(NamedTuple):
    """A decoded picture of floats, or of 16 bits plane by plane."""

    values: Tensor  # (1 or 3, H, W) float32 in [0, 1]
    alpha: Tensor | None  # (1, H, W) float32 in [0, 1]
    image: Image.Image  # one pixel with the file's tags
    several: bool  # whether other pages follow


class Block(NamedTuple):
    """A strip or a tile: where it lies in the file and in the picture."""

    start: int  # of its bytes
    size: int
    plane: int  # the first channel it holds
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """What the directory says about the pixels."""

    width: int
    height: int
    kind: str  # of numbers, as numpy names it
    channels: int
    apart: bool  # every channel lies in blocks of its own
    compression: int
    predictor: int
    extra: int | None  # kind of the channel that is no colour; 1 is alpha colours are times by
    order: str  # of bytes: < or >

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return int(self.kind[1])

    @property
    def together(self) -> int:
        """Channels that lie side by side."""
        return 1 if self.apart else self.channels


def read_floats(source: Path | bytes, name: str, refuse: Refuse) -> Floats | None:
    """Read a TIFF of float colours, of float grey with alpha, or of 16 bits plane by plane.

    None where it is none. Damage is any of Pillow's errors, for the caller to tell.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(8)
        if head[:4] not in MAGIC:
            return None
        if b"+" in head[:4]:
            head += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        offset = tags.next
        file.seek(offset)
        tags.load(file)
        layout = _layout(tags, ">" if head[:1] == b"M" else "<")
        if layout is None:
            return None
        refuse((layout.width, layout.height))
        if layout.width * layout.height > MAX_PIXELS:
            raise RcodError(
                f"{name}: a picture of floats or of planes must have at most "
                f"{MAX_PIXELS // 10**6} megapixels, got {layout.width} x {layout.height}; "
                "cut or shrink it first"
            )
        planes = torch.empty(layout.channels, layout.height, layout.width)
        for block in _blocks(tags, layout):
            _fill(planes, block, layout, file)
        image = _carrier(tags, file, offset, layout.order)
        return _split(planes, layout, image, bool(tags.next), name)


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


def check_tiff(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    """Refuse a TIFF that Pillow opens and would misread."""
    kind, bits = image.tag_v2.get(254), image.tag_v2.get(258)
    if isinstance(kind, int) and kind & 1:  # of a smaller version
        raise RcodError(f"{name}: must be a developed picture, got the preview that a camera's raw "
                        "file begins with; export the photo first")  # fmt: skip
    if image.mode == "I":
        raise RcodError(f"{name}: must have 8 or 16 bits per channel, got 32; convert it first")
    if image.tag_v2.get(284) == 2 and isinstance(bits, tuple) and 16 in bits:
        raise RcodError(f"{name}: must have its 16-bit {image.mode} channels side by side, "
                        "got each on its own; save it interleaved")  # fmt: skip


def as_meant(image: Image.Image, values: Tensor) -> Tensor:
    """Values (1, H, W) of more than 8 bits, of which Pillow minds neither range nor direction."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.mode.startswith("I"):
        return values
    if image.tag_v2.get(258) == (12,):
        values = (values * (65535 / 4095)).clamp_(max=1)
    return 1 - values if image.tag_v2.get(262) == 0 else values  # white is 0


def _layout(tags: TiffImagePlugin.ImageFileDirectory_v2, order: str) -> Layout | None:
    """The pixels' layout; None unless they are of several channels, of a kind read here."""
    bits, kinds = set(_several(tags, 258)), set(_several(tags, 339))
    channels, photometric = _one(tags, 277, 1), _one(tags, 262, 1)
    apart = _one(tags, 284, 1) == 2
    if len(bits) != 1 or not bits <= set(KINDS):
        return None
    kind = KINDS[bits.pop()]
    if apart and kind == "f2" and kinds <= {1}:
        kind = WHOLE
    elif kinds != {3}:
        return None
    colours = {1: 1, 2: 3}.get(photometric)
    if colours is None or channels not in (colours, colours + 1) or channels == 1:
        return None
    width, height = _one(tags, 256, 0), _one(tags, 257, 0)
    if width < 1 or height < 1:
        raise ValueError("a picture has pixels")
    return Layout(
        width, height, kind, channels, apart, _one(tags, 259, 1),
        _one(tags, 317, 1), None if channels == colours else _one(tags, 338, 0), order,
    )  # fmt: skip


def _blocks(tags: TiffImagePlugin.ImageFileDirectory_v2, layout: Layout) -> Iterator[Block]:
    """The strips or tiles, plane by plane, in reading order."""
    tiled = 324 in tags
    starts, sizes = (_several(tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
    wide = _one(tags, 322, 0) if tiled else layout.width
    high = _one(tags, 323, 0) if tiled else min(_one(tags, 278, layout.height), layout.height)
    if wide < 1 or high < 1:
        raise ValueError("a strip or a tile has pixels")
    down, across = -(-layout.height // high), -(-layout.width // wide)
    planes = layout.channels if layout.apart else 1
    if not len(starts) == len(sizes) == planes * down * across:
        raise ValueError("its strips or tiles are too few or too many")
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        plane, place = divmod(i, down * across)
        top, left = place // across * high, place % across * wide
        yield Block(start, size, plane, top, left,
                    high if tiled else min(high, layout.height - top), wide)  # fmt: skip


def _fill(planes: Tensor, block: Block, layout: Layout, file: BinaryIO) -> None:
    """Put one block's values where they belong."""
    line = block.width * layout.together * layout.size  # bytes
    if line * block.height > 4 * planes.nbytes + 2**24:  # a tile may stand over, within reason
        raise ValueError("a strip or a tile is larger than the picture")
    file.seek(block.start)
    packed = file.read(min(block.size, 2 * line * block.height + 2**16))
    raw = _unpacked(packed, layout.compression, line, block.height)
    values = _values(raw, layout)  # (h, w, c)
    rows = min(block.height, layout.height - block.top)
    columns = min(block.width, layout.width - block.left)
    part = torch.from_numpy(values[:rows, :columns].transpose(2, 0, 1))
    planes[block.plane : block.plane + layout.together, block.top : block.top + rows,
           block.left : block.left + columns] = part  # fmt: skip


def _unpacked(packed: bytes, compression: int, line: int, rows: int) -> np.ndarray:
    """The bytes of a block, (rows, line) uint8."""
    wanted = line * rows
    if compression == 1:
        data = packed
    elif compression in DEFLATED:
        data = zlib.decompressobj().decompress(packed, wanted)
    else:
        data = _by_pillow(packed, compression, line, rows)
    if len(data) < wanted:
        raise ValueError("a strip or a tile is too short")
    return np.frombuffer(data, np.uint8, wanted).reshape(rows, line)


def _by_pillow(packed: bytes, compression: int, line: int, rows: int) -> bytes:
    """Unpack by libtiff: the block becomes a grey TIFF of its own, a pixel for every byte."""
    if line * rows > MAX_BLOCK:
        raise ValueError(f"a strip of this compression has more than {MAX_BLOCK // 10**6} MB")
    entries = ((256, line), (257, rows), (258, 8), (259, compression), (262, 1), (273, 122),
               (277, 1), (278, rows), (279, len(packed)))  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    whole = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + packed
    with Image.open(io.BytesIO(whole), formats=["TIFF"]) as image:
        return image.tobytes()


def _values(raw: np.ndarray, layout: Layout) -> np.ndarray:
    """A block's numbers, (h, w, c) float32, its predictor undone."""
    rows, c, size, kind = len(raw), layout.together, layout.size, layout.kind
    if layout.predictor == 3:  # bytes less those of the pixel before, the highest of all first
        summed = np.cumsum(raw.reshape(rows, -1, c), axis=1, dtype=np.uint8)
        ordered = summed.reshape(rows, size, -1).transpose(0, 2, 1)
        found = np.ascontiguousarray(ordered).view(f">{kind}")
    elif layout.predictor == 2:  # as whole numbers, less the pixel before
        whole = raw.view(f"{layout.order}u{size}").reshape(rows, -1, c)
        native = np.cumsum(whole, axis=1, dtype=f"u{size}")
        found = native.view(kind)
    elif layout.predictor == 1:
        found = raw.view(f"{layout.order}{kind}")
    else:
        raise ValueError(f"predictor {layout.predictor} is unknown")
    with np.errstate(over="ignore"):  # infinity is refused with the rest
        values = found.reshape(rows, -1, c).astype(np.float32)
    return values / 65535 if kind == WHOLE else values


def _carrier(
    tags: TiffImagePlugin.ImageFileDirectory_v2, file: BinaryIO, offset: int, order: str
) -> Image.Image:
    """A picture of one pixel that carries the file's tags as Pillow's own do."""
    image = Image.new("L", (1, 1))
    image.format = "TIFF"
    exif = Image.Exif()
    exif.endian = order
    with contextlib.suppress(*DAMAGE):  # of the tags: not worth refusing the picture
        exif.load_from_fp(file, offset)
        image.info["exif"] = exif.tobytes()
    for tag, key in ((34675, "icc_profile"), (700, "xmp")):
        if isinstance(value := tags.get(tag), bytes):
            image.info[key] = value
    if 282 in tags and 283 in tags and (unit := _one(tags, 296, 2)) in (2, 3):
        image.info["dpi"] = tuple(float(tags[tag]) * (1, 2.54)[unit - 2] for tag in (282, 283))
    return image


def _split(planes: Tensor, layout: Layout, image: Image.Image, several: bool, name: str) -> Floats:
    """Colours and alpha, both what a picture is."""
    if layout.extra is None:
        return Floats(check_unit(planes, name), None, image, several)
    alpha = check_unit(planes[-1:].clone(), name)
    values = planes[:-1]
    if layout.extra == 1:
        values = values / alpha.clamp(min=1e-6)
        values[:, alpha[0] == 0] = 0
    return Floats(check_unit(values, name), alpha, image, several)


def _one(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    """A number of the directory."""
    found = _several(tags, tag)
    return found[0] if found else default


def _several(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    """Whole numbers of the directory; none where it holds something else."""
    found = tags.get(tag, ())
    numbers = found if isinstance(found, tuple) else (found,)
    return numbers if all(isinstance(number, int) for number in numbers) else ()
