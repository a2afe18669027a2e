"""Do RCOD's claims hold on the tiny model? Train every row with one budget, measure it, tell.

    python tools/claims.py train ROWS --prior PRIOR --photos PHOTOS --cache CACHE --aids AIDS
    python tools/claims.py measure ROWS BENCH docs/claims --aids AIDS --where "HARDWARE, COMMIT"
    python tools/claims.py tell docs/claims > docs/results.md

PRIOR is the model of `rcod train tiny-prior`. Every row starts from it, sees the same pairs and
pays the same losses at every timestep (one row's turn with it). ROWS holds STEPS/NAME/SEED; rows
that are done already are left alone. BENCH holds LR/ and HR/. `lpips-hed` is a term of every row's
loss, NIQE of none.
"""

import argparse
import json
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import torch

from rcod.device import seeded
from rcod.diffusion.grouping import (
    GroupSettings,
    LatentMetric,
    MetricSize,
    equal_groups,
)
from rcod.errors import RcodError
from rcod.judging.datasets import open_dataset, thin_out
from rcod.judging.intervals import draw_weights, interval
from rcod.judging.judge import Judge
from rcod.judging.promises import Report, study_dial
from rcod.judging.studies import STUDIES
from rcod.networks.backbone import zero
from rcod.networks.checkpoint import find_weights, load, save
from rcod.networks.estimators import MetricEstimator
from rcod.networks.onestep import measured
from rcod.networks.prompts import VisualPrompt
from rcod.training.data import Batch, Pairs, build_crops, build_pairs
from rcod.training.losses import LossSettings
from rcod.training.photos import photos_in
from rcod.training.recipe import TINY, Recipe
from rcod.training.task import Sources
from rcod.training.train import run
from rcod.using.restore import Restorer

MEASURED = 512  # pairs on which the groups' edges are measured
NAMES = ("psnr", "lpips-hed", "niqe", "detail", "ssim")
CLAIMED = (
    ("fidelity", "psnr"),
    ("fidelity", "lpips-hed"),
    ("fidelity", "niqe"),
    ("realism", "niqe"),
)

DATA = TINY["tiny-rcod"].data.model_copy(update={"mix": {"osediff": 1.0}})  # the papers'
VARIANTS = ("tiny-rcod_o, by damage", "tiny-rcod_o, turning")  # of RCOD on OSEDiff
HALFWAY = "tiny-osediff, halfway"  # what `turning` must beat besides the host
# fidelity perceives more, realism is drawn to a crisper photo and to the prior, without a weave
TURNING = LossSettings(
    pixel=(1.0, 0.5), guide=(0.0, 0.0), latent=(0.1, 0.1), outline=(0.0, 0.0),
    perceptual=(1.5, 0.75), distill=(0.0, 0.2), adversary=(0.0, 0.0), sharpen=(0.0, 0.5),
    weave=(0.5, 2.0),
)  # fmt: skip
HALF = LossSettings.model_validate({
    term: (fmean(ends),) * 2 if isinstance(ends, tuple) else ends for term, ends in TURNING
})  # fmt: skip
STUDIED = {"ldg": "What the latent metric sees", "mem": "What the metric estimator guesses"}
PAGE = """# Do RCOD's claims hold on the tiny model?

This page is what `python tools/claims.py tell docs/claims` prints.

- Rows of one table were trained alike and for little from the same prior. These are differences
  after a small budget, not those of finished models. Where a row was trained with several seeds,
  their standard deviation stands behind its mean; rows with one seed say nothing of training's
  own noise.
- Photos are damaged as the papers damage them. Losses are the same at every timestep, so that
  whatever the dial does comes from the grouping alone, but in the row that says `turning`: there,
  from fidelity to realism, pixels weigh {pixel[0]:g} to {pixel[1]:g}, perception \
{perceptual[0]:g} to {perceptual[1]:g}, VSD {distill[0]:g} to {distill[1]:g}
  (elsewhere 1, 0.5 and 0.1), and a weave that repeats itself every 8 pixels {weave[0]:g} to \
{weave[1]:g}
  (elsewhere nothing); the photo to be met is sharpened by {sharpen[0]:g} to {sharpen[1]:g}, and a
  share of {explore:g} of the photos is given a timestep by chance. `halfway` is the host by the
  mean of these losses, so that its difference is what the dial adds to them.
- The papers' metric, the cosine of the enlarged photo and the true one, is low for detailed photos,
  whatever happened to them. `by damage` and `turning` measure it at the small photo's size, where
  nothing but damage is left between the two (`reduced` below).
- A host is its recipe on this model: its timestep, losses and texts. The clean latent is the
  residual one but in the two rows that say otherwise, and the prior was taught with image tokens.
- `lpips-hed` is a term of every row's loss, NIQE of none. A gain is supported where its interval of
  95 % lies above nothing and every seed alone says so, refuted the same below, else undecided.
  There are many intervals.
"""

