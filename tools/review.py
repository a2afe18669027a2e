"""Lay an evaluation's results side by side, the least gained first, for somebody to look at.

    rcod degrade photos/ -o SET --settings camera
    rcod evaluate set=SET -o JUDGED --system tiny --system bicubic --system x4plus.param
    python tools/review.py JUDGED SET -o sheets --judge tiny@realism

SET holds LR/ and HR/, JUDGED an evaluation of it that has bicubic among its systems. Pictures are
ranked by `lpips-hed` of the judged system over bicubic's, the greatest first; each is shown where
its results differ most. Somebody's own results (dir:) are left out. `--first 5 --side 160` makes
one sheet of the five that gained least.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from rcod.errors import RcodError
from rcod.judging.datasets import Dataset, Pair, open_dataset, pixels, truth_of
from rcod.judging.evaluate import place
from rcod.judging.report import differing_place
from rcod.using.sheet import draw_rows

ROWS = 6  # of a sheet
MEASURE = "lpips-hed"


def main() -> None:
    """Write the sheets and say which picture stands where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("judged", type=Path, help="folder of an evaluation")
    parser.add_argument("set", type=Path, help="the set it judged")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the sheets")
    parser.add_argument("--judge", default="tiny@realism", help="whose pictures are ranked")
    parser.add_argument("--first", type=int, help="only so many pictures")
    parser.add_argument("--side", type=int, default=256, help="pixels a side of what is shown")
    options = parser.parse_args()
    shares, labels, name = standing(options.judged / "scores.csv", options.judge)
    labels = [label for label in labels if (options.judged / "pictures" / name / label).is_dir()]
    dataset = open_dataset(f"{name}={options.set}", Path())
    pairs = [pair for pair in dataset.pairs if pair.name in shares]  # a limit leaves some out
    ranked = sorted(pairs, key=lambda pair: -shares[pair.name])[: options.first]
    options.out.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(ranked), ROWS), 1):
        chosen = ranked[start : start + ROWS]
        file = options.out / f"{number:02}.png"
        sheet(options.judged, dataset, chosen, labels, options.side).save(file)
        print(file, ", ".join(f"{pair.name} {shares[pair.name]:.2f}" for pair in chosen))


def standing(scores: Path, judged: str) -> tuple[dict[str, float], list[str], str]:
    """Share of bicubic's distance that is left of every picture; labels; the set's name."""
    with scores.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = list(dict.fromkeys(row["system"] for row in rows))
    for wanted in ("bicubic", judged):
        if wanted not in labels:
            raise RcodError(f"{scores} must hold {wanted}, got {', '.join(labels)}")
    name = rows[0]["set"]
    rows = [row for row in rows if row["set"] == name]
    if not all(row[MEASURE] for row in rows):
        raise RcodError(f"{scores} must hold {MEASURE} of every picture; evaluate with --aids")
    found = {(row["system"], row["picture"]): float(row[MEASURE]) for row in rows}
    shares = {picture: found[judged, picture] / found["bicubic", picture]
              for system, picture in found if system == judged}  # fmt: skip
    return shares, labels, name


def sheet(
    judged: Path, dataset: Dataset, chosen: Sequence[Pair], labels: Sequence[str], side: int
) -> Image.Image:
    """Rows of pictures, a column for every system and one for the truth."""

    def row(pair: Pair) -> Iterator[Tensor]:
        images = [pixels(place(judged, dataset, label, pair.name)) for label in labels]
        top, left, square = differing_place(images)
        middle = square // 2 - side // 2
        for image in (*images, pixels(truth_of(pair))):
            height, width = image.shape[1:]
            y = min(max(top + middle, 0), max(height - side, 0))
            x = min(max(left + middle, 0), max(width - side, 0))
            yield image[:, y : y + side, x : x + side]

    rows = [list(row(pair)) for pair in chosen]
    return draw_rows(rows, [*labels, "true"], [pair.name for pair in chosen])


if __name__ == "__main__":
    try:
        main()
    except RcodError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
