"""Photos to pairs, on the fly: what is sample number i?

Its photo, its crop and every damage done to it follow from the run's seed and its number
alone. So any number of workers and of processes makes the same bytes, and the place of a run
in its data is one number.

    seed, i -> photo of the epoch's order -> crop, flip -> hr -> degrade -> lr
            -> dice for the losses
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rcod.errors import RcodError
from rcod.training.degradation import DegradeSettings, degrade
from rcod.training.interrupts import deafen, outlive_none
from rcod.training.photos import Source, read_rgb

TRIES = 20  # photos in a row that may be unfit, before the collection is


class Sample(NamedTuple):
    """One training pair."""

    number: int
    hr: Tensor  # (3, S, S) uint8
    lr: Tensor  # (3, S/4, S/4) uint8, rounded while small; (0,) where the damage is yet to be done
    photo: int  # which one
    lost: tuple[str, ...]  # what was wrong with those before it


class Lot(NamedTuple):
    """A batch of samples, float32 in [0, 1]."""

    numbers: tuple[int, ...]
    hr: Tensor  # (B, 3, S, S)
    lr: Tensor  # (B, 3, S/4, S/4); (B, 0) where the damage is yet to be done
    photos: tuple[int, ...]
    lost: tuple[str, ...]


class Samples(Dataset[Sample]):
    """Samples by their number, without end; without settings they stay undamaged."""

    def __init__(
        self, photos: Sequence[Source], side: int, settings: DegradeSettings | None, seed: int
    ) -> None:
        self.photos, self.side, self.settings, self.seed = photos, side, settings, seed

    def __getitem__(self, number: int) -> Sample:
        lost: list[str] = []
        for attempt in range(TRIES):
            place = number + attempt
            epoch, at = divmod(place, len(self.photos))
            photo = int(_order(self.seed, epoch, len(self.photos))[at])
            try:
                hr = self._crop(photo, number)
            except RcodError as error:
                lost.append(str(error))
                continue
            lr = torch.empty(0)
            if self.settings is not None:
                lr = damaged(hr.float() / 255, self.settings, self.seed, number)
            return Sample(number, hr, lr.mul(255).round().byte(), photo, tuple(lost))
        raise RcodError(
            f"{TRIES} photos in a row were unfit, the last one: {lost[-1]}; see rcod data check"
        )

    def _crop(self, photo: int, number: int) -> Tensor:
        """A square of a photo, mirrored half the time, (3, S, S) uint8."""
        image, side = read_rgb(self.photos[photo]), self.side
        if min(image.size) < side:
            raise RcodError(
                f"{self.photos[photo]}: must be {side} pixels a side at least, got "
                f"{image.width} x {image.height}"
            )
        rng = dice(self.seed, number, "crop")
        top, left, mirror = (
            int(torch.randint(most + 1, (), generator=rng))
            for most in (image.height - side, image.width - side, 1)
        )
        pixels = np.array(image.crop((left, top, left + side, top + side)))  # (S, S, 3)
        pixels = pixels[:, ::-1] if mirror else pixels
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


class Dice:
    """Random numbers of a batch, each sample's from its own generator."""

    def __init__(
        self, seed: int, numbers: Sequence[int], device: torch.device, purpose: str = "losses"
    ) -> None:
        self.each = [dice(seed, number, purpose) for number in numbers]
        self.device = device

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers, in the shape of `like`, (B, ...)."""
        drawn = [torch.randn(like.shape[1:], generator=rng) for rng in self.each]
        return torch.stack(drawn).to(self.device)

    def uniform(self) -> Tensor:
        """A number in [0, 1) for each sample, (B,)."""
        return torch.stack([torch.rand((), generator=rng) for rng in self.each]).to(self.device)

    def between(self, low: Tensor | int, high: Tensor | int) -> Tensor:
        """A whole number in [low, high) for each sample, (B,) int64."""
        return (low + self.uniform() * (high - low)).long()


def dice(seed: int, number: int, purpose: str) -> torch.Generator:
    """The generator of one sample for one purpose."""
    name = hashlib.blake2b(f"{seed}/{number}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(name) >> 1)


def damaged(hr: Tensor, settings: DegradeSettings, seed: int, number: int) -> Tensor:
    """A sample's damaged photo, (3, S/4, S/4), from its good one, (3, S, S), where that lies."""
    return degrade(hr, settings, dice(seed, number, "damage"))


def damage_all(lot: Lot, settings: DegradeSettings, seed: int) -> Lot:
    """A batch whose damage is done on the device that holds it; on a processor, as workers do."""
    pairs = zip(lot.hr, lot.numbers, strict=True)
    return lot._replace(lr=torch.stack([damaged(hr, settings, seed, n) for hr, n in pairs]))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    """In which order an epoch shows the photos, (count,) int64."""
    return torch.randperm(count, generator=dice(seed, epoch, "order"))


class Numbers:
    """The numbers of the samples that one process looks at, batch by batch."""

    def __init__(self, first: int, batch: int, rank: int, size: int) -> None:
        self.first, self.batch, self.rank, self.size = first, batch, rank, size

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first
        while True:
            own = start + self.rank * self.batch
            yield list(range(own, own + self.batch))
            start += self.size * self.batch


class SamplesOrErrors(Dataset[Sample | str]):
    """Samples, or the sentence that says why one can't be had: errors of workers lose theirs."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, number: int) -> Sample | str:
        try:
            return self.samples[number]
        except RcodError as error:
            return str(error)


def lots(samples: Samples, numbers: Numbers, workers: int) -> Iterator[Lot]:
    """Endless batches, made by so many workers ahead of their use."""
    outlive_none()
    loader = DataLoader(
        SamplesOrErrors(samples),
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_collate_or_error,
        prefetch_factor=4 if workers else None,
        persistent_workers=False,
        worker_init_fn=deafen,
    )
    for lot in loader:
        if isinstance(lot, str):
            raise RcodError(lot)
        yield lot


def _collate_or_error(samples: list[Sample | str]) -> Lot | str:
    """A batch, or the first sentence about one that can't be."""
    wrong = [one for one in samples if isinstance(one, str)]
    return wrong[0] if wrong else collate([one for one in samples if isinstance(one, Sample)])


def collate(samples: list[Sample]) -> Lot:
    """Samples as a batch."""
    hr, lr = (torch.stack([s[i] for s in samples]).float() / 255 for i in (1, 2))  # pyright: ignore
    lost = tuple(words for sample in samples for words in sample.lost)
    return Lot(tuple(s.number for s in samples), hr, lr, tuple(s.photo for s in samples), lost)
