"""Laws of where photos come from, and of samples by number."""

import http.server
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.training.photos import Source, area, check, fingerprint, photos_in, read_rgb
from rcod.training.presets import settings_named
from rcod.training.stream import Dice, Numbers, Samples, lots

SIDE = 64


def picture(seed: int, size: tuple[int, int] = (100, 90)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (40, 45, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(3):
        picture(i).save(place / f"{i}.png")
    return place


def test_photos_for_training_are_read_as_those_to_enlarge(tmp_path: Path):
    ramp = np.linspace(0, 65535, 96 * 64).astype(np.uint16).reshape(64, 96)
    file = tmp_path / "white-is-0.tif"
    Image.fromarray(ramp).save(file, tiffinfo={262: 0})
    assert area(file) == 96 * 64
    shown = np.asarray(read_rgb(file))
    assert shown[0, 0, 0] == 255 and shown[-1, -1, 0] == 0
    pytest.importorskip("pi_heif", reason="not checked here: pip install 'rcod[heic]'")
    file = Path(__file__).parent / "two.heic"
    assert read_rgb(file).width * read_rgb(file).height == area(file)


def pack(folder: Path, shard: Path) -> Path:
    with tarfile.open(shard, "w") as tar:
        for path in sorted(folder.glob("*.png")):
            tar.add(path, path.name)
            info = tarfile.TarInfo(f"{path.stem}.txt")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"a cat"))
    return shard


def same(one: list[Source], other: list[Source]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(np.asarray(read_rgb(a)), np.asarray(read_rgb(b))) for a, b in pairs)


