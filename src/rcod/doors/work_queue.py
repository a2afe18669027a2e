"""Who runs when? One worker, a bounded queue, and a ticket for everybody who waits.

The networks have one owner: a single thread that takes tickets in the order in which they
came. So requests that arrive together give the pictures of serial runs, and memory is
that of one run. When every seat is taken, the next one is told so at once.

    work -> submit -> Ticket (position, fraction, result) -> worker -> result
               '-> Full, with the seconds after which a seat is likely free
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from rcod.errors import RcodError

T = TypeVar("T")
FIRST_GUESS = 1.0  # seconds a piece of work takes, before any was timed
MEMORY = 0.8  # weight of the past in the running mean of the seconds


class Full(RcodError):
    """No seat is free."""

    def __init__(self, seats: int, retry_after: int) -> None:
        super().__init__(
            f"at most {seats} photos may wait here, and all seats are taken; "
            f"try again in {retry_after} s"
        )
        self.retry_after = retry_after


class Stopped(Exception):
    """The work was given up because nobody waits for it."""


class Ticket(Generic[T]):
    """A piece of work that waits, runs or is done."""

    def __init__(
        self,
        work: Callable[["Ticket[T]"], T],
        leave: Callable[["Ticket[T]"], None] = lambda ticket: None,
    ) -> None:
        """`leave` is told once the work is given up."""
        self.fraction = 0.0  # of the work that is done, 0 to 1
        self.result: Future[T] = Future()
        self.waited = 0.0  # seconds in the queue
        self._work = work
        self._leave = leave
        self._came = time.perf_counter()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Give the work up: at once while it waits, at its next `step` while it runs."""
        self._stop.set()
        self._leave(self)

    def step(self, fraction: float) -> None:
        """Called by the work between its parts; raises `Stopped` once nobody waits."""
        self.fraction = fraction
        if self._stop.is_set():
            raise Stopped

    def run(self) -> None:
        """Do the work; whatever comes of it is in `result`."""
        self.waited = time.perf_counter() - self._came
        try:
            self.step(0)
            self.result.set_result(self._work(self))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.result.set_exception(error)


class Waiting(Protocol):
    """A ticket of any result."""

    fraction: float
    waited: float

    def run(self) -> None:
        """Do the work."""
        ...

    def step(self, fraction: float) -> None:
        """Raise `Stopped` once nobody waits."""
        ...


class WorkQueue:
    """One worker thread and its queue. Close it, or use it in a `with`."""

    def __init__(self, seats: int = 8) -> None:
        if seats < 1:
            raise RcodError(f"a queue must have at least 1 seat, got {seats}; 8 is usual")
        self.seats = seats
        self._queue: deque[Waiting] = deque()
        self._running: Waiting | None = None
        self._mean = FIRST_GUESS
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="rcod engine", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Ticket[T]], T]) -> Ticket[T]:
        """Take a seat for a piece of work, or raise `Full`."""
        ticket = Ticket(work, self._drop)
        with self._change:
            if self._closed or self._taken() >= self.seats:
                raise Full(self.seats, self._patience())
            self._queue.append(ticket)
            self._change.notify()
        return ticket

    def check_room(self, coming: int = 0) -> None:
        """Raise `Full` when no seat is free: to be asked before a large body is read.

        Args:
            coming: bodies that are being read already; two for every seat are enough.
        """
        with self._change:
            if self._closed or self._taken() >= self.seats or coming >= 2 * self.seats:
                raise Full(self.seats, self._patience())

    def position(self, ticket: Waiting) -> int:
        """How many tickets are served before this one; 0 when it runs or is done."""
        with self._change:
            if ticket not in self._queue:
                return 0
            return self._queue.index(ticket) + (self._running is not None)

    def taken(self) -> int:
        """How many seats are taken."""
        with self._change:
            return self._taken()

    def close(self) -> None:
        """Let what has a seat finish, take nothing new, and end the worker."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def __enter__(self) -> "WorkQueue":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _drop(self, ticket: Waiting) -> None:
        """Give the seat of a ticket back if it still waits, and end it as `Stopped`."""
        with self._change:
            if ticket not in self._queue:
                return
            self._queue.remove(ticket)
        ticket.run()  # stopped, it does no work

    def _taken(self) -> int:
        return len(self._queue) + (self._running is not None)

    def _patience(self) -> int:
        """Whole seconds after which half of the queue is likely done."""
        return max(1, math.ceil(self._mean * self.seats / 2))

    def _serve(self) -> None:
        """Run tickets until closed and empty."""
        while True:
            with self._change:
                self._running = None
                self._change.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                ticket = self._running = self._queue.popleft()
            start = time.perf_counter()
            ticket.run()
            self._mean = MEMORY * self._mean + (1 - MEMORY) * (time.perf_counter() - start)
            del ticket  # a result that nobody fetched is not kept
