"""Laws of networks that share one base."""

import copy

import torch
from torch import Tensor, nn

from rcod.networks.lora import LowRank, Replaced
from rcod.networks.voices import Choir, add_voice


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 1))


def everywhere(name: str) -> bool:
    return name in ("0", "2")


def shared() -> tuple[nn.Sequential, Choir, dict[str, list[nn.Parameter]]]:
    """One network with two voices whose adapters are not zero."""
    one, choir, rng = network(), Choir(), torch.Generator().manual_seed(1)
    found: dict[str, list[nn.Parameter]] = {}
    for name in ("student", "critic"):
        found[name] = add_voice(one, everywhere, 2, choir.voice(name), rng)
        for parameter in found[name]:
            parameter.data = torch.randn(parameter.shape, generator=rng)
    one.requires_grad_(False)
    for parameter in (p for own in found.values() for p in own):
        parameter.requires_grad_()
    return one, choir, found


def alone(name: str) -> nn.Sequential:
    """A network of its own for one voice."""
    _, _, found = shared()
    single = network()
    rng = torch.Generator().manual_seed(9)
    own = add_voice(single, everywhere, 2, Choir().voice(name), rng)
    for mine, theirs in zip(own, found[name], strict=True):
        mine.data = theirs.data
    return single


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))


def test_three_voices_equal_three_networks():
    one, choir, _ = shared()
    with choir.only():
        assert torch.equal(one(X), network()(X))
    for name in ("student", "critic"):
        with choir.only(name):
            torch.testing.assert_close(one(X), alone(name)(X))
    assert choir.heard == {"student", "critic"}


def test_gradients_reach_the_voice_that_was_heard_alone():
    one, choir, found = shared()
    with choir.only("critic"):
        one(X).square().sum().backward()
    assert all(p.grad is not None for p in found["critic"])
    assert all(p.grad is None for p in found["student"])


def test_a_checkpointed_block_hears_later_what_it_heard_first():
    def gradients(remember: bool) -> list[Tensor]:
        one, choir, found = shared()
        with choir.only("student"):
            y = choir.remember()(one, X.clone().requires_grad_()) if remember else one(X)
        assert isinstance(y, Tensor)
        with choir.only("critic"):  # somebody else's turn when the block is computed again
            y.square().sum().backward()
        return [p.grad for p in found["student"] if p.grad is not None]

    for mine, wanted in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_a_stand_in_is_heard_with_its_voice_and_copies_share_it():
    choir = Choir()
    base, own = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    both = Replaced(base, own, choir.voice("student"))
    adapted = LowRank(both, 1)
    other = copy.deepcopy(adapted)
    with choir.only():
        assert torch.equal(both(X), base(X))
        assert torch.equal(other(X), base(X))
    with choir.only("student"):
        assert torch.equal(both(X), own(X))
