"""An upsampling by phases says what one that repeats and convolves says."""

from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn

from rcod.networks.subpixel import Subpixel, by_phases

if TYPE_CHECKING:
    from diffusers.models.upsampling import Upsample2D

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")


def upsampler(channels: int = 8) -> "Upsample2D":
    from diffusers.models.upsampling import Upsample2D

    torch.manual_seed(0)
    return Upsample2D(channels, use_conv=True, out_channels=6).requires_grad_(False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 2), (1, 5), (4, 3), (7, 8)])
def test_phases_give_the_larger_pictures_convolution(
    size: tuple[int, int], layout: torch.memory_format
):
    network = nn.Sequential(upsampler()).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    x = torch.randn(2, 8, *size).to(memory_format=layout)
    expected = network(x)
    by_phases(network)
    assert isinstance(network[0], Subpixel)
    found = network(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.is_contiguous(memory_format=layout)


def test_bfloat16_rounds_the_taps_once_more_and_nothing_else():
    exact, x = upsampler(64), torch.randn(1, 64, 12, 12)
    half = upsampler(64).bfloat16()
    expected = exact(x)
    plain, phased = (
        one(x.bfloat16()).float() for one in (half, Subpixel(half, cast("nn.Conv2d", half.conv)))
    )
    assert (phased - expected).std() < 1.3 * (plain - expected).std()


def test_a_graph_keeps_open_sizes():
    network = nn.Sequential(upsampler())
    by_phases(network)
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    graph = torch.export.export(network, (torch.randn(1, 8, 4, 5),), dynamic_shapes=(sizes,))
    x = torch.randn(1, 8, 6, 3)
    torch.testing.assert_close(graph.module()(x), network(x), rtol=1e-5, atol=1e-6)
