"""Several processes share a folder and lose nothing of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from test_cli import ENVIRONMENT

from rcod.doors.terminal import STOPPED
from rcod.errors import RcodError
from rcod.networks.checkpoint import find_weights
from rcod.pixels.images import Photo, write
from rcod.using.batch import run
from rcod.using.jobs import Job
from rcod.using.orders import Networks, Options
from rcod.using.restore import Restorer
from rcod.using.workers import hands

needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the tiny model's weights are not in the package"
)


@needs_tiny
def test_several_processes_do_what_one_does(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        rng = torch.Generator().manual_seed(number)
        write(
            tmp_path / "in" / f"{number}.png", Photo(torch.rand(3, 16, 20 + number, generator=rng))
        )
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    networks = Networks("tiny", "cpu", "float32")
    options = Options("neutral")
    seen: list[int] = []
    with hands(networks, options, 2) as elsewhere:
        report = run(
            lambda: pytest.fail("nothing is done here"), [tmp_path / "in"], tmp_path / "many",
            options, lambda outcome, done, total: seen.append(done), elsewhere=elsewhere,
        )  # fmt: skip
    assert (report.summary["done"], report.summary["failed"], seen) == (5, 1, [*range(1, 7)])
    threads = torch.get_num_threads()
    torch.set_num_threads(max((os.cpu_count() or 1) // 2, 1))  # as each of two: sums depend on it
    run(lambda: Restorer.load(*networks), [tmp_path / "in"], tmp_path / "one", options)
    torch.set_num_threads(threads)
    for number in range(5):
        one, many = (tmp_path / place / f"{number}.png" for place in ("one", "many"))
        assert one.read_bytes() == many.read_bytes()
    again = run(lambda: pytest.fail("all is done"), [tmp_path / "in"], tmp_path / "many", options)
    assert again.summary["skipped"] == 5


@needs_tiny
@pytest.mark.skipif(sys.platform != "linux", reason="not checked here: processes aren't copied")
def test_processes_of_one_core_are_copies_that_have_loaded_everything(tmp_path: Path):
    weights = Path(shutil.copy(find_weights("tiny"), tmp_path / "tiny.safetensors"))
    write(tmp_path / "photo.png", Photo(torch.rand(3, 16, 16)))
    networks = Networks(str(weights), "cpu", "float32")
    with hands(networks, Options("neutral"), os.cpu_count() or 1) as elsewhere:
        weights.unlink()
        out = tmp_path / "out"
        report = run(lambda: pytest.fail("nothing is done here"), [tmp_path / "photo.png"], out,
                     Options("neutral"), elsewhere=elsewhere)  # fmt: skip
    assert not report.errors and (out / "photo.png").is_file()


@needs_tiny
def test_processes_share_the_memory(tmp_path: Path):
    write(tmp_path / "photo.png", Photo(torch.rand(3, 16, 16)))
    options = Options("neutral", memory=900_000_000)  # enough for one, and a quarter is not
    with hands(Networks("tiny", "cpu", "float32"), options, 4) as elsewhere:
        report = run(lambda: pytest.fail("nothing is done here"), [tmp_path / "photo.png"],
                     tmp_path / "out", options, elsewhere=elsewhere)  # fmt: skip
    assert "memory must be at least" in report.errors[0] and "got 0.23 GB" in report.errors[0]


def runs(process: int) -> bool:
    """Whether a process is there and hasn't ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def begun(tmp_path: Path, count: int, side: int) -> "subprocess.Popen[str]":
    """A call of two processes on photos of so many pixels a side, in a group of its own."""
    (tmp_path / "in").mkdir()
    for number in range(count):
        write(tmp_path / "in" / f"{number}.png", Photo(torch.rand(3, side, side)))
    command = [sys.executable, "-m", "rcod", "upscale", tmp_path / "in", "-o", tmp_path / "out",
               "--workers", "2", "--realism", "0", "--device", "cpu", "--dtype",
               "float32"]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT, start_new_session=True)  # fmt: skip


def found(tmp_path: Path, pattern: str, least: int = 0) -> int:
    """How many files there are among the results, once there are so many."""
    deadline = time.monotonic() + 100
    while (count := len(list((tmp_path / "out").glob(pattern)))) < least:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return count


@needs_tiny
@pytest.mark.skipif(sys.platform == "win32", reason="no signals to groups of processes there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_finishes_what_is_in_hand(tmp_path: Path, number: signal.Signals):
    process = begun(tmp_path, 12, 160)
    found(tmp_path, "*.png", 1)
    found(tmp_path, ".rcod-*.part", 1)
    before = found(tmp_path, "*.png")
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (130, STOPPED + "\n")
    assert before + 1 <= found(tmp_path, "*.png") <= before + 2
    assert found(tmp_path, ".rcod-*") == 0


@needs_tiny
@pytest.mark.skipif(sys.platform == "win32", reason="no signals to other processes there")
def test_the_second_ctrl_c_ends_all_processes_at_once(tmp_path: Path):
    process = begun(tmp_path, 2, 1200)  # each takes a core half a minute, and more
    found(tmp_path, ".rcod-*.part", 2)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, STOPPED + "\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
    assert found(tmp_path, "*.png") == 0


@needs_tiny
@pytest.mark.skipif(sys.platform != "linux", reason="not checked here: processes aren't copied")
@pytest.mark.parametrize("asked", [False, True])
def test_where_one_process_is_killed_all_end(tmp_path: Path, asked: bool):
    networks = Networks("tiny", "cpu", "float32")
    write(tmp_path / "photo.png", Photo(torch.rand(3, 16, 16)))
    job = Job(tmp_path / "photo.png", (tmp_path / "result.png",))
    before = set(active_children())
    words = pytest.raises(RcodError, match="was killed") if asked else nullcontext()
    with words, hands(networks, Options("neutral"), os.cpu_count() or 1) as elsewhere:
        elsewhere.begin(job).result()
        workers = set(active_children()) - before
        min(workers, key=lambda one: one.pid or 0).kill()
        time.sleep(0.3)
        if asked:
            elsewhere.begin(job).result()
    assert workers and not set(active_children()) & workers


@needs_tiny
@pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").is_file(),
    reason="not checked here: the children of a process can't be asked for",
)
def test_processes_end_with_the_one_that_was_called(tmp_path: Path):
    process = begun(tmp_path, 40, 64)
    assert process.stdout is not None
    process.stdout.readline()  # the first picture is done
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    process.kill()
    deadline = time.monotonic() + 10
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [child for child in children if runs(child)]
    for child in left:
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
    process.communicate()
    assert len(children) >= 2 and not left


@needs_tiny
def test_standard_input_is_read_by_the_process_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "photo.png", Photo(torch.rand(3, 16, 16)))
    with (
        (tmp_path / "photo.png").open() as given,
        hands(Networks("tiny", "cpu", "float32"), Options("neutral"), 1) as elsewhere,
    ):
        monkeypatch.setattr("sys.stdin", given)
        report = run(lambda: pytest.fail("nothing is done here"), [Path("-")], tmp_path / "out",
                     Options("neutral"), elsewhere=elsewhere)  # fmt: skip
    assert not report.errors and (tmp_path / "out" / "stdin.png").is_file()


def test_no_processes_are_too_few():
    with (
        pytest.raises(RcodError, match="--workers must be at least 1"),
        hands(Networks("tiny", "cpu", "float32"), Options(), 0),
    ):
        pass
