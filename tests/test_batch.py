"""Folders: nothing lost, nothing done twice, nothing half done."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest
import torch
from filelock import FileLock
from PIL import Image
from test_cli import ENVIRONMENT

from rcod.errors import RcodError
from rcod.pixels.images import Photo, read, write
from rcod.pixels.placing import own_prefix, sweep
from rcod.pixels.resample import target_within
from rcod.using.batch import Elsewhere, pipe, rehearse, run, take
from rcod.using.jobs import Job, make_folder
from rcod.using.ledger import Entry, Ledger, print_of
from rcod.using.orders import Options, Outcome
from rcod.using.restore import Restorer
from rcod.using.sources import is_several

OPTIONS = Options(realism=0.0, scale=2.0)
ENTRY: Entry = {"source": "", "print": "", "bytes": 0, "changed": 0, "level": "", "timestep": None,
                "metric": None, "width": 4, "height": 4, "seconds": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos at several depths, and what is no photo."""
    photos = tmp_path / "photos"
    (photos / "deep" / "deeper").mkdir(parents=True)
    names = ("a.png", "b.JPG", "deep/a.png", "deep/deeper/c.webp")
    for i, name in enumerate(names):
        picture = Image.radial_gradient("L").resize((20 + i, 16)).convert("RGB")
        picture.save(photos / name, "JPEG" if name.endswith("JPG") else None)
    (photos / "notes.txt").write_text("no photo")
    (photos / "loop").symlink_to(photos)
    return photos


def results(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*")) if path.is_file() and path.name != "report.json"
    }  # fmt: skip


def test_a_folder_is_mirrored_and_its_report_says_what_was_done(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS)
    assert report.errors == []
    names = ["a.png", "b.JPG", "deep/a.png", "deep/deeper/c.webp"]
    assert list(results(tmp_path / "out")) == names
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sorted(told["pictures"]) == names and told["failed"] == []
    assert told["summary"]["done"] == 4
    entry = told["pictures"]["b.JPG"]
    least = restorer.system.groups.timesteps[-1]
    assert (entry["level"], entry["timestep"], entry["width"]) == ("fidelity", least, 42)


def never() -> Restorer:
    raise AssertionError("nothing was to be done")


def test_another_photo_of_the_same_name_size_and_date_is_another(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f.png").write_bytes(b"same")
        os.utime(tmp_path / folder / "f.png", (1, 1))
    assert print_of(tmp_path / "a" / "f.png", "") != print_of(tmp_path / "b" / "f.png", "")


def test_what_is_done_is_left_alone_until_something_changes(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    out = tmp_path / "out"
    first = run(lambda: restorer, [folder], out, OPTIONS)
    again = run(never, [folder], out, OPTIONS)
    assert again.summary["skipped"] == 4 and len(first.outcomes) == 4

    def redone(options: Options = OPTIONS) -> list[str]:
        report = run(lambda: restorer, [folder], out, options)
        return [o.source.name for o in report.outcomes if not o.skipped]

    (out / "a.png").unlink()  # a result is gone
    assert redone() == ["a.png"]
    os.utime(folder / "b.JPG", (1, 1))  # a photo has changed
    assert redone() == ["b.JPG"]
    write(out / "deep" / "a.png", Photo(torch.zeros(3, 4, 4)))  # a result has changed
    assert redone() == ["a.png"]
    assert len(redone(replace(OPTIONS, realism=1.0))) == 4
    assert redone(replace(OPTIONS, realism=1.0)) == []
    assert len(redone(replace(OPTIONS, realism=1.0, skip_existing=False))) == 4


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "webp", "avif"])
def test_a_result_that_somebody_changed_is_kept(tmp_path: Path, restorer: Restorer, kind: str):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    result, options = out / f"a.{kind}", replace(OPTIONS, format=kind)
    Image.radial_gradient("L").resize((20, 16)).convert("RGB").save(photo)

    def errors(options: Options) -> list[str]:
        return run(lambda: restorer, [photo], out, options).errors

    assert errors(options) == [] == errors(options)  # our own is replaced
    with Image.open(result) as made:
        made.load()
    made.transpose(Image.Transpose.ROTATE_180).save(result, exif=made.getexif())  # as editors do
    changed = result.read_bytes()
    (error,) = errors(options)
    assert f"{result} exists already and is not a result of rcod, or was changed" in error
    assert result.read_bytes() == changed
    assert errors(replace(options, overwrite=True)) == [] and result.read_bytes() != changed


