"""What the service won't take is refused by what its head says."""

import io
import struct
from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageFile
from test_extras import HEADS
from test_tiff import make_tiff

from rcod.doors.guard import Limits, Refusal
from rcod.doors.service import Service
from rcod.doors.work_queue import WorkQueue
from rcod.errors import RcodError
from rcod.pixels import tiff
from rcod.pixels.metadata import TURN
from rcod.using.orders import Options
from rcod.using.restore import Restorer


def limited(pixels: int) -> Service:
    """A service that only looks at sizes."""
    return Service(cast(Restorer, None), cast(WorkQueue, None), Limits(pixels=pixels))


def test_every_kind_of_photo_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    service = limited(200_000)
    plain, bomb = io.BytesIO(), io.BytesIO()
    Image.new("1", (700, 400)).save(plain, "TIFF")
    Image.new("1", (10_000, 9_100)).save(bomb, "PNG")
    wide = bytearray(make_tiff(np.zeros((37, 50, 3), np.float32)))
    at = wide.index(struct.pack("<HHII", 256, 4, 1, 50))
    wide[at + 8 : at + 12] = struct.pack("<I", 8000)
    monkeypatch.setattr(tiff.torch, "empty", decoded)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    for content, size in (
        (plain.getvalue(), "700 x 400"), (bomb.getvalue(), "10000 x 9100"),
        (bytes(wide), "8000 x 37"), (HEADS["13 bits, 3:2"][0], "9001 x 6001"),
    ):  # fmt: skip
        with pytest.raises(Refusal, match=f"at most 0.2 megapixels here, got {size}") as told:
            service.take(content)
        assert told.value.status == 413
    assert str(told.value).endswith("or serve it with rcod web --max-megapixels 55")


def test_a_photo_may_be_as_large_as_its_result():
    service = limited(10_000)
    Image.new("L", (125, 80)).save(content := io.BytesIO(), "PNG")
    photo = service.take(content.getvalue())
    service.check_size(photo, (80, 125))
    with pytest.raises(
        Refusal, match=r"got 250 x 160; choose a smaller scale, at most 1, or serve"
    ):
        service.check_size(photo, (160, 250))


def test_a_result_is_measured_before_its_photo_is_decoded(monkeypatch: pytest.MonkeyPatch):
    Image.new("L", (800, 600)).save(content := io.BytesIO(), "WEBP")

    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", decoded)
        with pytest.raises(Refusal, match=r"got 3200 x 2400; choose a smaller scale, at most 1.4"):
            limited(10**6).take(content.getvalue(), Options())
        with pytest.raises(RcodError, match=r"the result must be 0.0625 to 8 times the photo's"):
            limited(10**6).take(content.getvalue(), Options(width=9000))
    assert limited(10**6).take(content.getvalue(), Options(scale=1.4)).pixels.shape[-1] == 800


def test_a_photo_may_be_turned_before_its_result_is_measured():
    exif = Image.Exif()
    exif[TURN] = 6
    Image.new("L", (100, 10)).save(content := io.BytesIO(), "JPEG", exif=exif)
    service, options = limited(5000), Options(width=20)  # 20 x 200; as it lies it were 20 x 2
    photo = service.take(content.getvalue(), options)
    service.check_size(photo, options.size(photo))
    photo = limited(4001).take(content.getvalue(), options := Options(height=160))  # 16 x 160
    assert options.size(photo) == (160, 16)  # and as it lies it were sixteen times as high


@pytest.mark.parametrize(
    ("limit", "size", "words"),
    [
        (100, (9500, 9000), "at most 80 megapixels here, got 9500 x 9000; shrink or cut it first"),
        (100, (11000, 11000), "at most 80 megapixels here, got 11000 x 11000; shrink or cut it"),
        (60, (30000, 30000), "at most 60 megapixels here, got many more; shrink or cut it first"),
        (60, (10000, 7000), "at most 60 megapixels here, .* --max-megapixels 70"),
    ],
)
def test_a_photo_is_told_the_limit_that_holds_and_an_option_that_helps(
    limit: int, size: tuple[int, int], words: str
):
    Image.new("1", size).save(content := io.BytesIO(), "PNG")
    with pytest.raises(Refusal, match=words) as told:
        limited(limit * 10**6).take(content.getvalue())
    assert told.value.status == 413
    assert ("--max-megapixels" in str(told.value)) == (size == (10000, 7000))
