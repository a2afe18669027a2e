"""Photos to crops to pairs: what does training look at?

Photographs are decoded once into a cache of square crops, and each crop is degraded
once or several times, so that the training loop reads memory and never a JPEG.

    photos -> Crops (N, 3, 256, 256) uint8 -> degrade -> Pairs (N, 3, 64, 64) uint8
                                                           |
                               batch: hr, lr, context <----'   (random window, flips)
"""

import hashlib
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.placing import placed
from rcod.training.degradation import DegradeSettings, degrade
from rcod.training.photos import Source, area, identity, read_rgb, softness
from rcod.training.presets import SETTINGS, resolve_preset, settings_named

SCALE = 4  # LR to HR
SPAWN = multiprocessing.get_context("spawn")  # a copy of this process might wait for its threads


def shares(given: object) -> object:
    """`name:share,name:share` as a table."""
    if not isinstance(given, str):
        return given
    pairs = [part.partition(":") for part in given.split(",")]
    return {name.strip(): share or 1 for name, _, share in pairs}


class DataSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How photos become training pairs."""

    crop: int = Field(default=256, ge=64, multiple_of=32)  # side of a cached HR crop, pixels
    crops: int = Field(default=16000, ge=1)  # how many crops the cache holds
    soft: float = 42.0  # dB; a photo that survives /2 x2 better than this is halved first
    flat: float = 2.5  # mean |gradient| (of 255) under which a crop is mostly passed over
    mix: Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(shares)] = {
        "camera": 0.65, "s3diff": 0.2, "osediff": 0.15,
    }  # fmt: skip  # degradations
    # what `own` of the mix means
    own: Annotated[str | DegradeSettings | None, BeforeValidator(resolve_preset)] = None
    seed: int = Field(default=0, ge=0, lt=2**40)

    @model_validator(mode="after")
    def every_degradation_is_known(self) -> Self:
        """Refuse a mix of what nobody has described."""
        known = {*SETTINGS, *(["own"] if self.own else [])}
        if wrong := [name for name in self.mix if name not in known]:
            raise ValueError(
                f"mix must be of {', '.join(sorted(known))}, got {wrong[0]}; describe one of your "
                "own by own=FILE.yaml"
            )
        if not sum(self.mix.values()):
            raise ValueError(f"mix must give something a share, got {self.mix}")
        return self

    def damage(self, name: str) -> DegradeSettings:
        """A part of the mix."""
        return settings_named(self.own if name == "own" and self.own is not None else name)


class Batch(NamedTuple):
    """One training batch, float32 in [0, 1]."""

    hr: Tensor  # (B, 3, H, W) true pixels
    lr: Tensor  # (B, 3, H/4, W/4) the same place, degraded
    context: Tensor  # (B, 3, C, C) the whole degraded crop the window was cut from
    guide: Tensor  # (B, 3, H, W) a larger restorer's picture of it, true pixels where there is none
    guided: Tensor  # (B,) 1 where there is one


def build_crops(
    photos: Sequence[Source],
    folder: Path,
    settings: DataSettings,
    workers: int = 2,
    tell: Callable[[str], None] = lambda words: None,
) -> Path:
    """Cut the photos into `folder/crops-KEY.npy`, (N, 3, S, S) uint8; large ones give more.

    `tell` hears of photos that can't be read; crops of others are there twice in their place.
    """
    key = digest(settings.model_dump_json(exclude={"mix", "own"}), *map(identity, photos))
    target = folder / f"crops-{key}.npy"
    if target.exists():
        return target
    count, side = settings.crops, settings.crop
    shares = np.array([_share(photo, tell) for photo in photos])
    ends = np.round(np.cumsum(shares / max(shares.sum(), 1)) * count).astype(int)
    each = np.diff(ends, prepend=0).tolist()
    jobs = [(photo, each[i], settings, settings.seed + i) for i, photo in enumerate(photos)]
    with cached(target, (count, 3, side, side)) as cache, SPAWN.Pool(workers) as pool:
        start = 0
        for crops in pool.imap(_cut, jobs):
            if isinstance(crops, str):
                tell(crops)
                continue
            cache[start : start + len(crops)] = crops
            start += len(crops)
        if not start:
            raise RcodError("photos must be readable, and none is; see rcod data check")
        for row in range(start, count):
            cache[row] = cache[(row - start) * start // (count - start)]
    return target


def build_pairs(crops: Path, settings: DataSettings, workers: int = 2) -> Path:
    """Degrade every crop once into `pairs-KEY.npy` beside it, (N, 3, S/4, S/4) uint8.

    Sample i depends on `settings.seed` and i alone, so any number of workers writes the same bytes.
    """
    key = digest(crops.name, settings.model_dump_json(exclude_none=True))
    target = crops.with_name(f"pairs-{key}.npy")
    if target.exists():
        return target
    count, _, side, _ = np.load(crops, mmap_mode="r").shape
    starts, small = range(0, count, 64), side // SCALE
    jobs = [(crops, start, min(start + 64, count), settings) for start in starts]
    with cached(target, (count, 3, small, small)) as cache, SPAWN.Pool(workers) as pool:
        for start, block in zip(starts, pool.imap(_degrade, jobs), strict=True):
            cache[start : start + len(block)] = block
    return target


@contextmanager
def cached(target: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array of bytes on the disk that bears its name only when it is filled.

    Its room is taken at once, since a full disk would end whoever writes into such an array.
    """
    with suppress(OSError):  # `placed` says what is wrong
        target.parent.mkdir(parents=True, exist_ok=True)
    with placed(target) as file:
        array = open_memmap(file.name, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):
            with Path(file.name).open("r+b") as room:  # where no disk can, its room is read first
                os.posix_fallocate(room.fileno(), 0, os.fstat(room.fileno()).st_size)
        yield array
        array.flush()


