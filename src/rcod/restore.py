"""One image in, one image out.

    photo -> resize x4 -> tokens, z_up (once) -> one UNet call a level -> decode -> colour -> photo

`Restorer` holds a system's networks on a device. Everything that does not depend on the
dial is computed once for a photo and shared by all the levels asked for.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.checkpoint import find_weights, load
from rcod.color import match_adain, match_wavelet
from rcod.device import pick_device, pick_dtype
from rcod.errors import RcodError
from rcod.estimators import MetricEstimator
from rcod.grouping import LEVELS, realism_of_timestep, timestep_of_metric, timestep_of_realism
from rcod.images import Photo, from_pil, read, to_pil
from rcod.onestep import OneStep, enlarge
from rcod.systems import System
from rcod.tiling import PHASE, plan, tiled

Level = Literal["fidelity", "neutral", "realism", "auto"]
Realism = float | Level
Watch = Callable[[float], None]  # told the share that is done; may raise to end the work
ColorFix = Literal["wavelet", "adain", "none"]

TILE, OVERLAP = 512, 96  # latent pixels; a result of 2048 x 2048 is one tile
GLANCE = 256  # LR pixels a side of the pieces the metric is estimated on


@dataclass(frozen=True)
class Result:
    """A restored photo and how it came about."""

    photo: Photo
    level: str  # fidelity, neutral or realism, else the dial's number
    realism: float  # place on the dial, 0 to 1
    timestep: int
    metric: float | None  # estimated latent metric, where it was asked for
    auto: bool  # whether the metric chose the level
    seconds: dict[str, float]  # per stage: tokens, encode, metric, predict, decode, color

    @property
    def picture(self) -> Image:
        """The restored photo as a PIL image."""
        return to_pil(self.photo)


class Seen(NamedTuple):
    """What a photo's levels share."""

    up: Tensor  # (1, 3, 4h, 4w) enlarged photo
    z_up: Tensor  # (1, C, h, w) its latent
    tokens: Tensor  # (1, N, D)
    metric: float | None
    seconds: dict[str, float]


class Restorer:
    """A system's networks, ready for photos."""

    def __init__(self, system: System, onestep: OneStep, metric: MetricEstimator) -> None:
        self.system = system
        self.onestep = onestep
        self.metric = metric

    @classmethod
    def load(cls, name: str = "tiny", device: str = "auto", dtype: str = "auto") -> Self:
        """Load a bundled model or a weights file.

        Args:
            name: a name from `rcod models`, or a .safetensors file written by rcod.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: precision of the UNet: auto, float32, bfloat16 or float16.
        """
        place = pick_device(device)
        precision = pick_dtype(dtype, place)
        system, onestep, metric = load(find_weights(name))
        unet = onestep.to(place).backbone.unet.to(precision)
        unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return cls(system, onestep.requires_grad_(False), metric.to(place).requires_grad_(False))

    def __call__(
        self,
        image: Photo | Image | Path | str | Tensor,
        realism: Realism = "auto",
        scale: float = 4.0,
        color: ColorFix = "wavelet",
        seed: int = 0,
    ) -> Result:
        """Enlarge and restore one photo.

        Args:
            image: a path, a PIL image, a `Photo`, or RGB as float tensor (3, H, W) in [0, 1].
            realism: a level's name or a place on the dial, 0 (keep) to 1 (invent).
            scale: enlargement, 1 to 8; the result measures round(scale * side).
            color: how the result is tied to the input's colours.
            seed: for systems that draw random numbers; tiny draws none.

        Returns:
            The restored photo, with level, timestep and the estimated metric.
        """
        return self.levels(image, [realism], scale, color)[0]

    @torch.inference_mode()
    def levels(
        self,
        image: Photo | Image | Path | str | Tensor,
        realisms: Sequence[Realism],
        scale: float = 4.0,
        color: ColorFix = "wavelet",
    ) -> list[Result]:
        """Restore one photo at several places of the dial, looking at it once.

        Every result is the same, byte for byte, as if it had been asked for alone.
        """
        for realism in realisms:
            check_realism(realism)
        check_scale(scale)
        if color not in ("wavelet", "adain", "none"):
            raise RcodError(f"color must be wavelet, adain or none, got {color}")
        photo = as_photo(image)
        seen = self.look(photo, "auto" in realisms)
        return [self.finish(photo, seen, realism, scale, color) for realism in realisms]

    def look(self, photo: Photo, measure: bool) -> Seen:
        """Everything that does not depend on the dial."""
        seconds: dict[str, float] = {}
        lr = photo.pixels[None].to(self.onestep.alphas.device)  # (1, 3, h, w)
        with clock(seconds, "encode"):
            up = enlarge(lr, self.system.scale)
            z_up = self.onestep.backbone.encode(up)
        with clock(seconds, "tokens"):
            tokens = self.onestep.prompt(up)
        metric = None
        if measure:
            with clock(seconds, "metric"):
                metric = float(torch.cat([self.metric(piece) for piece in glances(lr)]).mean())
        return Seen(up, z_up, tokens, metric, seconds)

    def finish(
        self,
        photo: Photo,
        seen: Seen,
        realism: Realism,
        scale: float,
        color: ColorFix,
        watch: Watch = lambda done: None,
    ) -> Result:
        """One place of the dial; `watch` is told of every tile."""
        seconds = dict(seen.seconds)
        t = self._timestep(realism, seen.metric)
        with clock(seconds, "predict"):
            z_sr = self._clean(seen, t, watch)
        with clock(seconds, "decode"):
            sr = self.onestep.backbone.decode(z_sr)  # (1, 3, 4h, 4w)
        with clock(seconds, "color"):
            sr = (
                {"wavelet": match_wavelet, "adain": match_adain}[color](sr.clamp(0, 1), seen.up)
                if color != "none"
                else sr
            )
            size = target_size(photo, scale)
            sr = resize(sr, size).clamp(0, 1)
        place = realism_of_timestep(t, self.system.groups)
        names = {LEVELS[name]: name for name in LEVELS}
        return Result(
            photo=finished(photo, sr[0].cpu(), size),
            level=names.get(place, f"{place:.3g}"),
            realism=place,
            timestep=t,
            metric=seen.metric if realism == "auto" else None,
            auto=realism == "auto",
            seconds=seconds,
        )

    def _timestep(self, realism: Realism, metric: float | None) -> int:
        if realism == "auto":
            assert metric is not None, "auto needs the metric that look estimates"
            return int(timestep_of_metric(torch.tensor([metric]), self.system.groups))
        place = LEVELS[realism] if isinstance(realism, str) else float(realism)
        return timestep_of_realism(place, self.system.groups)

    def _clean(self, seen: Seen, t: int, watch: Watch) -> Tensor:
        """z_up -> z_sr, in tiles where the photo is large."""
        timestep = torch.tensor([t], device=seen.z_up.device)
        height, width = seen.z_up.shape[-2:]
        z_up = seen.z_up
        if max(height, width) > TILE:  # cuts must fall where the UNet's strides do
            z_up = F.pad(z_up, (0, -width % PHASE, 0, -height % PHASE), mode="replicate")
        tiles = len(plan(z_up.shape[-2], z_up.shape[-1], TILE, OVERLAP).corners)
        done = count(1)

        def clean(z: Tensor) -> Tensor:
            z_sr = self.onestep.clean(z, timestep, seen.tokens)
            watch(next(done) / tiles)
            return z_sr

        return tiled(clean, z_up, TILE, OVERLAP)[..., :height, :width]


