"""How do teacher, critic and student share one frozen network?

Three UNets of Stable Diffusion do not fit a 24 GB card, and they differ by their adapters
alone. So there is one network whose layers carry the adapters of several voices, and who is
heard is said for the length of a call: nobody is the frozen base itself.

    with choir.only("critic"):
        eps = unet(z, t, tokens)

Gradient checkpointing computes a block again long after its call has ended; `remember` makes
it hear the same voices then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rcod.networks.lora import LowRank, Voice, replace_module


class Choir:
    """The voices in a set of networks, by name."""

    def __init__(self) -> None:
        self.voices: dict[str, Voice] = {}

    def voice(self, name: str) -> Voice:
        """The voice of that name, new if there was none."""
        return self.voices.setdefault(name, Voice())

    @property
    def heard(self) -> frozenset[str]:
        """Who is heard now."""
        return frozenset(name for name, voice in self.voices.items() if voice.on)

    @contextmanager
    def only(self, *names: str) -> Iterator[None]:
        """Let these voices be heard and no others."""
        assert set(names) <= self.voices.keys(), names
        before = self.heard
        self._set(frozenset(names))
        try:
            yield
        finally:
            self._set(before)

    def rest(self, names: tuple[str, ...]) -> None:
        """Let these voices be heard whenever nothing else is said."""
        self._set(frozenset(names))

    def _set(self, names: frozenset[str]) -> None:
        for name, voice in self.voices.items():
            voice.on = name in names

    def remember(self) -> Callable[..., object]:
        """What diffusers calls to checkpoint a block: again with the voices of the first time."""

        def call(module: nn.Module, *values: object) -> object:
            heard = tuple(self.heard)

            def again(*values: object) -> object:
                with self.only(*heard):
                    return module(*values)

            return checkpoint(again, *values, use_reentrant=False, preserve_rng_state=False)

        return call


def add_voice(
    network: nn.Module, chosen: Callable[[str], bool], rank: int, voice: Voice, rng: torch.Generator
) -> list[nn.Parameter]:
    """Give the chosen layers of a network, adapted or not, a fresh adapter with a voice.

    Args:
        network: changed in place; all it has learns no more until told to.
        chosen: by the dotted name in the frozen network.
        rank: of each adapter.
        voice: that it speaks with.
        rng: draws the start of `down`, as peft's `gaussian` does; `up` starts at zero.

    Returns:
        The adapters' parameters.
    """
    device = next(network.parameters()).device
    found: list[nn.Parameter] = []
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.Linear | nn.Conv2d | LowRank) or not chosen(name):
            continue
        adapter = LowRank(module, rank)
        adapter.voice = voice
        shapes = (next(adapter.down.parameters()).shape, adapter.up.weight.shape)
        down = nn.Parameter((torch.randn(shapes[0], generator=rng) / rank).to(device))
        up = nn.Parameter(torch.zeros(shapes[1], device=device))
        adapter.down.register_parameter("weight", down)
        adapter.up.register_parameter("weight", up)
        replace_module(network, name, adapter)
        found += [down, up]
    return found
