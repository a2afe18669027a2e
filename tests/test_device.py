import json
import os
from pathlib import Path

import pytest
import torch

from rcod.device import PAYS, cache_folder, is_out_of_memory, pick_device, pick_dtype, seeded
from rcod.errors import RcodError

CPU = torch.device("cpu")


def test_auto_takes_a_device_that_computes():
    device = pick_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2


def test_a_named_device_is_taken_as_named():
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "cuda:77"])
def test_an_unknown_or_absent_device_is_refused_by_name(name: str):
    with pytest.raises(RcodError, match=f"'{name}'.*auto"):
        pick_device(name)


def test_dtype_by_name_and_by_device():
    assert pick_dtype("float16", CPU) == torch.float16
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(RcodError, match="one of auto, float32, bfloat16, float16, got 'int8'"):
        pick_dtype("int8", CPU)


def test_auto_takes_no_precision_that_a_card_only_imitates(monkeypatch: pytest.MonkeyPatch):
    for own, dtype in ((False, torch.float16), (True, torch.bfloat16)):
        monkeypatch.setattr(
            "torch.cuda.is_bf16_supported",
            lambda including_emulation=True, own=own: own or including_emulation,
        )
        assert pick_dtype("auto", torch.device("cuda")) == dtype


def test_auto_measures_the_precision_once_and_keeps_it(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RCOD_CACHE", str(tmp_path / "first"))
    taken = pick_dtype("auto", CPU)
    (found,) = (tmp_path / "first").iterdir()
    told = json.loads(found.read_text())
    assert told["pays"] == (taken == torch.bfloat16)
    assert told["pays"] == (told["bfloat16"] * PAYS < told["float32"])
    for pays in (True, False):  # what was measured before is believed
        place = tmp_path / str(pays)
        place.mkdir()
        (place / found.name).write_text(json.dumps({"pays": pays}))
        monkeypatch.setenv("RCOD_CACHE", str(place))
        assert pick_dtype("auto", CPU) == (torch.bfloat16 if pays else torch.float32)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / found.name).write_text('{"pa')
    monkeypatch.setenv("RCOD_CACHE", str(torn))
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert "pays" in json.loads((torn / found.name).read_text())


@pytest.mark.skipif(not Path("/proc/self").is_dir() or os.name != "posix", reason="no /proc")
def test_a_cache_that_cannot_be_written_does_not_matter(monkeypatch):
    monkeypatch.setenv("RCOD_CACHE", "/proc/self/nowhere")
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


def test_whoever_has_no_home_has_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("XDG_CACHE_HOME", "RCOD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder().is_absolute()
    monkeypatch.setenv("RCOD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.parametrize(
    "sentence",
    [
        "MPS backend out of memory (MPS allocated: 9.00 GiB). Tried to allocate 1 GiB",
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_every_device_says_in_its_own_words_that_memory_is_short(sentence: str):
    assert is_out_of_memory(RuntimeError(sentence))
    assert not is_out_of_memory(RuntimeError("shapes don't match"))


def test_the_same_seed_draws_the_same_numbers():
    first, again, other = (torch.rand(4, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(RcodError, match=str(seed)):
        seeded(seed)
