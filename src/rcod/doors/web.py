"""The page: drop a photo, turn the dial, see what was invented.

The page is a few files in `rcod/page`, served by the process that restores; it asks no
other host for anything. A photo that was dropped stays open here for a while (`OpenPhoto`),
so that a turn of the dial costs one UNet call.

    POST /page/photos -> id -> GET /page/photos/ID/{result,file,before,invention,sheet,progress}
"""

import logging
import signal
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from rcod.doors.callers import COOKIE, is_loopback, no_place, resolve, tokens_in
from rcod.doors.fields import CHECKED, Format, ImageField, received
from rcod.doors.guard import Guard, Limits
from rcod.doors.open_photos import IDLE, OpenPhotos
from rcod.doors.server import create_app
from rcod.doors.service import MEDIA, Service, facts, notes_text, read_dial, strip_tags, timings
from rcod.doors.work_queue import Ticket, WorkQueue
from rcod.pixels.extras import EXTRAS
from rcod.pixels.images import Photo
from rcod.pixels.metadata import Strip
from rcod.pixels.planes import MAX_PIXELS
from rcod.using.open_photo import (
    OpenPhoto,
    Setting,
    View,
    check_format,
    draw_invention,
    encode,
    encode_png,
)
from rcod.using.orders import Options
from rcod.using.restore import Restorer, target_size

HEADERS = 20.0  # seconds in which a request's headers must have arrived
READABLE = ("JPEG", "PNG", "WebP", "TIFF", "AVIF", "GIF", "BMP", "JPEG 2000")
PAGE = Path(str(files("rcod") / "page"))

DialQuery = Annotated[str, Query(max_length=40)]
Scale = Annotated[float, Query(ge=1, le=8)]


