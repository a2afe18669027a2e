"""Laws of a dial of which one end learns on."""

import copy

import pytest
import torch
from test_growing import taught

from rcod.device import seeded
from rcod.networks.backbone import ResidualBlock, TinySettings, TinyUNet
from rcod.training.catalog import recipe_named
from rcod.training.gating import End, Gated, open_end, settle
from rcod.training.recipe import Recipe
from rcod.training.tiny_losses import choose_timestep

SMALL = TinySettings(latent=8, widths=(8, 12), blocks=(1, 2, 1), tokens=12, heads=2, waves=4)
FIDELITY, REALISM = (349, 600), (664, 420)


def learnt(unet: TinyUNet, end: End) -> TinyUNet:
    """A copy that has learnt something at one end, not yet settled."""
    other, rng = copy.deepcopy(unet), seeded(3)
    open_end(other, end)
    for block in other.modules():
        if isinstance(block, Gated):
            block.more.data.normal_(generator=rng)
    return other


@torch.no_grad()
def answers(unet: TinyUNet, *timesteps: int) -> torch.Tensor:
    """The noise found at timesteps, (T, C, h, w)."""
    t = torch.tensor(timesteps)
    z, tokens = (torch.randn(1, *shape, generator=seeded(2)) for shape in ((8, 6, 4), (5, 12)))
    return unet(z.expand(len(t), -1, -1, -1), t, tokens.expand(len(t), -1, -1))


def test_nothing_moves_before_anything_was_learnt():
    unet = taught(SMALL)[1].backbone.unet
    before = answers(unet, 249, 349, 499, 664, 749)
    open_end(unet, FIDELITY)
    assert torch.equal(answers(unet, 249, 349, 499, 664, 749), before)


@pytest.mark.parametrize("end", [FIDELITY, REALISM])
def test_one_end_learns_and_the_other_stays(end: End):
    unet = taught(SMALL)[1].backbone.unet
    moved = learnt(unet, end)
    beyond = 749 if end[1] > end[0] else 249
    learns, half, stays, far = (
        float((answers(moved, t) - answers(unet, t)).norm())
        for t in (end[0], sum(end) // 2, end[1], beyond)
    )
    assert 0.3 * learns < half < 0.8 * learns
    assert max(stays, far) < 0.05 * learns


@pytest.mark.parametrize("end", [FIDELITY, REALISM])
def test_what_was_learnt_settles_into_the_model_as_it_was(end: End):
    unet = taught(SMALL)[1].backbone.unet
    names, moved = list(unet.state_dict()), learnt(unet, end)
    before = answers(moved, *range(249, 750, 50))
    settle(moved)
    assert list(moved.state_dict()) == names
    assert all(type(b.modulate) is torch.nn.Linear for b in blocks(moved))
    torch.testing.assert_close(answers(moved, *range(249, 750, 50)), before, rtol=0, atol=1e-5)


def test_only_what_time_does_there_is_taught():
    unet = taught(SMALL)[1].backbone.unet
    open_end(unet, FIDELITY)
    learning = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert len(learning) == len(blocks(unet))
    assert all(name.endswith("modulate.more") for name in learning)


def blocks(unet: TinyUNet) -> list[ResidualBlock]:
    return [block for block in unet.modules() if isinstance(block, ResidualBlock)]


@pytest.mark.parametrize("end", ["749,799", "260,200"])
def test_timesteps_stay_on_the_dial_where_what_stays_lies_beyond(end: str):
    given = {"end": end, "groups.timesteps": "749,499,260", "explore": "1"}
    setting = recipe_named("tiny-rcod", given)
    assert isinstance(setting, Recipe)
    t = choose_timestep(torch.zeros(200), setting, seeded(0))
    assert 260 <= int(t.min()) <= int(t.max()) <= 749
