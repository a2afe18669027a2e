"""The commands; arguments stop here.

    rcod upscale PHOTO... -o DIR [--realism auto] [--scale 4]
    rcod plan PHOTO...
    rcod models
    rcod convert FILE... --system NAME -o OUT.safetensors
    rcod train RECIPE [key=value ...] --photos PHOTOS --run DIR | data check PHOTOS
    rcod score SR_DIR HR_DIR | evaluate SET... -o DIR | degrade PHOTO... -o DIR | study NAME SET
    rcod benchmark [--against PEER] | export --to onnx -o DIR
    rcod web | serve [--port 7860]

What a caller can fix is one line on standard error and exit code 2. Everything that needs
PyTorch is imported inside the commands, so that help comes at once.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from rcod import __version__
from rcod.doors.evaluating import degrade, evaluate, score, study
from rcod.doors.measuring import benchmark, export
from rcod.doors.options import (
    BaseOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    VisionOption,
)
from rcod.doors.planning import plan
from rcod.doors.terminal import heard, plain_errors, say
from rcod.doors.training import data, train
from rcod.doors.upscaling import upscale
from rcod.errors import RcodError

app = typer.Typer(
    name="rcod",
    help="Enlarge and restore real photos, with a dial from fidelity to realism.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    with heard():
        app(prog_name="rcod")


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        say(f"rcod {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Enlarge and restore real photos, with a dial from fidelity to realism."""


app.command()(upscale)
app.command()(plan)
app.command()(score)
app.command()(evaluate)
app.command()(degrade)
app.command()(study)
app.command()(benchmark)
app.command()(export)
app.command()(train)
app.add_typer(data, name="data")


@app.command()
def models() -> None:
    """List the systems that can be run, with their licences."""
    with plain_errors():
        from rcod.networks.systems import SYSTEMS

        width = max(len(name) for name in SYSTEMS)
        for system in SYSTEMS.values():
            ships = "ships inside" if system.weights else "to be converted"
            say(f"{system.name:{width}}  {system.licence}, {ships}: {system.summary}")


@app.command()
def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="As published.")],
    system: Annotated[str, typer.Option(help="osediff, rcod_o, s3diff, rcod_s or pisa_sr.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.safetensors")],
    base: Annotated[
        str | None, typer.Option(metavar="DIR", help="Check every layer against this base.")
    ] = None,
) -> None:
    """Turn a published checkpoint into one safetensors file; nothing in it is run."""
    with plain_errors():
        from rcod.networks.checkpoint import companions
        from rcod.networks.checkpoint import convert as turn

        found = companions(files, system)
        for path in found:
            say(f"{path}: taken along, since it lies beside {files[0].name}")
        row = turn([*files, *found], system, out, base)
        metric = ", auto included" if row.metric else ""
        say(f"{out}: {row.name}{metric}; it stands on {row.base}, named by --base")


@app.command("web")
@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    queue: Annotated[int, typer.Option(min=1, help="Photos that may wait or run.")] = 8,
    max_megabytes: Annotated[
        int | None,
        typer.Option(min=1, help="Of a request.", show_default="64, of this machine alone 512"),
    ] = None,
    max_megapixels: Annotated[int, typer.Option(min=1, help="Of a result.")] = 100,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one photo.")] = 300,
    token: Annotated[
        str | None, typer.Option(help="Password that clients must send; also by RCOD_TOKEN.")
    ] = None,
    base: BaseOption = None,
    vision: VisionOption = None,
) -> None:
    """Serve the page and the HTTP interface, until Ctrl-C."""
    with plain_errors():
        try:
            from rcod.doors.callers import is_loopback
            from rcod.doors.guard import Limits
            from rcod.doors.web import listen_and_serve
        except ImportError as error:
            what = f"the page and the HTTP interface need {error.name}, which isn't installed"
            raise RcodError(f"{what}; pip install 'rcod[web]'") from None
        from rcod.networks.assembly import Parts
        from rcod.using.restore import Restorer

        parts = Parts(base=base, vision=vision)
        if token is None:
            token = os.environ.get("RCOD_TOKEN")  # typer would take an empty one for none
        if max_megabytes is None:
            max_megabytes = 512 if is_loopback(host) else 64
        limits = Limits(
            queue, max_megabytes * 10**6, max_megapixels * 10**6, seconds=timeout, token=token
        )
        listen_and_serve(
            lambda: Restorer.load(model, device, dtype, parts), host, port, limits, say
        )
