"""Laws of the adversary."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.training.adversary import PatchDiscriminator, relativistic_losses, verdict_loss


def judge() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator()


def pictures(n: int) -> tuple[Tensor, Tensor]:
    """Sharp noise and the same blurred."""
    sharp = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(n))
    return sharp, F.avg_pool2d(sharp, 3, 1, 1)


def test_a_patch_is_judged_on_its_own():
    sharp, _ = pictures(1)
    other = sharp.clone()
    other[..., :8, :8] = 0
    network = judge().eval()
    changed = (network(sharp) - network(other))[0].abs() > 1e-6
    assert changed[0, 0]
    assert not changed[4:].any()
    assert not changed[:, 4:].any()


def test_the_student_term_reaches_the_student_alone_and_the_own_loss_the_discriminator():
    sharp, soft = pictures(2)
    network, results = judge(), soft.clone().requires_grad_()
    term, own = relativistic_losses(network, results, sharp, torch.Generator().manual_seed(0))
    assert term.shape == (2,)
    term.sum().backward()
    assert results.grad is not None and float(results.grad.abs().max()) > 0
    assert all(p.grad is None for p in network.parameters())
    results.grad = None
    own.backward()
    assert results.grad is None
    assert all(p.grad is not None for p in network.parameters())


def test_it_learns_to_tell_blur():
    network, rng = judge(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(60):
        sharp, soft = pictures(4)
        _, own = relativistic_losses(network, soft, sharp, rng)
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
        losses.append(float(own.detach()))
    assert losses[-1] < losses[0] / 2


def test_only_which_of_the_two_looks_more_like_a_photo_counts():
    sharp, soft = pictures(2)
    network, rng = judge(), torch.Generator().manual_seed(0)
    before = relativistic_losses(network, soft, sharp, rng.manual_seed(0))
    with torch.no_grad():
        network.layers[-1].bias.add_(3)  # pyright: ignore[reportCallIssue]
    for mine, other in zip(
        before, relativistic_losses(network, soft, sharp, rng.manual_seed(0)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wanted", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.5])
def test_a_verdict_costs_the_cross_entropy_of_every_level(logit: float, wanted: float):
    levels = [torch.full((2, 3, 3), logit), torch.full((2, 5, 5), logit), torch.full((2, 1), logit)]
    p = 1 / (1 + math.exp(-logit))
    once = -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)
    torch.testing.assert_close(verdict_loss(levels, wanted), torch.full((2,), 3 * once))
    torch.testing.assert_close(verdict_loss(levels[0], wanted), torch.full((2,), once))


def test_a_smoothed_verdict_is_best_where_it_says_so_and_not_when_it_is_sure():
    costs = {x: float(verdict_loss(torch.full((1, 1), x), 0.8)) for x in (0.0, math.log(4), 9.0)}
    assert min(costs, key=lambda x: costs[x]) == math.log(4)  # p = .8
