"""What is in the TIFFs that Pillow can't open, or misreads?

Of floats, of channels that lie plane by plane, and of grey as few write it, strips and tiles are
unpacked here, the predictor is undone, and values become planes. What the file carries besides
is found where Pillow looks for it. Other TIFFs are refused, or their values mended.

    file -> directory -> strip or tile -> bytes -> predictor undone -> floats -> planes (C, H, W)
"""

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from torch import Tensor

from rcod.errors import RcodError, TooLarge
from rcod.pixels.planes import DAMAGE, MAX_PIXELS, MORE, Planes, Refuse, check_unit, stream

MAX_BLOCK = 80_000_000  # bytes of a strip that Pillow unpacks
DEFLATED = (8, 32946)
BITS = {1: (8, 12, 16), 3: (16, 32, 64)}  # by TIFF's kind of numbers: whole, and floats
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Tag(IntEnum):
    """Entries of the directory that are asked for more than once."""

    WIDTH = 256
    HEIGHT = 257
    DEPTH = 258  # bits of a number
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STARTS = 273  # of strips
    CHANNELS = 277
    ROWS = 278  # of a strip
    SIZES = 279  # of strips, bytes
    X_DENSITY = 282
    Y_DENSITY = 283
    PLANAR = 284
    EXTRA = 338  # channels behind the colours


@dataclass(frozen=True)
class Layout:
    """What the directory says about the pixels."""

    width: int
    height: int
    bits: int  # of a number
    kind: str  # of numbers, as numpy names it; not of those of 12 bits
    channels: int
    colours: int  # 1 or 3 of the channels
    inverted: bool  # 0 is white
    together: int  # channels side by side; the others lie in blocks of their own
    compression: int
    predictor: int
    extra: int  # what the channel behind the colours is: 0 nothing, 1 alpha they are times by
    order: str  # of bytes: < or >


def read_tiff(source: Path | bytes, name: str, refuse: Refuse) -> Planes | None:
    """Read a TIFF of a kind that Pillow doesn't; None where it is none.

    Damage is any of Pillow's errors, for the caller to tell.
    """
    with stream(source) as file:
        head = file.read(8)
        if head[:4] not in MAGIC:
            return None
        if b"+" in head[:4]:
            head += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        offset = tags.next
        file.seek(offset)
        tags.load(file)
        if Tag.WIDTH not in tags:
            raise ValueError("its directory is cut off")
        layout = _layout(tags, ">" if head[:1] == b"M" else "<")
        if layout is None:
            return None
        refuse((layout.width, layout.height))
        most = MAX_PIXELS // (1 if layout.colours == 1 else 2)  # colours have up to 4 channels
        if layout.width * layout.height > most:
            raise TooLarge(
                f"{name}: this kind of TIFF must have at most {most // 10**6} megapixels, "
                f"got {layout.width} x {layout.height}; cut or shrink it first"
            )
        planes = _planes(tags, layout, file)
        image = _carrier(tags, file, offset, layout.order)
        notes = (MORE.format("page"),) if tags.next else ()
        return replace(_split(planes, layout, image, name), notes=notes)


