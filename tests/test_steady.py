"""Norms that tiles share are the whole picture's."""

import torch
from torch import nn

from rcod.networks.steady import GRID, FixedNorm, probes, settle


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 1))
    return nn.Sequential(*layers, nn.GroupNorm(4, 8)).requires_grad_(False)


def picture(height: int, width: int) -> torch.Tensor:
    ramp = torch.linspace(0, 1, width).expand(1, 3, height, width)
    return ramp + 0.1 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_settled_by_the_whole_picture_a_network_gives_the_whole_result():
    net, x = network(), picture(20, 24)
    settled = settle(net, lambda one: one(x))
    torch.testing.assert_close(settled(x), net(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(settled(x[..., :7]), net(x)[..., :7], rtol=1e-4, atol=1e-5)
    assert (net(x[..., :7]) - net(x)[..., :7]).abs().max() > 0.1  # a tile by itself


def test_probes_cover_a_picture_evenly_and_are_as_large_as_a_tile():
    x = torch.arange(100.0).expand(1, 1, 60, 100)
    found = probes(x, 36)
    assert found.shape == (GRID * GRID, 1, 12, 12)
    assert found[:, 0, 0, 0].tolist()[:GRID] == [0, 44, 88]
    assert probes(x, 64, 8).shape[2:] == (16, 16)
    assert probes(x[..., :2, :3], 40).shape[2:] == (1, 1)


def test_settling_leaves_a_network_as_it_was_and_shares_its_weights():
    net, x = network(), picture(16, 16)
    before = net(x)
    settled = settle(net, lambda one: one(probes(x, 16)))
    assert torch.equal(net(x), before)
    assert settled[0].weight is net[0].weight


def test_a_settled_norm_rounds_once():
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 32)
    nn.init.normal_(norm.weight)
    x = (3 + torch.randn(1, 32, 9, 7)).bfloat16()
    groups = x.float().reshape(4, -1)
    fixed = FixedNorm(norm, groups.mean(1), groups.var(1, correction=0))
    exact = norm(x.float())
    assert ((fixed(x) - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()
