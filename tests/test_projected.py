"""Laws of an adversary that sees with a frozen transformer."""

import copy
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import Tensor, nn

from rcod.errors import RcodError
from rcod.training.adversary import Game
from rcod.training.course import OptimSettings
from rcod.training.learner import Learner
from rcod.training.projected import CHANCES, Blur, DinoDiscriminator, augment, load_dino
from rcod.training.published_losses import Roles, StudentOutput, discriminator_loss
from rcod.training.published_recipe import PUBLISHED
from rcod.training.published_student import Student
from rcod.training.stream import Dice
from rcod.training.team import Team

if TYPE_CHECKING:
    from transformers import ViTModel

pytest.importorskip("transformers", reason="not checked here: pip install 'rcod[sd]'")
CPU = torch.device("cpu")
GAME = Game(real=0.8, weight=0.5, augment=True)


def seer(patch: int = 56) -> "ViTModel":
    """DINO's twelve layers, 8 wide, of chance; its own patches are of 16 pixels."""
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    sizes |= {"patch_size": patch}
    torch.manual_seed(0)
    return ViTModel(ViTConfig(**sizes), add_pooling_layer=False)  # pyright: ignore


def pictures(seed: int, side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def shown(sr: Tensor, hr: Tensor) -> StudentOutput:
    none = torch.zeros(2)
    return StudentOutput(hr, hr, none.bool(), sr, none, none, none)


def own_loss(judge: nn.Module, sr: Tensor, hr: Tensor, step: int = 0) -> Tensor:
    roles = Roles(cast(Student, None), None, judge, GAME)
    return discriminator_loss(roles, shown(sr, hr), Dice(0, (2 * step, 2 * step + 1), CPU))


def test_two_heads_judge_places_and_one_the_whole():
    dino = seer(16).eval()
    judge, picture = DinoDiscriminator(dino), pictures(0, 224)
    levels = judge(picture)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 3), (2, 3, 3), (2, 1)]
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.229, 0.224, 0.225)
    tokens = dino.embeddings(
        (picture - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    )
    seen: list[Tensor] = []
    for name, layer in dino.named_modules():
        if re.fullmatch(r"(encoder\.layer|layers)\.\d+", name):
            found = layer(tokens)
            tokens = found if isinstance(found, Tensor) else found[0]
            seen.append(dino.layernorm(tokens))
    assert len(seen) == 12
    judge.eval()  # whose norms stand still
    levels = judge(picture)
    for level, head, norm in zip(levels, judge.places, (seen[4], seen[8]), strict=False):
        wanted = head(norm[:, 1:].transpose(1, 2).reshape(2, 8, 14, 14))[:, 0]
        torch.testing.assert_close(level, wanted)
    torch.testing.assert_close(levels[2], judge.whole(seen[11][:, 0]))


def test_heads_learn_and_dino_does_not_and_the_picture_hears_of_it(tmp_path: Path):
    seer().save_pretrained(tmp_path / "dino")
    judge, picture = load_dino(tmp_path / "dino", CPU), pictures(0).requires_grad_()
    chances = torch.full((2, CHANCES), 0.3)
    torch.cat([level.flatten() for level in judge(augment(picture, chances))]).sum().backward()
    assert picture.grad is not None and float(picture.grad.abs().sum()) > 0
    learns = {name for name, p in judge.named_parameters() if p.grad is not None}
    assert learns == {n for n, _ in judge.named_parameters() if not n.startswith("dino.")}
    assert learns == {n for n, p in judge.named_parameters() if p.requires_grad}


def test_no_layer_of_a_head_enlarges_what_it_is_given():
    judge = DinoDiscriminator(seer())
    learner = Learner(judge, OptimSettings(lr=1e-2, warmup=0, decay=0, ema=0), 100)
    for step in range(4):
        learner.add(own_loss(judge, pictures(1), pictures(2), step))
        learner.weigh(Team(CPU))
        learner.move(step)
    layers = [m for m in judge.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    heads = [layer for layer in layers if hasattr(layer, "parametrizations")]
    assert len(heads) == 6
    for layer in heads:
        for _ in range(50):  # a power iteration each, now that the weights stand still
            layer.weight  # noqa: B018
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert 0.99 < float(norm) < 1.01


def test_blur_is_a_bell_whose_sum_is_one():
    x = torch.zeros(1, 2, 9, 9)
    x[0, 1, 4, 4] = 1
    bell = torch.tensor([1.0, 3, 3, 1]) / 8
    spread = Blur(1)(x)
    assert spread.shape == (1, 2, 8, 8)
    assert not spread[0, 0].any()
    torch.testing.assert_close(spread[0, 1, 2:6, 2:6], bell[:, None] * bell)
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))


