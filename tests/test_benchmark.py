"""The benchmark reports whole, plausible numbers from processes of its own."""

import sys

import pytest
import torch

from rcod.errors import RcodError
from rcod.judging.benchmark import against, benchmark, cold, table
from rcod.judging.machine import run
from rcod.judging.peers import peak_mb
from rcod.networks.checkpoint import find_weights

needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the tiny model's weights are not in the package"
)


@needs_tiny
def test_benchmark_adds_up():
    found = benchmark("tiny", size=32, repeats=2, device="cpu", dtype="float32")
    assert (found["size_in"], found["size_out"]) == (32, 128)
    assert (found["device"], found["dtype"], found["engine"]) == ("cpu", "float32", "auto")
    assert found["threads"] >= 1
    assert set(found["stages"]) == {"tokens", "encode", "metric", "predict", "decode", "color"}
    for took in (*(stage["seconds"] for stage in found["stages"].values()), found["total"]):
        assert 0 <= took["low"] <= took["median"] <= took["high"]
    assert found["matrix"]["median"] > 1 < found["copy"]["median"]
    assert found["stages"]["predict"]["gmacs"] > 10 * found["stages"]["encode"]["gmacs"] > 0
    assert 0 < found["share"] < 1.5
    assert 0 < found["bicubic"] < found["total"]["median"] <= found["load"] + found["first"] + 1
    assert found["dial"] is not None and 0 < found["dial"] < found["load"] + found["first"] + 1
    assert 50 < found["peak_mb"] < 4000
    peers = against(["bicubic"], 32, 2, found["total"]["median"])
    assert [peer["name"] for peer in peers] == ["bicubic"]
    assert peers[0]["times"] == peers[0]["seconds"]["median"] / found["total"]["median"] > 0
    lines = table(found, peers)
    assert any(line.startswith("predict ") for line in lines)
    assert lines[-1].startswith("bicubic: ") and " on cpu, " in lines[-1]


def test_a_peer_is_named_with_its_program(tmp_path):
    with pytest.raises(RcodError, match="--against takes ncnn:PATH, spandrel:PATH or bicubic"):
        against(["realesrgan.param"], 32, 1, 1.0)
    weights = tmp_path / "net.pth"
    weights.touch()
    with pytest.raises(RcodError, match="must be a network of ncnn, and looks like one of span"):
        against([f"ncnn:{weights}"], 32, 1, 1.0)


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
        run([sys.executable, "-c", "import sys; sys.exit('no such picture')"])


@needs_tiny
@pytest.mark.parametrize(
    ("model", "dtype", "words"), [("tiny", "foo", "dtype must be one of"), ("nothere", "auto", "")]
)
def test_a_mistake_is_one_sentence_and_no_traceback(model: str, dtype: str, words: str):
    with pytest.raises(RcodError, match=f"^{words}") as told:
        benchmark(model, size=32, repeats=1, device="cpu", dtype=dtype)
    said = str(told.value)
    assert "\n" not in said and "Traceback" not in said and "timed command" not in said
