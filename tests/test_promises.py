"""The dial is held to its promises, told by models whose dial is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from rcod.judging.datasets import Pair, match, stem
from rcod.judging.judge import Judge
from rcod.judging.peers import bicubic
from rcod.judging.promises import Report, Sweep, study_dial, sweep
from rcod.pixels.images import Photo, write
from rcod.using.restore import Restorer

PLACES = {"fidelity": 0.0, "neutral": 0.5, "realism": 1.0, "auto": 0.5}


@dataclass
class Stand:
    """A model whose dial adds `strength` of chequered grain to bicubic."""

    strength: float

    def levels(
        self, image: Tensor, realisms: Sequence[str | float], scale: float
    ) -> list[SimpleNamespace]:
        assert scale == 4
        up = bicubic(image)
        grain = (torch.arange(up.shape[1])[:, None] + torch.arange(up.shape[2])) % 2 - 0.5
        places = [PLACES[one] if isinstance(one, str) else one for one in realisms]
        return [
            SimpleNamespace(
                photo=Photo((up + self.strength * place * grain).clamp(0, 1), None, None, None),
                timestep=round(250 + 500 * place),
                metric=0.6,
            )
            for place in places
        ]


def restorer(strength: float) -> Restorer:
    return cast(Restorer, Stand(strength))


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    rng = torch.Generator().manual_seed(0)
    for role in ("LR", "HR"):
        (tmp_path / role).mkdir()
    for i in range(3):
        lr = 0.2 + 0.6 * torch.rand(3, 8, 8, generator=rng)
        write(tmp_path / "LR" / f"a_{i}_LR4.png", Photo(lr, None, None, None))
        write(tmp_path / "HR" / f"a_{i}_HR.png", Photo(bicubic(lr), None, None, None))
    return [Pair(stem(lr), lr, hr) for lr, hr in match(tmp_path / "LR", tmp_path / "HR")]


def judged(pairs: list[Pair], strength: float) -> Report:
    return study_dial(restorer(strength), pairs, Judge(), sweeps=2)


def test_a_working_dial_is_seen(pairs: list[Pair]):
    found = judged(pairs, 0.1)
    assert found.dial.pictures == found.dial.psnr_falls == found.dial.detail_rises == 3
    assert found.dial.psnr_falls_in_mean
    assert found.dial.detail_rises_in_mean
    assert found.dial.travel == pytest.approx(0.1 * 0.5 * 255, rel=0.05)
    assert found.dial.largest_step == pytest.approx(0.1, abs=0.01)
    assert list(found.sweeps) == ["a_0", "a_1"]
    assert [score.level for score in found.scores[:5]] == ["bicubic", *PLACES]
    assert [score.timestep for score in found.scores[:5]] == [None, 250, 500, 750, 500]


def test_a_dead_dial_is_seen(pairs: list[Pair]):
    dial = judged(pairs, 0.0).dial
    assert (dial.psnr_falls, dial.detail_rises, dial.detail_gains) == (0, 0, 0)
    assert dial.travel == 0
    assert dial.largest_step == 1


def test_fidelity_that_is_bicubic_has_no_gap(pairs: list[Pair]):
    found = judged(pairs, 0.1)
    assert found.psnr_gap == 0
    assert found.means["fidelity"] == found.means["bicubic"]
    assert found.lpips_ratio == {}  # nothing to judge it with


def test_every_picture_is_seen_at_every_level(pairs: list[Pair]):
    seen: list[tuple[str, str]] = []
    study_dial(restorer(0.1), pairs, Judge(), sweeps=0, seen=lambda *what: seen.append(what[:2]))
    assert seen == [(f"a_{i}", level) for i in range(3) for level in ("bicubic", *PLACES)]


def test_report_survives_json(pairs: list[Pair]):
    found = judged(pairs, 0.1)
    assert Report.model_validate_json(found.model_dump_json()) == found


def test_sweep_measures_even_steps():
    found = sweep(restorer(0.2), torch.full((3, 8, 8), 0.5), steps=4)
    assert found.steps == pytest.approx([0.2 * 0.5 * 255 / 4] * 4, rel=1e-4)
    assert found.largest == pytest.approx(0.25, rel=1e-4)


def test_a_jump_is_the_largest_step():
    assert Sweep(steps=(1.0, 7.0, 2.0), way=10.0).largest == 0.7