def digest(*parts: str) -> str:
    """A short name for whatever a cache depends on, so that no stale one is taken."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


class Pairs:
    """Random windows of cached crops with their degraded twins, and guides where there are any."""

    def __init__(self, crops: Path, pairs: Path | None) -> None:
        self.hr = np.load(crops, mmap_mode="r")  # (N, 3, S, S)
        self.lr = np.load(pairs, mmap_mode="r") if pairs else None  # (N, 3, S/4, S/4)
        # flat crops teach little: detailed ones come up to four times as often
        slope = [np.abs(np.diff(crop[:, ::4].astype(np.int16), axis=2)).mean() for crop in self.hr]
        self.chance = torch.tensor(slope, dtype=torch.float64).clamp(3, 12)  # (N,)
        self.guides: np.ndarray | None = None  # (K, 3, S, S)
        self.guided: dict[int, int] = {}  # crop -> its row in `guides`

    def add_guides(self, guides: Path, crops: Tensor) -> None:
        """Let three quarters of every batch come from the crops (K,) that have a guide."""
        self.guides = np.load(guides, mmap_mode="r")
        self.guided = {crop: row for row, crop in enumerate(crops.tolist())}

    def draw(self, batch: int, rng: torch.Generator) -> list[int]:
        """Crops for a batch, detailed and guided ones more often."""
        index = torch.multinomial(self.chance, batch, True, generator=rng).tolist()
        crops = list(self.guided)
        if crops:
            rows = torch.randint(len(crops), (3 * batch // 4,), generator=rng).tolist()
            index[: len(rows)] = [crops[row] for row in rows]
        return index

    def batches(self, batch: int, window: int, rng: torch.Generator) -> Iterator[Batch]:
        """Endless batches of `window` x `window` HR pixels, flipped and turned at random."""
        side = self.hr.shape[-1]
        places = (side - window) // SCALE + 1
        while True:
            index = self.draw(batch, rng)
            turn = torch.randint(8, (batch,), generator=rng).tolist()
            y, x = (torch.randint(places, (batch,), generator=rng).tolist() for _ in range(2))
            hr, lr, context, guide = [], [], [], []
            for i, k, top, left in zip(index, turn, y, x, strict=True):
                high = _turn(self.hr[i], k)
                low = _shrink(high) if self.lr is None else _turn(self.lr[i], k)
                row = self.guided.get(i)
                shown = high if row is None or self.guides is None else _turn(self.guides[row], k)
                lr.append(_window(low, top, left, window // SCALE))
                hr.append(_window(high, SCALE * top, SCALE * left, window))
                guide.append(_window(shown, SCALE * top, SCALE * left, window))
                context.append(low)
            guided = torch.tensor([float(i in self.guided) for i in index])
            yield Batch(_stack(hr), _stack(lr), _stack(context), _stack(guide), guided)


def _window(picture: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    return picture[:, top : top + side, left : left + side]


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).float().div_(255)


def _shrink(picture: np.ndarray) -> np.ndarray:
    """A clean LR twin, (3, S, S) -> (3, S/4, S/4), where nothing degraded is wanted."""
    side = picture.shape[1] // SCALE
    return picture.reshape(3, side, SCALE, side, SCALE).mean(axis=(2, 4))


def _turn(picture: np.ndarray, k: int) -> np.ndarray:
    """One of the eight symmetries of the square."""
    turned = np.rot90(picture, k % 4, axes=(1, 2))
    return turned[:, :, ::-1] if k >= 4 else turned


def _share(photo: Source, tell: Callable[[str], None]) -> float:
    """How many crops a photo gives, beside others: the root of its pixels, or none."""
    try:
        return area(photo) ** 0.5
    except RcodError as error:
        tell(str(error))
        return 0.0


def _cut(job: tuple[Source, int, DataSettings, int]) -> np.ndarray | str:
    """`count` crops of one photo at random places and reductions, (count, 3, S, S) uint8.

    Of a photo that can't be read, what is wrong with it.
    """
    photo, count, settings, seed = job
    side = settings.crop
    if not count:
        return np.zeros((0, 3, side, side), np.uint8)
    torch.set_num_threads(1)
    try:
        image = read_rgb(photo)
    except RcodError as error:
        return str(error)
    if min(image.size) < side:
        raise RcodError(
            f"{photo}: must be {side} pixels a side at least, got {image.width} x {image.height}; "
            f"list those that are with rcod data check PHOTOS --side {side} -o LIST"
        )
    if min(image.size) >= 4 * side and softness(image) > settings.soft:
        image = image.reduce(2)
    rng = np.random.default_rng(seed)
    crops: list[np.ndarray] = []
    largest = math.log(max(min(image.size) / side, 1.0))
    pyramid = [image]
    while len(crops) < count:
        # mostly full size, where the finest detail is; the rest sees objects as a whole
        shrink = math.exp(min(largest, rng.exponential(0.35)))
        if rng.random() < 0.5 or shrink < 1.1:
            scaled = pyramid[0]
        else:
            size = (max(side, round(image.width / shrink)), max(side, round(image.height / shrink)))
            scaled = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        for _ in range(8):  # several places of one reduction: resizing is the costly part
            left = int(rng.integers(scaled.width - side + 1))
            top = int(rng.integers(scaled.height - side + 1))
            crop = np.asarray(scaled.crop((left, top, left + side, top + side)))
            if _gradient(crop) < settings.flat and rng.random() < 0.8:
                continue
            crops.append(crop.transpose(2, 0, 1))
    return np.stack(crops[:count])


def _gradient(crop: np.ndarray) -> float:
    grey = crop.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


def _degrade(job: tuple[Path, int, int, DataSettings]) -> np.ndarray:
    """Crops `start` to `stop`, each degraded by a preset drawn from the mix, uint8."""
    crops, start, stop, settings = job
    torch.set_num_threads(1)
    source = np.load(crops, mmap_mode="r")
    names = list(settings.mix)
    weights = torch.tensor([settings.mix[name] for name in names])
    block = []
    for i in range(start, stop):
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + i)
        name = names[int(torch.multinomial(weights, 1, generator=rng))]
        hr = torch.from_numpy(source[i].astype(np.float32) / 255)
        block.append(degrade(hr, settings.damage(name), rng).mul(255).round().byte().numpy())
    return np.stack(block)
