"""The command for photos.

rcod upscale photos/ -o out [--realism auto] [--scale 4 | --width 3000 | --max-side 4000]
rcod upscale - -o - < photo.jpg > large.jpg
"""

import hashlib
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from rcod.doors.clustering import upscale_on_ray
from rcod.doors.options import (
    BaseOption,
    ColorOption,
    DeviceOption,
    DryOption,
    DtypeOption,
    EngineOption,
    FormatOption,
    HeightOption,
    MapOption,
    MaxSideOption,
    MemoryOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    PhotosArgument,
    PixelOption,
    PromptOption,
    QualityOption,
    RealismOption,
    SampleOption,
    ScaleOption,
    SeedOption,
    SemanticOption,
    SkipOption,
    StripGpsOption,
    StripOption,
    TagsOption,
    VaeOption,
    VisionOption,
    WidthOption,
    WorkersOption,
)
from rcod.doors.terminal import (
    PIPE,
    STOPPED,
    closing_line,
    complain,
    lasting,
    patience,
    plain_errors,
    progress,
    say,
    say_aside,
    standard_output,
    summary_table,
)
from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.using.orders import Networks, Options
    from rcod.using.restore import Realism

MIB = 2**20


def upscale(
    photos: PhotosArgument,
    out: OutOption,
    realism: RealismOption = None,
    realism_map: MapOption = None,
    scale: ScaleOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    max_side: MaxSideOption = None,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    color: ColorOption = "auto",
    seed: SeedOption = None,
    format: FormatOption = "same",
    quality: QualityOption = None,
    strip: StripOption = False,
    strip_gps: StripGpsOption = False,
    memory: MemoryOption = None,
    skip_existing: SkipOption = True,
    dry_run: DryOption = False,
    overwrite: OverwriteOption = False,
    base: BaseOption = None,
    vision: VisionOption = None,
    vae: VaeOption = None,
    prompt: PromptOption = None,
    tags: TagsOption = None,
    pixel: PixelOption = 1.0,
    semantic: SemanticOption = 1.0,
    sample: SampleOption = False,
) -> None:
    """Enlarge photos into DIR; with `--realism all` at every level, and a sheet of them."""
    with plain_errors():
        with lasting():
            from rcod.networks.assembly import Parts
            from rcod.using import jobs, orders
        parts = Parts(base=base, vision=vision, vae=vae, prompt=prompt, tags=tags, pixel=pixel,
                      semantic=semantic, sample=seed_of(seed, sample))  # fmt: skip
        networks = orders.Networks(model, device, dtype, parts, engine)
        folder, name = jobs.place_of(photos, out)
        options = orders.Options(
            realism=dial_of(realism, realism_map), scale=scale_of(scale, width, height),
            color=color, format=format, overwrite=overwrite, width=width, height=height,
            max_side=max_side, quality=quality, realism_map=realism_map, name=name,
            strip="all" if strip else "gps" if strip_gps else "nothing", memory=memory_of(memory),
            skip_existing=skip_existing, identity=_identity(networks))  # fmt: skip
        return _do(photos, folder, options, networks, workers, dry_run)


def _do(
    photos: list[Path],
    out: Path,
    options: "Options",
    networks: "Networks",
    workers: int | None,
    dry_run: bool,
) -> None:
    """Enlarge into a folder or a pipe; exit 1 if a picture was not done, 130 if stopped."""
    if networks.engine == "ray":
        networks = networks._replace(engine="auto")  # of a worker's own
        return upscale_on_ray(photos, out, options, networks, workers, dry_run)
    if dry_run:
        return _rehearse(photos, out, options)
    if out == PIPE:
        return _stream(photos, options, networks)
    from rcod.using.batch import run
    from rcod.using.restore import Restorer
    from rcod.using.sources import is_several
    from rcod.using.workers import hands

    if workers is not None and not is_several(photos):
        workers = min(workers, 1)  # with all cores
    several = nullcontext() if workers is None else hands(networks, options, workers)
    with patience() as stop, several as others, progress(say) as (watch, step):
        report = run(
            lambda: Restorer.load(*networks), photos, out, options, watch, stop, step, others
        )
    if is_several(photos) and len(report.outcomes) > 1:
        for line in summary_table(report.summary):
            say(line)
    if report.stopped:
        say_aside(STOPPED)
        raise typer.Exit(130)
    if report.errors:
        raise typer.Exit(1)


