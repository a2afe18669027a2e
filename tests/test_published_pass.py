"""Laws of framing and of what published systems know of the dial."""

import copy

import pytest
import torch

from rcod.errors import RcodError
from rcod.networks.framing import frame, pad, truncate
from rcod.networks.guide import Guide, block_of
from rcod.networks.lora import Factors, attach_factors, twin
from rcod.networks.storage import hasten, widen
from rcod.networks.systems import SYSTEMS, covers
from rcod.using.published_pass import keep_colors, latent_side, resolve_dial


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (48, 40), (75, 70), (64, 400)])
@pytest.mark.parametrize(("framing", "unit"), [("pillow", 8), ("padded", 64), ("free", 4)])
def test_every_size_is_framed_and_the_photo_stays_in_its_corner(
    size: tuple[int, int], framing: str, unit: int
):
    lr = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    system = next(row for row in SYSTEMS.values() if row.framing == framing)
    framed = frame(lr, system.framing, 4, system.least)
    height, width = framed.look.shape[-2:]
    assert framed.up.shape[-2] % unit == framed.up.shape[-1] % unit == 0
    assert framed.up.shape[-2] - height < 64 and framed.up.shape[-1] - width < 64
    near = (framed.up[..., :height, :width] - framed.look).abs().max()
    assert float(near) <= 1 / 255 + 1e-6
    if min(size) >= system.least:
        assert (height, width) == (4 * size[0], 4 * size[1])


def test_padding_mirrors_and_truncating_rounds_down():
    row = torch.tensor([0.0, 0.25, 0.5]).view(1, 1, 1, 3)
    assert pad(row, 8)[0, 0, 0].tolist() == [0.0, 0.25, 0.5, 0.25, 0.0, 0.25, 0.5, 0.25]
    values = torch.arange(256) / 255
    assert torch.equal(truncate(values), values)
    assert float(truncate(torch.tensor(0.999))) == pytest.approx(254 / 255)


def test_a_core_is_an_argument_and_stays_nowhere():
    torch.manual_seed(0)
    for layer, x in (
        (torch.nn.Linear(6, 5), torch.randn(2, 3, 6)),
        (torch.nn.Conv2d(6, 5, 3, padding=1), torch.randn(2, 6, 4, 4)),
    ):
        net = torch.nn.Sequential(layer)
        down = torch.randn(2, *layer.weight.shape[1:])
        factors = Factors(down, torch.randn(5, 2, *(1 for _ in layer.weight.shape[2:])))
        cores = torch.randn(2, 2, 2)
        wanted = []
        for i in range(2):
            changed = {"0.weight": (layer.weight + factors.delta(cores[i])).detach()}
            wanted.append(twin(net, changed)(x[i : i + 1]))
        attach_factors(net, {"0": factors}, with_core=True)
        before = net(x)
        for i in range(2):
            one = twin(net, {"0.core": cores[i : i + 1]})(x[i : i + 1])
            torch.testing.assert_close(one, wanted[i], rtol=1e-4, atol=1e-4)
        both = twin(net, {"0.core": cores})(x)
        torch.testing.assert_close(both, torch.cat(wanted), rtol=1e-4, atol=1e-4)
        assert torch.equal(net(x), before)


def test_every_block_has_its_embedding():
    names = ("conv_in", "down_blocks.2.a", "mid_block.a", "up_blocks.3.a", "conv_out")
    assert [block_of(name, 10) for name in names] == [9, 2, 4, 8, 9]
    names = ("encoder.conv_in", "encoder.down_blocks.3.a", "encoder.mid_block.a")
    assert [block_of(name, 6) for name in names] == [5, 3, 4]
    assert Guide(4, 6)(torch.rand(3, 2)).shape == (3, 6, 4, 4)


def test_weights_of_half_the_bytes_multiply_in_float32():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4)).bfloat16()
    x = torch.randn(1, 3, 8, 8)
    wanted = copy.deepcopy(net).float()(x)
    answer = widen(net)(x)
    torch.testing.assert_close(answer, wanted)
    assert net[0].weight.dtype == torch.bfloat16 and net[1].weight.dtype == torch.float32


@torch.no_grad()
def test_brisk_layers_alone_round_what_comes_and_goes():
    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"conv1": torch.nn.Conv2d(3, 4, 3), "to_q": torch.nn.Linear(8, 8)})
    wide = widen(copy.deepcopy(net).bfloat16())
    hasten(wide)
    x = torch.randn(1, 3, 8, 8)
    for name, layer in net.bfloat16().items():
        found = wide.get_submodule(name)(x)
        rounded = layer(x.bfloat16()).float()
        assert found.dtype == torch.float32
        assert torch.equal(found, rounded) == (name == "conv1")
        torch.testing.assert_close(found, rounded, rtol=0.02, atol=0.02)


def test_what_a_system_does_not_know_is_refused():
    with pytest.raises(RcodError, match="one setting and no dial"):
        resolve_dial(SYSTEMS["osediff"], 0.5)
    with pytest.raises(RcodError, match="auto-local can't choose"):
        resolve_dial(SYSTEMS["rcod_o"], "auto-local")
    assert resolve_dial(SYSTEMS["rcod_o"], "auto") == "neutral"
    assert resolve_dial(SYSTEMS["rcod_s"], "auto") == "auto"
    assert resolve_dial(SYSTEMS["osediff"], "auto") == "auto"


def test_targets_are_read_as_peft_reads_them():
    assert covers(("conv1",), "down_blocks.0.resnets.0.conv1") and not covers(("conv",), "a.conv1")
    assert covers(r"^encoder\..*(conv1|conv)$", "encoder.a.conv") and not covers("a.*", "b.a")


def test_colours_of_published_systems_are_bytes():
    sr, look = torch.rand(1, 3, 8, 8), truncate(torch.rand(1, 3, 8, 8))
    for fix in ("wavelet", "adain", "none"):
        steps = 255 * keep_colors(sr, look, fix, True)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert latent_side(512) == 96 and latent_side(128) == 24


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_brisk_layer_halves_narrow_latents_whatever_memory_held(width: int):
    net = torch.nn.Sequential()
    net.add_module("conv", torch.nn.Conv2d(64, 64, 3, stride=2, padding=1).bfloat16())
    exact = widen(copy.deepcopy(net))
    hasten(widen(net))
    x = torch.randn(1, 64, 64, width, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        junk = [torch.full((n,), torch.nan) for n in 4 * [3000, 5000, 10_000, 20_000, 60_000]]
        del junk
        torch.testing.assert_close(net(x), exact(x), rtol=0, atol=0.05)
