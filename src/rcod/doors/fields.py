"""What may a form ask? Fields that are known, each once; whatever else comes is refused.

A field that nobody reads would give another picture than its sender thinks.

    form -> check_fields -> asked -> Options
                       '-> image, realism, ... -> received -> bytes
"""

from typing import Annotated, Literal

from fastapi import Depends, File, Form, Request, UploadFile, params
from fastapi.dependencies.models import Dependant

from rcod.doors.guard import Refusal
from rcod.pixels.metadata import Strip
from rcod.using.orders import Options
from rcod.using.restore import ColorFix

Format = Literal["png", "jpg", "webp", "tif", "avif"]
LONGEST = 1_000_000  # pixels of a side that may be asked for

ImageField = Annotated[UploadFile, File(description="The photo: PNG, JPEG, WebP, TIFF, ...")]
RealismField = Annotated[
    str,
    Form(description="fidelity, neutral, realism, auto, auto-local, or a number from 0 to 1"),
]
MapField = Annotated[
    UploadFile | None,
    File(description="instead of realism, a grey picture of the photo's shape: black is fidelity"),
]
ScaleField = Annotated[float, Form(ge=1, le=8, description="enlargement; the result measures "
                                   "round(scale * side)")]  # fmt: skip
WidthField = Annotated[
    int | None, Form(ge=1, le=LONGEST, description="of the result, pixels; instead of scale")
]
HeightField = Annotated[
    int | None,
    Form(ge=1, le=LONGEST, description="of the result; with width, it fits into both"),
]
MaxSideField = Annotated[
    int | None,
    Form(ge=1, le=LONGEST, description="pixels of the result's longer side at most"),
]
FormatField = Annotated[Format, Form(description="of the result's file")]
QualityField = Annotated[
    int | None, Form(ge=1, le=100, description="of JPEG, WebP and AVIF; else 95, of AVIF 90")
]
StripField = Annotated[
    Strip, Form(description="tags that are left out: gps is where the photo was taken")
]
ColorField = Annotated[
    ColorFix, Form(description="how the photo's colours are kept; auto as the model does")
]


async def asked(
    scale: ScaleField = 4.0,
    width: WidthField = None,
    height: HeightField = None,
    max_side: MaxSideField = None,
    format: FormatField = "png",
    quality: QualityField = None,
    strip: StripField = "nothing",
) -> Options:
    """The fields that every picture of an answer follows."""
    return Options(
        scale=scale, width=width, height=height, max_side=max_side, format=format,
        quality=quality, strip=strip,
    )  # fmt: skip


Asked = Annotated[Options, Depends(asked)]


async def check_fields(request: Request) -> None:
    """Refuse what nobody would read: fields in the address, or unknown, or seconds of a name."""
    for name in request.query_params:
        raise Refusal(
            422, f"fields must come in the form, got {name[:40]!r} in the address; use curl's -F"
        )
    known = fields_of(request.scope["route"].dependant)
    form = await request.form()
    for name, value in form.multi_items():
        if name not in known:
            names = ", ".join(known)
            raise Refusal(
                422, f"a field must be one of {names}, got {name[:40]!r}; correct or leave it out"
            )
        if (times := len(form.getlist(name))) > 1:
            raise Refusal(
                422, f"{name} must come once, got it {times} times; send a request for each"
            )
        if known[name] and isinstance(value, str):
            raise Refusal(
                422, f"{name} must be a file, got text; send it as curl -F {name}=@photo.jpg does"
            )


CHECKED = (Depends(check_fields),)


def fields_of(dependant: Dependant) -> dict[str, bool]:
    """The form fields of a route, and whether each is a file."""
    known = {
        field.alias: isinstance(field.field_info, params.File) for field in dependant.body_params
    }
    for part in dependant.dependencies:
        known |= fields_of(part)
    return known


async def received(request: Request, image: UploadFile) -> bytes:
    """An upload's bytes; temporary files in which a form may have come end here."""
    content = await image.read()
    await request.close()
    return content