def _rehearse(photos: list[Path], out: Path, options: "Options") -> None:
    """Say what a call would do; nothing is written."""
    from rcod.using.batch import rehearse

    if out == PIPE:
        raise RcodError("--dry-run tells the names of files, and -o - has none; name a folder")
    done, lost = rehearse(photos, out, options)
    for job, is_there in done:
        will = "done already" if is_there else "would become"
        say(f"{job.source}: {will} {', '.join(str(target) for target in job.targets)}")
    for _, error in lost:
        complain(error)
    if lost:
        raise typer.Exit(1)


def _stream(photos: list[Path], options: "Options", networks: "Networks") -> None:
    """One photo to standard output; what there is to say goes to standard error."""
    from rcod.using.batch import pipe
    from rcod.using.restore import Restorer
    from rcod.using.sources import is_several

    if is_several(photos):
        raise RcodError("standard output takes one photo, got several; name a folder by -o")
    if options.realism == "all":
        raise RcodError("standard output takes one result; leave out --realism all")
    with standard_output() as file:
        outcome = pipe(lambda: Restorer.load(*networks), photos[0], file, options)
        if outcome.error is not None:
            complain(outcome.error)
            raise typer.Exit(1)
    for written in outcome.written:
        say_aside(closing_line(photos[0], written))
    for note in outcome.notes:
        say_aside(f"note: {photos[0]} {note}")


def _identity(networks: "Networks") -> str:
    """What of the networks a result depends on: weights, device and precision."""
    from rcod.device import pick_device
    from rcod.networks.checkpoint import find_weights
    from rcod.networks.engines import precision

    model, device, dtype, parts, engine = networks
    place = pick_device(device)
    weights = _glimpse(Path(find_weights(model)))
    sums = precision("auto" if engine == "ray" else engine, dtype, place)
    asked = parts.model_dump_json(exclude_defaults=True)
    return f"{model} {weights} {place.type} {sums} {engine} {asked}"


def _glimpse(path: Path) -> str:
    """A file's contents by its size, head and tail: weights may be gigabytes."""
    try:
        with path.open("rb") as file:
            head, size = file.read(MIB), file.seek(0, os.SEEK_END)
            file.seek(max(size - MIB, 0))
            return f"{size} {hashlib.sha256(head + file.read()).hexdigest()[:16]}"
    except OSError:
        return "none"  # loading it says why


def scale_of(scale: float | None, width: int | None, height: int | None) -> float:
    """The enlargement that was asked for, if nothing else was."""
    if scale is not None and (width is not None or height is not None):
        raise RcodError(
            "--scale and --width or --height both say how large a result is; leave one out"
        )
    return 4.0 if scale is None else scale


def seed_of(seed: int | None, sample: bool) -> int | None:
    """What latents are drawn by, where they are drawn."""
    if seed is not None and not sample:
        raise RcodError("--seed is what --sample draws by; add it, or leave --seed out")
    return (seed or 0) if sample else None


def memory_of(text: str | None) -> int | None:
    """Bytes to keep to, where somebody asks for it."""
    from rcod.using.forecast import parse_memory

    return None if text is None else parse_memory(text)


def dial_of(text: str | None, realism_map: Path | None = None) -> "Realism | Literal['all']":
    """A number, or a name that is checked later."""
    if text is not None and realism_map is not None:
        raise RcodError("a realism map says it for every place; leave out --realism")
    if text is None:
        return "auto"
    try:
        return float(text)
    except ValueError:
        return cast("Realism", text)  # Options refuses what is no name of a level
