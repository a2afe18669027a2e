"""Laws of what a run would take."""

import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

from rcod.training.budget import Meter

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")


def test_the_meter_counts_what_is_alive():
    with Meter() as meter:
        kept = torch.zeros(1000)
        gone = torch.zeros(500)
        view = kept[:10]  # takes nothing of its own
        assert meter.alive == 6000
        del gone
        assert (meter.alive, meter.most) == (4000, 6000)
        layer, x = nn.Linear(10, 10), view[None]
        layer(x).sum().backward()
        assert layer.weight.grad is not None
    assert meter.alive >= 4000 + 4 * (110 + 110)


def test_a_dry_run_tells_recipe_parameters_and_memory(
    here: Callable[..., CompletedProcess[str]],
):
    done = here("train", "tiny-rcod", "steps=7", "--dry-run")
    assert done.returncode == 0
    assert '"steps": 7' in done.stdout and "M parameters" in done.stdout
    assert here("train", "osediff", "das=paper", "--dry-run").returncode == 2


def test_the_true_size_is_weighed_without_taking_memory(here: Callable[..., CompletedProcess[str]]):
    def dry(*changes: str) -> str:
        done = here("train", "rcod_o", "batch=1", "window=256", *changes, "--dry-run")
        assert done.returncode == 0
        return done.stdout

    def number(pattern: str, told: str) -> float:
        found = re.search(pattern, told)
        assert found is not None, pattern
        return float(found[1])

    told = dry()
    assert number(r"UNet .* M learn +(\S+) M frozen", told) > 860
    for part in ("UNet", "autoencoder", "prompt", "critic"):
        assert 0.3 < number(rf"{part} +(\S+) M learn", told) < 30
    gigabytes = {part: number(rf"{part} +(\S+) GB", told) for part in ("at rest", "student")}
    assert gigabytes["student"] > gigabytes["at rest"] > 1.5
    peak = number(r"peak (\S+) GB on a card", told)
    assert number(r"on a card, (\S+) GB on a processor", told) > peak > 3
    kept = dry("checkpointing=false")
    assert number(r"student +(\S+) GB", kept) > 1.2 * gigabytes["student"]
