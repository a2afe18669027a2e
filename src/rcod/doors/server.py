"""How do other programs ask for a picture? The HTTP interface.

One engine answers everybody; a request waits for its turn, and leaves the queue when its
client does. The picture's bytes are those that the command line writes.

    POST /v1/upscale -> fields known -> read -> seat in the queue -> Restorer -> encode -> bytes
    POST /v1/levels  ->                                  every level, a sheet -> zip
"""

import io
import json
import zipfile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel
from starlette.types import Lifespan
from torch import Tensor

from rcod import __version__
from rcod.diffusion.dial import check_dial
from rcod.doors.fields import (
    CHECKED,
    Asked,
    ColorField,
    ImageField,
    MapField,
    RealismField,
    received,
)
from rcod.doors.guard import Refusal
from rcod.doors.service import MEDIA, Service, facts, read_dial, speak_plainly, strip_tags, timings
from rcod.doors.work_queue import Ticket
from rcod.errors import RcodError
from rcod.networks.systems import SYSTEMS
from rcod.pixels.images import Photo
from rcod.using.open_photo import OpenPhoto, Setting, check_format, encode, encode_png
from rcod.using.orders import Options
from rcod.using.passes import reduced
from rcod.using.restore import Result

DATE = (2000, 1, 1, 0, 0, 0)  # of files in a zip, so that equal pictures are equal bytes

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


def _add_upscale(app: FastAPI, service: Service) -> None:
    """One photo in, one picture out."""

    @app.post(
        "/v1/upscale", summary="Enlarge and restore one photo", dependencies=CHECKED,
        response_class=Response, responses={200: PICTURE, **ERRORS},
    )  # fmt: skip
    async def upscale(
        request: Request,
        image: ImageField,
        options: Asked,
        realism: RealismField = "auto",
        realism_map: MapField = None,
        color: ColorField = "auto",
    ) -> Response:
        dial = read_dial(realism)
        check_dial(dial)
        if realism_map is not None and dial != "auto":
            raise Refusal(422, f"a realism map says it for every place, got realism {dial}, too; "
                          "leave one out")  # fmt: skip
        mask = None if realism_map is None else await realism_map.read()
        content = await received(request, image)

        def work(ticket: Ticket[tuple[Result, bytes]]) -> tuple[Result, bytes]:
            photo, size = taken(service, content, options)
            place = dial if mask is None else read_map(service, mask)
            result = service.restorer(photo, place, size, color, ticket.step)
            return result, encode(result.photo, options.format, options.quality)

        ticket = service.engine.submit(work)
        result, picture = await service.wait_for(request, ticket)
        headers = {**facts(result), "server-timing": timings(result, ticket.waited)}
        return Response(picture, media_type=MEDIA[options.format], headers=headers)


def taken(service: Service, content: bytes, options: Options) -> tuple[Photo, tuple[int, int]]:
    """A photo, and height and width of its result, which can be made here."""
    photo = strip_tags(service.take(content, options), options)
    size = options.size(photo)
    service.check_size(photo, size)
    check_format(photo, size, options.format)
    return photo, size


def read_map(service: Service, content: bytes) -> Tensor:
    """The realism of every place of a photo, (h, w) in [0, 1], of a grey picture."""
    try:
        return service.take(content, what="realism map").pixels.mean(0)
    except RcodError as error:
        raise RcodError(f"realism_map: {error}") from None


def _add_levels(app: FastAPI, service: Service) -> None:
    """One photo in, every level out."""

    @app.post(
        "/v1/levels", summary="Every level of one photo and a sheet of them, as a zip",
        dependencies=CHECKED,
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}, **ERRORS},
    )  # fmt: skip
    async def levels(
        request: Request, image: ImageField, options: Asked, color: ColorField = "auto"
    ) -> Response:
        content = await received(request, image)

        def work(ticket: Ticket[bytes]) -> bytes:
            photo, size = taken(service, content, options)
            photo = reduced(photo, size)
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
