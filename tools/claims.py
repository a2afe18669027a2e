"""Do RCOD's claims hold on the tiny model? Train every row with one budget, measure it, tell.

    python tools/claims.py train OUT --prior PRIOR --photos PHOTOS --cache CACHE --aids AIDS
    python tools/claims.py measure OUT BENCH --aids AIDS
    python tools/claims.py tell OUT > docs/results.md

PRIOR is the model of `rcod train tiny-prior`. Every row starts from it, sees the same pairs in the
same order and pays the same losses at every timestep, so that whatever the dial does comes from
the grouping alone. Rows that are done already are left alone. BENCH holds LR/ and HR/.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import torch

from rcod.device import seeded
from rcod.diffusion.grouping import GroupSettings, LatentMetric, equal_groups, latent_metric
from rcod.errors import RcodError
from rcod.judging.datasets import open_dataset, spread
from rcod.judging.intervals import draw_weights, interval
from rcod.judging.judge import Judge
from rcod.judging.promises import Report, study_dial
from rcod.networks.backbone import zero
from rcod.networks.checkpoint import load, save
from rcod.networks.estimators import MetricEstimator
from rcod.networks.onestep import enlarge
from rcod.networks.prompts import VisualPrompt
from rcod.training.data import Pairs, build_crops, build_pairs
from rcod.training.losses import LossSettings
from rcod.training.photos import photos_in
from rcod.training.recipe import TINY, Recipe
from rcod.training.task import Sources
from rcod.training.train import run
from rcod.using.restore import Restorer

FIXED = GroupSettings(edges=(), timesteps=(999,))
MEASURED = 512  # pairs on which the groups' edges are measured
NAMES = ("psnr", "lpips-hed", "niqe", "detail")


@dataclass(frozen=True)
class Row:
    """One model of the comparison."""

    told: str
    host: str = "vsd"  # or "gan": what stands beside pixels and perception
    metric: LatentMetric = "cosine"
    count: int = 3  # of groups; 1 is the host's single timestep
    sees: bool = True  # image tokens
    seeds: int = 1
    more: dict[str, object] = field(default_factory=dict[str, object])


ROWS = {
    "tiny-osediff": Row("the host: t = 999, no image tokens", count=1, sees=False, seeds=3,
                        more={"distill_way": "off"}),
    "tiny-rcod_o": Row("RCOD on it: groups, DAS, VPIM", seeds=3),
    "without VPIM": Row("no image tokens", sees=False),
    "without LDG": Row("any timestep, whatever the damage", more={"explore": 1.0}),
    "without DAS": Row("the distillation timestep falls anywhere", more={"distill_way": "off"}),
    "DAS as released": Row("from t = 749 on at least 200", more={"distill_way": "released"}),
    "four groups": Row("n = 4", count=4),
    "groups by L1": Row("instead of the cosine", metric="l1"),
    "groups by MSE": Row("instead of the cosine", metric="mse"),
    "clean latent of the paper": Row("Eq. 4 at t", more={"formula": "general"}),
    "clean latent as released": Row("Eq. 4 at t = 200 always", more={"formula": "constant"}),
    "tiny-s3diff": Row("the host: t = 999, an adversary", "gan", count=1, sees=False),
    "tiny-rcod_s": Row("RCOD on it", "gan"),
}  # fmt: skip


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("train", "measure", "tell"):
        one = kinds.add_parser(kind)
        one.add_argument("out", type=Path, help="where the rows lie")
        one.add_argument("--aids", type=Path, help="folder of the aids (default: RCOD_AIDS)")
        if kind == "train":
            one.add_argument("--steps", type=int, default=400)
            one.add_argument("--only", action="append", choices=list(ROWS), help="repeat it")
            for name in ("prior", "photos", "cache"):
                one.add_argument(f"--{name}", type=Path, required=True)
        if kind == "measure":
            one.add_argument("bench", type=Path, help="folder with LR/ and HR/")
            one.add_argument("--limit", type=int, help="only so many pictures, evenly spread")
    return parser.parse_args()


def recipe_of(row: Row, groups: GroupSettings, seed: int, steps: int) -> Recipe:
    """What a row's run computes: losses that are the same all along the dial."""
    distill, adversary = (0.1, 0.0) if row.host == "vsd" else (0.0, 0.01)
    losses = LossSettings(
        pixel=(1.0, 1.0), guide=(0.0, 0.0), latent=(0.1, 0.1), outline=(0.0, 0.0),
        perceptual=(0.5, 0.5), distill=(distill, distill), adversary=(adversary, adversary),
    )  # fmt: skip
    base = TINY["tiny-rcod"].model_dump() | {
        "losses": losses, "groups": groups, "group_metric": row.metric, "explore": 0.0,
        "blind": 0.1 if row.sees else 1.0, "distill_way": "paper", "guides": 0, "seed": seed,
        "steps": steps, "watch_every": steps,
    }  # fmt: skip
    return Recipe.model_validate(base | row.more)


def measured(crops: Path, pairs: Path, prior: Path) -> dict[LatentMetric, torch.Tensor]:
    """The latent metrics of some training pairs, (MEASURED,) each."""
    encode = load(prior)[1].backbone.encode
    batch = next(Pairs(crops, pairs).batches(MEASURED, 128, seeded(0)))
    with torch.no_grad():
        z_up, z_hr = encode(enlarge(batch.lr)), encode(batch.hr)
    kinds: tuple[LatentMetric, ...] = ("cosine", "l1", "mse")
    return {kind: latent_metric(z_up, z_hr, kind) for kind in kinds}


