"""A trained model in a larger shape."""

import pytest
import torch

from rcod.device import seeded
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone, TinySettings
from rcod.networks.onestep import OneStep
from rcod.networks.systems import SYSTEMS, System, build
from rcod.training.growing import grow

SMALL = TinySettings(latent=8, widths=(8, 12), blocks=(1, 2, 1), tokens=12, heads=2)
LARGE = SMALL.model_copy(update={"widths": (12, 12), "blocks": (2, 2, 3), "touch": 6})


def taught(settings: TinySettings) -> tuple[System, OneStep[TinyBackbone]]:
    """A model in which no weight is zero."""
    system = SYSTEMS["tiny"].model_copy(update={"model": settings})
    onestep, _ = build(system)
    rng = seeded(1)
    for parameter in onestep.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    onestep.backbone.basis.normal_(generator=rng)
    return system, onestep


def answer(onestep: OneStep[TinyBackbone]) -> torch.Tensor:
    picture = torch.rand(1, 3, 64, 48, generator=seeded(2))
    t, tokens = torch.tensor([400]), onestep.prompt(picture)
    return onestep(picture, t, tokens)[2]


@pytest.mark.parametrize("settings", [SMALL, SMALL.model_copy(update={"touch": 4})])
def test_a_larger_model_answers_as_before_and_can_learn_more(settings: TinySettings):
    system, onestep = taught(settings)
    larger_system, larger = grow(system, onestep, LARGE)
    assert larger_system.model == LARGE
    torch.testing.assert_close(answer(larger), answer(onestep), rtol=0, atol=1e-5)
    answer(larger).square().mean().backward()
    new = larger.backbone.unet.get_parameter("after.0.second.weight").grad
    assert new is not None and bool((new[:8, 8:] != 0).all())  # from a new channel to old ones
    new = larger.backbone.unet.get_parameter("after.2.second.weight").grad
    assert new is not None and new.abs().sum() > 0  # of a new block
    assert larger.backbone.touch is not None
    new = larger.backbone.touch.last.weight.grad
    assert new is not None and bool((new != 0).any(dim=(0, 2, 3)).all())  # of every channel


def test_a_model_never_shrinks():
    system, onestep = taught(LARGE)
    assert grow(system, onestep, SMALL) == (system, onestep)


def test_what_is_tied_to_the_image_tokens_does_not_grow():
    system, onestep = taught(SMALL)
    with pytest.raises(RcodError, match=r"model.widths=N,12 and model.blocks=N,2,N"):
        grow(system, onestep, SMALL.model_copy(update={"blocks": (1, 4, 1)}))
