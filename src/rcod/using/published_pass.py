"""How does a photo pass through a published system?

As its authors' programs do it: enlarged their way, every network over the whole picture where
it fits and in overlapping tiles where it does not, colours fixed on 8-bit pictures. Stages are
tiled one by one, since these networks look far: tiles of the photo would show.

    photo -> frame -> encode -> z_up -> tokens, scores -> look -> Seen
    Seen, t -> one UNet call -> z_sr -> decode -> colour -> size
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from rcod.device import seeded
from rcod.diffusion.dial import Dial, shares
from rcod.errors import RcodError
from rcod.networks.backbone import Backbone
from rcod.networks.framing import frame, truncate
from rcod.networks.onestep import OneStep
from rcod.networks.stable import StableBackbone
from rcod.networks.steady import probes
from rcod.networks.systems import System
from rcod.pixels.color import ColorFix, match_color
from rcod.pixels.images import Photo
from rcod.pixels.resample import resize
from rcod.pixels.tiling import tiled
from rcod.using.passes import TILE, Order, Pass, Seen, Watch, clock, finished


def resolve_dial(system: System, realism: Dial) -> Dial:
    """The dial as far as a system knows it."""
    if system.timestep is not None and not (isinstance(realism, str) and realism == "auto"):
        raise RcodError(f"{system.name} has one setting and no dial; leave --realism out")
    if system.timestep is None and not system.metric and isinstance(realism, str):
        if realism == "auto-local":
            raise RcodError(
                f"{system.name} came without a metric estimator, so auto-local can't choose; "
                "name fidelity, neutral or realism"
            )
        return "neutral" if realism == "auto" else realism  # the middle, and results say so
    return realism


def passing(
    system: System,
    onestep: OneStep,
    photo: Photo,
    seen: Seen,
    place: int | Tensor,
    size: tuple[int, int],
    color: ColorFix,
    tile: int,
    seconds: dict[str, float],
    watch: Watch,
) -> "Pass | HostedPass":
    """The way a photo takes through a system: tile after tile, or stage after stage."""
    color = system.color if color == "auto" else color
    if system.base is None:
        return Pass(system, onestep, photo, seen, place, size, color, tile, seconds, watch)
    tuned = seen.onestep or onestep
    return HostedPass(system, tuned, photo, seen, place, size, color, tile, seconds, watch)


def look_at(
    system: System, onestep: OneStep, photo: Photo, measure: bool, tile: int = TILE
) -> Seen:
    """Everything about a photo that does not depend on the dial.

    Args:
        system: whose row says how the photo is framed.
        onestep: its networks.
        photo: as read.
        measure: whether the metric is asked for.
        tile: the restorer's, in LR pixels.
    """
    seconds: dict[str, float] = {}
    lr = photo.pixels[None].to(onestep.alphas.device)  # (1, 3, h, w)
    metric, tuned = None, onestep
    if onestep.estimator is not None:
        with clock(seconds, "metric"):
            features = onestep.estimator.features(lr)
            if measure and (found := onestep.estimator.metric(features)) is not None:
                metric = float(found)
            tuned = onestep.tuned(features)
    with clock(seconds, "encode"):
        framed = frame(lr, system.framing, system.scale, system.least)
        rng = None if onestep.seed is None else seeded(onestep.seed)
        z_up = encode_tiled(tuned.backbone, framed.up, latent_side(tile), rng)
    with clock(seconds, "tokens"):
        tokens = tuned.prompt(framed.up)
    return Seen(framed.look, z_up, tokens, metric, seconds, tuned)


@dataclass(frozen=True)
class HostedPass(Order):
    """One photo at one timestep of a published system, or at several that a map mixes."""

    @torch.inference_mode()
    def pieces(self) -> Iterator[tuple[Photo, int, int]]:
        """The result, in one piece."""
        if isinstance(self.place, Tensor):
            sides = self.seen.up.shape[-2:]
            places = F.interpolate(self.place[None].to(self.seen.up.device), sides, mode="bilinear")
            sr = torch.zeros_like(self.seen.up)
            for t, weight in shares(places, self.system.groups):
                sr += weight * self.level(t)
        else:
            sr = self.level(self.place)
        with clock(self.seconds, "color"):
            matched = keep_colors(sr, self.seen.up, self.color, self.system.truncate)
            sized = resize(matched, self.size).clamp(0, 1)
        self.watch(1.0)
        yield finished(self.photo, sized[0].cpu(), self.size), 0, 0

    def level(self, t: int) -> Tensor:
        """The picture of one timestep, (1, 3, h, w) in [0, 1], as large as the enlarged photo."""
        timestep = torch.tensor([t], device=self.seen.z_up.device)
        side, body = latent_side(self.tile), self.onestep.backbone
        with clock(self.seconds, "predict"):
            z_sr = tiled(
                lambda z: self.onestep.clean(z, timestep, self.seen.tokens),
                self.seen.z_up, side, side // 3,
            )  # fmt: skip
        with clock(self.seconds, "decode"):
            sr = decode_tiled(body, z_sr, side)
            height, width = self.seen.up.shape[-2:]
            return sr[..., :height, :width].clamp(0, 1)


def latent_side(tile: int) -> int:
    """Greatest side of a tile in latent pixels, by the restorer's tile (LR pixels, 536 at first).

    768 x 768 pixels of the result: what Stable Diffusion still composes well, and what leaves
    room in 8 GB; when memory runs out the restorer halves its tile, and so this.
    """
    return max(24, 96 * tile // 512 // 8 * 8)


def encode_tiled(
    body: Backbone, up: Tensor, side: int, rng: torch.Generator | None = None
) -> Tensor:
    """The latent of an enlarged photo (1, 3, H, W), in tiles of at most `side` latent pixels."""
    factor = body.factor
    encode = body.encode
    if isinstance(body, StableBackbone):  # graphs of other programs keep their norms
        if max(up.shape[-2:]) > side * factor:
            body = body.steadied(lambda one: one.encode(probes(up, side * factor, factor)))
        encode = partial(body.encode, rng=rng)
    return tiled(encode, up, side * factor, lap(side) * factor, scale=1 / factor)


def decode_tiled(body: Backbone, z: Tensor, side: int) -> Tensor:
    """The picture of a latent (1, 4, h, w), in tiles of at most `side` latent pixels."""
    if isinstance(body, StableBackbone) and max(z.shape[-2:]) > side:
        body = body.steadied(lambda one: one.decode(probes(z, side)))
    return tiled(body.decode, z, side, lap(side), scale=body.factor)


def lap(side: int) -> int:
    """Latent pixels that tiles of the autoencoder share; those of the UNet share a third."""
    return min(16, side // 3)


def keep_colors(sr: Tensor, look: Tensor, color: ColorFix, truncated: bool) -> Tensor:
    """The result in the photo's colours; published systems fix pictures of 8 bits.

    Args:
        sr: result, (1, 3, h, w) in [0, 1].
        look: enlarged photo, (1, 3, h, w) in [0, 1].
        color: which fix.
        truncated: round down to 8 bits before and after, as the published programs do.
    """
    cut = truncate if truncated else torch.clone
    if color == "none":
        return cut(sr)
    return cut(match_color(cut(sr), look, color))
