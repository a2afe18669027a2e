"""How do rows of pixels become a file, a few at a time?

PNG and TIFF are written here, row by row as they come, in 8 or 16 bits a channel, so that a
result never has to lie in memory. The other formats need the whole picture and get it from
Pillow, in 8 bits.

    rows (h, W, C), rows, ... -> filter -> deflate -> chunks or strips
"""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image, TiffImagePlugin

from rcod.errors import RcodError
from rcod.pixels.metadata import (
    CAMERA,
    DENSITY,
    GPS,
    INTEROP,
    MOST,
    STRUCTURE,
    Tags,
    exif_of,
    mark,
    parse_exif,
)

LEVEL = 4  # of deflate: on photos a third of the time of 6, and a hundredth larger
BLOCK = 64  # rows filtered at once, and of a strip of a TIFF
QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}  # where none is asked for
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by number of channels
ADLER = 65521  # the largest prime of 16 bits
STARTS = 273  # TIFF's tag of where strips start


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture before its first row."""

    height: int
    width: int
    channels: int  # 1 grey, 2 grey and alpha, 3 colours, 4 colours and alpha
    bits: int  # 8 or 16
    icc: bytes
    tags: Tags
    lossless: bool = False  # a WebP of no quality asked for loses nothing


class Writer(Protocol):
    """A picture being written from top to bottom."""

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8 or uint16."""
        ...

    def close(self) -> None:
        """Complete the file, after its last row."""
        ...


def writer(file: BinaryIO, encoder: str, frame: PictureHeader, quality: int | None) -> Writer:
    """Begin a picture in an open file."""
    if encoder == "PNG":
        return Png(file, frame)
    if encoder == "TIFF":
        return Tiff(file, frame)
    return Whole(file, encoder, frame, quality)


def unwritable_tags(encoder: str, tags: Tags) -> tuple[str, ...]:
    """What of a photo's tags a format can't hold, as notes."""
    limited = encoder == "JPEG"
    _, lost = exif_of(tags, MOST if limited else None)
    large = limited and len(tags.xmp or b"") > MOST
    xmp = "has more XMP than a JPEG holds; it is left out" if large else None
    return tuple(filter(None, (lost, xmp)))


