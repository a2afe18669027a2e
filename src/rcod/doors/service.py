"""What do all the doors of the service share? The restorer, its queue, and plain answers.

request -> received (bytes, checked) -> Service.wait: a seat, a turn -> result -> facts
                                              '-> given up when the client leaves
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rcod.device import is_out_of_memory
from rcod.doors.guard import Limits, Refusal, busy, failed
from rcod.doors.meters import Meters
from rcod.doors.work_queue import Full, Stopped, Ticket, WorkQueue
from rcod.errors import RcodError, TooLarge
from rcod.pixels.images import Photo, notes_of
from rcod.pixels.planes import MAX_PIXELS
from rcod.using.open_photo import take
from rcod.using.orders import Options
from rcod.using.restore import Realism, Restorer, Result

T = TypeVar("T")
GONE = 499  # the client hung up; nobody reads this
MEDIA = {
    "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "tif": "image/tiff",
    "avif": "image/avif", "zip": "application/zip",
}  # fmt: skip


@dataclass(frozen=True)
class Service:
    """Everything behind one port."""

    restorer: Restorer
    engine: WorkQueue
    limits: Limits = field(default_factory=Limits)
    meters: Meters = field(default_factory=Meters)

    async def wait(self, request: Request, work: Callable[[Ticket[T]], T]) -> T:
        """Queue a piece of work; give it up when its client leaves or its time is over."""
        ticket = self.engine.submit(work)
        return await self.wait_for(request, ticket)

    async def wait_for(self, request: Request, ticket: Ticket[T]) -> T:
        """The result of a ticket."""
        result = asyncio.wrap_future(ticket.result)
        gone = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait(
                (result, gone), timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if result.done():
                return result.result()
            if gone.done():
                raise Refusal(GONE, "the client left")
            seconds = self.limits.seconds
            raise Refusal(
                504,
                f"the work took longer than {seconds:g} s; send a smaller photo, or serve it with "
                f"rcod web --timeout {2 * seconds:g}",
            )
        except Stopped:
            raise Refusal(GONE, "the work was given up") from None
        finally:
            ticket.stop()
            gone.cancel()
            result.add_done_callback(lambda done: done.cancelled() or done.exception())

    def take(self, content: bytes, options: Options | None = None, what: str = "photo") -> Photo:
        """Read a photo, unless it, or its result, is too large; in the engine's thread."""
        most = min(self.limits.pixels, MAX_PIXELS)
        advice = "shrink or cut it first"

        def refuse(size: tuple[int, int]) -> None:
            self._check(what, size, advice, most)
            if options is not None:
                self._check_unturned(size, options)

        try:
            return take(content, refuse)
        except TooLarge:  # for Pillow even to tell its size
            raise _too_large(what, most, "many more", advice) from None

    def _check_unturned(self, size: tuple[int, int], options: Options) -> None:
        """Refuse a photo, of that width and height, whose result can't be made either way up."""
        refusals: list[Exception] = []
        for sides in (size[::-1], size):
            photo = Photo(torch.empty(3, *sides, device="meta"))  # of its size, and without pixels
            try:
                return self.check_size(photo, options.size(photo))
            except (Refusal, RcodError) as refusal:
                refusals.append(refusal)
        raise refusals[0]

    def check_size(self, photo: Photo, size: tuple[int, int]) -> None:
        """Refuse a result, of that height and width, which is too large to be made here."""
        most = math.sqrt(self.limits.pixels / photo.pixels[0].numel())
        advice = f"choose a smaller scale, at most {math.floor(10 * most) / 10:g}"
        self._check("result", (size[1], size[0]), advice, self.limits.pixels)

    @staticmethod
    def _check(what: str, size: tuple[int, int], advice: str, most: int) -> None:
        """Refuse a picture, of that width and height, with more pixels than `most`."""
        width, height = size
        if width * height <= most:
            return
        if what == "result" or width * height <= MAX_PIXELS:
            need = math.ceil(width * height / 1e6)
            advice += f", or serve it with rcod web --max-megapixels {need}"
        raise _too_large(what, most, f"{width} x {height}", advice)


def _too_large(what: str, most: int, came: str, advice: str) -> Refusal:
    """The refusal of a picture with too many pixels."""
    limit = f"at most {most / 1e6:g} megapixels here"
    return Refusal(413, f"a {what} must have {limit}, got {came}; {advice}")


def read_dial(text: str) -> Realism:
    """A number, or a name that is checked later."""
    try:
        return float(text)
    except ValueError:
        return cast(Realism, text)


def facts(result: Result) -> dict[str, str]:
    """How a result came about, as headers."""
    found = {
        "x-rcod-level": result.level,
        "x-rcod-realism": f"{result.realism:.4g}",
        "x-rcod-timestep": str(result.timestep),
        "x-rcod-auto": str(result.auto).lower(),
    }
    if result.metric is not None:
        found["x-rcod-metric"] = f"{result.metric:.4f}"
    if result.photo.notes:
        found["x-rcod-note"] = notes_text(result.photo)
    return found


def notes_text(photo: Photo) -> str:
    """What of a photo was left out, in sentences."""
    return " ".join(f"The photo {note}." for note in photo.notes)


def strip_tags(photo: Photo, options: Options) -> Photo:
    """A photo without the tags to leave out, and with notes of those its file can't hold."""
    photo = options.stripped(photo)
    return replace(photo, notes=notes_of(photo, f".{options.format}"))


def timings(result: Result, waited: float) -> str:
    """What took how long, milliseconds."""
    seconds = {"queue": waited, **result.seconds}
    return ", ".join(f"{stage};dur={1000 * spent:.1f}" for stage, spent in seconds.items())


async def _left(request: Request) -> None:
    """Return once the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_short(error: BaseException | None) -> bool:
    """Whether it began with what this machine is short of: memory, or a disk to write to."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:  # damaged pictures have no number
            return True
        if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
            return True
        error = error.__context__
    return False


def speak_plainly(app: FastAPI) -> None:
    """Answer every error with one sentence."""
    foreseen = RcodError, Refusal, HTTPException, RequestValidationError

    def say(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers)

    def refused(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, foreseen):
            error = failed()  # what broke goes on to the guard, which logs it
        if isinstance(error, Full):
            error = busy(error)
        if isinstance(error, Refusal):
            return say(error.status, error.sentence, error.headers)
        if isinstance(error, HTTPException):
            return say(error.status_code, str(error.detail), dict(error.headers or {}))
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
            return say(422, f"{where}: {first['msg']}")
        return say(507 if is_short(error) else 422, str(error))

    for kind in (*foreseen, Exception):
        app.add_exception_handler(kind, refused)