def test_a_photo_is_known_by_another_spelling_of_its_name(tmp_path: Path, restorer: Restorer):
    photo, other = tmp_path / "IMG.JPG", tmp_path / "IMG.jpg"
    Image.radial_gradient("L").resize((20, 16)).convert("RGB").save(photo, "JPEG")
    other.hardlink_to(photo)  # one file by two names, as on disks that ignore case
    before = photo.read_bytes()
    options = replace(OPTIONS, format="jpg", overwrite=True)
    (error,) = run(lambda: restorer, [photo], tmp_path, options).errors
    assert "a photo to enlarge is never overwritten" in error and photo.read_bytes() == before
    (another := tmp_path / "IMG.bmp").write_bytes(before)  # whose result would take that name
    errors = run(lambda: restorer, [another, photo], tmp_path, options).errors
    assert len(errors) == 2 and all("is never overwritten" in error for error in errors)


def test_a_file_that_comes_while_the_work_goes_on_is_kept(tmp_path: Path, restorer: Restorer):
    photo, result = tmp_path / "a.png", tmp_path / "out" / "a.png"
    Image.new("RGB", (8, 8)).save(photo)

    def step(share: float) -> None:
        result.write_text("mine")

    report = run(lambda: restorer, [photo], result.parent, OPTIONS, step=step)
    assert "exists already" in report.errors[0] and result.read_text() == "mine"
    assert list(result.parent.iterdir()) == [result]


def test_results_that_are_moved_away_at_once_end_nothing(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    def work(job: Job) -> Outcome:
        outcome = take(lambda: restorer, job, OPTIONS)
        job.targets[0].unlink()
        return outcome

    with ThreadPoolExecutor(1) as pool:
        report = run(never, [folder], tmp_path / "out", OPTIONS,
                     elsewhere=Elsewhere(lambda job: pool.submit(work, job), 1))  # fmt: skip
    assert report.summary["done"] == 4
    assert json.loads((tmp_path / "out" / "report.json").read_text())["pictures"] == {}


def test_what_a_folder_cannot_give_is_said(tmp_path: Path, folder: Path, restorer: Restorer):
    (folder / "gone.jpg").symlink_to("nowhere")
    Image.new("RGB", (1, 40_000)).save(folder / "tall.jpg")
    report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS)
    assert len(report.outcomes) == 6 and len(report.errors) == 2
    assert f"{folder / 'gone.jpg'}: must be a file, got a device, or a link" in report.errors[0]
    assert report.errors[1].startswith(f"{folder / 'tall.jpg'}: a JPEG picture must be at most")
    before = sorted(folder.rglob("*"))
    with pytest.raises(RcodError, match="results must lie in another folder than the photos"):
        run(never, [folder], folder / "deep" / "..", OPTIONS)
    assert sorted(folder.rglob("*")) == before


def test_a_rehearsal_writes_nothing(tmp_path: Path, folder: Path):
    done, lost = rehearse([folder, tmp_path / "none"], tmp_path / "out", OPTIONS)
    assert len(done) == 4 and not any(is_there for _, is_there in done)
    assert "no such file or folder" in lost[0].error
    assert not (tmp_path / "out").exists()


def test_patterns_and_results_inside_the_folder(tmp_path: Path, folder: Path, restorer: Restorer):
    out = folder / "out"
    run(lambda: restorer, [folder / "**" / "*.png"], out, OPTIONS)
    assert list(results(out)) == ["a.png", "deep/a.png"]
    again = run(never, [folder / "**" / "*.png"], out, OPTIONS)  # its own results are no photos
    assert again.summary["skipped"] == 2 == len(again.outcomes)
    report = run(lambda: restorer, [folder], out, OPTIONS)
    assert len(report.outcomes) == 4
    (odd := folder / "a[1].png").write_bytes((folder / "a.png").read_bytes())
    assert not is_several([odd])
    nothing = run(never, [folder / "*.tif"], out, OPTIONS)
    assert "the pattern must match at least one file" in nothing.errors[0]


