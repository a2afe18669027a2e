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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread

import torch

from rcod.device import pick_device
from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.using.batch import take
from rcod.using.jobs import Job
from rcod.using.orders import Options, Outcome
from rcod.using.restore import Restorer

Networks = tuple[str, str, str, Parts, str]


@contextmanager
def hands(
    networks: Networks, options: Options, workers: int
) -> Iterator[Callable[[Job], Future[Outcome]]]:
    """Processes that do photos.

    Args:
        networks: as for `Restorer.load`.
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
    try:
        if copied:
            _restorer(networks)
            with warnings.catch_warnings():  # threads are missing in copies: theirs is one
                warnings.simplefilter("ignore", DeprecationWarning)
                pool.submit(os.getpid)  # the first task makes all copies
        yield lambda job: pool.submit(_take, job, networks, options)
    except BrokenProcessPool:
        raise RcodError(
            f"one of {workers} processes was killed, perhaps for want of memory; results so far "
            "are whole, and the same call with fewer --workers does the others"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        _restorer.cache_clear()


def _may_be_copied(networks: Networks) -> bool:
    """Whether a process that holds these networks can be copied: other engines have threads."""
    _, device, _, _, engine = networks
    on_processor = pick_device(device).type == "cpu"
    return sys.platform == "linux" and on_processor and engine in ("auto", "torch")


def _begin(threads: int) -> None:
    """Prepare a process: Ctrl-C is for the one that was called, and with that one it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the pool sends when one was killed
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
