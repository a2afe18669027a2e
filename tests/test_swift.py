"""Tiny arranged for a processor answers as it was trained to."""

import pytest
import torch
from torch.nn import functional as F

from rcod.networks import swift
from rcod.networks.backbone import TinyBackbone, TinySettings
from rcod.networks.onestep import enlarge
from rcod.networks.swift import SwiftBackbone
from rcod.pixels.color import cascade
from rcod.pixels.stretches import along


@pytest.fixture(scope="module")
def tiny() -> TinyBackbone:
    """A backbone that says something everywhere, random weights included."""
    torch.manual_seed(0)
    tiny = TinyBackbone(
        TinySettings(latent=8, lap=-15.0, widths=(8, 16), blocks=(2, 5, 1), touch=6)
    )
    basis = torch.linalg.qr(torch.randn(48, 48))[0][:8]
    tiny.basis.copy_(basis.view(8, 3, 4, 4))
    tiny.mean.copy_(torch.tensor([0.4, 0.5, 0.3]))
    tiny.std.copy_(torch.rand(8) + 0.1)
    for parameter in tiny.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return tiny.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 9), (70, 2)])
def test_the_autoencoder_is_two_convolutions(tiny, size):
    fast = SwiftBackbone(tiny)
    image = torch.rand(2, 3, 4 * size[0], 4 * size[1])
    z = torch.randn(2, 8, *size)
    torch.testing.assert_close(fast.encode(image), tiny.encode(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.decode(z), tiny.decode(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (24, 16)])
@pytest.mark.parametrize("band", [1, 2**11, 2**30])
@pytest.mark.parametrize("wide", [0, 256])
def test_bands_zeros_and_folded_weights_change_nothing(tiny, size, band, wide, monkeypatch):
    monkeypatch.setattr(swift, "BAND", band)
    monkeypatch.setattr(swift, "WIDE", wide)
    z, t = torch.randn(2, 8, *size), torch.tensor([249, 700])
    tokens = torch.randn(2, 49, 128)
    found = SwiftBackbone(tiny).predict(z, t, tokens)
    torch.testing.assert_close(found, tiny.predict(z, t, tokens), rtol=1e-3, atol=1e-3)


def test_weights_of_few_timesteps_are_kept(tiny):
    fast = SwiftBackbone(tiny)
    z, tokens = torch.randn(1, 8, 4, 4), torch.randn(1, 49, 128)
    for t in range(3 * swift.KEPT):
        fast.predict(z, torch.tensor([t]), tokens)
    assert len(fast._timed) == swift.KEPT


@pytest.mark.parametrize("length", [1, 40, 192, 193, 255, 256, 300])
@pytest.mark.parametrize("axis", [2, 3])
def test_stretches_side_by_side_are_the_map(length, axis):
    x = torch.rand(2, 3, *((length, 6) if axis == 2 else (6, length)))
    lines = x.transpose(2, 3) if axis == 2 else x
    whole = cascade(lines)
    found = along(x, axis, cascade, 31)
    expected = whole.transpose(2, 3) if axis == 2 else whole
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (200, 20), (257, 3)])
def test_enlarging_is_bicubic(size):
    lr = torch.rand(1, 3, *size)
    expected = F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(enlarge(lr), expected.clamp(0, 1), rtol=0, atol=1e-5)
