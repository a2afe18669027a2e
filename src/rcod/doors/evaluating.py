"""The commands that judge: `score`, `evaluate`, `degrade` and `study`.

rcod score SR_DIR HR_DIR [--json FILE]
rcod evaluate realsr --data SETS --system tiny --system bicubic --system dir:NAME=PATH -o DIR
rcod degrade PHOTO... -o DIR [--settings osediff|FILE.yaml] [--seed 0]
rcod study dial|blend|ldg|mem SET
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rcod.doors.options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    VisionOption,
)
from rcod.doors.terminal import check_file, keep_json, plain_errors, say, say_aside

AidsOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Weights that judge (default: RCOD_AIDS).")
]
MetricOption = Annotated[
    str | None, typer.Option("--metrics", help="Only these, as in psnr,ssim,niqe.")
]
DataOption = Annotated[Path, typer.Option(metavar="DIR", help="Where sets lie by name.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only so many, evenly spread.")]


def score(
    sr_dir: Annotated[Path, typer.Argument(metavar="SR_DIR", help="Results.")],
    hr_dir: Annotated[Path, typer.Argument(metavar="HR_DIR", help="True pictures, same names.")],
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Every picture's scores.")
    ] = None,
    aids: AidsOption = None,
    metrics: MetricOption = None,
) -> None:
    """Score a folder of results against the true pictures, by the field's protocol."""
    with plain_errors():
        check_file("--json", out)
        from rcod.judging.judge import MEASURES, Judge, fingerprint
        from rcod.judging.scoring import score_folder

        found = score_folder(sr_dir, hr_dir, Judge.load(aids, wanted=_names(metrics)))
        say(f"{len(found.images)} pictures of {sr_dir}, mean")
        for name, value in found.mean.items():
            say(f"  {MEASURES[name].label:10} {value:.{MEASURES[name].digits + 2}f}")
        for name, reason in found.missing.items():
            say(f"  {MEASURES[name].label:10} blank: {reason}")
        say(f"protocol {fingerprint(found.protocol)}")
        keep_json(out, found.model())


def evaluate(
    sets: Annotated[
        list[str], typer.Argument(metavar="SET", help="realsr, drealsr, div2k-val, NAME=DIR, DIR.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where all goes.")],
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="tiny, tiny@0.3,auto, bicubic, dir:NAME=DIR, or [NAME=]FILE: a model of ours, "
            "ncnn (.param) or spandrel (.pth, .safetensors). Repeat it."
        ),
    ] = None,
    data: DataOption = Path(),
    limit: LimitOption = None,
    aids: AidsOption = None,
    metrics: MetricOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    base: BaseOption = None,
    vision: VisionOption = None,
) -> None:
    """Compare systems and levels on sets; goes on where it was stopped; ends in report.html."""
    with plain_errors():
        import torch

        from rcod.device import pick_dtype
        from rcod.judging.contenders import parse
        from rcod.judging.datasets import open_dataset, thin_out
        from rcod.judging.evaluate import run
        from rcod.judging.judge import Judge
        from rcod.judging.report import write_report

        contenders = [parse(text, base, vision) for text in system or ["tiny", "bicubic"]]
        datasets = [thin_out(open_dataset(text, data), limit) for text in sets]
        fast = pick_dtype("auto", torch.device("cpu"))  # of lpips-hed; the protocol names it
        judge = Judge.load(aids, fast, _names(metrics))
        found = run(datasets, contenders, out, judge, device, dtype, say_aside)
        page = write_report(found, out)
        for line in found.table():
            say(line)
        say(f"{page}: the report; scores.csv and report.json lie beside it")


def degrade(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO", help="Files, and folders without those in them."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="LR/ and HR/ go here.")],
    settings: Annotated[
        str, typer.Option(help="osediff (heavy), seesr, s3diff, new, camera, or a YAML file.")
    ] = "osediff",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    side: Annotated[int, typer.Option(help="Of a true picture, pixels.")] = 512,
    crops: Annotated[int, typer.Option(min=1, help="Places cut from each photo.")] = 1,
) -> None:
    """Make a synthetic set: crops of good photos, and what a bad camera leaves of them."""
    with plain_errors():
        from rcod.judging.synthetic import make_synthetic
        from rcod.pixels.images import find

        count = make_synthetic(find(photos), out, settings, seed, side, crops)
        say(f"{out}: {count} pairs, {settings}, seed {seed}; sheet.png shows some")


def study(
    name: Annotated[
        Literal["dial", "blend", "ldg", "mem"], typer.Argument(help="What to look into.")
    ],
    set_: Annotated[str, typer.Argument(metavar="SET", help="realsr, ..., NAME=DIR, or DIR.")],
    model: ModelOption = "tiny",
    data: DataOption = Path(),
    limit: LimitOption = None,
    aids: AidsOption = None,
    metrics: MetricOption = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="All of it.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    base: BaseOption = None,
    vision: VisionOption = None,
) -> None:
    """Measure the dial (dial), ways between its ends (blend), latent metrics (ldg, mem)."""
    with plain_errors():
        check_file("--json", out)
        from rcod.judging.datasets import open_dataset, thin_out
        from rcod.judging.judge import Judge
        from rcod.judging.studies import STUDIES
        from rcod.networks.assembly import Parts
        from rcod.using.restore import Restorer

        dataset = thin_out(open_dataset(set_, data), limit)
        judge = Judge.load(aids, wanted=_names(metrics))
        restorer = Restorer.load(model, device, dtype, Parts(base=base, vision=vision))
        found = STUDIES[name](restorer, dataset.pairs, judge)
        for line in found.lines:
            say(line)
        keep_json(out, found.numbers)


def _names(metrics: str | None) -> list[str] | None:
    """The measures asked for, in lower case."""
    return metrics.lower().replace(" ", "").split(",") if metrics is not None else None
