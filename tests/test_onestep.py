"""Laws of the one step."""

import torch

from rcod.networks.backbone import TinySettings
from rcod.networks.onestep import compared, enlarge
from rcod.networks.systems import SYSTEMS, build

SMALL = SYSTEMS["tiny"].model_copy(
    update={"model": TinySettings(latent=12, widths=(8, 16), blocks=(1, 1, 1), tokens=8, heads=2)}
)


def test_a_fresh_model_returns_what_its_autoencoder_keeps():
    """No noise is found by an untrained UNet, so the clean latent is the input's own."""
    torch.manual_seed(0)
    onestep, _ = build(SMALL)
    up = torch.rand(2, 3, 32, 48)
    restored = onestep(up, torch.tensor([249, 749]), onestep.prompt(up))
    assert torch.equal(restored.z_sr, restored.z_up)
    assert torch.equal(restored.sr, onestep.backbone.decode(restored.z_up))


def test_the_timestep_alone_moves_the_result():
    torch.manual_seed(0)
    onestep, _ = build(SMALL)
    for parameter in onestep.backbone.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    onestep.backbone.basis.normal_()
    up = torch.rand(1, 3, 16, 16)
    tokens = onestep.prompt(up)
    a, b, c = (onestep(up, torch.tensor([t]), tokens).sr for t in (249, 249, 749))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_enlarging_keeps_flat_colours_and_the_range():
    flat = torch.tensor([0.0, 0.3, 1.0]).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    torch.testing.assert_close(enlarge(flat), flat[..., :1, :1].expand(1, 3, 20, 28))
    checks = (torch.arange(8).view(1, -1) + torch.arange(8).view(-1, 1)) % 2
    up = enlarge(checks.float().expand(1, 3, 8, 8))
    assert up.min() >= 0 and up.max() <= 1


def test_the_gain_scales_what_the_unet_finds():
    torch.manual_seed(0)
    onestep, _ = build(SMALL)
    torch.nn.init.normal_(onestep.backbone.unet.leave.weight, std=0.1)
    z, t, tokens = torch.randn(1, 12, 6, 6), torch.tensor([499]), torch.zeros(1, 49, 8)
    moved = onestep.clean(z, t, tokens) - z
    onestep.gain.copy_(torch.linspace(0, 2, 12))
    wanted = moved * onestep.gain.view(1, -1, 1, 1)
    torch.testing.assert_close(onestep.clean(z, t, tokens) - z, wanted, rtol=1e-4, atol=1e-6)


def test_photos_of_any_size_are_compared_reduced_and_whole_latents_alone_count():
    onestep, _ = build(SMALL)
    lr, hr = torch.rand(1, 3, 30, 21), torch.rand(1, 3, 120, 84)
    found = compared(onestep.encode, lr, hr, "reduced")
    wanted = compared(onestep.encode, lr[..., :28, :20], hr[..., :112, :80], "reduced")
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[0].shape == found[1].shape == (1, 12, 7, 5)
