"""How long photos stay open."""

import os
import signal
import threading
import weakref
from pathlib import Path

import pytest
from running import own_signals

from rcod.doors import web
from rcod.doors.guard import Limits, Refusal
from rcod.doors.open_photos import OpenPhotos
from rcod.pixels.images import read
from rcod.using.open_photo import OpenPhoto, Setting
from rcod.using.restore import Restorer

EXAMPLE = Path(__file__).parents[1] / "examples" / "heron.jpg"


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny")


def test_photos_are_put_away_when_idle_or_too_many(restorer: Restorer):
    photo = read(EXAMPLE)
    open_photos = OpenPhotos(held=3 * OpenPhoto(restorer, photo).size, idle=1000)
    names = [open_photos.add(OpenPhoto(restorer, photo)) for _ in range(4)]
    with pytest.raises(Refusal, match="put away"):
        open_photos.find(names[0])
    assert open_photos.find(names[1]) is open_photos.find(names[1])
    tight = OpenPhotos(held=0)
    assert tight.find(tight.add(OpenPhoto(restorer, photo)))
    hasty = OpenPhotos(idle=-1)
    for name in [hasty.add(OpenPhoto(restorer, photo)) for _ in range(2)]:
        with pytest.raises(Refusal, match="put away"):
            hasty.find(name)


def test_the_photo_asked_for_stays_however_much_it_grew(restorer: Restorer):
    photo = read(EXAMPLE)
    open_photos = OpenPhotos(held=3 * OpenPhoto(restorer, photo).size)
    name = open_photos.add(grown := OpenPhoto(restorer, photo))
    other = open_photos.add(OpenPhoto(restorer, photo))
    grown.result(Setting("fidelity"))
    assert open_photos.find(name) is grown
    with pytest.raises(Refusal, match="put away"):
        open_photos.find(other)


def test_an_idle_photo_is_put_away_without_a_request(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    open_photos = OpenPhotos(idle=0.5)
    monkeypatch.setattr(web, "OpenPhotos", lambda: open_photos)
    open_photos.add(held := OpenPhoto(restorer, read(EXAMPLE)))
    put_away = threading.Event()
    weakref.finalize(held, put_away.set)
    del held
    seen: list[bool] = []

    def end(address: str) -> None:
        seen.append(put_away.wait(10))
        os.kill(os.getpid(), signal.SIGTERM)

    def begin(address: str) -> None:
        threading.Thread(target=end, args=(address,)).start()

    with own_signals():
        web.listen_and_serve(lambda: restorer, "127.0.0.1", 0, Limits(), begin)
    assert seen == [True]