def test_results_of_earlier_calls_and_what_lies_beside_files_are_no_photos(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    (folder / "._a.png").write_bytes(b"\0\5\x16\7 of macOS")
    (folder / ".rcod-a.png").write_bytes(b"")
    first = run(lambda: restorer, [folder], folder / "fidelity", OPTIONS)
    assert len(first.outcomes) == 4 and first.errors == []
    for photos, found in ((folder, 4), (folder / "**" / "*.png", 2)):
        done, lost = rehearse([photos], folder / "realism", OPTIONS)
        assert len(done) == found and lost == []
    done, _ = rehearse([folder / "fidelity"], tmp_path / "out", OPTIONS)  # asked for by name
    assert len(done) == 4


def test_a_result_is_not_replaced_by_another_photos(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    out, other = tmp_path / "out", tmp_path / "other"
    run(lambda: restorer, [folder / "*.png"], out, OPTIONS)
    before = results(out)
    other.mkdir()
    Image.new("RGB", (12, 10)).save(other / "a.png")
    for photos in (other, other / "a.png"):
        (error,) = run(never, [photos], out, OPTIONS).errors
        assert error.startswith(
            f"{other / 'a.png'}: {out / 'a.png'} was made from {folder / 'a.png'}; "
        )
    assert results(out) == before
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert run(lambda: restorer, [link / "*.png"], out, OPTIONS).errors == []  # the same photos
    assert run(lambda: restorer, [other], out, replace(OPTIONS, overwrite=True)).errors == []
    assert results(out)["a.png"] != before["a.png"]


def test_a_foreign_report_is_not_overwritten(tmp_path: Path, folder: Path, restorer: Restorer):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text('{"mine": 1}')
    with pytest.raises(RcodError, match="isn't rcod's has it; move it"):
        run(lambda: restorer, [folder], tmp_path / "out", OPTIONS)


def test_calls_into_one_folder_keep_each_others_entries(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    out = tmp_path / "out"
    out.mkdir()
    other = FileLock(out / ".rcod-report.lock", thread_local=False)
    other.acquire()  # a call is writing just now
    Timer(0.3, other.release).start()
    early = Ledger(out)  # a call that began before, and ends after the other
    write(out / "early.png", Photo(torch.zeros(3, 4, 4)))
    run(lambda: restorer, [folder], out, OPTIONS)
    early.add(out / "early.png", ENTRY)
    assert early.save({}) is None
    told = json.loads((out / "report.json").read_text())["pictures"]
    assert sorted(told) == ["a.png", "b.JPG", "deep/a.png", "deep/deeper/c.webp", "early.png"]
    os.utime(folder / "a.png", (1, 1))
    run(lambda: restorer, [folder / "a.png", folder / "b.JPG"], out, OPTIONS)  # newer than early's
    newer = json.loads((out / "report.json").read_text())["pictures"]["a.png"]
    assert early.save({}) is None
    told = json.loads((out / "report.json").read_text())["pictures"]
    assert told["a.png"] == newer and "early.png" in told
    assert not list(out.glob(".rcod-*"))


def test_a_killed_call_keeps_nobody_from_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rcod.using.ledger.PATIENCE", -1)  # for ever
    holds = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); input()"
    command = [sys.executable, "-c", holds, str(tmp_path / ".rcod-report.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        other.kill()
    assert Ledger(tmp_path).save({}) is None
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_call_that_hangs_keeps_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rcod.using.ledger.PATIENCE", 0.1)
    with FileLock(tmp_path / ".rcod-report.lock"):
        assert Ledger(tmp_path).save({}) is None
        names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".rcod-report.lock", "report.json"]  # what is the other's stays


def test_calls_take_turns_at_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".rcod-report.lock").touch()  # of a killed call
    inside: list[int] = []

    def read_slowly(_: Path) -> dict[str, Entry]:
        inside.append(1)
        alone = len(inside) == 1
        time.sleep(0.01)
        inside.pop()
        assert alone, "two calls are in the report at once"
        return {}

    ledgers = [Ledger(tmp_path) for _ in range(8)]
    monkeypatch.setattr("rcod.using.ledger._read", read_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: one.save({}), ledgers * 5)) == [None] * 40
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_photo_from_standard_input_keeps_its_format(
    tmp_path: Path, folder: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").touch()  # a file of that name is another thing
    with (folder / "b.JPG").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        ((job, _),), _ = rehearse([Path("-")], tmp_path / "out", OPTIONS)
    assert job.targets == (tmp_path / "out" / "stdin.jpg",) and print_of(job.source, "") == ""
    with (folder / "b.JPG").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        run(lambda: restorer, [Path("-")], tmp_path / "out", OPTIONS)
    run(lambda: restorer, [folder / "b.JPG"], tmp_path / "out", OPTIONS)
    stdin, named = (tmp_path / "out" / name for name in ("stdin.jpg", "b.JPG"))
    assert stdin.read_bytes() == named.read_bytes()


def test_a_link_in_a_folder_is_another_name_of_its_photo(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    (folder / "0.png").symlink_to("b.JPG")
    report = run(lambda: restorer, [folder, folder / "b.JPG"], tmp_path / "out", OPTIONS)
    assert report.errors == [] and report.summary["done"] == 4
    assert (tmp_path / "out" / "b.JPG").exists() and not (tmp_path / "out" / "0.png").exists()


def test_a_photo_keeps_its_format_whatever_its_name(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    names = [tmp_path / "a.jfif", tmp_path / "b.JPE", tmp_path / "noext"]
    for name in names:
        shutil.copy(folder / "b.JPG", name)
    assert run(lambda: restorer, names, tmp_path / "out", OPTIONS).errors == []
    assert sorted(results(tmp_path / "out")) == ["a.jpg", "b.jpg", "noext.jpg"]


def test_names_may_be_anything(tmp_path: Path, restorer: Restorer):
    names = [b"new\nline.png", b"quo'te\".png", b"\xff\xfe.png", b"x" * 251 + b".png", b"-.png"]
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "one.png")
    for name in names:
        (folder / os.fsdecode(name)).write_bytes((tmp_path / "one.png").read_bytes())
    report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS)
    assert report.errors == []
    assert sorted(os.fsencode(p) for p in results(tmp_path / "out")) == sorted(names)
    assert run(never, [folder], tmp_path / "out", OPTIONS).summary["skipped"] == 5
    long = replace(OPTIONS, realism="all")
    (error,) = run(lambda: restorer, [folder / ("x" * 251 + ".png")], tmp_path / "all", long).errors
    assert "File name too long" in error


def test_stopping_leaves_the_others(tmp_path: Path, folder: Path, restorer: Restorer):
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS, stop=stop)
    assert report.stopped and len(results(tmp_path / "out")) == 2
    assert not run(lambda: restorer, [folder], tmp_path / "out", OPTIONS).stopped


def test_after_a_stop_others_finish_what_they_have_in_hand_and_begin_nothing(
    tmp_path: Path, folder: Path
):
    for number in range(20):
        shutil.copy(folder / "a.png", folder / f"{number}.png")
    stopped = threading.Event()
    begun: list[Future[Outcome]] = []

    def begin(job: Job) -> Future[Outcome]:
        assert not stopped.is_set() and sum(not one.done() for one in begun) < 2
        begun.append(future := pool.submit(work, job, len(begun)))
        return future

    def work(job: Job, number: int) -> Outcome:
        if number == 5:
            stopped.set()
        time.sleep(0.05 if number % 3 else 0.2)  # some are done before those that came first
        return Outcome(job.source)

    with ThreadPoolExecutor(20) as pool:
        report = run(never, [folder], tmp_path / "out", OPTIONS, stop=stopped.is_set,
                     elsewhere=Elsewhere(begin, 2))  # fmt: skip
    assert report.stopped and 6 <= len(report.outcomes) == len(begun) <= 7
    assert [one.source for one in report.outcomes] == [one.result().source for one in begun]


def test_processes_that_end_with_a_stop_are_no_error(tmp_path: Path, folder: Path):
    """A signal to a whole group of processes reaches all of them."""
    stopped = threading.Event()

    def work(job: Job) -> Outcome:
        stopped.set()
        raise BrokenExecutor

    with ThreadPoolExecutor(1) as pool:
        report = run(never, [folder], tmp_path / "out", OPTIONS, stop=stopped.is_set,
                     elsewhere=Elsewhere(lambda job: pool.submit(work, job), 1))  # fmt: skip
    assert report.stopped and report.outcomes == ()


def test_a_photo_that_is_saved_anew_after_it_was_read_ahead_is_read_anew(
    tmp_path: Path, folder: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    photos = [Path(shutil.copy(folder / "a.png", tmp_path / f"{i}.png")) for i in range(2)]
    was_read = threading.Event()

    def reading(source: Path) -> Photo:
        photo = read(source)
        if source == photos[1]:
            was_read.set()
        return photo

    def load() -> Restorer:
        assert was_read.wait(10)
        Image.new("RGB", (30, 10)).save(photos[1])
        return restorer

    monkeypatch.setattr("rcod.using.batch.read", reading)
    assert run(load, photos, tmp_path / "out", OPTIONS).errors == []
    with Image.open(tmp_path / "out" / "1.png") as found:
        assert found.size == (60, 20)
    assert run(never, photos, tmp_path / "out", OPTIONS).summary["skipped"] == 2


def test_no_photo_is_read_ahead_where_memory_is_to_be_kept(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    """A photo that is gone when its turn comes was not read before."""
    for memory, done in ((None, 2), (10**10, 1)):
        photos = [Path(shutil.copy(folder / "a.png", tmp_path / f"{i}.png")) for i in range(2)]

        def load() -> Restorer:
            time.sleep(0.3)
            photos[1].unlink()  # noqa: B023
            return restorer

        report = run(load, photos, tmp_path / str(done), replace(OPTIONS, memory=memory))
        assert report.summary["done"] == done


def test_command_line_python_folder_and_pipe_give_the_same_bytes(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    source = folder / "a.png"
    report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS)
    assert report.errors == []
    run(lambda: restorer, [source], tmp_path / "one", OPTIONS)
    write(tmp_path / "python.png", restorer(source, 0.0, scale=2.0).photo)
    with (tmp_path / "pipe.png").open("wb") as file:
        pipe(lambda: restorer, source, file, OPTIONS)
    command = [sys.executable, "-m", "rcod", "upscale", "-", "-o", "-", "--realism", "fidelity",
               "--scale", "2", "--device", "cpu"]  # fmt: skip
    with source.open("rb") as given:
        done = subprocess.run(command, stdin=given, capture_output=True, env=ENVIRONMENT)
    expected = (tmp_path / "out" / "a.png").read_bytes()
    assert (tmp_path / "one" / "a.png").read_bytes() == expected
    assert (tmp_path / "python.png").read_bytes() == expected
    assert (tmp_path / "pipe.png").read_bytes() == expected
    assert done.stdout == expected, done.stderr
    assert b"24" in done.stderr or b"40 x 32" in done.stderr


def test_ten_photos_come_out_alike_through_every_door(tmp_path: Path, restorer: Restorer):
    (photos := tmp_path / "photos").mkdir()
    otter = Image.open(Path(__file__).parents[1] / "examples" / "otter.jpg")
    for i, kind in enumerate(["png", "jpg", "webp", "tif", "avif"] * 2):
        cut = otter.crop((9 * i, 5 * i, 9 * i + 25 + i, 5 * i + 40 - i))
        (cut if i < 5 else cut.convert("L")).save(photos / f"{i}.{kind}")
    run(lambda: restorer, [photos], tmp_path / "folder", Options())
    command = [sys.executable, "-m", "rcod", "upscale", *sorted(photos.iterdir()), "-o",
               tmp_path / "command", "--device", "cpu"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    (tmp_path / "python").mkdir()
    for photo in photos.iterdir():
        write(tmp_path / "python" / photo.name, restorer(photo).photo)
    assert len(results(tmp_path / "python")) == 10
    for door in ("folder", "command"):
        assert results(tmp_path / door) == results(tmp_path / "python")


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"scale": 3.0}, (60, 48)), ({"width": 50}, (50, 40)), ({"height": 40}, (50, 40)),
        ({"width": 100, "height": 40}, (50, 40)), ({"max_side": 30}, (30, 24)),
        ({"scale": 1.0}, (20, 16)), ({"max_side": 10}, (10, 8)),
    ],
)  # fmt: skip
def test_a_result_measures_what_was_asked_for(
    tmp_path: Path, folder: Path, restorer: Restorer, asked: dict, size: tuple[int, int]
):
    options = Options(realism=0.0, **asked)
    run(lambda: restorer, [folder / "a.png"], tmp_path / "out", options)
    with Image.open(tmp_path / "out" / "a.png") as found:
        assert found.size == size


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, folder: Path):
    options = Options(realism=0.0, width=4000)
    (error,) = run(never, [folder / "a.png"], tmp_path / "out", options).errors
    assert "a.png: the result must be 0.0625 to 8 times the photo's size" in error


