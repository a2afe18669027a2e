"""How do other programs ask for a picture? The HTTP interface.

One engine answers everybody; a request waits for its turn, and leaves the queue when its
client does. The picture's bytes are those that the command line writes.

    POST /v1/upscale -> read -> seat in the queue -> OpenPhoto.result -> encode -> bytes
    POST /v1/levels  ->                              every level, a sheet    -> zip
"""

import io
import json
import zipfile
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel
from starlette.types import Lifespan

from rcod import __version__
from rcod.doors.service import MEDIA, Service, facts, read_dial, speak_plainly, strip_tags, timings
from rcod.doors.work_queue import Ticket
from rcod.networks.systems import SYSTEMS
from rcod.pixels.images import Photo
from rcod.pixels.metadata import Strip
from rcod.using.open_photo import OpenPhoto, Setting, check_format, encode, encode_png
from rcod.using.orders import Options
from rcod.using.passes import reduced
from rcod.using.restore import ColorFix, Result

Format = Literal["png", "jpg", "webp", "tif", "avif"]
LONGEST = 1_000_000  # pixels of a side that may be asked for
DATE = (2000, 1, 1, 0, 0, 0)  # of files in a zip, so that equal pictures are equal bytes

ImageField = Annotated[UploadFile, File(description="The photo: PNG, JPEG, WebP, TIFF, ...")]
RealismField = Annotated[
    str, Form(description="fidelity, neutral, realism, auto, or a number from 0 to 1")
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
PICTURE = {
    "description": "The picture. X-Rcod-Level, -Realism, -Timestep, -Metric and -Auto tell how it "
    "came about, X-Rcod-Note what of the photo was left out, Server-Timing what took how long.",
    "content": {media: {"schema": {"type": "string", "format": "binary"}}
                for media in MEDIA.values() if media.startswith("image/")},
}  # fmt: skip


class Error(BaseModel):
    """What went wrong, or must be mended."""

    error: str  # one sentence


ERRORS = {
    status: {"description": meaning, "model": Error}
    for status, meaning in {
        400: "The form can't be read.",
        401: "The token is missing or wrong.",
        403: "Asked for under another machine's name, or by another site's page.",
        408: "The body took too long to arrive.",
        413: "Too many bytes, or too many pixels.",
        422: "A field or the picture is not as it must be.",
        500: "The server failed.",
        503: "The queue is full; Retry-After tells when to come back.",
        504: "The work took too long.",
        507: "The server is short of memory, or of room on its disk.",
    }.items()
}


def create_app(service: Service, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The HTTP interface, without its guard; `lifespan` is what else runs while it does."""
    app = FastAPI(
        title="rcod",
        version=__version__,
        summary="Enlarge and restore photos, with a dial from fidelity to realism.",
        docs_url=None,  # theirs load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    speak_plainly(app)
    _add_upscale(app, service)
    _add_levels(app, service)
    service.meters.gauge(
        "rcod_seats_taken", "Photos that wait or run.", lambda: float(service.engine.taken())
    )

    answers: dict[int | str, dict[str, Any]] = {at: ERRORS[at] for at in (401, 403, 500)}

    @app.get("/v1/models", summary="What can be loaded, and what is", responses=answers)
    async def models() -> dict[str, object]:
        known = [
            {"name": s.name, "summary": s.summary, "licence": s.licence} for s in SYSTEMS.values()
        ]
        return {"loaded": service.restorer.system.name, "models": known}

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the server answers",
             responses={status: ERRORS[status] for status in (403, 500)})  # fmt: skip
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/metrics", summary="Counts and times for Prometheus", response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers},
    )  # fmt: skip
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(
            service.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    return app


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


async def received(request: Request, image: UploadFile) -> bytes:
    """An upload's bytes; temporary files in which a form may have come end here."""
    content = await image.read()
    await request.close()
    return content


def _add_upscale(app: FastAPI, service: Service) -> None:
    """One photo in, one picture out."""

    @app.post(
        "/v1/upscale", summary="Enlarge and restore one photo",
        response_class=Response, responses={200: PICTURE, **ERRORS},
    )  # fmt: skip
    async def upscale(
        request: Request,
        image: ImageField,
        options: Asked,
        realism: RealismField = "auto",
        color: ColorField = "auto",
    ) -> Response:
        place = Setting(read_dial(realism), color=color)
        content = await received(request, image)

        def work(ticket: Ticket[tuple[Result, bytes]]) -> tuple[Result, bytes]:
            photo, size = taken(service, content, options)
            held = OpenPhoto(service.restorer, photo)
            result = held.result(replace(place, scale=size), ticket.step)
            return result, encode(result.photo, options.format, options.quality)

        ticket = service.engine.submit(work)
        result, picture = await service.wait_for(request, ticket)
        headers = {**facts(result), "server-timing": timings(result, ticket.waited)}
        return Response(picture, media_type=MEDIA[options.format], headers=headers)


def taken(service: Service, content: bytes, options: Options) -> tuple[Photo, tuple[int, int]]:
    """A photo as it is restored, and height and width of its result, which can be made here."""
    photo = strip_tags(service.take(content), options)
    size = options.size(photo)
    service.check_size(photo, size)
    check_format(photo, size, options.format)
    return reduced(photo, size), size


def _add_levels(app: FastAPI, service: Service) -> None:
    """One photo in, every level out."""

    @app.post(
        "/v1/levels", summary="Every level of one photo and a sheet of them, as a zip",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}, **ERRORS},
    )  # fmt: skip
    async def levels(
        request: Request, image: ImageField, options: Asked, color: ColorField = "auto"
    ) -> Response:
        content = await received(request, image)

        def work(ticket: Ticket[bytes]) -> bytes:
            photo, size = taken(service, content, options)
            held = OpenPhoto(service.restorer, photo, keep=0)  # no level is asked for twice
            return zip_levels(held, Setting(scale=size, color=color), options, ticket)

        return Response(await service.wait(request, work), media_type=MEDIA["zip"])


def zip_levels(held: OpenPhoto, place: Setting, options: Options, ticket: Ticket[bytes]) -> bytes:
    """Every level's file, the contact sheet, and what there is to say about them."""
    said: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as file:

        def put(level: str, result: Result) -> None:
            content = encode(result.photo, options.format, options.quality)
            file.writestr(_entry(f"{level}.{options.format}"), content)
            said[level] = facts(result)

        drawn = held.sheet("photo", place.scale, place.color, ticket.step, put)
        file.writestr(_entry("levels.png"), encode_png(drawn))
        file.writestr(_entry("levels.json"), json.dumps(said, indent=2))
    return packed.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    """A file in a zip that says nothing about now."""
    return zipfile.ZipInfo(name, DATE)
