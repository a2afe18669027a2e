"""How do rows of pixels become a file, a few at a time, whole or not at all?

PNG and TIFF are written here, row by row as they come, in 8 or 16 bits a channel, so that a
result never has to lie in memory. The other formats need the whole picture and get it from
Pillow, in 8 bits. A file is written under another name and renamed when it is complete.

    rows (h, W, C), rows, ... -> filter -> deflate -> chunks or strips -> .part -> the name
"""

import contextlib
import io
import os
import struct
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, TiffImagePlugin

from rcod.decode import DAMAGE
from rcod.errors import RcodError
from rcod.metadata import CAMERA, GPS, MOST, Tags, exif_of, is_marked

LEVEL = 4  # of deflate: on photos a third of the time of 6, and a hundredth larger
BLOCK = 64  # rows filtered at once, and of a strip of a TIFF
QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}  # where none is asked for
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by number of channels
STRUCTURE = frozenset(  # TIFF's tags about how pixels lie, which are not the photo's
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284,
     296, 297, 301, 317, 318, 319, 320, 322, 323, 324, 325, 330, 338, 339, 347, 529, 530, 531, 532,
     700, 34665, 34675, 34853, 40965)
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What is known of a picture before its first row."""

    height: int
    width: int
    channels: int  # 1 grey, 2 grey and alpha, 3 colours, 4 colours and alpha
    bits: int  # 8 or 16
    icc: bytes
    tags: Tags


class Writer(Protocol):
    """A picture being written from top to bottom."""

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8 or uint16."""
        ...

    def close(self) -> None:
        """Complete the file, after its last row."""
        ...


def writer(file: BinaryIO, encoder: str, frame: Frame, quality: int | None) -> Writer:
    """Begin a picture in an open file."""
    if encoder == "PNG":
        return Png(file, frame)
    if encoder == "TIFF":
        return Tiff(file, frame)
    return Whole(file, encoder, frame, quality)


class Png:
    """A PNG, every row predicted from the one above and the pixel before (Paeth's filter)."""

    def __init__(self, file: BinaryIO, frame: Frame) -> None:
        self.file, self.frame = file, frame
        self.deflate = zlib.compressobj(LEVEL)
        self.step = frame.channels * frame.bits // 8  # bytes a pixel
        self.above = np.zeros((1, frame.width * self.step), np.uint8)
        kind = {1: 0, 2: 4, 3: 2, 4: 6}[frame.channels]
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">2I5B", frame.width, frame.height, frame.bits, kind,
                                         0, 0, 0))  # fmt: skip
        self._chunk(b"iCCP", b"ICC\0\0" + zlib.compress(frame.icc, 9))
        if frame.tags.dpi is not None:
            x, y = (round(dots / 0.0254) for dots in frame.tags.dpi)
            self._chunk(b"pHYs", struct.pack(">2IB", x, y, 1))
        block, _ = exif_of(frame.tags)
        self._chunk(b"eXIf", block.removeprefix(b"Exif\0\0"))
        if frame.tags.xmp is not None:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + frame.tags.xmp)

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8 or uint16."""
        for top in range(0, len(rows), BLOCK):
            part = rows[top : top + BLOCK]
            lines = part.astype(">u2").view(np.uint8) if self.frame.bits == 16 else part
            self._filter(np.ascontiguousarray(lines).reshape(len(part), -1))

    def close(self) -> None:
        """Complete the file."""
        self._chunk(b"IDAT", self.deflate.flush())
        self._chunk(b"IEND", b"")

    def _filter(self, lines: np.ndarray) -> None:
        """Predict, deflate and write some rows of bytes, (h, W * step) uint8."""
        whole = np.zeros((len(lines) + 1, self.step + lines.shape[1]), np.int16)
        whole[0, self.step :], whole[1:, self.step :] = self.above[0], lines
        left, up, corner = (
            whole[1:, : -self.step],
            whole[:-1, self.step :],
            whole[:-1, : -self.step],
        )
        far_left, far_up = np.abs(up - corner), np.abs(left - corner)
        far_corner = np.abs(left + up - 2 * corner)
        guess = np.where(far_up <= far_corner, up, corner)
        guess = np.where((far_left <= far_up) & (far_left <= far_corner), left, guess)
        out = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
        out[:, 0] = 4  # the filter's number
        np.subtract(lines, guess.astype(np.uint8), out=out[:, 1:])
        self.above = lines[-1:].copy()
        if packed := self.deflate.compress(out.data):
            self._chunk(b"IDAT", packed)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind)
        self.file.write(data)
        self.file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


class Tiff:
    """A TIFF of deflated strips, every pixel less the one before."""

    def __init__(self, file: BinaryIO, frame: Frame) -> None:
        self.file, self.frame = file, frame
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.place = 8  # where the next strip starts; stdout can't tell
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
        directory = self._directory()
        self.file.write(directory)
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

    def _directory(self) -> bytes:
        """Every tag: the photo's, then those about how the pixels lie."""
        frame = self.frame
        exif, _ = exif_of(frame.tags)
        block = Image.Exif()
        block.load(exif)
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in block.items():
            if tag not in STRUCTURE:
                tags[tag] = value
        for tag in (CAMERA, GPS):
            if below := block.get_ifd(tag):
                tags[tag] = below
        colours = 1 if frame.channels < 3 else 3
        tags[256], tags[257], tags[259] = frame.width, frame.height, 8
        tags[258] = (frame.bits,) * frame.channels
        tags[262], tags[277], tags[278] = (2 if colours == 3 else 1), frame.channels, BLOCK
        tags[284], tags[317] = 1, 2
        if frame.channels > colours:
            tags[338] = (2,)  # alpha that colours are not multiplied by
        tags[339] = (1,) * frame.channels
        for tag, values in ((273, self.starts), (279, self.sizes)):
            tags.tagtype[tag] = 4
            tags[tag] = tuple(values)
        if frame.tags.dpi is not None:
            tags[282], tags[283], tags[296] = *frame.tags.dpi, 2
        if frame.tags.xmp is not None:
            tags.tagtype[700] = 1
            tags[700] = frame.tags.xmp
        tags.tagtype[34675] = 7
        tags[34675] = frame.icc
        return tags.tobytes(self.place)


