"""The benchmark reports whole, plausible numbers from processes of its own."""

import sys

import pytest
import torch

from rcod.errors import RcodError
from rcod.judging.benchmark import _run, benchmark, cold
from rcod.judging.peers import peak_mb
from rcod.networks.checkpoint import find_weights

needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the tiny model's weights are not in the package"
)


@needs_tiny
def test_benchmark_adds_up():
    found = benchmark("tiny", size=32, repeats=2, device="cpu", dtype="float32")
    assert (found["size_in"], found["size_out"]) == (32, 128)
    assert (found["device"], found["dtype"]) == ("cpu", "float32")
    assert found["threads"] >= 1
    assert set(found["stages"]) >= {"tokens", "encode", "predict", "decode", "color"}
    assert all(seconds >= 0 for seconds in found["stages"].values())
    assert 0 < found["bicubic"] < found["total"] <= found["load"] + found["first"] + 1
    assert 0 < found["dial"] < found["load"] + found["first"] + 1
    assert 50 < found["peak_mb"] < 4000


@needs_tiny
def test_cold_commands_are_timed():
    found = cold(repeats=1)
    assert 0 < found["help"] < found["upscale"]


def test_peak_memory_grows_with_what_is_held():
    before = peak_mb()
    held = torch.ones(int(before * 1024**2) // 4 + 10_000_000)  # more than all so far
    assert peak_mb() >= before + 30
    assert held[0] == 1


def test_a_failing_command_is_told_not_timed():
    with pytest.raises(RcodError, match="must succeed, it said: no such picture"):
        _run([sys.executable, "-c", "import sys; sys.exit('no such picture')"])
