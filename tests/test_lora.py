"""Laws of low-rank adapters."""

import pytest
import torch
from torch import nn

from rcod.errors import RcodError
from rcod.networks.lora import Factors, LowRank, attach, attach_factors, merge


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.SiLU(),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
    )


def test_a_fresh_adapter_changes_nothing_and_trains_alone():
    net, x = network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = net(x)
    adapters = attach(net, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), before)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapters}
    net(x).square().mean().backward()
    assert all(p.grad is not None for p in adapters)


def test_merged_equals_unmerged():
    net, x = network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for parameter in attach(net, 4, torch.Generator().manual_seed(0)):
        torch.nn.init.normal_(parameter, std=0.1)
    want = net(x)
    merge(net)
    assert not any(isinstance(m, LowRank) for m in net.modules())
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-5)


def shapes_of(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[tuple[int, ...], ...]:
    """Of an adapter's two factors."""
    out, *inward = layer.weight.shape
    return (rank, *inward), (out, rank, *(1 for _ in inward[1:]))


def test_adapters_upon_adapters_are_merged_once():
    net, x = network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        adapters = {
            name: Factors(*(torch.randn(shape) / 4 for shape in shapes_of(layer, rank=2)))
            for name, layer in network().named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        attach_factors(net, adapters)
    want, names = net(x), {name for name, _ in network().named_modules()}
    merge(net)
    assert {name for name, _ in net.named_modules()} == names
    torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-4)


def test_the_scale_is_the_published_one():
    assert LowRank(nn.Linear(4, 4), rank=16).scale == 0.5  # 8 / r, stored nowhere


def test_errors_say_what_to_do():
    with pytest.raises(RcodError, match="rank must be at least 1, got 0"):
        LowRank(nn.Linear(4, 4), rank=0)
    with pytest.raises(RcodError, match="no layer of the network was chosen"):
        attach(network(), 4, torch.Generator(), lambda name: False)
