"""The commands that train.

rcod train RECIPE [key=value ...] --photos PHOTOS --run DIR [--resume] [--dry-run]
rcod data check PHOTOS
"""

from pathlib import Path
from typing import Annotated

import typer

from rcod.doors.options import DeviceOption
from rcod.doors.terminal import check_file, keep, plain_errors, say, say_aside
from rcod.errors import RcodError

PHOTOS = "A folder of photos, a list of their paths, or shards as in a-{000..099}.tar."
data = typer.Typer(help="Look after the photos that are trained on.", no_args_is_help=True)


Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in optim.lr=1e-4.")
]
StartOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Continue from this model.")]
BaseOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="Stable Diffusion, for published systems.")
]
VisionOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="CLIP's image tower, for rcod_o and rcod_s.")
]
CaptionsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Lines of photo, tab, caption.")
]
WatchOption = Annotated[
    str | None, typer.Option(metavar="PHOTOS", help="Look at these while it learns.")
]
CacheOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Crops and indices, shared between runs.")
]
AidsOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="What tools/fetch_aids.py has fetched.")
]
RunOption = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="The run's folder.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a broken run.")]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be computed, and in how much memory.")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; a wrong one lists them all.")],
    changes: Changes = None,
    *,
    photos: Annotated[str | None, typer.Option(help=PHOTOS)] = None,
    folder: RunOption = None,
    start: StartOption = None,
    base: BaseOption = None,
    vision: VisionOption = None,
    captions: CaptionsOption = None,
    watch: WatchOption = None,
    cache: CacheOption = None,
    aids: AidsOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    dry: DryOption = False,
) -> None:
    """Train a recipe; the model lies in the run's folder at every moment."""
    with plain_errors():
        from rcod.training.catalog import recipe_named
        from rcod.training.task import Sources

        pairs = [change.partition("=") for change in changes or []]
        if wrong := [key for key, equals, _ in pairs if not equals]:
            raise RcodError(f"settings are changed by key=value, got {wrong[0]}")
        settings = recipe_named(recipe, {key: value for key, _, value in pairs})
        sources = Sources(photos or "", start, cache, aids, base, vision, captions, watch, device)
        if dry:
            from rcod.training.budget import foresee

            for line in foresee(settings, sources):
                say(line)
            return
        if photos is None or folder is None:
            raise RcodError("a run needs --photos PHOTOS and --run DIR; --dry-run needs neither")
        from rcod.training import train as training

        outcome = training.run(settings, sources, folder, resume)
        if outcome.stopped is not None:
            say_aside(f"stopped; all is saved up to step {outcome.step}; go on with --resume")
            raise typer.Exit(128 + outcome.stopped)
        say(f"{settings.name}: the model is {outcome.model}")


@data.command()
def check(
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help=PHOTOS)],
    side: Annotated[int, typer.Option(min=1, help="Of the crops, pixels.")] = 512,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="LIST", help="Write the fit ones here.")
    ] = None,
) -> None:
    """Find photos that can't be read, are small, soft, or there twice. Exit code 1 if any."""
    with plain_errors():
        check_file("--out", out)
        from rcod.training.photos import check as look
        from rcod.training.photos import photos_in

        sources = photos_in(photos)
        counts: dict[str, int] = {}
        unfit: set[str] = set()
        for finding in look(sources, side):
            counts[finding.fault] = counts.get(finding.fault, 0) + 1
            unfit.add(finding.photo)
            say(f"{finding.fault}: {finding.photo}: {finding.words}")
        fit = [str(source) for source in sources if str(source) not in unfit]
        counted = ", ".join(f"{number} {fault}" for fault, number in counts.items())
        say(f"{len(sources)} photos, {len(fit)} fit{', ' + counted if counted else ''}")
        keep(out, "".join(f"{name}\n" for name in fit))
        if unfit:
            raise typer.Exit(1)