def test_a_given_size_is_as_large_as_a_factor_may_be_and_no_larger():
    assert target_within((100, 33), (800, 264)) == (800, 264)
    with pytest.raises(RcodError, match=r"0\.0625 to 8 times the photo's size, got 265 x 801"):
        target_within((100, 33), (801, 265))


def test_tags_are_kept_or_stripped(tmp_path: Path, restorer: Restorer):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", exif=exif, dpi=(300, 300))
    for strip, maker in (("nothing", "Maker"), ("all", None)):
        options = replace(OPTIONS, strip=strip)
        run(lambda: restorer, [tmp_path / "a.png"], tmp_path / strip, options)
        with Image.open(tmp_path / strip / "a.png") as found:
            assert found.getexif().get(0x010F) == maker
            assert ("dpi" in found.info) == (maker is not None)


def test_tags_that_a_format_cannot_hold_are_told(tmp_path: Path, restorer: Restorer):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = bytes(70_000)
    write(tmp_path / "a.png", Photo(torch.rand(3, 9, 9), exif=exif.tobytes(), xmp=b"x" * 70_000))
    told = ("has more EXIF than a JPEG holds; the maker's note is left out",
            "has more XMP than a JPEG holds; it is left out")  # fmt: skip
    jpeg = replace(OPTIONS, format="jpg")
    (outcome,) = run(lambda: restorer, [tmp_path / "a.png"], tmp_path / "out", jpeg).outcomes
    assert outcome.notes == told
    assert pipe(lambda: restorer, tmp_path / "a.png", io.BytesIO(), jpeg).notes == told
    assert pipe(lambda: restorer, tmp_path / "a.png", io.BytesIO(), OPTIONS).notes == ()


