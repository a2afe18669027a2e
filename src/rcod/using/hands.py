"""How do all cores of a machine share a folder?

One photo can't keep many cores busy: every convolution waits for its slowest thread, and files
are read and written by one. So each of several processes does photos of its own with its share
of the cores. Names, the report and what is done already stay with the process that was called.

    run -> job -> a process with a restorer of its own -> outcome -> report
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context

import torch

from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.using.batch import run
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
        workers: how many processes; they share the cores.

    Yields:
        What `batch.run` takes as `elsewhere`.
    """
    if workers < 1:
        raise RcodError(f"--workers must be at least 1, got {workers}")
    threads = max((os.cpu_count() or 1) // workers, 1)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (threads,))
    try:
        yield lambda job: pool.submit(_take, job, networks, options)
    except BrokenProcessPool:
        raise RcodError(
            f"one of {workers} processes was killed, perhaps for want of memory; results so far "
            "are whole, and the same call with fewer --workers does the others"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """Prepare a process: Ctrl-C is for the one that was called."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def _take(job: Job, networks: Networks, options: Options) -> Outcome:
    """Do one photo in this process."""
    report = run(lambda: _restorer(networks), [job.source], job.targets[0].parent, options)
    return report.outcomes[0]


@cache
def _restorer(networks: Networks) -> Restorer:
    """This process's restorer, loaded once."""
    return Restorer.load(*networks)
