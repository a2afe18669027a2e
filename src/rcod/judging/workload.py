"""How much work is a picture, whoever does it?

Counted on networks as they are written down and not as they are run: an arrangement that
multiplies less is then faster, and not less busy. A small picture is counted, since the work
grows with the pixels, and with nothing else.

    system, side -> every stage -> multiply-adds, and bytes that must be read or written
"""

from collections.abc import Callable
from typing import TypedDict

import torch
from torch.utils.flop_counter import FlopCounterMode

from rcod.diffusion.dial import glances
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone
from rcod.networks.checkpoint import find_weights, load

SMALL = 32  # pixels a side of the picture that is counted


class Work(TypedDict):
    """What a stage must do at least."""

    gmacs: float  # 10^9 multiply-adds of networks; filters' are counted as what they move
    gbytes: float  # 10^9 bytes of its inputs, its weights and its result, each once


@torch.inference_mode()
def workload(model: str, side: int, dtype: torch.dtype) -> dict[str, Work]:
    """The work of every stage of the tiny model, for one level.

    Args:
        model: name or weights file.
        side: pixels a side going in.
        dtype: of the UNet's weights.
    """
    _, onestep, metric = load(find_weights(model))
    body = onestep.backbone
    if metric is None or not isinstance(body, TinyBackbone):
        raise RcodError(f"work is counted for tiny, got {model}; take --systems for others")
    area = side * side
    many = area / SMALL**2  # of the small picture
    up = torch.zeros(1, 3, 4 * SMALL, 4 * SMALL)
    z, t, tokens = body.encode(up), torch.tensor([500]), onestep.prompt(up)
    lr = torch.zeros(1, 3, SMALL, SMALL)
    seen = sum(
        piece.shape[-2] * piece.shape[-1] for piece in glances(torch.empty(1, 3, side, side))
    )
    photo, large, latent = 12 * area, 16 * 12 * area, 4 * z.shape[1] * area  # bytes
    weights = dtype.itemsize * sum(p.numel() for p in body.unet.parameters())
    return {
        "encode": Work(
            gmacs=many * gmacs_of(lambda: body.encode(up)), gbytes=(photo + large + latent) / 1e9
        ),
        "tokens": Work(gmacs=gmacs_of(lambda: onestep.prompt(up)), gbytes=large / 1e9),
        "metric": Work(
            gmacs=seen / SMALL**2 * gmacs_of(lambda: metric(lr)), gbytes=12 * seen / 1e9
        ),
        "predict": Work(
            gmacs=many * gmacs_of(lambda: body.predict(z, t, tokens)),
            gbytes=(2 * latent + weights) / 1e9,
        ),
        "decode": Work(
            gmacs=many * gmacs_of(lambda: body.decode(z)), gbytes=(latent + large) / 1e9
        ),
        "color": Work(gmacs=0.0, gbytes=3 * large / 1e9),
    }


def least_seconds(work: Work, multiply: float, copy: float) -> float:
    """The time a stage takes where nothing is lost.

    Args:
        work: of the stage.
        multiply: the machine's rate, 10^9 multiplications and additions a second.
        copy: the machine's rate, 10^9 bytes a second.
    """
    return max(2 * work["gmacs"] / multiply, work["gbytes"] / copy)


def gmacs_of(work: Callable[[], object]) -> float:
    """10^9 multiply-adds of some work, best done on `meta`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2e9