def test_a_map_says_where(tmp_path: Path, folder: Path, restorer: Restorer):
    mask = Image.new("L", (20, 16), 0)
    options = replace(OPTIONS, scale=4.0)
    for shade, level in ((0, 0.0), (255, 1.0)):
        mask.paste(shade, (0, 0, 20, 16))
        mask.save(tmp_path / "mask.png")
        mapped = replace(options, realism_map=tmp_path / "mask.png")
        run(lambda: restorer, [folder / "a.png"], tmp_path / "mapped", mapped)
        run(lambda: restorer, [folder / "a.png"], tmp_path / "plain",
            replace(options, realism=level))  # fmt: skip
        one, other = (read(tmp_path / n / "a.png").pixels for n in ("mapped", "plain"))
        torch.testing.assert_close(one, other, rtol=0, atol=1.01 / 255)

    layer = Image.new("LA", (20, 16), (255, 0))  # nothing is painted on it
    layer.save(tmp_path / "mask.png")
    nowhere = replace(options, realism_map=tmp_path / "mask.png").mask()
    assert nowhere is not None and nowhere.abs().max() == 0

    mask.resize((20, 8)).save(tmp_path / "mask.png")
    wrong = replace(options, realism_map=tmp_path / "mask.png")
    (error,) = run(lambda: restorer, [folder / "a.png"], tmp_path / "mapped", wrong).errors
    assert "a.png: the realism map must have the photo's shape, got 20 x 8" in error


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files there")
def test_a_disk_that_fills_up_is_one_sentence_a_picture(
    tmp_path: Path, folder: Path, restorer: Restorer
):
    import resource

    told: list[str | None] = []
    Image.effect_noise((90, 90), 99).save(folder / "large.png")
    now = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, now[1]))  # no file may be larger
    try:
        report = run(lambda: restorer, [folder], tmp_path / "out", OPTIONS,
                     lambda outcome, done, total: told.append(outcome.error))  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, now)
    (error,) = report.errors
    assert "large.png: must be writable, and writing failed" in error and "\n" not in error
    assert len(results(tmp_path / "out")) == 4 and error in told
    assert not list((tmp_path / "out").glob("**/*.part"))


