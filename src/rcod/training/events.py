"""How does TensorBoard get to see a run?

It reads files of records: a length, its checksum, an `Event` message, its checksum. A few
fields of that message are all that a run has to say, so they are written here, byte by byte,
and TensorBoard itself is needed only by who looks.

    numbers, pictures -> Event (protocol buffer) -> record -> RUN/events.out.tfevents.*
"""

import os
import struct
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected


class Events:
    """Appends to a run's event file."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{os.getpid()}.{uuid.uuid4().hex[:6]}"
        self.path = folder / name

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step; a name's first word is its group."""
        self._write(step, [_text(1, name) + _float(2, value) for name, value in values.items()])

    def picture(self, step: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        """A picture of a step, encoded as PNG."""
        width, height = size
        image = _whole(1, height) + _whole(2, width) + _whole(3, 3) + _bytes(4, png)
        self._write(step, [_text(1, name) + _bytes(4, image)])

    def _write(self, step: int, values: list[bytes]) -> None:
        summary = b"".join(_bytes(1, value) for value in values)
        event = _double(1, time.time()) + _whole(2, step) + _bytes(5, summary)
        with self.path.open("ab") as file:
            if not file.tell():
                file.write(record(_double(1, time.time()) + _text(3, "brain.Event:2")))
            file.write(record(event))


def record(content: bytes) -> bytes:
    """One record of an event file."""
    length = struct.pack("<Q", len(content))
    sums = [struct.pack("<I", _masked(part)) for part in (length, content)]
    return length + sums[0] + content + sums[1]


def _masked(content: bytes) -> int:
    """The checksum as the format wants it: turned by 15 bits and moved."""
    crc = checksum(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def checksum(content: bytes) -> int:
    """CRC-32C of some bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    found: list[int] = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


TABLE = _table()  # 256 sums of single bytes


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
