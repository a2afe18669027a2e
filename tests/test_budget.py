"""Laws of what a run would take."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

from rcod.training.adaptation import Adaptation
from rcod.training.budget import Meter, Need, weigh
from rcod.training.catalog import recipe_named

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


@pytest.mark.parametrize("name", ["rcod_o"])
def test_the_true_size_is_weighed_without_taking_memory(name: str):
    def weighed(**changes: str) -> Need:
        recipe = recipe_named(name, {"batch": "1", "window": "256"} | changes)
        assert isinstance(recipe, Adaptation)
        return weigh(recipe)

    need = weighed()
    assert need.frozen["UNet"] > 860e6
    assert 1e6 < need.learning["UNet"] < 30e6
    assert need.megabytes["student"] > need.megabytes["at rest"] > 1500
    kept = weighed(checkpointing="false")
    assert kept.megabytes["student"] > 1.2 * need.megabytes["student"]
