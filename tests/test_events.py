"""Laws of TensorBoard's files."""

import struct
from pathlib import Path

import pytest

from rcod.training.events import Events, checksum, record


def test_the_checksum_is_castagnolis():
    assert checksum(b"123456789") == 0xE3069283  # the check value that the standard gives


def test_a_record_can_be_taken_apart(tmp_path: Path):
    events = Events(tmp_path)
    events.scalars(7, {"loss": 0.5, "share/749": 0.25})
    content = events.path.read_bytes()
    found: list[bytes] = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        inner = content[12 : 12 + length]
        assert content[: 16 + length] == record(inner)
        found.append(inner)
        content = content[16 + length :]
    first, second = found
    assert b"brain.Event:2" in first
    assert b"share/749" in second and struct.pack("<f", 0.25) in second


def test_tensorboard_reads_them(tmp_path: Path):
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name, reason="not checked here: pip install tensorboard")
    events = Events(tmp_path)
    for step in range(3):
        events.scalars(step, {"loss": step / 2})
    seen = accumulator.EventAccumulator(str(tmp_path))
    seen.Reload()
    assert [(e.step, e.value) for e in seen.Scalars("loss")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