def test_a_full_disk_leaves_whole_files_and_sentences(tmp_path: Path, folder: Path):
    for i in range(3):
        Image.effect_noise((64, 64), 99).convert("RGB").save(folder / f"noise{i}.png")
    (tmp_path / "out").mkdir()
    command = f"mount -t tmpfs -o size=96k none {tmp_path}/out && \"$@\"; code=$?; " \
              f"cp -r {tmp_path}/out {tmp_path}/kept; exit $code"  # fmt: skip
    rcod = [sys.executable, "-m", "rcod", "upscale", folder, "-o", tmp_path / "out"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path / "out"],
            capture_output=True,
        ).returncode
    ):
        pytest.skip("not checked here: a small disk can't be mounted")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command, "sh", *rcod], text=True,
                          capture_output=True, env=ENVIRONMENT)  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    sentences = done.stderr.splitlines()
    assert all("No space left" in line and line.startswith("error: ") for line in sentences)
    kept = results(tmp_path / "kept")
    assert 0 < len(kept) < 7 and len(kept) + sum("photos" in line for line in sentences) == 7
    for name in kept:
        read(tmp_path / "kept" / name)


def test_unfinished_files_of_processes_that_died_are_swept(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = own_prefix().rsplit("-", 2)[0]
    ours, theirs = tmp_path / f"{machine}-{gone.pid}-1.part", tmp_path / ".rcod-0-1-1.part"
    ours.touch()
    theirs.touch()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [theirs.name]
    old = time.time() - 90_000  # nobody works on that any more
    os.utime(theirs, (old, old))
    sweep(tmp_path)
    assert not theirs.exists()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ours.name).touch()
    make_folder(tmp_path, [Job(Path("a.png"), (tmp_path / "deep" / "a.png",))])
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="a process can't be killed like this here")
def test_killed_and_called_again_it_ends_with_the_same_bytes(
    tmp_path: Path, restorer: Restorer, restart: Callable[[list[str]], subprocess.Popen[bytes]]
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(30):
        Image.linear_gradient("L").resize((24, 16 + i)).convert("RGB").save(photos / f"{i}.png")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(lambda: restorer, [photos], whole, Options())
    for wait in (0.05, 0.3):
        process = restart(["upscale", str(photos), "-o", str(broken), "--device", "cpu"])
        assert process.stdout is not None
        process.stdout.readline()  # the first picture is done
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = restart(["upscale", str(photos), "-o", str(broken), "--device", "cpu"])
    process.communicate()
    assert process.returncode == 0
    assert results(broken) == results(whole)


@pytest.fixture
def restart() -> Callable[[list[str]], subprocess.Popen[bytes]]:
    def begin(arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rcod", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        )

    return begin
