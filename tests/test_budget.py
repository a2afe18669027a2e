"""Laws of what a run would take."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

from rcod.training.tensor_memory import Meter

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


@pytest.mark.parametrize(
    ("name", "learns", "frozen"),
    [
        ("tiny-autoencoder", [], ["UNet", "prompt", "metric"]),
        ("tiny-prior", ["UNet", "prompt", "last touch"], ["start", "critic"]),
        ("tiny-detail", ["UNet", "prompt", "adversary"], ["metric", "start", "LPIPS"]),
        ("tiny-fidelity", ["UNet"], ["prompt", "last touch", "start", "LPIPS"]),
        ("tiny-metric", ["metric"], ["UNet", "prompt"]),
    ],
)
def test_a_dry_run_of_the_tiny_model_tells_who_learns_and_what_it_takes(
    name: str, learns: list[str], frozen: list[str], here: Callable[..., CompletedProcess[str]]
):
    small = ("batch=2", "window=64", "data.crop=64", "data.crops=70", "model.touch=8")
    done = here("train", name, *small, "--dry-run")
    assert done.returncode == 0 and '"window": 64' in done.stdout
    assert ("70 crops, 35 steps an epoch" in done.stdout) == (name != "tiny-autoencoder")
    for part in learns:
        assert number(rf"{part} +(\S+) (?:M )?learn", done.stdout) > 0
    for part in frozen:
        assert number(rf"{part} +0 learn +(\S+) (?:M )?frozen", done.stdout) > 0
    rest, step = (number(rf"{part} +(\S+) GB", done.stdout) for part in ("at rest", "step"))
    assert step >= rest
    assert 10 > number(r"on a card, (\S+) GB on a processor", done.stdout) > 0


def test_a_dry_run_weighs_the_adversary(here: Callable[..., CompletedProcess[str]]):
    def dry(*given: str) -> str:
        done = here("train", *given, "batch=1", "window=256", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert number(r"adversary +(\S+) GB", done.stdout) > 0
        return done.stdout

    dino, patch = dry("s3diff"), dry("s3diff", "judge=patch")
    heads = 2 * ((768 * 9 + 1) * 128 + 128 + 1) + (768 + 1) * 128 + 128 + 1
    assert number(r"adversary +(\S+) M learn", dino) == round(heads / 1e6, 3)
    assert 85 < number(r"adversary .* learn +(\S+) M frozen", dino) < 87
    assert number(r"adversary .* learn +(\S+) frozen", patch) == 0
    rest, student = (
        number(rf"{stage} +(\S+) GB", dino) - number(rf"{stage} +(\S+) GB", patch)
        for stage in ("at rest", "student")
    )
    assert rest > 0.34  # DINO's weights
    assert student > rest + 0.05  # and what its gradient stands on
    dry("rcod_o", "adversary=.1", "groups.edges=", "groups.timesteps=499")  # beside a critic


def test_small_numbers_are_told_as_they_are(
    here: Callable[..., CompletedProcess[str]], tmp_path: Path
):
    listed = tmp_path / "photos.txt"
    listed.write_text("a.png\nb.png\nc.png\n")
    done = here("train", "mem", "batch=8", "window=64", "--photos", listed, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "3 photos, 0.38 steps an epoch in one process" in done.stdout
    assert number(r"estimator +(\S+) learn", done.stdout) == 257
    assert number(r"UNet +0 learn +(\S+) M frozen", done.stdout) > 800


def test_a_dry_run_refuses_what_the_run_would(here: Callable[..., CompletedProcess[str]]):
    assert here("train", "osediff", "das=paper", "--dry-run").returncode == 2
    assert here("train", "tiny-prior", "--base", "sd", "--dry-run").returncode == 2


def number(pattern: str, told: str) -> float:
    found = re.search(pattern, told)
    assert found is not None, pattern
    return float(found[1])


def test_the_true_size_is_weighed_without_taking_memory(here: Callable[..., CompletedProcess[str]]):
    def dry(*changes: str) -> str:
        done = here("train", "rcod_o", "batch=1", "window=256", *changes, "--dry-run")
        assert done.returncode == 0
        return done.stdout

    told = dry()
    assert number(r"UNet .* M learn +(\S+) M frozen", told) > 860
    for part in ("UNet", "autoencoder", "prompt", "critic"):
        assert 0.3 < number(rf"{part} +(\S+) M learn", told) < 30
    gigabytes = {part: number(rf"{part} +(\S+) GB", told) for part in ("at rest", "student")}
    assert gigabytes["student"] > gigabytes["at rest"] > 1.5
    peak = number(r"peak (\S+) GB on a card", told)
    assert number(r"on a card, (\S+) GB on a processor", told) > peak > 3
    kept = dry("checkpointing=false", "das=off", "distill=off")  # and less to compute
    assert number(r"student +(\S+) GB", kept) > 1.2 * gigabytes["student"]
