"""Which system does what, on which pictures, at what cost?

Everything that is finished is written down at once and never done again: results in pictures/,
what they cost in work.jsonl, what they score in scores.jsonl. A result is taken as finished when
its system is still the same, its score when its file and the protocol are.

    sets x contenders -> results (a process each) -> seconds, memory -.
                                '-> Judge -> scores -------------------+-> Found
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from pydantic import BaseModel

from rcod.errors import RcodError
from rcod.judging.contenders import Contender, described
from rcod.judging.datasets import SCALE, Dataset, Pair, by_picture, check, pixels
from rcod.judging.inception import frechet
from rcod.judging.journal import Made, Scored, append, read_lines
from rcod.judging.judge import MEASURES, Judge, blanks, fingerprint
from rcod.judging.peers import task
from rcod.judging.scoring import average
from rcod.pixels.aids import digest
from rcod.pixels.images import find
from rcod.pixels.placing import ensure_folder

Say = Callable[[str], None]
CHILD = "from rcod.judging.peers import main; main()"


class Row(BaseModel, frozen=True):
    """One result with all that is known of it."""

    dataset: str
    label: str
    picture: str
    file: Path
    values: dict[str, float]
    made: Made | None


@dataclass(frozen=True)
class Found:
    """A finished evaluation."""

    datasets: tuple[Dataset, ...]
    labels: tuple[str, ...]  # in the order asked for
    rows: tuple[Row, ...]
    fid: dict[tuple[str, str], float]  # dataset, label
    missing: dict[str, str]
    protocol: dict[str, object]

    def of(self, dataset: str, label: str) -> list[Row]:
        """The rows of one system on one set, in the set's order."""
        return [row for row in self.rows if (row.dataset, row.label) == (dataset, label)]

    def means(self, dataset: str, label: str) -> dict[str, float]:
        """Mean of every measure, and FID."""
        found = average(row.values for row in self.of(dataset, label))
        fid = self.fid.get((dataset, label))
        return found if fid is None else found | {"fid": fid}

    def cost(self, dataset: str, label: str) -> tuple[float, float] | None:
        """Median seconds a picture and peak MB, where they were measured."""
        made = [row.made for row in self.of(dataset, label) if row.made]
        if not made:
            return None
        return median(one.seconds for one in made), max(one.peak_mb for one in made)

    def table(self) -> list[str]:
        """A line of means for each system, and why measures are blank."""
        lines: list[str] = []
        width = max(len(label) for label in self.labels) + 2
        for dataset in self.datasets:
            means = {label: self.means(dataset.name, label) for label in self.labels}
            names = [name for name in MEASURES if any(name in one for one in means.values())]
            lines.append(f"{dataset.name}, {len(dataset.pairs)} pictures".ljust(width))
            lines.append(" " * width + "".join(f"{MEASURES[n].label:>11}" for n in names))
            for label, mean in means.items():
                cells = (f"{mean[n]:11.{MEASURES[n].digits}f}" if n in mean else " " * 11
                         for n in names)  # fmt: skip
                lines.append(label.ljust(width) + "".join(cells))
        return lines + [f"{MEASURES[k].label} is blank: {why}" for k, why in self.missing.items()]


