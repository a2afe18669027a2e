"""Which photos does the page hold open, and for how long?

dropped -> add -> name -> find (again and again) -> put away: idle, or too much is held
"""

import secrets
import time
from collections import OrderedDict

from rcod.doors.engine import Ticket
from rcod.doors.guard import Refusal
from rcod.using.sitting import Sitting, View

IDLE = 1200.0  # seconds after which a photo that nobody asks about is put away
HELD = 2_000_000_000  # bytes that open photos hold together; the latest is held in any case


class Sittings:
    """The photos that are open, by their secret names."""

    def __init__(self, held: int = HELD, idle: float = IDLE) -> None:
        self._held = held
        self._idle = idle
        self._open: OrderedDict[str, tuple[Sitting, float]] = OrderedDict()
        self.tickets: dict[str, Ticket[bytes] | Ticket[tuple[View, bytes]]] = {}

    def add(self, sitting: Sitting) -> str:
        """Keep a photo, put older ones away where memory asks for it, and give its name."""
        name = secrets.token_urlsafe(16)
        self._open[name] = sitting, time.monotonic()
        self.tidy()
        return name

    def find(self, name: str) -> Sitting:
        """The photo of that name, which is now the latest."""
        self.tidy()
        if name not in self._open:
            raise Refusal(404, "this photo was put away; it is sent again by itself")
        sitting, _ = self._open.pop(name)
        self._open[name] = sitting, time.monotonic()
        return sitting

    def drop(self, name: str) -> None:
        """Put a photo away."""
        self._open.pop(name, None)
        self.tickets.pop(name, None)

    def tidy(self) -> None:
        """Put away what is idle, and the oldest while too much is held."""
        latest = next(reversed(self._open), None)
        now = time.monotonic()
        for name, (_, used) in list(self._open.items()):
            held = sum(sitting.size for sitting, _ in self._open.values())
            if name != latest and (now - used > self._idle or held > self._held):
                self.drop(name)
