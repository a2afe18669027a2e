"""Laws of crops and pairs."""

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.training.data import DataSettings, Pairs, _cut, build_crops, build_pairs, cached
from rcod.training.photos import Source, photos_in

SETTINGS = DataSettings(crop=64, crops=6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(folder / f"{i}.png")
    return photos_in(folder)


def test_any_number_of_workers_writes_the_same_bytes(photos: list[Source], tmp_path: Path):
    crops = [build_crops(photos, tmp_path / str(n), SETTINGS, workers=n) for n in (1, 2)]
    assert crops[0].read_bytes() == crops[1].read_bytes()
    pairs = [build_pairs(c, SETTINGS, workers=n + 1) for n, c in enumerate(crops)]
    assert pairs[0].read_bytes() == pairs[1].read_bytes()
    other = SETTINGS.model_copy(update={"mix": {"seesr": 1.0}})
    assert build_pairs(crops[0], other) != pairs[0]  # no stale cache is taken
    assert np.load(crops[0]).shape == (6, 3, 64, 64)
    assert np.load(pairs[0]).shape == (6, 3, 16, 16)


def test_windows_of_hr_and_lr_show_the_same_place(tmp_path: Path):
    hr = np.random.default_rng(0).integers(0, 255, (3, 3, 64, 64), np.uint8)
    hr = np.kron(hr[..., ::4, ::4], np.ones((4, 4), np.uint8))  # flat 4 x 4 blocks
    np.save(tmp_path / "crops.npy", hr)
    np.save(tmp_path / "pairs.npy", hr[..., ::4, ::4])
    data = Pairs(tmp_path / "crops.npy", tmp_path / "pairs.npy")
    batches = data.batches(16, 32, torch.Generator().manual_seed(0))
    for _ in range(3):  # every flip and turn comes by
        batch = next(batches)
        torch.testing.assert_close(batch.hr[..., ::4, ::4], batch.lr)
        assert batch.context.shape == (16, 3, 16, 16)
    np.save(tmp_path / "guides.npy", hr[[2, 0]])  # row 0 shows crop 2
    data.add_guides(tmp_path / "guides.npy", torch.tensor([2, 0]))
    batch = next(data.batches(16, 32, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(batch.guide, batch.hr)
    assert 12 <= batch.guided.sum() <= 16  # three quarters and whoever has one by chance
    clean = next(Pairs(tmp_path / "crops.npy", None).batches(2, 32, torch.Generator()))
    torch.testing.assert_close(clean.hr[..., ::4, ::4], clean.lr, rtol=0, atol=1 / 255)


def test_errors_say_what_came(tmp_path: Path):
    Image.new("RGB", (90, 63)).save(tmp_path / "small.png")
    with pytest.raises(RcodError, match=r"small\.png: must be 64 pixels a side at least, got 90 x"):
        _cut((tmp_path / "small.png", 1, SETTINGS, 0))
    assert len(_cut((tmp_path / "small.png", 0, SETTINGS, 0))) == 0  # nothing is asked of it
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(RcodError, match="must name a file, got an empty"):
        photos_in(tmp_path / "empty.txt")


class Here:
    """A pool whose work is done in this process, after whatever else has happened."""

    def __init__(self, before: Callable[[], object]) -> None:
        self.before = before

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *error: object) -> None:
        return

    def imap(self, work: Callable[[object], object], jobs: list[object]) -> Iterator[object]:
        self.before()
        return map(work, jobs)


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Sets what happens when the next pool starts to work; pools work in this process."""
    waiting: list[Callable[[], object]] = []

    def pool(workers: int) -> Here:
        return Here(lambda: waiting.pop()() if waiting else None)

    monkeypatch.setattr(multiprocessing.get_context("spawn"), "Pool", pool)
    return waiting.append


def test_two_runs_that_share_a_cache_leave_it_whole(
    photos: list[Source], tmp_path: Path, meanwhile: Meanwhile
):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    wanted = build_crops(photos, alone, SETTINGS)
    meanwhile(lambda: build_crops(photos, shared, SETTINGS))
    crops = build_crops(photos, shared, SETTINGS)
    assert crops.read_bytes() == wanted.read_bytes()
    meanwhile(lambda: build_pairs(crops, SETTINGS))
    pairs = build_pairs(crops, SETTINGS)
    assert pairs.read_bytes() == build_pairs(wanted, SETTINGS).read_bytes()
    assert {*shared.iterdir()} == {crops, pairs}


def test_photos_that_were_replaced_are_cut_anew(tmp_path: Path, meanwhile: Meanwhile):
    for number in (0, 1):
        Image.new("RGB", (80, 80), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "photos").mkdir()
    kept = tmp_path / "photos" / "photo.png"

    def cut() -> Path:
        return build_crops(photos_in(tmp_path / "photos"), tmp_path / "cache", SETTINGS)

    (tmp_path / "0.png").rename(kept)
    first = cut()
    assert cut() == first
    (tmp_path / "1.png").rename(kept)
    assert not np.array_equal(np.load(cut()), np.load(first))


def test_a_disk_without_room_is_told_before_the_work(
    photos: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(descriptor: int, first: int, size: int) -> None:
        assert size > 6 * 3 * 64 * 64
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RcodError, match=r"crops-.*writing failed \(No space left on device\)"):
        build_crops(photos, tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RcodError, match=r"writing failed \(Not a directory\)"):
        build_crops(photos, tmp_path / "file", SETTINGS)


def test_a_photo_that_cannot_be_read_is_passed_over_and_named(
    photos: list[Source], tmp_path: Path, meanwhile: Meanwhile
):
    content, told = Path(str(photos[0])).read_bytes(), list[str]()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])  # its header is whole
    (tmp_path / "no.png").write_bytes(b"no")
    (tmp_path / "whole.png").write_bytes(content)
    found = photos_in(tmp_path)
    crops = np.load(build_crops(found, tmp_path / "cache", SETTINGS, tell=told.append))
    assert sorted(Path(words.split(": ")[0]).name for words in told) == ["cut.png", "no.png"]
    assert all(crop.any() for crop in crops)
    assert len(np.unique(crops, axis=0)) < len(crops)
    with pytest.raises(RcodError, match="photos must be readable, and none is; see rcod data chec"):
        build_crops(found[:2], tmp_path / "cache", SETTINGS)


def test_room_is_taken_where_it_can_only_be_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def slow(file: int, start: int, size: int) -> None:  # as C libraries do it for such disks
        os.pread(file, 1, start + size - 1)

    monkeypatch.setattr("os.posix_fallocate", slow, raising=False)
    with cached(tmp_path / "a.npy", (2, 3)) as array:
        array[:] = 7
    assert np.load(tmp_path / "a.npy").tolist() == [[7] * 3] * 2
