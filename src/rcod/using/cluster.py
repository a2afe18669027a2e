"""How do photos go through a cluster?

By Ray Data: it reads the plan, gives portions to workers that hold the model, holds back what
they can't take yet, starts those anew that die and gives out again what they held. Here is only
what a worker does with a photo, and how its records are kept.

    rcod-plan-ID/*.jsonl -> Ray Data -> Hand: fetch, `batch.run`, store -> records -> rcod-done/
"""

import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, cast

import torch

from rcod.errors import RcodError
from rcod.pixels.placing import foreign, is_ours_open, placed
from rcod.using.batch import run
from rcod.using.cluster_plan import DONE, PLAN, PhotoTask, Planned, Record, plan
from rcod.using.orders import Networks, Options
from rcod.using.restore import Restorer
from rcod.using.store import Store, is_here, name_of, opened, reaching, said, whole

HELD = 8  # photos that a worker holds, and that are done again when it dies
PAUSE = 2.0  # seconds between two times that records are written


class Hand:
    """A worker: holds the model, and does photo after photo."""

    def __init__(self, networks: Networks, options: Options, out: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.networks = networks
        self.options = options
        self.store = Store(out)
        self.restorer: Restorer | None = None

    def __call__(self, batch: dict[str, Sequence[str]]) -> dict[str, list[str]]:
        """Lines of the plan to lines of the records."""
        return {"record": [json.dumps(self.take(json.loads(line))) for line in batch["text"]]}

    def take(self, task: PhotoTask) -> Record:
        """Do one photo; whatever is wrong with it is told in its record."""
        started = time.perf_counter()
        record = Record(source=task["source"], print=task["print"], files=[], sizes=[], notes=[],
                        error=None, worker=os.getpid(), seconds=0.0)  # fmt: skip
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._do(task, Path(folder), record)
        except RcodError as wrong:
            record["error"] = str(wrong)
        except Exception as wrong:  # noqa: BLE001  # of whatever kind, it is this photo's alone
            record["error"] = f"{task['source']}: {said(wrong)}"
        record["seconds"] = round(time.perf_counter() - started, 3)
        return record

    def _do(self, task: PhotoTask, folder: Path, record: Record) -> None:
        """Fetch a photo, enlarge it as a plain call does, and store what came of it."""
        source, results = task["source"], folder / "results"
        fs, path = opened(source)
        photo = folder / "photo" / name_of(source)
        photo.parent.mkdir()
        with reaching(f"{source} must be a photo to read"):
            try:
                fs.get_file(path, str(photo))
            except FileNotFoundError:  # which often says no more than the path
                raise RcodError(f"{source}: no such file; check the address") from None
        report = run(self._load, [photo], results, self.options)
        if report.errors:
            raise RcodError(report.errors[0].replace(str(photo), source))
        record["notes"] = [note for outcome in report.outcomes for note in outcome.notes]
        for made in sorted(results.iterdir()):
            place = str(Path(task["place"]).parent / made.name)
            target = self.store.path(place)
            if self.store.fs.unstrip_protocol(target) == fs.unstrip_protocol(path):
                raise RcodError(f"{source}: a photo to enlarge is never overwritten")
            with self.store.reached():
                if not self.options.overwrite and self._is_foreign(target):
                    raise RcodError(f"{source}: {foreign(target)}")
                self._put(made, place)
            record["files"].append(place)
            record["sizes"].append(made.stat().st_size)

    def _load(self) -> Restorer:
        self.restorer = self.restorer or Restorer.load(*self.networks)
        return self.restorer

    def _is_foreign(self, path: str) -> bool:
        """Whether a file is there that is none of ours."""
        if not self.store.fs.exists(path):
            return False
        with self.store.fs.open(path, "rb") as file:
            return not is_ours_open(cast("BinaryIO", file))

    def _put(self, made: Path, place: str) -> None:
        """Store a result whole: stores do so themselves, folders by another name first."""
        path = self.store.path(place)
        self.store.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if is_here(self.store.fs):
            with placed(Path(path)) as file:
                file.write(made.read_bytes())
        else:
            self.store.fs.put_file(str(made), path)


def run_on_ray(
    networks: Networks,
    photos: Sequence[str],
    out: str,
    options: Options,
    workers: int | None = None,
    watch: Callable[[Record, int, int], None] = lambda record, done, total: None,
) -> tuple[Planned, list[Record]]:
    """Enlarge photos on a Ray cluster: the one of RAY_ADDRESS, or this machine.

    Args:
        networks: which every worker loads.
        photos: addresses, as for `cluster_plan.plan`.
        out: the output folder's address.
        options: how, for all of them.
        workers: how many; by default one for every core, which is fastest.
        watch: told of every photo: its record, how many are done, of how many.

    Returns:
        The plan, and the records of photos that failed.
    """
    if options.realism_map is not None:
        raise RcodError("a realism map belongs to one photo; leave --engine ray out")
    if out.rpartition("::")[2].startswith("memory:"):
        raise RcodError(f"results must outlive the worker that makes them, got {out}; "
                        "name a folder or a store")  # fmt: skip
    ray = _ray()
    store, folder = Store(out), f"{PLAN}-{uuid.uuid4().hex[:8]}"  # others may have theirs beside
    settings = options.settings()
    try:
        planned = plan(photos, out, folder, settings, options.format, options.skip_existing)
        lines = _stream(ray, networks, planned, store, options, workers)
        return planned, _record(lines, planned.tasks, store, watch)
    finally:
        with suppress(RcodError):  # who can't be reached is told by what went before
            store.clear(folder)


def _record(
    lines: Iterator[str], total: int, store: Store, watch: Callable[[Record, int, int], None]
) -> list[Record]:
    """Keep records as they come, and find those of photos that failed."""
    failed: list[Record] = []
    waiting, count = list[str](), 0
    written = time.monotonic()
    try:
        for line in lines:
            record: Record = json.loads(line)
            waiting.append(line)
            count += 1
            if record["error"] is not None:
                failed.append(record)
            watch(record, count, total)
            if time.monotonic() > written + PAUSE:
                store.add_lines(DONE, waiting)
                waiting, written = [], time.monotonic()
    finally:
        if waiting:
            store.add_lines(DONE, waiting)
    if count < total:
        raise RcodError(
            f"every photo must come back from the cluster, and {total - count} of {total} didn't; "
            "the same call does them"
        )
    return failed


def _ray() -> ModuleType:
    """Ray, if it is installed."""
    try:
        import_module("ray.data")
        logging.getLogger("ray.data").setLevel(os.environ.get("RAY_DATA_LOG_LEVEL", "ERROR"))
        return import_module("ray")
    except ImportError as error:
        raise RcodError(f"ray must be installed, got: {error}; pip install 'rcod[ray]'") from None


def _stream(
    ray: ModuleType,
    networks: Networks,
    planned: Planned,
    store: Store,
    options: Options,
    workers: int | None,
) -> Iterator[str]:
    """The records, as they come."""
    if not planned.tasks:
        return
    cores = os.cpu_count() or 1
    if not ray.is_initialized():
        here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": (workers or cores) + 1}
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **here)
        except (ValueError, RuntimeError, OSError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise RcodError(
                f"a Ray cluster must answer at RAY_ADDRESS ({where}), got: {error}; "
                "see docs/scale.md"
            ) from None
    count = workers or max(int(ray.cluster_resources().get("CPU", 2)) - 1, 1)
    threads = max(cores // count, 1) if "RAY_ADDRESS" not in os.environ else 1
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a portion that can't be done doesn't stop the others
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    given = networks, _shared(options, count, cpus), whole(store.address), threads
    lines = ray.data.read_text(list(planned.portions), filesystem=store.fs)
    done = lines.repartition(target_num_rows_per_block=HELD).map_batches(
        Hand,
        fn_constructor_args=given,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
    )
    for row in done.iter_rows():
        yield row["record"]


def _shared(options: Options, workers: int, cpus: Sequence[float]) -> Options:
    """A worker's options: as many as fit on the largest machine share the memory."""
    if options.memory is None:
        return options
    most = max(min(workers, int(max(cpus))), 1)
    return replace(options, memory=options.memory // most)
