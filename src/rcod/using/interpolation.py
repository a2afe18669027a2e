"""What do the results of some places of the dial say of a place between them?

The network's answer changes smoothly with the timestep, so a polynomial through the results of
five timesteps tells the others, at the cost of a sum. How far it is from the network is measured
on a piece of the photo itself; where it is further than two grey levels, nothing is told.
(bfloat16's own roundings take a result as far from float32's as that.)

    results at NODES -> polynomial in t -> picture at t
    the piece with most detail -> network, and polynomial between nodes -> share that is apart
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.grouping import GroupSettings, timestep_of_realism
from rcod.pixels.images import Photo
from rcod.using.passes import Seen
from rcod.using.restore import Restorer

NODES = (0.0, 0.15, 0.5, 0.85, 1.0)  # whose results are needed; a polynomial errs most near ends
NEAR = 2 / 255
PIECE = 64  # pixels a side of the piece that is measured
TRIED = (0.07, 0.3, 0.7, 0.93)  # in the middle of every gap
FEW = 1e-4  # of a picture's values may be further than `NEAR` away


def shares_of(realism: float, groups: GroupSettings) -> list[float]:
    """How much of every node's result is in that of a place; they add up to one."""
    t = timestep_of_realism(realism, groups)
    nodes = [timestep_of_realism(node, groups) for node in NODES]
    shares: list[float] = []
    for here in nodes:
        share = 1.0
        for other in nodes:
            if other != here:
                share *= (t - other) / (here - other)
        shares.append(share)
    return shares


def interpolate(results: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The picture between results (3, H, W) of the nodes."""
    out = results[0] * shares[0]
    for result, share in zip(results[1:], shares[1:], strict=True):
        out.add_(result, alpha=share)
    return out.clamp_(0, 1)


@torch.inference_mode()
def is_smooth(restorer: Restorer, photo: Photo, seen: Seen) -> bool:
    """Whether network and polynomial agree to two grey levels on its most detailed piece."""
    groups = restorer.system.groups
    if restorer.system.base is not None:  # finding out would take longer than it saves
        return False
    if len({timestep_of_realism(node, groups) for node in NODES}) < len(NODES):
        return False
    top, left = most_detailed(photo.pixels)
    cut = photo.pixels[:, top : top + PIECE, left : left + PIECE].contiguous()
    piece = Photo(cut)
    own = restorer.look(piece, False)._replace(tokens=seen.tokens)  # the whole photo's

    def made(realism: float) -> Tensor:
        return restorer.finish(piece, own, realism, 4.0, "wavelet").photo.pixels

    nodes = [made(node) for node in NODES]
    apart = [(interpolate(nodes, shares_of(place, groups)) - made(place)).abs() for place in TRIED]
    return max(float((error > NEAR).float().mean()) for error in apart) <= FEW


def most_detailed(pixels: Tensor) -> tuple[int, int]:
    """Top and left of the piece of (3, H, W) whose neighbouring pixels differ most."""
    down, right = ((pixels - pixels.roll(1, side)).abs().mean(0) for side in (1, 2))
    down[0], right[:, 0] = 0, 0  # have no neighbour on that side
    steps = down + right  # (H, W)
    side = [min(PIECE, length) for length in steps.shape]
    found = F.avg_pool2d(steps[None, None], side, max(1, PIECE // 4))[0, 0]
    place = int(found.argmax())
    stride = max(1, PIECE // 4)
    return place // found.shape[1] * stride, place % found.shape[1] * stride