def run(
    datasets: Sequence[Dataset],
    contenders: Sequence[Contender],
    out: Path,
    judge: Judge,
    device: str = "auto",
    dtype: str = "auto",
    say: Say = lambda _: None,
) -> Found:
    """Make every result that is missing, score every one that isn't scored, and sum up.

    Args:
        datasets: the pictures.
        contenders: the systems; their labels must differ.
        out: where all is kept; an interrupted evaluation goes on there.
        judge: what scores.
        device: as for `Restorer.load`.
        dtype: as for `Restorer.load`.
        say: told how far the work is.
    """
    labels = [label for one in contenders for label in one.labels]
    for names in (labels, [dataset.name for dataset in datasets]):
        if twice := [name for name in names if names.count(name) > 1]:
            raise RcodError(f"names must differ, got {twice[0]} twice; give one NAME=...")
    systems = described(contenders)
    ensure_folder(out)
    files: dict[tuple[str, str, str], Path] = {}
    made: dict[tuple[str, str, str], Made] = {}
    for dataset in datasets:
        for contender in contenders:
            if contender.kind == "dir":
                files |= _given(dataset, contender)
                continue
            made |= _make(dataset, contender, out, (device, dtype), say)
            files |= {(dataset.name, label, pair.name): place(out, dataset, label, pair.name)
                      for label in contender.labels for pair in dataset.pairs}  # fmt: skip
    protocol = judge.protocol() | {
        "device": device,
        "dtype": dtype,
        "colour fix": "each model's own (tiny: wavelet); none for the others",
        "systems": systems,
        "sets": {one.name: len(one.pairs) for one in datasets},
    }
    rows = _score(datasets, labels, files, made, out, judge, say)
    fid = _fid(datasets, labels, files, judge)
    missing = judge.missing | _blanks(datasets, rows, judge)
    if judge.inception is not None and len(fid) < len(datasets) * len(labels):
        missing["fid"] = "it needs two pictures of a set, and true ones"
    return Found(tuple(datasets), tuple(labels), rows, fid, missing, protocol)


def place(out: Path, dataset: Dataset, label: str, picture: str) -> Path:
    """Where a result lies."""
    return out / "pictures" / dataset.name / label / f"{picture}.png"


def _given(dataset: Dataset, contender: Contender) -> dict[tuple[str, str, str], Path]:
    """Results that somebody made, which must be of this set's pictures, of their size."""
    names = [pair.name for pair in dataset.pairs]
    files = by_picture(find([Path(contender.path)]))
    absent = [name for name in names if name not in files]
    if absent:
        raise RcodError(
            f"{contender.path} must hold a result for every picture of {dataset.name}, and has "
            f"none for {len(absent)} of {len(names)}: {', '.join(absent[:8])}"
        )
    check([(files[pair.name], pair.hr) for pair in dataset.pairs if pair.hr])
    check([(pair.lr, files[pair.name]) for pair in dataset.pairs if pair.hr is None], SCALE)
    return {(dataset.name, contender.name, name): files[name] for name in names}


def _make(
    dataset: Dataset, contender: Contender, out: Path, where: tuple[str, str], say: Say
) -> dict[tuple[str, str, str], Made]:
    """Let a contender make what is missing, in a process of its own."""
    journal = out / "work.jsonl"
    before = {(row.dataset, row.label, row.picture): row for row in read_lines(journal, Made)}
    found: dict[tuple[str, str, str], Made] = {}
    identity = f"{contender.identity()} {' '.join(where)}"
    jobs: list[tuple[str, str, dict[str, str]]] = []
    for pair in dataset.pairs:
        source = digest(pair.lr)[:16]
        todo: dict[str, str] = {}
        for label in contender.labels:
            key, file = (dataset.name, label, pair.name), place(out, dataset, label, pair.name)
            row = before.get(key)
            fresh = row is not None and row.identity == f"{identity} {source}" and file.is_file()
            if row is not None and fresh and row.sha256 == digest(file):
                found[key] = row
            else:
                todo[label] = str(file)
        if todo:
            jobs.append((pair.name, str(pair.lr), todo))
    if not jobs:
        return found
    say(f"{dataset.name}: {contender.name} makes {len(jobs)} pictures")
    sources = {pair.name: digest(pair.lr)[:16] for pair in dataset.pairs}
    for work in _child(task(contender, jobs, *where)):
        file = place(out, dataset, str(work["label"]), str(work["picture"]))
        whole = f"{identity} {sources[str(work['picture'])]}"
        row = Made.model_validate(
            work | {"dataset": dataset.name, "identity": whole, "sha256": digest(file)}
        )
        append(journal, row)
        found[(dataset.name, row.label, row.picture)] = row
    return found


