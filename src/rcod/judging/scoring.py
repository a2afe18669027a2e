"""What does a folder of finished pictures score against the true ones?

sr_dir, hr_dir -> match -> check -> Judge -> values of every picture -> means
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from rcod.judging.datasets import check, match, pixels
from rcod.judging.inception import frechet
from rcod.judging.judge import MEASURES, Judge, blanks, fingerprint

Values = dict[str, float]  # measure -> value


@dataclass(frozen=True)
class Sheet:
    """Scores of a folder; a measure that could not run is in `missing` and nowhere else."""

    images: dict[str, Values]  # file name -> values
    mean: Values
    missing: dict[str, str]  # measure -> why
    protocol: dict[str, object]

    def model(self) -> dict[str, object]:
        """The same as plain JSON."""
        return {
            "mean": self.mean,
            "images": self.images,
            "missing": self.missing,
            "protocol": self.protocol,
            "fingerprint": fingerprint(self.protocol),
        }


def score_folder(
    sr_dir: Path, hr_dir: Path, judge: Judge, seen: Callable[[int, int], None] = lambda *_: None
) -> Sheet:
    """Score a folder of finished pictures against the true ones of the same names.

    Args:
        sr_dir: results.
        hr_dir: true pictures.
        judge: what scores.
        seen: told of the number of pictures done, and of all.
    """
    pairs = match(sr_dir, hr_dir)
    check(pairs)
    images: dict[str, Values] = {}
    missing = dict(judge.missing)
    clouds: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for sr_path, hr_path in pairs:
        sr, hr = pixels(sr_path), pixels(hr_path)
        (values,) = judge.values([sr], hr)
        images[sr_path.name] = values
        small = blanks(values, (sr.shape[1], sr.shape[2]), True, judge.able)
        missing |= {k: f"{sr_path.name}: {v}" for k, v in small.items() if k not in missing}
        for cloud, image in zip(clouds, (sr, hr), strict=True):
            if (features := judge.look(image)) is not None:
                cloud.append(features)
        seen(len(images), len(pairs))
    mean = average(images.values())
    if len(clouds[0]) > 1:
        mean["fid"] = frechet(torch.stack(clouds[0]), torch.stack(clouds[1]))
    elif judge.inception is not None:
        missing["fid"] = "it needs two pictures"
    return Sheet(images, mean, missing, judge.protocol())


def average(rows: Iterable[Mapping[str, float]]) -> Values:
    """The mean of every measure that all rows have, in the order of the table."""
    means = shared_means(rows)
    return {name: means[name] for name in MEASURES if name in means}


def shared_means(rows: Iterable[Mapping[str, float]]) -> Values:
    """The mean of every number that all rows have: of fewer rows it would be another set's."""
    every = list(rows)
    names = [name for name in (every[0] if every else ()) if all(name in row for row in every)]
    return {name: fmean(row[name] for row in every) for name in names}