SECTION = """
## After {steps} steps of {windows} windows

Measured on {count} RealSR pictures: {where}.
"""

Reports = dict[str, Report]  # of one row, by seed


@dataclass(frozen=True)
class Row:
    """One model of the comparison."""

    told: str
    host: str = "vsd"  # or "gan": what stands beside pixels and perception
    metric: LatentMetric = "cosine"
    at: MetricSize = "enlarged"  # where it is measured
    count: int = 3  # of groups
    fixed: int | None = None  # the only timestep, in place of groups
    sees: bool = True  # image tokens
    seeds: int = 1
    more: dict[str, object] = field(default_factory=dict[str, object])


ROWS = {
    "tiny-osediff": Row("the host: t = 999, no image tokens", fixed=999, sees=False, seeds=3,
                        more={"distill_way": "off"}),
    HALFWAY: Row("the host by the mean of losses that turn", fixed=999, sees=False,
                 more={"distill_way": "off", "losses": HALF}),
    "tiny-rcod_o": Row("RCOD on it: groups, DAS, VPIM", seeds=3),
    "tiny-rcod_o, by damage": Row("groups by damage alone", at="reduced", seeds=3),
    "tiny-rcod_o, turning": Row("and losses that turn with the dial", at="reduced", seeds=3,
                                more={"losses": TURNING, "explore": 0.5}),
    "without LDG": Row("t = 499 for every photo", fixed=499),
    "groups by chance": Row("any timestep, whatever the damage", more={"explore": 1.0}),
    "without VPIM": Row("no image tokens", sees=False),
    "without DAS": Row("the distillation timestep falls anywhere", more={"distill_way": "off"}),
    "tiny-s3diff": Row("the host: t = 999, no image tokens, an adversary", "gan", fixed=999,
                       sees=False),
    "tiny-rcod_s": Row("RCOD on it", "gan"),
    "four groups": Row("n = 4", count=4),
    "groups by L1": Row("instead of the cosine", metric="l1"),
    "groups by MSE": Row("instead of the cosine", metric="mse"),
    "clean latent of the paper": Row("Eq. 4 at t", more={"formula": "general"}),
    "clean latent as released": Row("Eq. 4 at t = 200 always", more={"formula": "constant"}),
}  # fmt: skip


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("train", "measure", "tell"):
        one = kinds.add_parser(kind)
        if kind != "tell":
            one.add_argument("rows", type=Path, help="where the rows lie")
            one.add_argument("--aids", type=Path, help="folder of the aids (default: RCOD_AIDS)")
        if kind == "train":
            one.add_argument("--steps", type=int, default=400)
            one.add_argument("--only", action="append", choices=list(ROWS), help="repeat it")
            for name in ("prior", "photos", "cache"):
                one.add_argument(f"--{name}", type=Path, required=True)
        if kind == "measure":
            one.add_argument("bench", type=Path, help="folder with LR/ and HR/")
            one.add_argument("--limit", type=int, help="only so many pictures, evenly spread")
            one.add_argument("--where", required=True, help="hardware and commit")
        if kind != "train":
            one.add_argument("kept", type=Path, help="where what was measured lies")
    return parser.parse_args()


def recipe_of(row: Row, groups: GroupSettings, seed: int, steps: int) -> Recipe:
    """What a row's run computes: losses that are the same all along the dial, if it has no own."""
    distill, adversary = (0.1, 0.0) if row.host == "vsd" else (0.0, 0.01)
    losses = LossSettings(
        pixel=(1.0, 1.0), guide=(0.0, 0.0), latent=(0.1, 0.1), outline=(0.0, 0.0),
        perceptual=(0.5, 0.5), distill=(distill, distill), adversary=(adversary, adversary),
    )  # fmt: skip
    base = TINY["tiny-rcod"].model_dump() | {
        "data": DATA, "losses": losses, "groups": groups, "explore": 0.0,
        "blind": 0.1 if row.sees else 1.0, "distill_way": "paper", "guides": 0, "seed": seed,
        "steps": steps, "watch_every": steps,
    }  # fmt: skip
    return Recipe.model_validate(base | row.more)