def test_augmentation_has_a_middle_that_takes_a_square_out_and_nothing_else():
    picture = pictures(0)
    changed = augment(picture, torch.full((2, CHANCES), 0.5))
    assert torch.equal(changed[..., 16:48, 16:48], torch.full((2, 3, 32, 32), 0.5))
    torch.testing.assert_close(changed[..., :16, :], picture[..., :16, :])
    torch.testing.assert_close(changed[..., 16:48, 48:], picture[..., 16:48, 48:])


@pytest.mark.parametrize(("chance", "moved"), [(0.0, -8), (0.999, 8)])
def test_augmentation_moves_by_an_eighth_at_most(chance: float, moved: int):
    picture, chances = pictures(0), torch.full((2, CHANCES), 0.5)
    chances[:, 3] = chance  # how far down
    chances[:, 4] = 0.0  # where it is cut: the upper half
    changed = augment(picture, chances)
    there = [y for y in range(32, 64) if 0 <= y + moved < 64]
    came = [y for y in range(32, 64) if y + moved >= 64]
    torch.testing.assert_close(changed[:, :, there], picture[:, :, [y + moved for y in there]])
    assert torch.equal(changed[:, :, came], torch.full((2, 3, len(came), 64), 0.5))


def test_augmentation_shifts_light_and_stretches_colour_and_contrast():
    picture = pictures(0)
    chances = torch.full((2, CHANCES), 0.5)
    chances[:, 4], chances[:, 6] = 0, 0  # the cut lies in a corner
    corner = (slice(None), slice(None), slice(32, None), slice(32, None))

    def change(which: int, chance: float) -> Tensor:
        own = chances.clone()
        own[:, which] = chance
        return augment(picture, own)[corner]

    torch.testing.assert_close(change(0, 0.75), picture[corner] + 0.125)
    grey = picture.mean(dim=1, keepdim=True)
    torch.testing.assert_close(change(1, 0.0), grey.expand_as(picture)[corner])
    mean = picture.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(change(2, 0.0), (mean + (picture - mean) / 2)[corner])


def test_every_sample_is_changed_by_its_own_chances():
    picture, chances = pictures(0), torch.rand(2, CHANCES)
    apart = [augment(picture[i : i + 1], chances[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(augment(picture, chances), torch.cat(apart))


def test_the_recipes_play_for_four_fifths_and_half_the_loss():
    for recipe in PUBLISHED:
        if recipe.adversary:
            assert recipe.game == GAME
            assert recipe.model_copy(update={"judge": "patch"}).game == Game()


def test_guessing_costs_six_logarithms_and_half():
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.new_zeros(2, 3, 3), x.new_zeros(2, 3, 3), x.new_zeros(2, 1)]

    cost = float(own_loss(Silent(), pictures(0), pictures(1)))
    assert math.isclose(cost, 0.5 * 6 * math.log(2), rel_tol=1e-6)


def test_heads_go_on_from_a_saved_state_bit_for_bit():
    settings = OptimSettings(lr=1e-3, warmup=0, decay=0, ema=0)

    def fresh() -> tuple[DinoDiscriminator, Learner]:
        judge = DinoDiscriminator(seer())
        return judge, Learner(judge, settings, 100)

    def learn(judge: DinoDiscriminator, learner: Learner, steps: range) -> list[float]:
        paid: list[float] = []
        for step in steps:
            loss = own_loss(judge, pictures(2 * step), pictures(2 * step + 1), step)
            learner.add(loss)
            learner.weigh(Team(CPU))
            learner.move(step)
            paid.append(float(loss.detach()))
        return paid

    judge, learner = fresh()
    learn(judge, learner, range(2))
    state = copy.deepcopy(learner.state())
    wanted = learn(judge, learner, range(2, 4))
    other, resumed = fresh()
    resumed.restore(state)
    assert learn(other, resumed, range(2, 4)) == wanted
    pairs = zip(judge.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_missing_weights_are_named(tmp_path: Path):
    (tmp_path / "dino").mkdir()
    with pytest.raises(RcodError, match=r"sees with DINO, which is neither in .*set judge=patch"):
        load_dino(tmp_path / "dino", CPU)
