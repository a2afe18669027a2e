"""What may be asked on the command line, and in which words?

Options that several commands share, and those of `rcod upscale`; what is asked of a published
system alone stands in a panel of its own, since most who read the help never need it.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

_published = partial(typer.Option, rich_help_panel="Published systems (not for the model inside)")
ModelOption = Annotated[
    str, typer.Option(help="tiny, which is inside, or a .safetensors file that rcod wrote.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
EngineOption = Annotated[
    str,
    typer.Option(
        help="Who computes: auto, torch, compile, openvino, onnx; for photos ray, a cluster."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Processes that share a folder and the cores; a core each is best."),
]
RealismOption = Annotated[
    str | None,
    typer.Option(
        help="fidelity, neutral, realism, or a number: 0 keeps the photo, 1 invents most. auto "
        "guesses it for the photo, auto-local for every place; all makes every level and a sheet.",
        show_default="auto",
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(help="Enlargement, 1 to 8; 1 restores only.", show_default="4"),
]
WidthOption = Annotated[
    int | None, typer.Option(help="Width of the result in pixels, instead of --scale.")
]
HeightOption = Annotated[
    int | None, typer.Option(help="Height of the result; with --width it fits into both.")
]
MaxSideOption = Annotated[
    int | None, typer.Option(help="Most pixels of a result's longer side, beside any of these.")
]
MemoryOption = Annotated[
    str | None, typer.Option(help="Most memory to use, all processes together, as in 4GB.")
]


def named(text: str) -> Path:
    """A path; of an empty text, as of a variable that isn't set, Python would make this folder."""
    if not text:
        raise typer.BadParameter("must name a file or a folder, got an empty text")
    return Path(text)


PhotosArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PHOTO", help="Files, folders, patterns; - is stdin.", parser=named),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        parser=named,
        help="Folder of the results, made if it is missing; "
        "of one photo a picture's name, too; - is stdout.",
    ),
]
MapOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MASK",
        help="A grey picture of the photo's shape: black is fidelity, white realism.",
    ),
]
ColorOption = Annotated[
    str,
    typer.Option(help="Keep the input's colours: auto (as the model does), wavelet, adain, none."),
]
BaseOption = Annotated[
    str | None,
    _published(metavar="DIR", help="Stable Diffusion that the model stands on."),
]
VisionOption = Annotated[
    str | None,
    _published(metavar="DIR", help="CLIP's image tower that RCOD_O and RCOD_S look with."),
]
VaeOption = Annotated[
    str | None,
    _published(metavar="DIR", help="A distilled autoencoder's decoder; tiny is TAESD."),
]
PromptOption = Annotated[
    str | None,
    _published(help="What the photo shows, in place of the published text."),
]
TagsOption = Annotated[
    str | None,
    _published(help='What OSEDiff is told of the photo, as in "cat, whisker".'),
]
PixelOption = Annotated[float, _published(help="PiSA-SR's scale of fidelity, 0 to 3.")]
SemanticOption = Annotated[float, _published(help="PiSA-SR's scale of detail, 0 to 3.")]
SampleOption = Annotated[
    bool,
    _published("--sample", help="Draw latents by --seed, as the published programs do."),
]
SeedOption = Annotated[int | None, _published(help="Of --sample.")]
QualityOption = Annotated[
    int | None,
    typer.Option(help="1 to 100, of JPEG, WebP and AVIF.", show_default="95, of AVIF 90"),
]
StripOption = Annotated[bool, typer.Option("--strip", help="Leave out EXIF, XMP and DPI.")]
StripGpsOption = Annotated[
    bool, typer.Option("--strip-gps", help="Leave out where the photo was taken.")
]
SkipOption = Annotated[
    bool, typer.Option(help="Leave alone what a folder's report.json says is done.")
]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, by names alone; do nothing.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that rcod did not write, too.")
]
FormatOption = Annotated[
    str, typer.Option(help="same (the photo's own), png, jpg, webp, tif or avif.")
]