class Whole:
    """A picture that only Pillow can write, and only when it has all of it."""

    def __init__(self, file: BinaryIO, encoder: str, frame: Frame, quality: int | None) -> None:
        self.file, self.encoder, self.frame = file, encoder, frame
        self.quality = QUALITY[encoder] if quality is None else quality
        channels = frame.channels if encoder == "JPEG" else (frame.channels - 1) % 2 + 3
        self.image = Image.new(MODES[channels], (frame.width, frame.height))
        self.row = 0

    def put(self, rows: np.ndarray) -> None:
        """Take the next rows, (h, W, C) uint8."""
        part = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else np.ascontiguousarray(rows))
        self.image.paste(part.convert(self.image.mode), (0, self.row))
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
        else:
            options["subsampling"] = "4:4:4"  # no colour resolution lost
        self.image.save(encoded := io.BytesIO(), self.encoder, **options)
        self.file.write(encoded.getbuffer())


@contextmanager
def placed(path: Path) -> Iterator[BinaryIO]:
    """Open a file that bears its name only when it is complete; one there is replaced."""
    part = path.with_name(f"{own_prefix()}{uuid.uuid4().hex[:8]}.part")  # same folder, same disk
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RcodError(
            f"{path}: must be writable, and writing failed ({error.strerror or error}); "
            "choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # no such folder: nothing was written
            part.unlink(missing_ok=True)


def own_prefix() -> str:
    """How the unfinished files of this process start: machine and process."""
    return f".rcod-{uuid.getnode():x}-{os.getpid()}-"


def sweep(folder: Path) -> None:
    """Remove unfinished files of processes of this machine that have ended, or been killed."""
    machine = f".rcod-{uuid.getnode():x}-"
    for part in folder.glob(f"{machine}*.part"):
        with contextlib.suppress(OSError, ValueError):
            process = int(part.name.removeprefix(machine).split("-")[0])
            if process == os.getpid() or not _runs(process):
                part.unlink()


def _runs(process: int) -> bool:
    """Whether a process of that number is there."""
    if sys.platform == "win32":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that rcod has written."""
    try:
        with Image.open(path) as image:
            return is_marked(image)
    except (*DAMAGE, Image.DecompressionBombError):
        return False