def groups_of(row: Row, prior: Path, batch: Batch) -> GroupSettings:
    """Equally large groups by what is measured on some training pairs."""
    if row.fixed is not None:
        return GroupSettings(edges=(), timesteps=(row.fixed,))
    seen = GroupSettings(edges=(), timesteps=(999,), by=row.metric, at=row.at)  # not parted yet
    found = measured(load(prior)[1].backbone.encode, batch.lr, batch.hr, seen)
    parted = equal_groups(found, row.count).model_dump(include={"edges", "timesteps"})
    return GroupSettings.model_validate(seen.model_dump() | parted)


def blinded(prior: Path, path: Path) -> Path:
    """The prior with image tokens that are always nothing."""
    system, onestep, metric = load(prior)
    assert isinstance(onestep.prompt, VisualPrompt) and isinstance(metric, MetricEstimator)
    zero(onestep.prompt.project)
    save(path, system, onestep, metric, torch.float32)
    return path


def steps_of(folder: Path) -> int:
    """How many steps a run has logged; 0 of one that hasn't begun."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def train(options: argparse.Namespace) -> None:
    """Train what isn't trained yet."""
    out: Path = options.rows / str(options.steps)
    out.mkdir(parents=True, exist_ok=True)
    crops = build_crops(photos_in(options.photos, options.cache), options.cache, DATA)
    batch = next(Pairs(crops, build_pairs(crops, DATA)).batches(MEASURED, 128, seeded(0)))
    blind = blinded(options.prior, out / "blind.safetensors")
    for name in options.only or ROWS:
        row = ROWS[name]
        groups = groups_of(row, options.prior, batch)
        for seed in range(row.seeds):
            folder = out / name / str(seed)
            if steps_of(folder) == options.steps:
                continue
            recipe = recipe_of(row, groups, seed, options.steps)
            start = options.prior if row.sees else blind
            sources = Sources(options.photos, start, options.cache, options.aids)
            print(f"{name}, seed {seed}", file=sys.stderr)
            if run(recipe, sources, folder, resume=(folder / "state.pt").exists()).stopped:
                sys.exit(130)


def judge_rows(options: argparse.Namespace) -> None:
    """Study the shipped model and measure the finished rows, what isn't done yet of both."""
    judge = Judge.load(options.aids, torch.bfloat16, list(NAMES))
    if judge.missing:
        raise RcodError(f"every measure must be at hand, and {judge.missing}; fetch the aids")
    dataset = open_dataset(f"bench={options.bench}", Path())
    kept: Path = options.kept
    for study in STUDIED:
        target = kept / f"{study}.txt"
        if not is_newer(target, find_weights("tiny")):
            lines = STUDIES[study](Restorer.load("tiny"), dataset.pairs, judge).lines
            write(target, "\n".join(lines))
    pairs = thin_out(dataset, options.limit).pairs
    for model in sorted(options.rows.glob("*/*/*/model.safetensors")):
        folder = model.parent
        target = kept / folder.relative_to(options.rows).with_suffix(".json")
        asked = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["steps"]
        if steps_of(folder) < asked:
            print(f"{folder} is not finished, left out", file=sys.stderr)
        elif not is_newer(target, model):
            print(folder, file=sys.stderr)
            found = study_dial(Restorer.load(str(model)), pairs, judge, sweeps=0)
            write(target, found.model_dump_json())
            write(target.parents[1] / "where.txt", options.where)


