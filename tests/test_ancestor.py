"""OSEDiff's own order of work gives the picture of ours, on the same layers."""

from typing import TYPE_CHECKING, cast

import pytest
import torch

from rcod.device import seeded
from rcod.judging import ancestor, fullsize
from rcod.networks.lora import LowRank, merge
from rcod.networks.onestep import OneStep, enlarge
from rcod.networks.prompts import FixedPrompt
from rcod.networks.stable import StableBackbone
from rcod.networks.systems import OSEDIFF
from rcod.pixels.color import match_adain

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of every kind, and few of them."""
    body = {"block_out_channels": [32] * 4, "norm_num_groups": 8, "layers_per_block": 1}
    slim = {"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 64}
    monkeypatch.setattr(fullsize, "TEXT", fullsize.TEXT | slim)
    for module in (ancestor, fullsize):
        monkeypatch.setattr(module, "UNET", fullsize.UNET | body | {"attention_head_dim": 2})
        monkeypatch.setattr(module, "VAE", fullsize.VAE | body)
    torch.manual_seed(0)


@torch.inference_mode()
def test_the_ancestors_order_gives_our_picture():
    exact = torch.float32
    unet = cast("UNet2DConditionModel", ancestor._adapted(ancestor.UNET, "unet", exact))
    vae = cast("AutoencoderKL", ancestor._adapted(ancestor.VAE, "vae", exact))
    tower, _ = fullsize.text_tower(exact, 1)
    lr = torch.rand(1, 3, 32, 24)
    torch.manual_seed(5)
    seconds: dict[str, float] = {}
    theirs = ancestor._restore(lr, unet, vae, tower, seconds)
    assert [*seconds] == ["tokens", "encode", "predict", "decode", "color"]

    words = torch.ones(1, ancestor.WORDS, dtype=torch.long)
    prompt = FixedPrompt(tower(words).last_hidden_state)
    for network in (unet, vae):
        assert any(isinstance(layer, LowRank) for layer in network.modules())
        merge(network)
    ours = OneStep(StableBackbone([unet], vae), prompt, OSEDIFF.formula, 4)
    up = enlarge(lr)
    z_up = ours.encode(up, seeded(5))
    z_sr = ours.clean(z_up, torch.tensor([OSEDIFF.timestep]), ours.prompt(up))
    sr = ours.backbone.decode(z_sr).clamp(0, 1)
    torch.testing.assert_close(theirs, match_adain(sr, up), rtol=0, atol=1e-3)
    assert sr.std() > 0.01 and ((sr > 0) & (sr < 1)).float().mean() > 0.1  # a picture, not a bound


def test_the_ancestor_is_measured_stage_by_stage():
    cost = ancestor.measure_ancestor(16, "bfloat16")
    stages = {"tokens", "encode", "predict", "decode", "color"}
    assert set(cost["seconds"]) == stages | {"total"}
    assert cost["gmacs"]["tokens"] > 0
    assert (cost["system"], cost["size_out"]) == (ancestor.NAME, 64)
