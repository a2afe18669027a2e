"""One image in, one image out, of any size.

    photo -> tiles -> resize x4 -> z_up -> one UNet call a level -> decode -> colour -> size -.
               '-> tokens, metric (once)        photo <- pieces <- seams blended <------------'

`Restorer` holds a system's networks on a device. What belongs to the whole photo (tokens, the
place of the dial, statistics of colour) is settled once; the rest is done tile by tile, and
a result leaves in pieces, so that it may be larger than memory. Levels share a small photo's tile.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from rcod.device import is_out_of_memory, pick_device
from rcod.diffusion import grouping
from rcod.diffusion.dial import (
    GLANCE,
    Dial,
    Realism,
    check_dials,
    check_realism,
    check_shape,
    fit_map,
    glances,
    local_pieces,
    realism_of_metric,
)
from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.networks.checkpoint import Estimator, load_onto
from rcod.networks.engines import precision, use_engine
from rcod.networks.onestep import OneStep, enlarge
from rcod.networks.systems import System
from rcod.pixels.accept import Picture, as_photo, check_quality
from rcod.pixels.color import ColorFix, check_color
from rcod.pixels.images import Photo, to_pil, write
from rcod.pixels.resample import Scale, check_scale, target_within
from rcod.using.passes import TILE, Flow, Seen, Watch, clock, finished, reduced, shrunk
from rcod.using.published_pass import look_at, passing, resolve_dial

__all__ = ["Realism", "Restorer", "Result", "check_realism"]

T = TypeVar("T")

LEAST_TILE = 128  # LR pixels a side; what is tried last when memory runs out


@dataclass(frozen=True)
class Result:
    """A restored photo and how it came about."""

    photo: Photo
    level: str  # fidelity, neutral, realism, map, auto-local or fixed, else the dial's number
    realism: float  # place on the dial, 0 to 1; of a map the mean
    timestep: int
    metric: float | None  # estimated latent metric, where auto was asked for
    auto: bool  # whether the metric chose the level
    seconds: dict[str, float]  # per stage: tokens, encode, metric, predict, decode, color

    @property
    def picture(self) -> Image:
        """The restored photo as a PIL image of 8 bits, in sRGB."""
        return to_pil(self.photo)

    def save(self, path: Path | str, quality: int | None = None) -> None:
        """Write it as its name ends, with the photo's profile, EXIF, XMP, DPI, alpha and depth."""
        check_quality(quality)
        write(path, self.photo, quality)