def write(file: Path, text: str) -> None:
    """Keep what was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n", encoding="utf-8")


def is_newer(target: Path, source: Path) -> bool:
    """Whether a file was made after the one that it was made of."""
    return target.exists() and target.stat().st_mtime > source.stat().st_mtime


def tell(options: argparse.Namespace) -> None:
    """Print the page: a section for every budget, and what was studied."""
    budgets = sorted(options.kept.glob("[0-9]*"), key=lambda budget: -int(budget.name))
    if not budgets:
        raise RcodError(f"{options.kept} holds no measured row; train and measure first")
    more = ROWS["tiny-rcod_o, turning"].more
    print(PAGE.format(explore=more["explore"], **TURNING.model_dump()), end="")
    for budget in budgets:
        tell_budget(budget)
    for study, title in STUDIED.items():
        lines = (options.kept / f"{study}.txt").read_text(encoding="utf-8")
        print(f"\n## {title}\n\n```\n{lines}```")


def tell_budget(budget: Path) -> None:
    """Print the tables and verdicts of the rows that were trained for so many steps."""
    found = {name: reports(budget / name) for name in ROWS if (budget / name).exists()}
    pictures = {tuple(one.picture for one in report.scores)
                for all_ in found.values() for report in all_.values()}  # fmt: skip
    if len(pictures) != 1:
        raise RcodError(f"the rows of {budget} must be measured on the same pictures")
    where = (budget / "where.txt").read_text(encoding="utf-8").strip()
    count = next(iter(found[next(iter(found))].values())).dial.pictures
    print(SECTION.format(steps=budget.name, windows=TINY["tiny-rcod"].batch, count=count,
                         where=where))  # fmt: skip
    print("| row | what | PSNR, fidelity | `lpips-hed`, fidelity | NIQE, fidelity | "
          "PSNR, realism | `lpips-hed`, realism | NIQE, realism | travel |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name, all_ in found.items():
        cells = [told([r.means[level][key] for r in all_.values()], 4 if key == "lpips-hed" else 2)
                 for level in ("fidelity", "realism") for key in NAMES[:3]]  # fmt: skip
        cells.append(told([report.dial.travel for report in all_.values()], 2))
        print(f"| {name} | {ROWS[name].told} | {' | '.join(cells)} |")
    print("\nGain of the first over the second, paired by picture, with its 95 % interval:\n")
    print("| RCOD | against | " + " | ".join(f"{key}, {level}" for level, key in CLAIMED) + " |")
    print("|---|---|" + len(CLAIMED) * "---|")
    for ours, theirs in facing(found):
        cells = (verdict(found[ours], found[theirs], *claim) for claim in CLAIMED)
        print(f"| {ours} | {theirs} | {' | '.join(cells)} |")
    print()
    for name in ("tiny-rcod_o", *VARIANTS, "tiny-rcod_s"):
        for seed, report in found.get(name, {}).items():
            dial = report.dial
            print(f"- {name}, seed {seed}: PSNR falls from level to level on {dial.psnr_falls} of "
                  f"{dial.pictures} pictures, detail rises on {dial.detail_rises}.")  # fmt: skip


def facing(found: Container[str]) -> list[tuple[str, str]]:
    """Which rows stand against each other: RCOD against whatever has its host."""
    pairs = [(ours, name) for ours in ("tiny-rcod_o", "tiny-rcod_s") for name, row in ROWS.items()
             if row.host == ROWS[ours].host and name not in (ours, HALFWAY, *VARIANTS)]  # fmt: skip
    pairs += [(ours, name) for ours in VARIANTS for name in ("tiny-osediff", "tiny-rcod_o")]
    pairs += [(VARIANTS[-1], name) for name in (HALFWAY, VARIANTS[0])]
    return [(ours, name) for ours, name in pairs if ours in found and name in found]


def verdict(ours: Reports, theirs: Reports, level: str, key: str) -> str:
    """How much better the one is than the other in a measure, and whether that is sure.

    The gain of every picture is the mean over the seeds that both were trained with; its interval
    is the pictures' bootstrap. Supported means that it lies above nothing and that every seed says
    so, refuted the same below.
    """
    sign = 1 if key == "psnr" else -1
    gains = [
        [sign * (a - b) for a, b in zip(column(ours[seed], level, key),
                                        column(theirs[seed], level, key), strict=True)]
        for seed in ours.keys() & theirs.keys()
    ]  # fmt: skip
    each = [fmean(of_picture) for of_picture in zip(*gains, strict=True)]
    mean, low, high = interval(each, draw_weights(len(each)))
    word = "undecided"
    if low > 0 and min(map(fmean, gains)) > 0:
        word = "**supported**"
    elif high < 0 and max(map(fmean, gains)) < 0:
        word = "**refuted**"
    digits = 4 if key == "lpips-hed" else 3
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}) {word}"


def column(report: Report, level: str, key: str) -> list[float]:
    """One measure of one level, picture by picture."""
    return [score.values[key] for score in report.scores if score.level == level]


def reports(folder: Path) -> Reports:
    """What was measured of a row, by its seed."""
    return {file.stem: Report.model_validate_json(file.read_text(encoding="utf-8"))
            for file in sorted(folder.glob("*.json"))}  # fmt: skip


def told(values: Sequence[float], digits: int) -> str:
    """A mean, and the standard deviation of several."""
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


if __name__ == "__main__":
    chosen = parse()
    try:
        {"train": train, "measure": judge_rows, "tell": tell}[chosen.kind](chosen)
    except RcodError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