def blinded(prior: Path, path: Path) -> Path:
    """The prior with image tokens that are always nothing."""
    if not path.exists():
        system, onestep, metric = load(prior)
        assert isinstance(onestep.prompt, VisualPrompt) and isinstance(metric, MetricEstimator)
        zero(onestep.prompt.project)
        save(path, system, onestep, metric, torch.float32)
    return path


def train(options: argparse.Namespace) -> None:
    """Train what isn't trained yet."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    data = TINY["tiny-rcod"].data
    crops = build_crops(photos_in(options.photos, options.cache), options.cache, data)
    metrics = measured(crops, build_pairs(crops, data), options.prior)
    blind = blinded(options.prior, out / "blind.safetensors")
    for name, row in ROWS.items():
        groups = FIXED if row.count == 1 else equal_groups(metrics[row.metric], row.count)
        for seed in range(row.seeds if name in (options.only or ROWS) else 0):
            folder = out / name / str(seed)
            recipe = recipe_of(row, groups, seed, options.steps)
            start = options.prior if row.sees else blind
            sources = Sources(options.photos, start, options.cache, options.aids)
            print(f"{name}, seed {seed}", file=sys.stderr)
            if run(recipe, sources, folder, resume=(folder / "state.pt").exists()).stopped:
                sys.exit(130)


def measure(options: argparse.Namespace) -> None:
    """Measure what isn't measured yet."""
    judge = Judge.load(options.aids, torch.bfloat16, list(NAMES))
    pairs = spread(open_dataset(f"bench={options.bench}", Path()), options.limit).pairs
    for model in sorted(options.out.glob("*/*/model.safetensors")):
        target = model.with_name("report.json")
        if target.exists() and target.stat().st_mtime > model.stat().st_mtime:
            continue
        print(model.parent, file=sys.stderr)
        found = study_dial(Restorer.load(str(model)), pairs, judge, sweeps=0)
        target.write_text(found.model_dump_json(indent=1), encoding="utf-8")


def tell(options: argparse.Namespace) -> None:
    """Print the page."""
    found = {name: reports(options.out / name) for name in ROWS}
    found = {name: all_ for name, all_ in found.items() if all_}
    if not found:
        raise RcodError(f"{options.out} holds no measured row; train and measure first")
    recipes = sorted(options.out.glob("*/*/recipe.json"))
    steps = Recipe.model_validate_json(recipes[0].read_text(encoding="utf-8")).steps
    pictures = next(iter(found.values()))[0].dial.pictures
    print(f"Every row: {steps} steps of {TINY['tiny-rcod'].batch} windows from the same prior, "
          f"measured on {pictures} RealSR pictures. Higher PSNR is truer; lower `lpips-hed` and "
          "NIQE are better. Where a row was trained with several seeds, their standard deviation "
          "stands behind its mean.\n")  # fmt: skip
    print("| row | what | PSNR, fidelity | `lpips-hed`, fidelity | NIQE, realism | "
          "PSNR, realism | travel |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, all_ in found.items():
        places = (("fidelity", "psnr", 2), ("fidelity", "lpips-hed", 4), ("realism", "niqe", 2),
                  ("realism", "psnr", 2))  # fmt: skip
        cells = [told((r.means[level][key] for r in all_), digits)
                 for level, key, digits in places]  # fmt: skip
        cells.append(told((r.dial.travel for r in all_), 2))
        print(f"| {name} | {ROWS[name].told} | {' | '.join(cells)} |")
    print()
    for ours, host in (("tiny-rcod_o", "tiny-osediff"), ("tiny-rcod_s", "tiny-s3diff")):
        if ours in found and host in found:
            for claim in claims(ours, found[ours][0], host, found[host][0]):
                print(f"- {claim}")


def claims(ours: str, mine: Report, host: str, theirs: Report) -> Iterable[str]:
    """The paper's main claims, each with its verdict by the pictures' bootstrap."""
    for level, key, rises in (("fidelity", "psnr", True), ("fidelity", "lpips-hed", False),
                              ("realism", "niqe", False)):  # fmt: skip
        gains = [
            a - b if rises else b - a
            for a, b in zip(column(mine, level, key), column(theirs, level, key), strict=True)
        ]
        mean, low, high = interval(gains, draw_weights(len(gains)))
        verdict = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
        yield (f"{ours} at {level} is better than {host} in {key}: **{verdict}** "
               f"(gain {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})")  # fmt: skip


def column(report: Report, level: str, key: str) -> list[float]:
    """One measure of one level, picture by picture."""
    return [score.values[key] for score in report.scores if score.level == level]


def reports(folder: Path) -> list[Report]:
    """What was measured of a row, seed by seed."""
    files = sorted(folder.glob("*/report.json"))
    return [Report.model_validate_json(file.read_text(encoding="utf-8")) for file in files]


def told(values: Iterable[float], digits: int) -> str:
    """A mean, and the standard deviation of several."""
    given = list(values)
    text = f"{fmean(given):.{digits}f}"
    return f"{text} ± {stdev(given):.{digits}f}" if len(given) > 1 else text


if __name__ == "__main__":
    chosen = parse()
    try:
        {"train": train, "measure": measure, "tell": tell}[chosen.kind](chosen)
    except RcodError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