class Restorer:
    """A system's networks, ready for photos."""

    def __init__(self, system: System, onestep: OneStep, metric: Estimator | None) -> None:
        self.system = system
        self.onestep = onestep
        self.metric = metric
        self.tile = TILE

    @classmethod
    def load(cls, name: str | Path = "tiny", device: str = "auto", dtype: str = "auto",
             parts: Parts | None = None, engine: str = "auto") -> Self:  # fmt: skip
        """Load a bundled model or a weights file.

        Args:
            name: `tiny`, or a .safetensors file that rcod wrote.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: precision of the UNet: auto, float32, bfloat16 or float16.
            parts: what a published system stands on and is asked.
            engine: who computes it: auto, torch, compile, openvino or onnx.
        """
        place = pick_device(device)
        sums = precision(engine, dtype, place)
        system, onestep, metric = load_onto(str(name), place, sums, parts)
        use_engine(onestep, engine)
        return cls(system, onestep, metric)

    def __call__(
        self,
        image: Picture,
        realism: Dial = "auto",
        scale: Scale = 4.0,
        color: ColorFix = "auto",
        watch: Watch = lambda done: None,
    ) -> Result:
        """Enlarge and restore one photo.

        Args:
            image: a path, bytes of a file, a PIL image, a `Photo`, RGB as float tensor (3, H, W)
                in [0, 1], or as array (H, W, 3), uint8 or float in [0, 1].
            realism: a level's name, a place on the dial, 0 (keep) to 1 (invent), a map of such
                places (h, w), or `auto-local`, which estimates one.
            scale: enlargement, 1 to 8, or the result's height and width.
            color: how the result is tied to the input's colours; auto is the system's own way.
            watch: told the share that is done after every tile; may raise to end the work.

        Returns:
            The restored photo, with level, timestep and the estimated metric.
        """
        return self.levels(image, [realism], scale, color, watch)[0]

    @torch.inference_mode()
    def levels(
        self,
        image: Picture,
        realisms: Iterable[Dial],
        scale: Scale = 4.0,
        color: ColorFix = "auto",
        watch: Watch = lambda done: None,
    ) -> list[Result]:
        """Restore one photo at several places of the dial, looking at it once.

        Every result is the same, byte for byte, as if it had been asked for alone.
        """
        dials = check_dials(realisms)
        check_scale(scale)
        check_color(color)
        photo = as_photo(image)
        for dial in dials:
            if isinstance(dial, Tensor):
                check_shape(dial, (photo.pixels.shape[-2], photo.pixels.shape[-1]))
        photo = reduced(photo, target_size(photo, scale))

        def share(before: int) -> Watch:
            return lambda done: watch((before + done) / len(dials))

        def work(restorer: Self) -> list[Result]:
            measure = any(isinstance(dial, str) and dial == "auto" for dial in dials)
            seen = restorer.look(photo, measure)
            return [
                restorer.finish(photo, seen, dial, scale, color, share(done))
                for done, dial in enumerate(dials)
            ]

        return self.within_memory(work)

    def within_memory(self, work: Callable[[Self], T]) -> T:
        """Do some work; when memory runs out, do it again in smaller tiles."""
        restorer = self
        while True:
            try:
                return work(restorer)
            except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if restorer.tile <= LEAST_TILE:
                    raise RcodError(
                        f"memory must hold one tile, and it doesn't hold {LEAST_TILE} x "
                        f"{LEAST_TILE} pixels; close other programs, or take a smaller photo"
                    ) from None
            restorer = restorer.with_tile(max(restorer.tile // 2, LEAST_TILE))

    def with_tile(self, tile: int) -> Self:
        """The same networks, with another size of tiles."""
        other = type(self)(self.system, self.onestep, self.metric)
        other.tile = tile
        return other

    @torch.inference_mode()
    def look(self, photo: Photo, measure: bool) -> Seen:
        """Everything that does not depend on the dial; the metric where something estimates it."""
        if self.system.base is not None:
            return look_at(self.system, self.onestep, photo, measure, self.tile)
        seconds: dict[str, float] = {}
        device = self.onestep.alphas.device
        lr = photo.pixels[None].to(device)  # (1, 3, h, w)
        up = z_up = torch.empty(0, device=device)
        if max(lr.shape[-2:]) <= self.tile:
            with clock(seconds, "encode"):
                up = enlarge(lr, self.system.scale)
                z_up = self.onestep.backbone.encode(up)
        with clock(seconds, "tokens"):
            tokens = self.onestep.prompt(up if up.numel() else shrunk(lr, self.system.scale))
        metric = None
        if measure and self.metric is not None:
            with clock(seconds, "metric"):
                metric = float(torch.cat([self._estimate(piece) for piece in glances(lr)]).mean())
        return Seen(up, z_up, tokens, metric, seconds)

    def _estimate(self, lr: Tensor) -> Tensor:
        """The latent metric of pieces (B, 3, h, w), (B,)."""
        assert self.metric is not None
        return self.metric(lr)

    @torch.inference_mode()
    def local_realism(self, photo: Photo) -> Tensor:
        """A map of the realism that every place of a photo seems to need, (h, w)."""
        lr = photo.pixels[None].to(self.onestep.alphas.device)
        tops, lefts = local_pieces(lr)
        rows: list[Tensor] = []
        for top in tops:
            band = lr[..., top : top + GLANCE, :]
            rows.append(torch.cat([self._estimate(band[..., x : x + GLANCE]) for x in lefts]))
        return realism_of_metric(torch.stack(rows), self.system.groups).cpu()

    def finish(
        self,
        photo: Photo,
        seen: Seen,
        realism: Dial,
        scale: Scale,
        color: ColorFix,
        watch: Watch = lambda done: None,
    ) -> Result:
        """One place of the dial; `watch` is told of every tile."""
        flow = self.flow(photo, seen, realism, scale, color, watch)
        pixels = torch.empty(3, *flow.size)
        for piece, top, left in flow.pieces:
            height, width = piece.pixels.shape[-2:]
            pixels[:, top : top + height, left : left + width] = piece.pixels
            del piece  # or it would stay while the next is made
        return Result(
            finished(photo, pixels, flow.size), flow.level, flow.realism, flow.timestep,
            flow.metric, flow.auto, flow.seconds,
        )  # fmt: skip

    def flow(
        self,
        photo: Photo,
        seen: Seen,
        realism: Dial,
        scale: Scale,
        color: ColorFix,
        watch: Watch = lambda done: None,
    ) -> Flow:
        """One place of the dial, piece by piece; nothing is computed before a piece is taken."""
        seconds = dict(seen.seconds)
        size = target_size(photo, scale)
        level, place, t = self._settle(photo, realism, seen.metric)
        passed = passing(
            self.system, self.onestep, photo, seen, t if place is None else place, size, color,
            self.tile, seconds, watch)  # fmt: skip
        dial = grouping.realism_of_timestep(t, self.system.groups)
        dial = min(max(dial if place is None else float(place.mean()), 0.0), 1.0)
        auto = isinstance(realism, str) and realism == "auto" and seen.metric is not None
        names = {at: name for name, at in grouping.LEVELS.items()}
        return Flow(
            size, level or names.get(dial, f"{dial:.3g}"), dial, t,
            seen.metric if auto else None, auto, seconds, passed.pieces(),
        )  # fmt: skip

    def _settle(
        self, photo: Photo, realism: Dial, metric: float | None
    ) -> tuple[str | None, Tensor | None, int]:
        """Name, map and timestep (of a map the mean's) of what the dial says."""
        groups, realism = self.system.groups, resolve_dial(self.system, realism)
        if self.system.timestep is not None:
            return "fixed", None, self.system.timestep
        name = "auto-local" if isinstance(realism, str) and realism == "auto-local" else None
        if name is not None:
            realism = self.local_realism(photo)
        if isinstance(realism, Tensor):
            height, width = photo.pixels.shape[-2:]
            places = fit_map(realism, (height, width))
            return name or "map", places, grouping.timestep_of_realism(float(places.mean()), groups)
        if realism == "auto":
            assert metric is not None, "auto needs the metric that look estimates"
            return None, None, int(grouping.timestep_of_metric(torch.tensor([metric]), groups))
        place = grouping.LEVELS[realism] if isinstance(realism, str) else float(realism)
        return None, None, grouping.timestep_of_realism(place, groups)


def target_size(photo: Photo, scale: Scale) -> tuple[int, int]:
    """Height and width of the result."""
    return target_within((photo.pixels.shape[-2], photo.pixels.shape[-1]), scale)
