import pytest
import torch

from rcod.device import pick_device, pick_dtype, seeded
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


def test_the_same_seed_draws_the_same_numbers():
    first, again, other = (torch.rand(4, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(RcodError, match=str(seed)):
        seeded(seed)
