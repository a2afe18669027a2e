"""The command that says what photos will take, before anything is enlarged.

rcod plan photos/ [--scale 8] [--memory 2GB]
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rcod.doors.options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    HeightOption,
    MaxSideOption,
    MemoryOption,
    ModelOption,
    PhotosArgument,
    RealismOption,
    ScaleOption,
    VaeOption,
    VisionOption,
    WidthOption,
)
from rcod.doors.terminal import complain, plain_errors, say
from rcod.doors.upscaling import dial_of, memory_of, scale_of
from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.using.forecast import Forecast
    from rcod.using.orders import Options
    from rcod.using.restore import Restorer


def plan(
    photos: PhotosArgument,
    realism: RealismOption = None,
    scale: ScaleOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    max_side: MaxSideOption = None,
    format: FormatOption = "same",
    memory: MemoryOption = None,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    base: BaseOption = None,
    vision: VisionOption = None,
    vae: VaeOption = None,
) -> None:
    """Say what photos will take: tiles, passes of the network, peak memory, seconds."""
    with plain_errors():
        from rcod.networks.assembly import Parts
        from rcod.using.orders import Options
        from rcod.using.restore import Restorer
        from rcod.using.sources import Lost, gather_all

        options = Options(
            realism=dial_of(realism), scale=scale_of(scale, width, height), format=format,
            width=width, height=height, max_side=max_side, memory=memory_of(memory),
        )  # fmt: skip
        restorer = Restorer.load(model, device, dtype, Parts(base=base, vision=vision, vae=vae))
        forecasts: list[Forecast] = []
        failed = 0
        for source in gather_all(photos, None):
            try:
                if isinstance(source, Lost):
                    raise RcodError(source.error)
                forecasts.append(_foretell(restorer, source.path, options))
            except RcodError as error:
                complain(str(error))
                failed += 1
        if len(forecasts) > 1:
            peak, seconds = max(f.peak for f in forecasts), sum(f.seconds or 0 for f in forecasts)
            lasting = _lasting(seconds)
            say(f"{len(forecasts)} photos, about {peak / 1e9:.2f} GB at most, about {lasting}")
        if failed:
            raise typer.Exit(1)


def _foretell(restorer: "Restorer", path: Path, options: "Options") -> "Forecast":
    """Say what one photo takes."""
    from rcod.pixels.images import check_writable, read
    from rcod.using.forecast import foresee, keep_to, seconds_of
    from rcod.using.jobs import suffix_for
    from rcod.using.passes import reduced
    from rcod.using.sheet import ALL
    from rcod.using.sources import STDIN, content_of, name_of

    content = content_of(path) if path == STDIN else None
    photo = read(path if content is None else content, name_of(path))
    height, width = photo.pixels.shape[-2:]
    suffix = suffix_for(path, options.format, content)
    passes_of = {"all": len(ALL), "auto-local": len(restorer.system.groups.timesteps)}
    levels, target = passes_of.get(str(options.realism), 1), Path(f"result{suffix}")
    try:
        size = options.size(photo)
        check_writable(target, *size, photo.alpha)
        photo = reduced(photo, size)
        restorer = keep_to(options.memory, restorer, photo, size, suffix)
    except RcodError as error:
        raise RcodError(f"{path}: {str(error).removeprefix(f'{target}: ')}") from None
    found = foresee(restorer, photo, size, suffix, levels, restorer.tile)
    seconds = seconds_of(restorer, photo, size, levels)
    tiles = "1 tile" if found.tiles == 1 else f"{found.tiles} tiles"
    passes = "1 pass" if found.passes == 1 else f"{found.passes} passes"
    say(
        f"{path}: {width} x {height} to {size[1]} x {size[0]}, {tiles} of at most "
        f"{found.tile} x {found.tile}, {passes}, about {found.peak / 1e9:.2f} GB at most, about "
        f"{_lasting(seconds)}"
    )
    return replace(found, seconds=seconds)


def _lasting(seconds: float) -> str:
    """A time to be read."""
    if seconds < 100:
        return f"{max(seconds, 0.01):.{2 if seconds < 1 else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