def is_tiff(source: Path | bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    with stream(source) as file:
        return file.read(4) in MAGIC


def check_tiff(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    """Refuse a TIFF that Pillow opens and would misread."""
    kind, bits = image.tag_v2.get(254), image.tag_v2.get(Tag.DEPTH)
    if isinstance(kind, int) and kind & 1:  # of a smaller version
        raise RcodError(f"{name}: must be a developed picture, got the preview that a camera's raw "
                        "file begins with; export the photo first")  # fmt: skip
    if image.mode == "I":
        raise RcodError(f"{name}: must have 8 or 16 bits per channel, got 32; convert it first")
    if image.tag_v2.get(Tag.PLANAR) == 2 and isinstance(bits, tuple) and 16 in bits:
        raise RcodError(f"{name}: must have its 16-bit {image.mode} channels side by side, "
                        "got each on its own; save it interleaved")  # fmt: skip


def as_meant(image: Image.Image, values: Tensor) -> Tensor:
    """Values (1, H, W) of more than 8 bits, of which Pillow minds neither range nor direction."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode[0] not in "IF":
        return values
    if image.tag_v2.get(Tag.DEPTH) == (12,):
        values = (values * (65535 / 4095)).clamp_(max=1)
    return 1 - values if image.tag_v2.get(Tag.PHOTOMETRIC) == 0 else values  # white is 0


def _layout(tags: TiffImagePlugin.ImageFileDirectory_v2, order: str) -> Layout | None:
    """The pixels' layout; None unless it is grey or colours as Pillow doesn't read them."""
    depths, kinds = set(_several(tags, Tag.DEPTH)), set(_several(tags, 339)) or {1}
    channels, photometric = _one(tags, Tag.CHANNELS, 1), _one(tags, Tag.PHOTOMETRIC, 1)
    colours = {0: 1, 1: 1, 2: 3}.get(photometric)
    if colours is None or channels - colours not in (0, 1) or len(depths) + len(kinds) != 2:
        return None
    bits, kind = depths.pop(), kinds.pop()
    if bits not in BITS.get(kind, ()) or _one(tags, 266, 1) != 1:  # the last bit comes first
        return None
    apart = _one(tags, Tag.PLANAR, 1) == 2
    way = (tags.prefix, photometric, (kind,), 1, (bits,) * channels, _several(tags, Tag.EXTRA))
    # Pillow takes bytes for those of the other order, a plane's 16 bits for 8, or a plane for all.
    misread = (kind == 3 and order == ">") or (apart and (bits == 16 or channels == 2))
    if way in TiffImagePlugin.OPEN_INFO and not misread:
        return None
    width, height = _one(tags, Tag.WIDTH, 0), _one(tags, Tag.HEIGHT, 0)
    if width < 1 or height < 1:
        raise ValueError("a picture has pixels")
    return Layout(
        width, height, bits, f"{'f' if kind == 3 else 'u'}{bits // 8}", channels, colours,
        photometric == 0, 1 if apart else channels, _one(tags, Tag.COMPRESSION, 1),
        _one(tags, 317, 1), 0 if channels == colours else _one(tags, Tag.EXTRA, 2), order,
    )  # fmt: skip


def _planes(tags: TiffImagePlugin.ImageFileDirectory_v2, layout: Layout, file: BinaryIO) -> Tensor:
    """Every strip's or tile's values where they belong, (C, H, W) float32."""
    tiled = 324 in tags
    where = (324, 325) if tiled else (Tag.STARTS, Tag.SIZES)
    starts, sizes = (_several(tags, tag) for tag in where)
    wide = _one(tags, 322, 0) if tiled else layout.width
    high = _one(tags, 323, 0) if tiled else min(_one(tags, Tag.ROWS, layout.height), layout.height)
    if wide < 1 or high < 1:
        raise ValueError("a strip or a tile has pixels")
    down, across = -(-layout.height // high), -(-layout.width // wide)
    if not len(starts) == len(sizes) == layout.channels // layout.together * down * across:
        raise ValueError("its strips or tiles are too few or too many")
    planes = torch.empty(layout.channels, layout.height, layout.width)
    line = -(-wide * layout.together * layout.bits // 8)  # bytes
    if line * high > 4 * planes.nbytes + 2**24:  # a tile may stand over, within reason
        raise ValueError("a strip or a tile is larger than the picture")
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        plane, place = divmod(i, down * across)
        top, left = place // across * high, place % across * wide
        rows = high if tiled else min(high, layout.height - top)
        file.seek(start)
        packed = file.read(min(size, 2 * line * rows + 2**16))
        raw = _unpacked(packed, layout.compression, line, rows)
        values = torch.from_numpy(_values(raw, layout, wide)).permute(2, 0, 1)  # (c, h, w)
        part = planes[plane : plane + layout.together, top : top + rows, left : left + wide]
        part.copy_(values[:, : part.shape[1], : part.shape[2]])
    return planes


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
    entries = ((Tag.WIDTH, line), (Tag.HEIGHT, rows), (Tag.DEPTH, 8),
               (Tag.COMPRESSION, compression), (Tag.PHOTOMETRIC, 1), (Tag.STARTS, 122),
               (Tag.CHANNELS, 1), (Tag.ROWS, rows), (Tag.SIZES, len(packed)))  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    whole = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + packed
    with Image.open(io.BytesIO(whole), formats=["TIFF"]) as image:
        return image.tobytes()


def _values(raw: np.ndarray, layout: Layout, width: int) -> np.ndarray:
    """A block's numbers, (h, w, c) float32, its predictor undone."""
    rows, c, order, size = len(raw), layout.together, layout.order, layout.bits // 8
    if layout.bits == 12 and layout.predictor == 1:
        found = _of_twelve_bits(raw)[:, : width * c]
    elif layout.predictor == 1:
        found = raw.view(f"{order}{layout.kind}")
    elif layout.predictor == 2 and layout.bits != 12:  # as whole numbers, less the pixel before
        whole = raw.view(f"{order}u{size}").reshape(rows, -1, c)
        found = np.cumsum(whole, axis=1, dtype=f"u{size}").view(layout.kind)
    elif layout.predictor == 3 and layout.bits != 12:  # bytes less those before, the highest first
        summed = np.cumsum(raw.reshape(rows, -1, c), axis=1, dtype=np.uint8)
        ordered = summed.reshape(rows, size, -1).transpose(0, 2, 1)
        found = np.ascontiguousarray(ordered).view(f">{layout.kind}")
    else:
        raise ValueError(f"predictor {layout.predictor} is unknown")
    with np.errstate(over="ignore"):  # infinity is refused with the rest
        values = found.reshape(rows, -1, c).astype(np.float32)
    return values if layout.kind[0] == "f" else values / (2**layout.bits - 1)


def _of_twelve_bits(raw: np.ndarray) -> np.ndarray:
    """Two numbers of every three bytes of a row, (rows, line) uint8 -> (rows, n) uint16."""
    whole = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 3))).astype(np.uint16)
    high, middle, low = whole[:, ::3], whole[:, 1::3], whole[:, 2::3]
    pairs = np.stack((high << 4 | middle >> 4, (middle & 15) << 8 | low), -1)
    return pairs.reshape(len(raw), -1)


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
        exif.tobytes()  # reads the directories below as well, while the file is open
        image._exif = exif  # where `getexif` finds it
    for tag, key in ((34675, "icc_profile"), (700, "xmp")):
        if isinstance(value := tags.get(tag), bytes):
            image.info[key] = value
    both, unit = (Tag.X_DENSITY, Tag.Y_DENSITY), _one(tags, 296, 2)
    if all(tag in tags for tag in both) and unit in (2, 3):
        image.info["dpi"] = tuple(float(tags[tag]) * (1, 2.54)[unit - 2] for tag in both)
    return image


def _split(planes: Tensor, layout: Layout, image: Image.Image, name: str) -> Planes:
    """Colours and alpha, both what a picture is."""
    values = planes[: layout.colours]
    alpha = check_unit(planes[-1:].clone(), name) if layout.extra else None
    if alpha is not None and layout.extra == 1:
        values = values / alpha.clamp(min=1e-6)
        values[:, alpha[0] == 0] = 0
        values = values.clamp(0, 1) if layout.kind[0] == "u" else values  # rounded, or wrong
    values = check_unit(values, name)
    values = 1 - values if layout.inverted else values
    mode = "L" if layout.colours == 1 else "RGB"
    return Planes(values, mode, alpha, 8 if layout.bits == 8 else 16, image)


def _one(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    """A number of the directory."""
    found = _several(tags, tag)
    return found[0] if found else default


def _several(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    """Whole numbers of the directory; none where it holds something else."""
    found = tags.get(tag, ())
    numbers = found if isinstance(found, tuple) else (found,)
    return numbers if all(isinstance(number, int) for number in numbers) else ()