def test_folder_list_and_shards_hold_the_same_photos(folder: Path, tmp_path: Path):
    photos = photos_in(folder)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder}/0.png\nphotos/1.png\n\n{folder}/2.png\n")  # also beside the list
    assert same(photos, photos_in(listed))
    for i in range(2):
        pack(folder, tmp_path / f"shard-{i:03d}.tar")
    sharded = photos_in(str(tmp_path / "shard-{000..001}.tar"), tmp_path / "cache")
    assert same([*photos, *photos], sharded)
    assert photos_in(str(tmp_path / "shard-{000..001}.tar"), tmp_path / "cache") == sharded
    listed.write_text(f"{tmp_path}/shard-000.tar\n")
    assert same(photos, photos_in(listed))


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A server that can give a part of a file."""

    asked: ClassVar[list[str]] = []
    directory_: ClassVar[str] = ""
    breaks: ClassVar[bool] = False  # whether parts end before their time

    def do_GET(self) -> None:
        content = (Path(self.directory_) / self.path.lstrip("/")).read_bytes()
        wanted = self.headers.get("Range")
        self.asked.append(wanted or "all")
        if wanted is not None:
            first, last = map(int, re.findall(r"\d+", wanted))
            content = content[first : last + 1]
        self.send_response(200 if wanted is None else 206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if wanted and self.breaks else content)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    Ranges.directory_ = str(tmp_path)
    Ranges.asked.clear()
    Ranges.breaks = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_far_shard_is_read_in_parts(folder: Path, tmp_path: Path, served: str):
    pack(folder, tmp_path / "a.tar")
    far = photos_in(f"{served}/a.tar", tmp_path / "cache")
    assert same(photos_in(folder), far)
    assert Ranges.asked[0] == "all" and len(Ranges.asked) == 4
    assert same(photos_in(folder), photos_in(f"{served}/a.tar", tmp_path / "cache"))
    assert Ranges.asked.count("all") == 1  # the index is remembered
    Ranges.breaks = True
    with pytest.raises(RcodError, match="must come whole, got: IncompleteRead"):
        read_rgb(far[0])


def test_a_fingerprint_is_of_what_lies_there(folder: Path, tmp_path: Path):
    shard = pack(folder, tmp_path / "a.tar")
    linked = tmp_path / "link"
    linked.symlink_to(folder)
    before = fingerprint(photos_in(folder)), fingerprint(photos_in(shard))
    assert fingerprint(photos_in(linked)) == before[0]
    picture(7).save(folder / "1.png")
    os.utime(pack(folder, shard), ns=(0, 0))
    after = fingerprint(photos_in(folder)), fingerprint(photos_in(shard))
    assert before[0] != after[0] and before[1] != after[1]
    photos = photos_in(folder)
    (folder / "1.png").unlink()
    assert fingerprint(photos) != after[0]


def test_errors_say_what_came(tmp_path: Path):
    with pytest.raises(RcodError, match="a shard must be a tar file or its URL, got"):
        photos_in(str(tmp_path / "none.tar"))
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    with pytest.raises(RcodError, match="must be a tar file, and cannot be read"):
        photos_in(str(tmp_path / "bad.tar"))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(RcodError, match="must hold pictures, and holds none"):
        photos_in(str(tmp_path / "empty.tar"))
    picture(0).save(tmp_path / "photo.png")
    with pytest.raises(RcodError, match=r"a folder or a list of paths, got .*photo\.png, which is"):
        photos_in(tmp_path / "photo.png")
    pack(tmp_path, tmp_path / "a.tar")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.tar#photo.png\n{tmp_path}/a.tar#other.png\n")
    with pytest.raises(RcodError, match=r"tar#other\.png must be a picture in its shard, and isn"):
        photos_in(tmp_path / "list.txt")


def test_check_finds_what_training_should_do_without(
    folder: Path, tmp_path: Path, here: Callable[..., CompletedProcess[str]]
):
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    picture(5, (50, 40)).save(folder / "tiny.png")
    picture(1).save(folder / "zwin.jpg", quality=98)
    picture(6, (100, 90)).resize((400, 360), Image.Resampling.BICUBIC).save(folder / "soft.png")
    faults = {Path(f.photo).name: f.fault for f in check(photos_in(folder), SIDE)}
    assert faults == {
        "broken.png": "unreadable", "tiny.png": "small", "zwin.jpg": "duplicate",
        "soft.png": "soft",
    }  # fmt: skip
    fit = tmp_path / "fit.txt"
    done = here("data", "check", folder, "--side", SIDE, "-o", fit)
    assert done.returncode == 1
    assert "7 photos, 3 fit, 1 unreadable, 1 soft, 1 small, 1 duplicate" in done.stdout
    assert [path.name for path in photos_in(fit) if isinstance(path, Path)] == [
        "0.png", "1.png", "2.png",
    ]  # fmt: skip
    assert here("data", "check", fit, "--side", SIDE).returncode == 0
    shard = pack(folder, tmp_path / "a.tar")
    assert here("data", "check", shard, "--side", SIDE, "-o", fit).returncode == 1
    (first, *_) = found = photos_in(fit)
    assert str(first) == f"{shard}#0.png"
    assert same(found, photos_in(folder)[:3])


def stream(folder: Path, first: int, batch: int, workers: int, rank: int = 0, size: int = 1):
    samples = Samples(photos_in(folder), SIDE, settings_named("seesr"), seed=4)
    return lots(samples, Numbers(first, batch, rank, size), workers)


def test_samples_are_the_same_for_any_number_of_workers_and_processes(folder: Path):
    alone = [next(one) for one in [stream(folder, 0, 4, 0)] for _ in range(2)]
    helped = [next(one) for one in [stream(folder, 0, 4, 2)] for _ in range(2)]
    for mine, theirs in zip(alone, helped, strict=True):
        assert torch.equal(mine.hr, theirs.hr) and torch.equal(mine.lr, theirs.lr)
    halves = [next(stream(folder, 0, 2, 0, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([half.lr for half in halves]), alone[0].lr)
    later = next(stream(folder, 4, 4, 0))
    assert torch.equal(later.lr, alone[1].lr)
    assert {*alone[0].photos[:3]} == {0, 1, 2}  # an epoch shows every photo once


def test_workers_outlive_a_signal_that_goes_to_all_of_a_run(folder: Path):
    lots_ = stream(folder, 0, 2, 2)
    next(lots_)
    for worker in multiprocessing.active_children():
        for number in (signal.SIGTERM, signal.SIGINT):
            assert worker.pid is not None
            os.kill(worker.pid, number)
    time.sleep(0.2)
    assert [next(lots_).numbers[0] for _ in range(12)] == list(range(2, 26, 2))


def test_dice_belong_to_samples():
    cpu, like = torch.device("cpu"), torch.zeros(2, 3)
    both, second = Dice(1, [5, 6], cpu), Dice(1, [6], cpu)
    assert torch.equal(both.normal(like)[1:], second.normal(like[:1]))
    drawn = torch.cat([Dice(1, [n], cpu).between(20, 23) for n in range(100)])
    assert set(drawn.tolist()) == {20, 21, 22}


def test_a_corrupt_picture_is_passed_over_and_named(folder: Path, tmp_path: Path):
    (folder / "1.png").write_bytes(b"not a picture")
    lot = next(stream(folder, 0, 3, 0))
    assert 1 not in lot.photos
    assert any("1.png: must be a" in words for words in lot.lost)
    for path in folder.glob("*.png"):
        path.write_bytes(b"no")
    for workers in (0, 1):
        with pytest.raises(RcodError, match=r"^20 photos in a row were unfit"):
            next(stream(folder, 0, 3, workers))


@pytest.mark.parametrize("end", ["raise", "sys.exit(3)"])
def test_workers_keep_no_process_that_fails(folder: Path, end: str):
    text = f"""
import sys
from pathlib import Path
from rcod.training.stream import Numbers, Samples, lots
photos = sorted(Path({str(folder)!r}).iterdir())
if __name__ == "__main__":
    stream = lots(Samples(photos, {SIDE}, None, 0), Numbers(0, 2, 0, 1), 2)
    next(stream)
    try:
        raise MemoryError(stream)  # whose traceback holds the stream, and so its workers
    except MemoryError:
        {end}
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == (1 if end == "raise" else 3), done.stderr