def add_page(app: FastAPI, service: Service, photos: OpenPhotos) -> None:
    """Put the page and what it asks for into the service."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        shown, token = tokens_in(request.url.query), service.limits.token
        if not shown:
            return FileResponse(PAGE / "index.html")
        answer = RedirectResponse("/", 303)  # out of the address with it
        if token in shown:
            answer.set_cookie(COOKIE, token, httponly=True, samesite="lax")  # links lead here, too
        return answer

    @app.get("/page/about", include_in_schema=False)
    async def about() -> dict[str, object]:
        system = service.restorer.system
        return {
            "model": system.name,
            "megapixels": min(service.limits.pixels, MAX_PIXELS) / 1e6,
            "largest": service.limits.pixels,
            "megabytes": service.limits.body // 10**6,
            "minutes": round(IDLE / 60),
            "edges": system.groups.edges,
            "dial": system.timestep is None,
            "formats": READABLE
            + tuple(kind for kind, (_, module) in EXTRAS.items() if find_spec(module) is not None),
        }

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html")

    app.include_router(_photos(service, photos))
    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _photos(service: Service, photos: OpenPhotos) -> APIRouter:
    """The routes that only the page uses; they may change with it."""
    router = APIRouter(prefix="/page/photos", include_in_schema=False)

    @router.post("", dependencies=CHECKED)
    async def add(request: Request, image: ImageField) -> dict[str, object]:
        content = await received(request, image)
        photo: Photo = await service.wait(request, lambda ticket: service.take(content))
        name = photos.add(OpenPhoto(service.restorer, photo))
        height, width = photo.pixels.shape[-2:]
        alpha, note = photo.alpha is not None, notes_text(photo)
        return {"id": name, "width": width, "height": height, "alpha": alpha, "note": note}

    @router.get("/{name}/result")
    async def result(
        request: Request, name: str, realism: DialQuery = "auto", scale: Scale = 4.0,
        format: Format | None = None, strip: Strip = "nothing",
    ) -> Response:  # fmt: skip
        held, place = _found(service, photos, name, scale), Setting(read_dial(realism), scale)
        shown = format or shown_as(held.photo)
        check_format(held.photo, scale, shown)

        def work(ticket: Ticket[tuple[View, bytes]]) -> tuple[View, bytes]:
            if format is None:
                found = held.view(place, ticket.step)
            else:  # a file is always the network's own
                result = held.result(place, ticket.step)
                photo = strip_tags(result.photo, Options(format=format, strip=strip))
                found = View(replace(result, photo=photo), False)
            return found, encode(found.result.photo, shown)

        ticket = photos.tickets[name] = service.engine.submit(work)
        try:
            found, content = await service.wait_for(request, ticket)
        finally:
            if photos.tickets.get(name) is ticket:
                del photos.tickets[name]  # and with it the picture
        headers = {
            **facts(found.result),
            "x-rcod-told": str(found.interpolated).lower(),
            "server-timing": timings(found.result, ticket.waited),
        }
        return Response(content, media_type=MEDIA[shown], headers=headers)

    @router.delete("/{name}", status_code=204)
    async def drop(name: str) -> None:
        photos.drop(name)

    _add_views(router, service, photos)
    return router


def _add_views(router: APIRouter, service: Service, photos: OpenPhotos) -> None:
    """What there is to see of a photo besides a result."""

    @router.get("/{name}/progress")
    async def progress(name: str) -> dict[str, float]:
        ticket = photos.tickets.get(name)
        if ticket is None:
            return {"position": 0, "fraction": 0.0}
        return {"position": service.engine.position(ticket), "fraction": ticket.fraction}

    @router.get("/{name}/before")
    async def before(request: Request, name: str, scale: Scale = 4.0) -> Response:
        held = _found(service, photos, name, scale)
        shown = shown_as(held.photo)
        work = service.wait(request, lambda ticket: encode(held.before(scale), shown))
        return Response(await work, media_type=MEDIA[shown])

    @router.get("/{name}/invention")
    async def invention(
        request: Request, name: str, realism: DialQuery = "auto", scale: Scale = 4.0
    ) -> Response:
        held, place = _found(service, photos, name, scale), Setting(read_dial(realism), scale)

        def work(ticket: Ticket[tuple[float, float, bytes]]) -> tuple[float, float, bytes]:
            found = held.invention(place, ticket.step)
            return found.share, found.mean, encode_png(draw_invention(found.where))

        share, mean, content = await service.wait(request, work)
        headers = {"x-rcod-share": f"{share:.4f}", "x-rcod-mean": f"{mean:.3f}"}
        return Response(content, media_type="image/png", headers=headers)

    @router.get("/{name}/sheet")
    async def sheet(request: Request, name: str, scale: Scale = 4.0) -> Response:
        held = _found(service, photos, name, scale)

        def work(ticket: Ticket[bytes]) -> bytes:
            return encode_png(held.sheet("your photo", scale, watch=ticket.step))

        return Response(await service.wait(request, work), media_type="image/png")


def _found(service: Service, photos: OpenPhotos, name: str, scale: float) -> OpenPhoto:
    """An open photo whose result is not too large to be made here."""
    held = photos.find(name)
    service.check_size(held.photo, target_size(held.photo, scale))
    return held


def shown_as(photo: Photo) -> Format:
    """The format in which the page shows a photo: quick to encode, and able to hold it."""
    return "jpg" if photo.alpha is None else "png"


class Impatient(H11Protocol):
    """HTTP that hangs up on who opens a connection and then says, or takes, nothing."""

    seconds = Limits.seconds  # in which what is sent must be taken
    _patience: TimerHandle | None = None
    _sending: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:
        """Start to wait for headers."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEADERS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Wait on only while headers are incomplete."""
        super().data_received(data)
        between = self.cycle is None or self.cycle.response_complete
        if between and self._patience is None:
            self._patience = self.loop.call_later(HEADERS, self.transport.close)
        elif not between and self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def pause_writing(self) -> None:
        """Start to wait for the client to take what was sent."""
        super().pause_writing()
        self._sending = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Send on."""
        if self._sending is not None:
            self._sending.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        for timer in (self._patience, self._sending):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


def listen_and_serve(
    load: Callable[[], Restorer],
    host: str,
    port: int,
    limits: Limits,
    tell: Callable[[str], None],
) -> None:
    """Serve page and HTTP interface until SIGTERM or Ctrl-C; what has a seat then finishes.

    Args:
        load: gives the restorer; called once the port is ours.
        host: name or address to listen on.
        port: 0 takes one that is free.
        limits: what is taken on.
        tell: called with the address once requests are answered.
    """

    class Bounded(Impatient):
        seconds = limits.seconds

    listener = listen(host, port)
    own = host if is_loopback(listener.getsockname()[0]) else None
    with listener, WorkQueue(limits.seats) as engine:
        service = Service(load(), engine, limits)
        photos = OpenPhotos()
        app = create_app(service, photos.tidied)
        add_page(app, service, photos)
        config = uvicorn.Config(
            Guard(app, limits, engine, service.meters, own),
            http=Bounded, loop="asyncio", ws="none", lifespan="on", interface="asgi3",
            log_level="error", access_log=False, server_header=False, backlog=256,
            h11_max_incomplete_event_size=32_768, timeout_keep_alive=15,
            timeout_graceful_shutdown=round(limits.seconds + limits.upload),
        )  # fmt: skip
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # clients' broken forms
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, signal.default_int_handler)  # uvicorn raises it again at its end
        with suppress(KeyboardInterrupt):
            tell(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
            uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open the port, before anything slow is done."""
    family, _ = resolve(host)
    try:
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(256)
            opened.pop_all()  # it stays open
            return listener
    except (OSError, OverflowError) as error:
        raise no_place(host, port, error) from None
