"""How long photos stay open."""

from pathlib import Path

import pytest

from rcod.doors.guard import Refusal
from rcod.doors.sittings import Sittings
from rcod.pixels.images import read
from rcod.using.restore import Restorer
from rcod.using.sitting import Sitting

EXAMPLE = Path(__file__).parents[1] / "examples" / "heron.jpg"


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny")


def test_photos_are_put_away_when_idle_or_too_many(restorer: Restorer):
    photo = read(EXAMPLE)
    sittings = Sittings(held=3 * photo.pixels.nbytes, idle=1000)
    names = [sittings.add(Sitting(restorer, photo)) for _ in range(4)]
    with pytest.raises(Refusal, match="put away"):
        sittings.find(names[0])
    assert sittings.find(names[1]) is sittings.find(names[1])
    tight = Sittings(held=0)
    assert tight.find(tight.add(Sitting(restorer, photo)))
    hasty = Sittings(idle=-1)
    first, last = (hasty.add(Sitting(restorer, photo)) for _ in range(2))
    assert hasty.find(last)
    with pytest.raises(Refusal, match="put away"):
        hasty.find(first)
