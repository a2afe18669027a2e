"""How does a run end before it is done? When it is asked to, or when memory won't hold it.

Whoever asks waits for the step in hand; whatever doesn't fit is one sentence. Workers that make
samples are ended by the run alone, since the signals that ask it to end are often sent to all.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rcod.device import is_out_of_memory
from rcod.errors import RcodError


@contextmanager
def asked_to_end() -> Iterator[Callable[[], int | None]]:
    """Let SIGTERM and the first Ctrl-C wait for the step in hand; the second ends at once.

    Yields:
        Which signal has come, if one has.
    """
    came: list[int] = []

    def take(number: int, frame: object) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {number: signal.signal(number, take) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: nobody asks
        yield lambda: None
        return
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def enough_memory(whole: Callable[[], int]) -> Iterator[None]:
    """Say in a sentence that memory doesn't hold a batch.

    Args:
        whole: the step whose state is on the disk.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = str(error).partition("\n")[0] or "no more of it"
        raise RcodError(
            f"memory must hold a batch and all that learns, and it doesn't ({why}); take a smaller "
            f"batch with a larger accumulate, or a smaller window; the state of step {whole()} is "
            "whole"
        ) from None


def deafen(worker: int) -> None:
    """Leave it to the run to end its workers; called in each of them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def outlive_none() -> None:
    """Let no worker outlive this process, for which Python would wait, deaf as they are."""
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)  # before `multiprocessing`'s own, which was registered earlier


def _end_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