class Png:
    """A PNG, every row predicted from the one above and the pixel before (Paeth's filter).

    Blocks of rows are deflated side by side, each on its own, and follow one another in one
    stream: the bytes are the same for any number of threads.
    """

    def __init__(self, file: BinaryIO, frame: PictureHeader) -> None:
        self.file, self.frame = file, frame
        self.pool = ThreadPoolExecutor(torch.get_num_threads())
        self.sum = zlib.adler32(b"")
        self.step = frame.channels * frame.bits // 8  # bytes a pixel
        self.above = np.zeros((1, frame.width * self.step), np.uint8)
        self.waiting = self.above[:0]
        kind = {1: 0, 2: 4, 3: 2, 4: 6}[frame.channels]
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">2I5B", frame.width, frame.height, frame.bits, kind,
                                         0, 0, 0))  # fmt: skip
        self._chunk(b"iCCP", b"ICC\0\0" + zlib.compress(frame.icc, 9))
        if frame.tags.dpi is not None:
            x, y = (round(dots / 0.0254) for dots in frame.tags.dpi)
            self._chunk(b"pHYs", struct.pack(">2IB", x, y, 1))
        self.exif = file.tell()
        self._tags(0)
        if frame.tags.xmp is not None:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + frame.tags.xmp)
        self._chunk(b"IDAT", b"\x78\x5e")  # deflate, in a window of 32 KB

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8 or uint16."""
        lines = rows.astype(">u2", order="C").view(np.uint8) if self.frame.bits == 16 else rows
        lines = np.ascontiguousarray(lines).reshape(len(rows), -1)
        lines = np.concatenate([self.waiting, lines]) if len(self.waiting) else lines
        full = len(lines) // BLOCK * BLOCK
        self._pack([lines[top : top + BLOCK] for top in range(0, full, BLOCK)])
        self.waiting = lines[full:].copy()  # lets go of the rows it was cut from

    def close(self) -> None:
        """Complete the file; how long it is belongs to its mark."""
        if len(self.waiting):
            self._pack([self.waiting])
        self.pool.shutdown()
        self._chunk(b"IDAT", b"\x03\0" + struct.pack(">I", self.sum))  # an empty last block
        self._chunk(b"IEND", b"")
        size = self.file.tell()
        self.file.seek(self.exif)
        self._tags(size)

    def _tags(self, size: int) -> None:
        block, _ = exif_of(self.frame.tags, size=size)
        self._chunk(b"eXIf", block.removeprefix(b"Exif\0\0"))

    def _pack(self, blocks: list[np.ndarray]) -> None:
        """Write blocks of rows of bytes, (h, W * step) uint8."""
        above = [self.above, *(block[-1:] for block in blocks)]
        packed = self.pool.map(self._deflate, blocks, above[:-1])
        for block, (data, found) in zip(blocks, packed, strict=True):
            self._chunk(b"IDAT", data)
            self.sum = adler32_combine(self.sum, found, block.size + len(block))
        self.above = above[-1].copy()

    def _deflate(self, lines: np.ndarray, above: np.ndarray) -> tuple[bytes, int]:
        """Predict and deflate some rows of bytes, (h, W * step) uint8, below another; their sum."""
        whole = np.zeros((len(lines) + 1, self.step + lines.shape[1]), np.int16)
        whole[0, self.step :], whole[1:, self.step :] = above[0], lines
        left, up = whole[1:, : -self.step], whole[:-1, self.step :]
        corner = whole[:-1, : -self.step]
        far_left, far_up = np.abs(up - corner), np.abs(left - corner)
        far_corner = np.abs(left + up - 2 * corner)
        guess = np.where(far_up <= far_corner, up, corner)
        guess = np.where((far_left <= far_up) & (far_left <= far_corner), left, guess)
        out = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
        out[:, 0] = 4  # the filter's number
        np.subtract(lines, guess.astype(np.uint8), out=out[:, 1:])
        deflate = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS)
        packed = deflate.compress(out.data) + deflate.flush(zlib.Z_FULL_FLUSH)
        return packed, zlib.adler32(out.data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind)
        self.file.write(data)
        self.file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def adler32_combine(first: int, second: int, size: int) -> int:
    """Adler-32 of two runs of bytes, one behind the other, from both sums and the second's size."""
    low, high = first & 0xFFFF, first >> 16
    ahead = (second >> 16) + size * (low - 1) + high
    return ahead % ADLER << 16 | (low + (second & 0xFFFF) - 1) % ADLER