def _child(given: str) -> Iterable[dict[str, object]]:
    """Run a contender's process and hand on its lines as they come."""
    command = [sys.executable, "-c", CHILD]
    with (tempfile.TemporaryFile("w+") as said,  # a pipe that nobody reads would fill up
          subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
                           text=True) as child):  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(given)
            child.stdin.close()
            for line in child.stdout:
                yield json.loads(line)
        except BaseException:
            child.kill()
            raise
        if child.wait():
            said.seek(0)
            last = (said.read().strip() or "nothing").splitlines()[-1].removeprefix("error: ")
            raise RcodError(f"a system must make its pictures; it said: {last}")


def _score(
    datasets: Sequence[Dataset],
    labels: Sequence[str],
    files: dict[tuple[str, str, str], Path],
    made: dict[tuple[str, str, str], Made],
    out: Path,
    judge: Judge,
    say: Say,
) -> tuple[Row, ...]:
    """Score what isn't scored, all results of one picture together."""
    journal, protocol = out / "scores.jsonl", fingerprint(judge.protocol())
    known = {(row.sr, row.hr): row.values for row in read_lines(journal, Scored)
             if row.protocol == protocol}  # fmt: skip
    rows: list[Row] = []
    for dataset in datasets:
        for number, pair in enumerate(dataset.pairs, 1):
            mine = {label: files[(dataset.name, label, pair.name)] for label in labels}
            truth = digest(pair.hr) if pair.hr else ""
            keys = {label: (digest(file), truth) for label, file in mine.items()}
            todo = [label for label in labels if keys[label] not in known]
            for label, values in zip(todo, _judged(pair, [mine[x] for x in todo], judge),
                                     strict=True):  # fmt: skip
                known[keys[label]] = values
                sr, hr = keys[label]
                append(journal, Scored(protocol=protocol, sr=sr, hr=hr, values=values))
            if todo:
                say(f"{dataset.name}: {number} of {len(dataset.pairs)} pictures judged")
            rows += [
                Row(dataset=dataset.name, label=label, picture=pair.name, file=mine[label],
                    values=known[keys[label]], made=made.get((dataset.name, label, pair.name)))
                for label in labels
            ]  # fmt: skip
    return tuple(rows)


def _blanks(datasets: Sequence[Dataset], rows: Sequence[Row], judge: Judge) -> dict[str, str]:
    """Why a measure that runs here is blank all the same: its first picture, and the reason."""
    pairs = {(one.name, pair.name): pair for one in datasets for pair in one.pairs}
    found: dict[str, str] = {}
    for row in rows:
        if all(name in row.values or name in found for name in judge.able):
            continue
        height, width = pixels(row.file).shape[1:]
        paired = pairs[row.dataset, row.picture].hr is not None
        why = blanks(row.values, (height, width), paired, judge.able)
        found |= {k: f"{row.picture}: {v}" for k, v in why.items() if k not in found}
    return found


def _judged(pair: Pair, files: Sequence[Path], judge: Judge) -> list[dict[str, float]]:
    """Scores of several results of one picture."""
    if not files:
        return []
    hr = pixels(pair.hr) if pair.hr else None
    return judge.values([pixels(file) for file in files], hr)


def _fid(
    datasets: Sequence[Dataset],
    labels: Sequence[str],
    files: dict[tuple[str, str, str], Path],
    judge: Judge,
) -> dict[tuple[str, str], float]:
    """FID of every system on every set that has true pictures, where it can run."""
    found: dict[tuple[str, str], float] = {}

    def cloud(paths: Iterable[Path]) -> torch.Tensor:
        return torch.stack([one for path in paths if (one := judge.look(pixels(path))) is not None])

    for dataset in datasets:
        truths = [pair.hr for pair in dataset.pairs if pair.hr is not None]
        if judge.inception is None or len(truths) < 2:
            continue
        true = cloud(truths)
        for label in labels:
            mine = [files[(dataset.name, label, pair.name)] for pair in dataset.pairs]
            found[(dataset.name, label)] = frechet(cloud(mine), true)
    return found
