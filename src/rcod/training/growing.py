"""How does a trained model get more room, and say the same until it has learnt more?

Old channels go on seeing old channels alone, so that every answer stays what it was. New ones see
everything and begin as untaught channels do; what the old ones take from them begins at nothing,
and has a gradient at once (Net2Net, Chen et al., 2016, without its copies).

    old weights, fresh larger weights -> old corner, nothing beside it, fresh below -> larger model
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone, TinySettings
from rcod.networks.onestep import OneStep
from rcod.networks.systems import System, build

ADDED = re.compile(r"\.(before|after)\.\d+\.second\.")  # what a block adds to the trunk
STACKED = ("modulate.weight", "modulate.bias")  # two layers' outputs, one after the other
TURNED = ("unet.up.weight",)  # (in, out, ...), as transposed convolutions have it


def grow(
    system: System, onestep: OneStep[TinyBackbone], asked: TinySettings
) -> tuple[System, OneStep[TinyBackbone]]:
    """A trained model in the shape asked for, or as it is where that is no larger."""
    shape = room(system.model, asked)
    if shape == system.model:
        return system, onestep
    system = system.model_copy(update={"model": shape})
    larger, _ = build(system)
    larger.load_state_dict(grown(onestep.state_dict(), larger.state_dict()))
    larger.formula = onestep.formula
    return system, larger


def room(old: TinySettings, asked: TinySettings) -> TinySettings:
    """The shape that holds both; a model never loses what it has.

    Raises:
        RcodError: if that shape can't say the same: the middle is tied to the image tokens.
    """
    wide, half = (max(pair) for pair in zip(old.widths, asked.widths, strict=True))
    before, middle, after = (max(pair) for pair in zip(old.blocks, asked.blocks, strict=True))
    if half > old.widths[1] or middle > old.blocks[1]:
        raise RcodError(
            f"a trained model grows at full resolution alone, model.widths=N,{old.widths[1]} and "
            f"model.blocks=N,{old.blocks[1]},N, got {asked.widths} and {asked.blocks}"
        )
    return old.model_copy(update={
        "widths": (wide, half), "blocks": (before, middle, after),
        "touch": max(old.touch, asked.touch),
    })  # fmt: skip


def grown(old: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A larger network's weights that answer as the old ones do.

    Args:
        old: the trained weights, by name.
        fresh: those of the larger network before any training; it has all of the old names.

    Returns:
        Weights in the larger shapes. Blocks that only the larger network has add nothing yet.
    """
    found: dict[str, Tensor] = {}
    for name, untaught in fresh.items():
        known = old.get(name)
        if known is None:
            adds = ADDED.search(name) is not None
            found[name] = torch.zeros_like(untaught) if adds else untaught.clone()
        elif name.endswith(STACKED):
            halves = zip(known.chunk(2), untaught.chunk(2), strict=True)
            found[name] = torch.cat([_laid(a, b) for a, b in halves])
        elif name.endswith(TURNED):
            found[name] = _laid(known.transpose(0, 1), untaught.transpose(0, 1)).transpose(0, 1)
        else:
            found[name] = _laid(known, untaught)
    return found


def _laid(old: Tensor, fresh: Tensor) -> Tensor:
    """Old weights (out, in, ...) in the corner of fresh ones, from which they take nothing."""
    new = fresh.clone()
    new[: len(old)] = 0
    new[tuple(slice(side) for side in old.shape)] = old
    return new
