"""The original's autoencoder in tiles, rebuilt from our parts: what it did, and what it cost.

Its tiles go forward in step: at every group norm all of them wait, and the norm takes the mean
of their means and of their variances. What lies between the tiles' means is forgotten, attention
stays inside a tile, and pieces are put side by side without a blend.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, local

import numpy as np
import pytest
import torch
from conftest import golden
from test_golden_systems import loaded
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.networks.lora import twin

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")

Box = tuple[int, int]  # start and stop
NAME = "tiling/osediff_vae_coffee_64x96_e128_d16.npz"


class MeetingNorm(nn.Module):
    """A group norm at which the tiles wait for each other; each runs in a thread of its own."""

    def __init__(self, norm: nn.GroupNorm, places: Barrier, mine: local) -> None:
        super().__init__()
        self.norm, self.places, self.mine = norm, places, mine
        self.shares: list[tuple[Tensor, Tensor, int] | None] = [None] * places.parties

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, ...) -> (1, C, ...)."""
        groups = x[0].reshape(self.norm.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=1, correction=0)
        self.shares[self.mine.number] = (mean, variance, groups.shape[1])
        self.places.wait()
        every = [share for share in self.shares if share is not None]
        total = sum(pixels for _, _, pixels in every)
        mean = torch.stack([mean * pixels / total for mean, _, pixels in every]).sum(0)
        variance = torch.stack([var * pixels / total for _, var, pixels in every]).sum(0)
        self.places.wait()
        flat = x.reshape(1, self.norm.num_groups, -1)
        normed = F.batch_norm(flat, mean, variance, eps=self.norm.eps).view_as(x)
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        return normed * self.norm.weight.view(shape) + self.norm.bias.view(shape)


def in_step(network: nn.Module, tiles: Sequence[Tensor]) -> list[Tensor]:
    """Run a network on tiles whose norms meet."""
    places, mine = Barrier(len(tiles), timeout=60), local()
    meeting = twin(network, {})
    for name, module in list(meeting.named_modules()):
        if isinstance(module, nn.GroupNorm):
            parent, _, child = name.rpartition(".")
            setattr(meeting.get_submodule(parent), child, MeetingNorm(module, places, mine))

    @torch.inference_mode()
    def run(number: int) -> Tensor:
        mine.number = number
        return meeting(tiles[number])

    with ThreadPoolExecutor(len(tiles)) as threads:
        return list(threads.map(run, range(len(tiles))))


def side_by_side(length: int, tile: int, margin: int) -> list[tuple[Box, Box]]:
    """What the original's tiles look at and answer for, along one side."""
    count = max(1, math.ceil((length - 2 * margin) / tile))
    step = best_step(math.ceil((length - 2 * margin) / count), tile)
    found: list[tuple[Box, Box]] = []
    for start in range(margin, margin + count * step, step):
        stop = min(start + step, length)
        own = start if start > margin else 0, stop if stop < length - margin else length
        found.append(((max(0, start - margin), min(length, stop + margin)), own))
    return found


def best_step(least: int, most: int) -> int:
    """The roundest number of pixels from `least` to `most`."""
    for divider in (32, 16, 8, 4, 2):
        up = -(-least // divider) * divider
        if up == least or up <= most:
            return up
    return least


def in_tiles(
    network: Callable[[Sequence[Tensor]], list[Tensor]], x: Tensor, tile: int, margin: int, k: float
) -> Tensor:
    """Run a network as the original does; `k` is how much larger its result is."""
    rows, columns = (side_by_side(side, tile, margin) for side in x.shape[-2:])
    grid = [(row, column) for row in rows for column in columns]
    pieces = network([x[..., slice(*row[0]), slice(*column[0])] for row, column in grid])
    height, width = (round(side * k) for side in x.shape[-2:])
    out = torch.full((1, pieces[0].shape[1], height, width), torch.nan)
    for ((look, own), (seen, mine)), piece in zip(grid, pieces, strict=True):
        top, left = round((own[0] - look[0]) * k), round((mine[0] - seen[0]) * k)
        tall, wide = round((own[1] - own[0]) * k), round((mine[1] - mine[0]) * k)
        y, z = round(own[0] * k), round(mine[0] * k)
        out[..., y : y + tall, z : z + wide] = piece[..., top : top + tall, left : left + wide]
    return out


def gap(mine: Tensor, theirs: np.ndarray) -> float:
    """The largest excess over the tolerance of the golden README; below zero is within."""
    wanted = torch.from_numpy(theirs)
    return float(((mine - wanted).abs() - (1e-4 + 1e-4 * wanted.abs())).max())


def test_the_originals_autoencoder_in_tiles_comes_out():
    numbers = golden(NAME)
    onestep = loaded("osediff", (("merge", False), ("prompt", "")))
    vae = onestep.backbone.vae
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    up = torch.from_numpy(numbers["cond_uint8"]).movedim(-1, 0)[None] / 255
    with torch.inference_mode():
        whole = onestep.encode(up)
        assert gap(whole, numbers["z_L_untiled"]) <= 0
        encoder_tile, decoder_tile = int(numbers["encoder_tile"]), int(numbers["decoder_tile"])
        moments = in_tiles(lambda x: in_step(vae.encoder, x), 2 * up - 1, encoder_tile, 32, 1 / 8)
        z = vae.quant_conv(moments)[:, :4] * 0.18215
        z_gap = float((z - torch.from_numpy(numbers["z_L_tiled"])).abs().max())
        assert gap(z, numbers["z_L_tiled"]) <= 0
        latent = vae.post_quant_conv(torch.from_numpy(numbers["decoder_in_tiled_run"]))
        image = in_tiles(lambda x: in_step(vae.decoder, x), latent, decoder_tile, 11, 8)
        assert gap(image, numbers["image_raw_tiled_run"]) <= 0
    moved = float((z - whole).abs().max())
    print(f"\nz_L_tiled {z_gap:.1e}; tiles move the latent by up to {moved:.2f}")
    assert moved > 1
