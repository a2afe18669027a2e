"""The commands; arguments stop here.

    rcod upscale PHOTO... -o DIR [--realism auto] [--scale 4]
    rcod models
    rcod train RECIPE --photos DIR --run DIR [key=value ...]
    rcod benchmark
    rcod web | serve [--port 7860]

What a caller can fix is one line on standard error and exit code 2. Everything that needs
PyTorch is imported inside the commands, so that help comes at once.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from rcod import __version__
from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.batch import Outcome, Written
    from rcod.restore import Realism

    Watch = Callable[[Outcome, int, int], None]

app = typer.Typer(
    name="rcod",
    help="Enlarge and restore real photos, with a dial from fidelity to realism.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelOption = Annotated[str, typer.Option(help="A name from `rcod models`, or a weights file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="rcod")


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        _say(f"rcod {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Enlarge and restore real photos, with a dial from fidelity to realism."""


@app.command()
def upscale(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Files and folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where results go.")],
    realism: Annotated[
        str, typer.Option(help="fidelity, neutral, realism, auto, all, or a number from 0 to 1.")
    ] = "auto",
    scale: Annotated[float, typer.Option(help="Enlargement, 1 to 8.")] = 4.0,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    color: Annotated[
        str, typer.Option(help="Keep the input's colours by: wavelet, adain or none.")
    ] = "wavelet",
    seed: Annotated[int, typer.Option(help="For models that draw random numbers.")] = 0,
    format: Annotated[str, typer.Option(help="png, jpg or webp.")] = "png",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that rcod did not write, too.")
    ] = False,
) -> None:
    """Enlarge photos into DIR; with `--realism all` at every level, and a sheet of them."""
    with _plain_errors():
        from rcod.batch import Options, run
        from rcod.restore import Restorer

        options = Options(_dial(realism), scale, color, seed, format, overwrite)
        with _progress() as watch:
            report = run(lambda: Restorer.load(model, device, dtype), photos, out, options, watch)
        if report.errors:
            raise typer.Exit(2)


@app.command()
def models() -> None:
    """List the models that can be loaded, with their licences."""
    with _plain_errors():
        from rcod.systems import SYSTEMS

        width = max(len(name) for name in SYSTEMS)
        for system in SYSTEMS.values():
            ships = "ships inside" if system.weights else "weights to be fetched"
            _say(f"{system.name:{width}}  {system.licence}, {ships}: {system.summary}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; a wrong one lists them all.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in optim.lr=1e-4.")
    ] = None,
    *,
    photos: Annotated[Path, typer.Option(help="A folder of photos, or a list of their paths.")],
    folder: Annotated[Path, typer.Option("--run", metavar="DIR", help="The run's folder.")],
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model to continue from.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Crops and pairs, shared between runs.")
    ] = None,
    aids: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What tools/fetch_aids.py has fetched.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a broken run.")] = False,
) -> None:
    """Train a recipe; the model lies in the run's folder at every moment."""
    with _plain_errors():
        from rcod import train as training
        from rcod.recipe import recipe_named

        pairs = [change.partition("=") for change in changes or []]
        if wrong := [key for key, equals, _ in pairs if not equals]:
            raise RcodError(f"settings are changed by key=value, got {wrong[0]}")
        settings = recipe_named(recipe, {key: value for key, _, value in pairs})
        model = training.run(
            settings, photos, folder, start=start, resume=resume, cache=cache, trunk=aids
        )
        _say(f"{settings.name}: the model is {model}")


@app.command()
def benchmark(
    model: ModelOption = "tiny",
    size: Annotated[int, typer.Option(min=1, help="Side of the square input, pixels.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls after the first.")] = 5,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    with_cold: Annotated[
        bool, typer.Option("--cold", help="Time whole commands from a standing start too.")
    ] = False,
) -> None:
    """Print seconds per stage and peak memory, as JSON."""
    with _plain_errors():
        from rcod.benchmark import benchmark as measure
        from rcod.benchmark import cold

        numbers: dict[str, object] = {**measure(model, size, repeats, device, dtype)}
        if with_cold:
            numbers["cold"] = cold()
        _say(json.dumps(numbers, indent=2))


@app.command("web")
@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    queue: Annotated[int, typer.Option(min=1, help="Photos that may wait or run.")] = 8,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Of a request.")] = 64,
    max_megapixels: Annotated[int, typer.Option(min=1, help="Of a result.")] = 100,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one photo.")] = 300,
    token: Annotated[
        str | None, typer.Option(envvar="RCOD_TOKEN", help="Refuse who does not show it.")
    ] = None,
) -> None:
    """Serve the page and the HTTP interface, until Ctrl-C."""
    with _plain_errors():
        from rcod.web import Limits, Restorer, listen_and_serve

        limits = Limits(
            queue, max_megabytes * 10**6, max_megapixels * 10**6, seconds=timeout, token=token
        )
        listen_and_serve(lambda: Restorer.load(model, device, dtype), host, port, limits, _say)


def _dial(text: str) -> "Realism | Literal['all']":
    """A number, or a name that is checked later."""
    try:
        return float(text)
    except ValueError:
        return cast("Realism", text)  # Options refuses what is no name of a level


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what a caller can fix into one line and exit code 2, and Ctrl-C into 130."""
    try:
        yield
    except RcodError as error:
        _complain(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("stopped; every file that was written is whole", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _progress() -> Iterator["Watch"]:
    """Show on a terminal how far the work is; elsewhere only say what was done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=console, transient=True, refresh_per_second=4, disable=not console.is_terminal,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    task = progress.add_task("enlarging", total=None)

    def watch(outcome: "Outcome", done: int, total: int) -> None:
        progress.stop()  # its line is cleared, so that ours stand alone
        for written in outcome.written:
            _say(_closing_line(outcome.source, written))
        if outcome.error is not None:
            _complain(outcome.error)
        progress.update(task, completed=done, total=total)
        progress.start()

    with progress:
        yield watch


def _closing_line(source: Path, written: "Written") -> str:
    """What became of a picture: level, timestep, estimated metric, size, seconds."""
    facts = [f"auto chose {written.level}" if written.auto else written.level]
    if written.timestep is not None:
        facts.append(f"timestep {written.timestep}")
    if written.metric is not None:
        facts.append(f"metric {written.metric:.3f}")
    facts.append(f"{written.size[0]} x {written.size[1]}")
    facts.append(f"{written.seconds:.2f} s")
    return f"{source} -> {written.path}: {', '.join(facts)}"


def _complain(sentence: str) -> None:
    """One line on standard error."""
    typer.echo(f"error: {' '.join(sentence.split())}", err=True)


def _say(line: str) -> None:
    """A line on standard output; what its encoding cannot show is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))
