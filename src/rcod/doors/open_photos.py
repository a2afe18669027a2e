"""Which photos does the page hold open, and for how long?

dropped -> add -> name -> find (again and again) -> put away: idle, or too much is held
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rcod.doors.guard import Refusal
from rcod.doors.work_queue import Ticket
from rcod.using.open_photo import OpenPhoto, View

IDLE = 1200.0  # seconds after which a photo that nobody asks about is put away
HELD = 2_000_000_000  # bytes that open photos hold together; the latest may hold more


class OpenPhotos:
    """The photos that are open, by their secret names."""

    def __init__(self, held: int = HELD, idle: float = IDLE) -> None:
        self._held = held
        self._idle = idle
        self._open: OrderedDict[str, tuple[OpenPhoto, float]] = OrderedDict()
        self.tickets: dict[str, Ticket[tuple[View, bytes]]] = {}  # of results under way

    def add(self, held: OpenPhoto) -> str:
        """Keep a photo, put older ones away where memory asks for it, and give its name."""
        name = secrets.token_urlsafe(16)
        self._open[name] = held, time.monotonic()
        self.tidy()
        return name

    def find(self, name: str) -> OpenPhoto:
        """The photo of that name, which is now the latest."""
        if name in self._open:
            self._open.move_to_end(name)
        self.tidy()
        if name not in self._open:
            raise Refusal(404, "this photo was put away; it is sent again by itself")
        held, _ = self._open[name]
        self._open[name] = held, time.monotonic()
        return held

    def drop(self, name: str) -> None:
        """Put a photo away."""
        self._open.pop(name, None)
        self.tickets.pop(name, None)

    def tidy(self) -> None:
        """Put away what is idle, and the oldest while too much is held."""
        latest = next(reversed(self._open), None)
        now = time.monotonic()
        sizes = {name: held.size for name, (held, _) in self._open.items()}
        held = sum(sizes.values())
        for name, (_, used) in list(self._open.items()):
            if now - used > self._idle or (held > self._held and name != latest):
                held -= sizes[name]
                self.drop(name)

    @asynccontextmanager
    async def tidied(self, app: object) -> AsyncIterator[None]:
        """While the service runs, tidy now and then though nobody asks; a lifespan."""

        async def now_and_then() -> None:
            while True:
                await asyncio.sleep(self._idle / 20)
                self.tidy()

        task = asyncio.create_task(now_and_then())
        yield
        task.cancel()
