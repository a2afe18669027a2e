"""Published systems at their true shapes: counted without memory, timed where they fit."""

import pytest
import torch

from rcod.errors import RcodError
from rcod.judging import fullsize
from rcod.judging.fullsize import SystemCost, count, measure
from rcod.judging.turns import measure_all, sum_up, table
from rcod.networks.checkpoint import arrange
from rcod.networks.systems import SYSTEMS

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")


def test_true_shapes_have_the_known_number_of_operations():
    found = count(SYSTEMS["osediff"], 128)
    assert found["predict"] == pytest.approx(402, rel=0.01)  # Stable Diffusion 2.1 at 64 x 64
    assert found["decode"] == pytest.approx(1257, rel=0.01)
    assert found["tokens"] == 0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of every kind, and few of them."""
    small = {"block_out_channels": [32, 32, 32, 32], "norm_num_groups": 8, "layers_per_block": 1}
    monkeypatch.setattr(fullsize, "UNET", fullsize.UNET | small | {"attention_head_dim": 2})
    monkeypatch.setattr(fullsize, "VAE", fullsize.VAE | small)
    slim = {"num_hidden_layers": 1, "intermediate_size": 64}
    monkeypatch.setattr(fullsize, "VISION", fullsize.VISION | slim)
    monkeypatch.setattr(fullsize, "TEXT", fullsize.TEXT | slim | {"vocab_size": 64})
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["rcod_o", "s3diff", "rcod_s"])
def test_small_shapes_run_through_every_stage(name: str, small: None):
    cost = measure(name, 16, "bfloat16")
    stages = {"encode", "tokens", "predict", "decode", "color", "total"}
    guided = SYSTEMS[name].adapters == "guided"
    assert set(cost["seconds"]) == (stages | {"metric"} if guided else stages)
    assert (cost["gmacs"]["tokens"] > 0) == (SYSTEMS[name].condition == "visual")
    assert (cost["text"] is None) == (SYSTEMS[name].condition == "visual")
    lines = table([sum_up([cost], [cost])])
    assert lines[0].split() == [f"{name}@bfloat16"]
    assert lines[-1].split() == ["times", "1st", "1.00", "(1.00", "to", "1.00)"]


def test_ratios_are_taken_within_a_turn(small: None):
    once = measure("osediff", 16, "float32")
    hours = [0.5, 1, 4]  # of a machine whose rate moves
    first = [SystemCost(**{**once, "seconds": {"total": hour}}) for hour in hours]
    other = [
        SystemCost(**{**once, "seconds": {"total": 3 * hour}, "peak_mb": hour}) for hour in hours
    ]
    found = sum_up(other, first)
    assert found["times"] == {"median": 3, "low": 3, "high": 3}
    assert found["seconds"] == {"total": 3} and found["peak_mb"] == 4


def test_beside_a_processor_every_network_has_one_precision(small: None):
    onestep = fullsize.invent(SYSTEMS["osediff"], torch.bfloat16)
    found = {t.dtype for t in onestep.backbone.vae.parameters()}
    assert found == {torch.bfloat16, torch.float32}  # whose norms are exact on a processor
    arrange(onestep, torch.device("cuda"), torch.bfloat16)  # which doesn't move it there
    assert {t.dtype for t in onestep.backbone.parameters()} == {torch.bfloat16}
    exact = fullsize.invent(SYSTEMS["s3diff"], torch.bfloat16)  # whose autoencoder stays as it is
    arrange(exact, torch.device("cuda"), torch.bfloat16)
    assert {t.dtype for t in exact.backbone.vae.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("tiny", "must be among osediff,rcod_o,.*,osediff-own, got tiny"),
        ("osediff@float16", "must be bfloat16 or float32 for --systems, got float16"),
        ("osediff@", "must be bfloat16 or float32 for --systems, got osediff@"),
    ],
)
def test_unknown_systems_and_precisions_are_named(asked: str, words: str):
    with pytest.raises(RcodError, match=words):
        measure_all([asked])
    with pytest.raises(RcodError, match="got float16"):
        measure_all(["osediff"], dtype="float16")