class Tiff:
    """A TIFF of deflated strips, every pixel less the one before."""

    def __init__(self, file: BinaryIO, frame: PictureHeader) -> None:
        self.file, self.frame = file, frame
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.place = 8  # where the next strip starts
        self.waiting = np.empty((0, frame.width, frame.channels), np.dtype(f"<u{frame.bits // 8}"))
        file.write(b"II*\0\0\0\0\0")

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8 or uint16."""
        self.waiting = np.concatenate([self.waiting, rows]) if len(self.waiting) else rows
        while len(self.waiting) >= BLOCK:
            self._strip(self.waiting[:BLOCK])
            self.waiting = self.waiting[BLOCK:]
        self.waiting = self.waiting.copy()  # lets go of the rows it was cut from

    def close(self) -> None:
        """Complete the file: its last strip, its directory, and where that lies."""
        if len(self.waiting):
            self._strip(self.waiting)
        if self.place % 2:
            self.file.write(b"\0")
            self.place += 1
        size = self.place + len(self._directory(0))
        self.file.write(self._directory(size))
        self.file.seek(4)
        self.file.write(struct.pack("<I", self.place))

    def _strip(self, rows: np.ndarray) -> None:
        steps = rows.copy()
        steps[:, 1:] -= rows[:, :-1]  # wraps around, as the format wants
        packed = zlib.compress(steps.astype(f"<u{self.frame.bits // 8}").tobytes(), LEVEL)
        self.starts.append(self.place)
        self.sizes.append(len(packed))
        self.place += len(packed)
        if self.place > 2**32 - 2**24:
            raise RcodError("a TIFF must stay under 4 GB; use png, or a smaller size")
        self.file.write(packed)

    def _directory(self, size: int) -> bytes:
        """Every tag of a file of so many bytes: the photo's, then how the pixels lie."""
        frame = self.frame
        block = parse_exif(exif_of(frame.tags, size=size)[0])
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in block.items():
            if tag not in STRUCTURE - DENSITY and tag not in (CAMERA, GPS):
                tags[tag] = value
        for tag in (CAMERA, GPS):
            below = block.get_ifd(tag)
            if tag == CAMERA and INTEROP in below:  # a directory within it
                below = below | {INTEROP: block.get_ifd(INTEROP)}
            if below:
                tags[tag] = below
        colours = 1 if frame.channels < 3 else 3
        tags[256], tags[257], tags[259] = frame.width, frame.height, 8
        tags[258] = (frame.bits,) * frame.channels
        tags[262], tags[277], tags[278] = (2 if colours == 3 else 1), frame.channels, BLOCK
        tags[284], tags[317] = 1, 2
        if frame.channels > colours:
            tags[338] = (2,)  # alpha that colours are not multiplied by
        tags[339] = (1,) * frame.channels
        tags.tagtype[STARTS] = tags.tagtype[279] = 4
        tags[STARTS], tags[279] = (0,) * len(self.starts), tuple(self.sizes)
        if frame.tags.xmp is not None:
            tags.tagtype[700] = 1
            tags[700] = frame.tags.xmp
        tags.tagtype[34675] = 7
        tags[34675] = frame.icc
        return self._placed(bytearray(tags.tobytes(self.place)))

    def _placed(self, directory: bytearray) -> bytes:
        """The directory with the places of the strips, which Pillow would move."""
        (entries,) = struct.unpack_from("<H", directory)
        for at in range(2, 2 + 12 * entries, 12):
            tag, _, count, where = struct.unpack_from("<HHII", directory, at)
            if tag == STARTS:
                into = at + 8 if count == 1 else where - self.place
                struct.pack_into(f"<{count}I", directory, into, *self.starts)
        return bytes(directory)


class Whole:
    """A picture that only Pillow can write, and only when it has all of it."""

    def __init__(
        self, file: BinaryIO, encoder: str, frame: PictureHeader, quality: int | None
    ) -> None:
        self.file, self.encoder, self.frame = file, encoder, frame
        self.quality = QUALITY[encoder] if quality is None else quality
        self.lossless = frame.lossless and quality is None
        self.image = Image.new(MODES[frame.channels], (frame.width, frame.height))
        self.row = 0

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8."""
        part = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else np.ascontiguousarray(rows))
        self.image.paste(part, (0, self.row))
        self.row += len(rows)

    def close(self) -> None:
        """Encode the picture."""
        tags = self.frame.tags
        limited = self.encoder == "JPEG"
        block, _ = exif_of(tags, MOST if limited else None)
        options: dict[str, object] = {"icc_profile": self.frame.icc, "exif": block}
        if tags.xmp is not None and not (limited and len(tags.xmp) > MOST):
            options["xmp"] = tags.xmp
        if limited and tags.dpi is not None:
            options["dpi"] = tuple(round(dots) for dots in tags.dpi)
        options["quality"] = self.quality
        if self.encoder == "WEBP":
            options["exact"] = True  # colours where nothing shows, too
            options["lossless"] = self.lossless
        else:
            options["subsampling"] = "4:4:4"  # no colour resolution lost
        self.image.save(encoded := io.BytesIO(), self.encoder, **options)
        at = encoded.getvalue().index(mark(0).encode())
        with encoded.getbuffer() as content:
            content[at : at + len(mark(0))] = mark(len(content)).encode()
            self.file.write(content)
