"""What the service won't take is refused by what its head says."""

import io
import struct
from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageFile
from test_extras import HEADS
from test_floats import tiff

from rcod.doors.engine import Engine
from rcod.doors.guard import Limits, Refusal
from rcod.doors.service import Service
from rcod.pixels import floats
from rcod.using.restore import Restorer


def test_every_kind_of_photo_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    service = Service(cast(Restorer, None), cast(Engine, None), Limits(pixels=1_000_000))
    plain, bomb = io.BytesIO(), io.BytesIO()
    Image.new("1", (700, 400)).save(plain, "TIFF")
    Image.new("1", (10_000, 9_100)).save(bomb, "PNG")
    wide = bytearray(tiff(np.zeros((37, 50, 3), np.float32)))
    at = wide.index(struct.pack("<HHII", 256, 4, 1, 50))
    wide[at + 8 : at + 12] = struct.pack("<I", 8000)
    monkeypatch.setattr(floats.torch, "empty", decoded)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    for content, size in (
        (plain.getvalue(), "700 x 400"), (bomb.getvalue(), "10000 x 9100"),
        (bytes(wide), "8000 x 37"), (HEADS["13 bits, 3:2"][0], "9001 x 6001"),
    ):  # fmt: skip
        with pytest.raises(Refusal, match=f"at most 0.25 megapixels here, got {size}") as told:
            service.take(content, 1)
        assert told.value.status == 413
    with pytest.raises(Refusal, match="a result must have at most 1 megapixels here"):
        service.take(HEADS["9 bits"][0], 4)
