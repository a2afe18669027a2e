"""What stands between the network and the service? Limits, the token, and plain answers.

Every request passes here before any of it is believed. What is refused is refused in one
JSON sentence; a large body is neither read to its end nor kept; what breaks inside becomes
a sentence too, and its trace stays in the server's own log.

    request -> host, origin -> token -> free seat -> length -> body, counted and timed -> app
    answer  <- headers that keep pages apart <- status counted <---------------------------'
"""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rcod.doors.callers import has_token, is_foreign, is_own
from rcod.doors.meters import Meters
from rcod.doors.work_queue import Full, WorkQueue
from rcod.errors import RcodError

OPEN = ("/healthz",)  # answered without a token
LINGER = 2.0  # seconds for which the rest of a refused body is read and dropped
ROUTES = ("/v1/upscale", "/v1/levels", "/v1/models", "/healthz", "/metrics", "/openapi.json",
          "/docs", "/")  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # asked for anew: an upgrade replaces page and scripts at once
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
log = logging.getLogger("rcod")


@dataclass(frozen=True)
class Limits:
    """What a service takes on."""

    seats: int = 8  # photos that may wait or run
    body: int = 64_000_000  # bytes of a request
    pixels: int = 100_000_000  # of a result
    upload: float = 60.0  # seconds in which a body must have arrived
    seconds: float = 300.0  # in which an answer must have begun
    token: str | None = None  # who does not show it is refused

    def __post_init__(self) -> None:
        for name in ("seats", "body", "pixels", "upload", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise RcodError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if self.token is not None and not re.fullmatch(r"[!-~]{8,200}", self.token):
            raise RcodError(
                "a token must be 8 to 200 printable characters without spaces; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


class Refusal(Exception):
    """A status and the sentence that goes with it."""

    def __init__(
        self, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})


class Guard:
    """The outermost layer of the service."""

    def __init__(
        self, app: ASGIApp, limits: Limits, engine: WorkQueue, meters: Meters, own: str | None
    ) -> None:
        """`own` is the host of a service to this machine alone: no page may rebind another."""
        self._app = app
        self._limits = limits
        self._engine = engine
        self._meters = meters
        self._own = own
        self._bodies: set[Body] = set()  # of the POSTs under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        body = Body(receive, self._limits)
        answer = Answer(send, body)
        try:
            self._admit(scope)
            if scope["method"] == "POST":
                self._bodies.add(body)
            await self._app(unranged(scope), body.receive, answer.send)
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else body.refusal
            body.refusal = None
            if refusal is None:
                log.error("a request failed", exc_info=error)
                refusal = failed()
            if answer.status == 0:
                await answer.refuse(refusal, receive)
            elif not answer.done:
                raise  # the answer broke off: hang up
        finally:
            self._bodies.discard(body)
        path = scope["path"]
        route = path if path in ROUTES else "/page" if path.startswith("/page/") else "other"
        self._meters.count(route, answer.status, time.perf_counter() - start)

    def _admit(self, scope: Scope) -> None:
        """Refuse what need not be read."""
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        if self._own is not None and not is_own(headers.get("host", ""), self._own):
            raise Refusal(403, "this service answers only to names of its own machine")
        if scope["method"] not in ("GET", "HEAD") and is_foreign(headers):
            raise Refusal(403, "other sites' pages may not send requests here")
        if self._limits.token is not None and scope["path"] not in OPEN:
            query = scope["query_string"].decode("latin-1") if scope["path"] == "/" else ""
            if not has_token(self._limits.token, headers, query):
                raise untold()
        if scope["method"] != "POST":
            return
        if not headers.get("content-length", "0").isdecimal():
            raise Refusal(400, "the content length must be a whole number")
        if (length := int(headers.get("content-length", "0"))) > self._limits.body:
            raise too_long(self._limits, length)
        try:
            self._engine.check_room(sum(not body.whole for body in self._bodies))
        except Full as full:
            raise busy(full) from None


class Answer:
    """The way out: adds the headers that every answer has, and notes the status."""

    def __init__(self, send: Send, body: "Body") -> None:
        self.status = 0  # until an answer begins
        self.done = False
        self._send = send
        self._body = body

    async def send(self, message: Message) -> None:
        """Pass a message on; a body that was refused is not blamed on its form."""
        if message["type"] == "http.response.start":
            if self._body.refusal is not None:
                raise self._body.refusal
            self.status = message["status"]
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *extra]}
        await self._send(message)
        self.done = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def refuse(self, refusal: Refusal, receive: Receive) -> None:
        """Send a refusal; after one of a body that may still be coming, hang up."""
        content = json.dumps({"error": refusal.sentence}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **refusal.headers,
        }
        if refusal.status in (408, 413):
            headers["connection"] = "close"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": refusal.status, "headers": raw}
        await self.send(start)
        await self._send({"type": "http.response.body", "body": content, "more_body": True})
        if refusal.status == 413:
            await linger(receive)  # hanging up on a sender at once would lose the answer
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


class Body:
    """The way in: counts what arrives, and gives it only so long."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.refusal: Refusal | None = None  # set when the body had to be refused
        self.whole = False
        self._receive = receive
        self._limits = limits
        self._deadline = time.monotonic() + limits.upload
        self._bytes = 0

    async def receive(self) -> Message:
        """The next message of the request."""
        if self.whole:
            return await self._receive()  # waits for the client to leave
        try:
            left = self._deadline - time.monotonic()
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError:
            seconds = self._limits.upload
            self.refusal = Refusal(408, f"the request must have arrived within {seconds:g} s")
            raise self.refusal from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self._bytes > self._limits.body:
                self.refusal = too_long(self._limits, 2 * self._bytes)
                raise self.refusal
        return message


async def linger(receive: Receive) -> None:
    """Drop what a client still sends, for a short while."""
    with_end = time.monotonic() + LINGER
    while (left := with_end - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def unranged(scope: Scope) -> Scope:
    """A request for the whole of what it asks a part of: files are small here."""
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}


def untold() -> Refusal:
    """The refusal of who does not show the token."""
    return Refusal(
        401,
        "this service needs its token: send the header 'Authorization: Bearer TOKEN', "
        "or open the page as /?token=TOKEN",
        {"www-authenticate": "Bearer"},
    )


def too_long(limits: Limits, length: int) -> Refusal:
    """The refusal of a body that is too large, of about so many bytes."""
    return Refusal(
        413,
        f"a request must have at most {limits.body / 1e6:g} MB here; send a smaller file, or "
        f"serve it with rcod web --max-megabytes {math.ceil(length / 1e6)}",
    )


def busy(full: Full) -> Refusal:
    """The refusal when no seat is free."""
    return Refusal(503, str(full), {"retry-after": str(full.retry_after)})


def failed() -> Refusal:
    """The refusal when something broke that nobody foresaw."""
    return Refusal(500, "the server failed; its log says why")
