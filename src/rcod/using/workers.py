"""How do all cores of a machine share a folder?

One photo can't keep many cores busy: every convolution waits for its slowest thread, and files
are read and written by one. So each of several processes does photos of its own with its share
of the cores. Names, the report and what is done already stay with the process that was called.
Where every process has one core they are copies of it, which have loaded everything already.

    run -> job -> a process with a restorer of its own -> outcome -> report
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread

import torch

from rcod.device import pick_device
from rcod.errors import RcodError
from rcod.using.batch import Elsewhere, take
from rcod.using.jobs import Job
from rcod.using.orders import Networks, Options, Outcome
from rcod.using.restore import Restorer


@contextmanager
def hands(networks: Networks, options: Options, workers: int) -> Iterator[Elsewhere]:
    """Processes that do photos; Ctrl-C that gets as far as here ends them at once.

    Args:
        networks: which every process loads.
        options: how photos are enlarged.
        workers: how many processes; they share the cores and the memory.

    Yields:
        What `batch.run` takes as `elsewhere`.
    """
    if workers < 1:
        raise RcodError(f"--workers must be at least 1, got {workers}")
    if options.memory is not None:
        options = replace(options, memory=options.memory // workers)
    threads = max((os.cpu_count() or 1) // workers, 1)
    copied = threads == 1 and _may_be_copied(networks)
    context = get_context("fork" if copied else "spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (threads,))
    in_hand: set[Future[Outcome]] = set()

    def begin(job: Job) -> Future[Outcome]:
        future = pool.submit(_take, job, networks, options)
        in_hand.add(future)
        future.add_done_callback(in_hand.discard)
        return future

    try:
        if copied:
            _restorer(networks)
            with warnings.catch_warnings():  # threads are missing in copies: theirs is one
                warnings.simplefilter("ignore", DeprecationWarning)
                pool.submit(os.getpid)  # the first task makes all copies
        yield Elsewhere(begin, workers)
    except BrokenProcessPool:
        raise RcodError(
            f"one of {workers} processes was killed, perhaps for want of memory; results so far "
            "are whole, and the same call with fewer --workers does the others"
        ) from None
    except Exception:
        wait(in_hand)  # or unfinished files would be left
        raise
    finally:
        for process in pool._processes.values():
            process.kill()  # they don't hear the SIGTERM that the pool would send
        pool.shutdown()
        _restorer.cache_clear()


def _may_be_copied(networks: Networks) -> bool:
    """Whether a process that holds these networks can be copied: other engines have threads."""
    on_processor = pick_device(networks.device).type == "cpu"
    return sys.platform == "linux" and on_processor and networks.engine in ("auto", "torch")


def _begin(threads: int) -> None:
    """Prepare a process: signals are for the one that was called, and with that one it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process when the one that was called is gone, however that came."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _take(job: Job, networks: Networks, options: Options) -> Outcome:
    """Do one photo in this process."""
    return take(lambda: _restorer(networks), job, options)


@cache
def _restorer(networks: Networks) -> Restorer:
    """This process's restorer, loaded once, or by the process that it is a copy of."""
    return Restorer.load(*networks)
