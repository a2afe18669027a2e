"""Measure a model on a real benchmark: bicubic and every level, and whether the dial works.

    python tools/realsr.py BENCH --limit 10 --out results

BENCH holds LR/*.png and HR/*.png of the same names, HR four times as large. Needs the aids of
`python tools/fetch_aids.py`. With --out: scores.csv, report.json and every picture.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.judging.datasets import Pair, open_dataset, thin_out, truth_of
from rcod.judging.judge import Judge
from rcod.judging.promises import BICUBIC, Report, Score, study_dial
from rcod.pixels.images import Photo, read, write
from rcod.pixels.metrics import psnr_y
from rcod.using.restore import Restorer

COLUMNS = ("psnr", "ssim", "lpips-hed", "detail", "niqe", "color_shift")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bench", type=Path, help="folder with LR/ and HR/")
    parser.add_argument("--model", default="tiny", help="name or file (default: tiny)")
    parser.add_argument("--limit", type=int, help="only so many pictures, evenly spread")
    parser.add_argument("--out", type=Path, help="where CSV, JSON and pictures go")
    parser.add_argument("--aids", type=Path, help="folder of the aids (default: RCOD_AIDS)")
    parser.add_argument("--quick", action="store_true", help="judge in bfloat16: twice as fast")
    return parser.parse_args()


def show_means(means: dict[str, dict[str, float]]) -> None:
    """Print one line per level."""
    print(" " * 10 + "".join(f"{name:>12}" for name in COLUMNS))
    for level, values in means.items():
        cells = [f"{values[c]:12.4f}" if c in values else f"{'-':>12}" for c in COLUMNS]
        print(f"{level:10}" + "".join(cells))


def show_dial(found: Report) -> None:
    """Print what the dial did and how the model stands to bicubic."""
    dial, of = found.dial, f"of {found.dial.pictures}"
    print(f"\nPSNR falls along the dial:   mean {dial.psnr_falls_in_mean}, {dial.psnr_falls} {of}")
    print(
        f"detail rises along the dial: mean {dial.detail_rises_in_mean}, {dial.detail_rises} {of}"
    )
    print(f"detail(fidelity) < detail(realism): {dial.detail_gains} {of}")
    print(f"mean |realism - fidelity|: {dial.travel:.2f}/255 (aim: at least 2)")
    for picture, sweep in found.sweeps.items():
        print(f"ten steps on {picture}: largest {sweep.largest:.2f} of the way (aim: at most .25)")
    print(f"fidelity's PSNR minus bicubic's: {found.psnr_gap:+.2f} dB (aim: at least -1)")
    ratios = (f"{k} {v:.3f}" for k, v in found.lpips_ratio.items() if k != BICUBIC)
    print(f"lpips-hed over bicubic's (aim: some level at most .95): {', '.join(ratios)}")


def reconstruction(restorer: Restorer, pairs: Sequence[Pair]) -> float:
    """PSNR on Y of the true pictures after the autoencoder alone, in dB."""
    backbone = restorer.onestep.backbone
    found: list[float] = []
    for pair in pairs:
        hr = read(truth_of(pair)).pixels[None].to(restorer.onestep.alphas.device)  # (1, 3, H, W)
        found.append(float(psnr_y(backbone.decode(backbone.encode(hr)), hr)))
    return fmean(found)


def save_scores(scores: Sequence[Score], path: Path) -> None:
    """Write one CSV row per picture and level."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", "level", "timestep", "estimate", *COLUMNS])
        for score in scores:
            values = score.values | {"color_shift": score.color_shift}
            cells = [values.get(column) for column in COLUMNS]
            rows.writerow([score.picture, score.level, score.timestep, score.estimate, *cells])


def main() -> None:
    """Run the tool."""
    options = parse()
    out: Path | None = options.out
    dtype = torch.bfloat16 if options.quick else torch.float32
    judge = Judge.load(options.aids, dtype, ["psnr", "ssim", "detail", "lpips-hed", "niqe"])
    if out:
        out.mkdir(parents=True, exist_ok=True)

    def seen(picture: str, level: str, sr: Tensor) -> None:
        print(f"\r{picture} {level}".ljust(50), end="", file=sys.stderr)
        if out:
            write(out / f"{picture}-{level}.png", Photo(sr.cpu()))

    pairs = thin_out(open_dataset(f"bench={options.bench}", Path()), options.limit).pairs
    restorer = Restorer.load(options.model)
    found = study_dial(restorer, pairs, judge, seen=seen)
    print(file=sys.stderr)
    show_means(found.means)
    show_dial(found)
    if out:
        save_scores(found.scores, out / "scores.csv")
        (out / "report.json").write_text(found.model_dump_json(indent=2))
    print(f"the autoencoder alone: {reconstruction(restorer, pairs):.2f} dB (aim: at least 34)")


if __name__ == "__main__":
    try:
        main()
    except RcodError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