def check_realism(realism: Realism) -> None:
    """Refuse what is no place on the dial."""
    if isinstance(realism, str):
        if realism not in (*LEVELS, "auto"):
            raise RcodError(
                f"realism must be {', '.join(LEVELS)}, auto or a number from 0 to 1, got {realism}"
            )
    elif not 0 <= realism <= 1:  # NaN too
        raise RcodError(
            f"realism must lie in [0, 1], got {realism}; 0 keeps the input, 1 invents detail"
        )


def check_scale(scale: float) -> None:
    """Refuse an enlargement that makes no sense."""
    if not 1 <= scale <= 8:  # NaN too
        raise RcodError(f"scale must lie in [1, 8], got {scale}; 4 enlarges four times")


def as_photo(image: Photo | Image | Path | str | Tensor) -> Photo:
    """Whatever a caller holds, as a `Photo`."""
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image):
        return from_pil(image)
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise RcodError(
                f"an image tensor must be float (3, H, W) in [0, 1], got {image.dtype} "
                f"{tuple(image.shape)}"
            )
        if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
            raise RcodError("an image tensor must lie in [0, 1]; scale or clamp it first")
        return Photo(image.float().cpu(), None, None, None)
    return read(Path(image))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic to (height, width); nothing where the size is right."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


def target_size(photo: Photo, scale: float) -> tuple[int, int]:
    """Height and width of the result."""
    height, width = photo.pixels.shape[-2:]
    return max(1, round(height * scale)), max(1, round(width * scale))


def finished(photo: Photo, sr: Tensor, size: tuple[int, int]) -> Photo:
    """The result with what the input carried: alpha enlarged, profile and EXIF kept."""
    alpha = photo.alpha
    if alpha is not None:
        alpha = resize(alpha[None], size)[0].clamp(0, 1)  # (1, H, W)
    return Photo(sr, alpha, photo.icc, photo.exif)


def glances(lr: Tensor) -> Iterator[Tensor]:
    """At most nine evenly spread pieces of a photo, (1, 3, <= 256, <= 256) each."""
    height, width = lr.shape[-2:]
    rows, columns = (min(3, math.ceil(side / GLANCE)) for side in (height, width))
    for i in range(rows):
        top = round(i * max(height - GLANCE, 0) / max(rows - 1, 1))
        for j in range(columns):
            left = round(j * max(width - GLANCE, 0) / max(columns - 1, 1))
            yield lr[..., top : top + GLANCE, left : left + GLANCE]


@contextmanager
def clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
