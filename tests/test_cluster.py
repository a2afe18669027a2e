"""A cluster does what a plain call does, loses nothing, and holds no million photos."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from rcod.doors.clustering import address, upscale_on_ray
from rcod.errors import RcodError
from rcod.networks.checkpoint import find_weights
from rcod.pixels.images import Photo, write
from rcod.using.cluster import Hand, run_on_ray
from rcod.using.cluster_plan import DONE, PLAN, PhotoTask, Planned, plan
from rcod.using.orders import Networks, Options
from rcod.using.store import Store, is_here, name_of

MANY = 1_000_000
NO_KEY = "got: no key; check the address and your access to it"
SOURCES = str(Path(__file__).parents[1] / "src")
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="not checked here: pip install 'rcod[ray]'"
)
needs_fsspec = pytest.mark.skipif(
    find_spec("fsspec") is None, reason="not checked here: pip install 'rcod[ray]'"
)
needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the tiny model's weights are not in the package"
)


def draw(folder: Path, count: int, side: int = 24) -> None:
    """Small photos, some in a folder below."""
    for number in range(count):
        place = folder / ("below" if number % 3 == 0 else "") / f"photo{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        rng = torch.Generator().manual_seed(number)
        write(place, Photo(torch.rand(3, side, side + number % 5, generator=rng)))


def upscale(photos: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a call in a process of its own; one thread, as the cluster's workers have."""
    command = [sys.executable, "-m", "rcod", "upscale", str(photos), "-o", str(out), *more]
    paths = os.pathsep.join((SOURCES, os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def pictures(folder: Path) -> dict[str, bytes]:
    """Every result by its place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def records(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Store(str(out)).lines(DONE)]


@needs_ray
@needs_tiny
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    draw(tmp_path / "photos", 24, side=96)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    job = upscale(tmp_path / "photos", out, "--engine", "ray", "--workers", "2")
    deadline, known = time.monotonic() + 90, records(out)
    while not known and time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.2)
        known = records(out)
    workers = {int(str(one["worker"])) for one in known}
    assert workers, job.communicate()[1]
    os.kill(min(workers), signal.SIGKILL)
    said, complaints = job.communicate(timeout=120)
    assert job.returncode == 1, complaints  # one photo was none
    assert "done 24, done already 0, failed 1" in said
    assert "broken.png" in complaints
    assert not re.search("INFO|WARNING|deprecated", complaints)  # nothing of Ray's own
    found = records(out)
    assert len(found) == 25 == len({one["source"] for one in found})
    assert len({one["worker"] for one in found}) >= 2
    assert not list(out.glob(f"{PLAN}*"))
    plain = upscale(tmp_path / "photos", tmp_path / "plain")
    plain.communicate()
    assert pictures(out) == pictures(tmp_path / "plain")
    said, _ = upscale(tmp_path / "photos", out, "--engine", "ray", "--workers", "2").communicate()
    assert "done 0, done already 24, failed 1" in said


PLANNING = """import sys
from rcod.using.cluster_plan import plan
planned = plan([sys.argv[1]], sys.argv[2], "rcod-plan", "settings", "same", True)
status = open("/proc/self/status").read()  # rusage would count who started this process
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(planned.tasks, planned.done, len(planned.portions), peak)
"""


TRACING = """import sys, tracemalloc
from rcod.using.cluster_plan import plan
first = plan([sys.argv[1]], sys.argv[2], "rcod-plan", "", "same", True)  # imports and caches
tracemalloc.start()
planned = plan([sys.argv[1]], sys.argv[2], "rcod-plan", "", "same", True)
print(first.tasks, planned.tasks, tracemalloc.get_traced_memory()[1])
"""


def told_by(program: str, *given: str) -> list[int]:
    """What a program prints that runs in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    command = [sys.executable, "-c", program, *given]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@needs_fsspec
@pytest.mark.skipif(
    sys.platform != "linux", reason="not checked here: others count memory in other units"
)
def test_a_million_photos_are_planned_in_little_memory(tmp_path):
    listed = tmp_path / "photos.txt"
    with listed.open("w") as file:
        file.writelines(f"s3://bucket/some/folder/photo{number:07}.jpg\n" for number in range(MANY))
    tasks, left_out, portions, peak = told_by(PLANNING, str(listed), str(tmp_path / "out"))
    assert (tasks, left_out, portions) == (MANY, 0, MANY // 1000)
    assert peak < 500e6  # PyTorch and all else that is imported included
    task = json.loads(next(Store(str(tmp_path / "out")).lines(PLAN)))
    assert task["source"].startswith("s3://bucket/some/folder/photo")


@needs_fsspec
def test_the_files_of_a_folder_are_not_held_with_all_that_is_known_of_them(tmp_path):
    count = 4000
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for number in range(count):
        (tmp_path / "photos" / ("" if number else "below") / f"photo{number:07}.jpg").touch()
    out = tmp_path / "photos" / "out"
    first, planned, peak = told_by(TRACING, str(tmp_path / "photos"), str(out))
    assert first == planned == count  # what lies in the output folder is no photo
    assert peak < 500e6 * count / 1e6 + 1e6  # and a portion of the plan, while it is written


def finish(out: Path, tasks: Sequence[str], suffix: str = ".png") -> None:
    """Do what a cluster does: lay a result where each task wants it, and record it."""
    lines: list[str] = []
    for task in map(json.loads, tasks):
        result = out / f"{task['place']}{suffix}"
        result.parent.mkdir(parents=True, exist_ok=True)
        result.touch()
        files = [str(result.relative_to(out))]
        lines.append(json.dumps({**task, "files": files, "sizes": [0], "error": None}))
    Store(str(out)).add_lines(DONE, lines)


@needs_fsspec
def test_what_is_recorded_is_left_out_and_what_has_changed_is_not(tmp_path):
    draw(tmp_path / "photos", 4)
    out = str(tmp_path / "out")
    first = plan([str(tmp_path / "photos")], out, PLAN, "settings", "same", True)
    lines = list(Store(out).lines(PLAN))
    finish(tmp_path / "out", lines[:2])
    bad = json.dumps({**json.loads(lines[2]), "files": [], "error": "no"})
    Store(out).add_lines(DONE, [bad])
    second = plan([str(tmp_path / "photos")], out, PLAN, "settings", "same", True)
    assert (first.tasks, second.tasks, second.done) == (4, 2, 2)
    assert plan([str(tmp_path / "photos")], out, PLAN, "others", "same", True).tasks == 4
    assert plan([str(tmp_path / "photos")], out, PLAN, "settings", "same", False).tasks == 4
    changed = Path(json.loads(lines[0])["source"].removeprefix("file://"))
    write(changed, Photo(torch.zeros(3, 40, 30)))
    assert plan([str(tmp_path / "photos")], out, PLAN, "settings", "same", True).tasks == 3


@needs_fsspec
def test_what_another_photo_replaced_or_somebody_removed_is_made_again(tmp_path):
    draw(tmp_path / "one", 1)
    draw(tmp_path / "two", 1)
    out = tmp_path / "out"

    def done(folder: str) -> int:
        planned = plan([str(tmp_path / folder)], str(out), PLAN, "", "same", True)
        finish(out, list(Store(str(out)).lines(PLAN)))
        Store(str(out)).clear(PLAN)
        return planned.done

    assert [done(folder) for folder in ("one", "one", "two", "one", "one")] == [0, 1, 0, 0, 1]
    for path in out.rglob("*.png"):
        path.unlink()
    assert [done("one"), done("one")] == [0, 1]
    next(out.rglob("*.png")).write_bytes(b"another photo's, whose worker died before its record")
    assert done("one") == 0


@needs_fsspec
def test_results_that_differ_in_their_format_alone_stay_done(tmp_path):
    for name in ("a.png", "a.webp"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        write(tmp_path / "photos" / name, Photo(torch.zeros(3, 4, 4)))
    photos, out = [str(tmp_path / "photos")], tmp_path / "out"
    assert plan(photos, str(out), PLAN, "", "same", True).tasks == 2
    for task in list(Store(str(out)).lines(PLAN)):
        finish(out, [task], Path(json.loads(task)["source"]).suffix)
    assert plan(photos, str(out), PLAN, "", "same", True).done == 2


@needs_fsspec
def test_results_in_a_store_are_looked_for_there(tmp_path):
    draw(tmp_path / "photos", 2)
    photos, out = [str(tmp_path / "photos")], f"memory://{uuid.uuid4().hex}"
    store = Store(out)
    assert plan(photos, out, PLAN, "", "same", True).tasks == 2
    tasks = [json.loads(line) for line in store.lines(PLAN)]
    for task in tasks:
        store.fs.pipe_file(store.path(f"{task['place']}.png"), b"")
        made = {**task, "files": [f"{task['place']}.png"], "sizes": [0], "error": None}
        store.add_lines(DONE, [json.dumps(made)])
    assert plan(photos, out, PLAN, "", "same", True).done == 2
    store.fs.rm(store.path(f"{tasks[0]['place']}.png"))
    assert plan(photos, out, PLAN, "", "same", True).done == 1


@needs_fsspec
def test_a_photo_named_twice_is_one(tmp_path, monkeypatch):
    draw(tmp_path / "photos", 1)
    (path,) = (tmp_path / "photos").rglob("photo*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here = path.relative_to(tmp_path)
    names = [str(path), f"file://{path}", f"local://{path}", str(here), f"~/{here}"]
    (listed := tmp_path / "photos.txt").write_text("\n".join(names))
    given = [str(tmp_path / "photos"), str(path), str(listed)]
    for some in (given, given[::-1], [str(listed)]):
        planned = plan(some, str(tmp_path / "out"), f"{PLAN}-{len(some)}", "", "same", True)
        assert (planned.tasks, planned.refused) == (1, ())


@needs_fsspec
def test_a_photo_that_is_gone_is_told_with_the_reason(tmp_path):
    networks = Networks("tiny", "cpu", "float32")
    hand = Hand(networks, Options(), str(tmp_path / "out"), 1)
    for source in (f"file://{tmp_path}/none.png", "memory://none.png"):
        error = hand.take(PhotoTask(source=source, place="none", print=""))["error"]
        assert error == f"{source}: no such file; check the address"


class Refused(Exception):
    """What the library behind a store raises: no OSError."""


@pytest.fixture
def refusing(monkeypatch):
    """An address of a store that refuses everything."""
    fsspec = pytest.importorskip("fsspec")

    def refuse(*given: object, **named: object) -> None:
        raise Refused("no key")

    store = type("Refusing", (fsspec.AbstractFileSystem,), {"protocol": "refusing"})
    for name in ("isdir", "exists", "info", "ls", "makedirs", "pipe_file", "get_file", "put_file"):
        setattr(store, name, refuse)
    fsspec.register_implementation("refusing", store, clobber=True)
    monkeypatch.setitem(sys.modules, "ray", MagicMock())
    monkeypatch.setitem(sys.modules, "ray.data", MagicMock())
    return "refusing://bucket/below"


def test_whatever_a_store_raises_is_one_sentence(tmp_path, refusing):
    draw(tmp_path / "photos", 1)
    photos, networks = str(tmp_path / "photos"), Networks("tiny", "cpu", "float32")
    for given, out, words in (
        (
            refusing,
            str(tmp_path / "out"),
            f"{refusing} must be a photo, a folder or .*{NO_KEY}",
        ),
        (photos, refusing, f"{refusing} must be a folder to write to, {NO_KEY}"),
    ):
        with pytest.raises(RcodError, match=words):
            run_on_ray(networks, [given], out, Options())
    with pytest.raises(RcodError, match="no such file or folder"):  # and then no plan to remove
        run_on_ray(networks, [f"{photos}/none"], refusing, Options(skip_existing=False))


@needs_tiny
def test_whatever_a_store_raises_is_in_the_photo_s_record(tmp_path, refusing):
    draw(tmp_path, 1)
    source, options = str(next(tmp_path.rglob("*.png"))), Options(realism=0.0, scale=1.0)
    for given, out, what in (
        (refusing, str(tmp_path / "out"), "a photo to read"),
        (source, refusing, "a folder to write to"),
    ):
        hand = Hand(Networks("tiny", "cpu", "float32"), options, out, 1)
        error = hand.take(PhotoTask(source=given, place="a", print=""))["error"]
        assert error == f"{refusing} must be {what}, {NO_KEY}"


@needs_fsspec
def test_an_error_of_any_kind_is_one_photo_s(tmp_path, monkeypatch):
    hand = Hand(Networks("tiny", "cpu", "float32"), Options(), str(tmp_path / "out"), 1)
    monkeypatch.setattr(hand, "_do", MagicMock(side_effect=Refused))  # which says nothing
    assert hand.take(PhotoTask(source="a.png", place="a", print=""))["error"] == "a.png: Refused"


@needs_fsspec
@needs_tiny
def test_what_a_photo_lost_is_told_as_by_a_plain_call(tmp_path, monkeypatch, capsys):
    pages = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 90)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    task = PhotoTask(source=f"file://{tmp_path}/pages.tif", place="pages", print="")
    options, networks = Options(realism=0.0, scale=1.0), Networks("tiny", "cpu", "float32")
    record = Hand(networks, options, str(tmp_path / "out"), 1).take(task)
    assert record["files"] == ["pages.tif"]
    assert record["sizes"] == [(tmp_path / "out" / "pages.tif").stat().st_size]

    def run(*given):
        given[-1](record, 1, 1)
        return Planned((), 1, 0, ()), []

    monkeypatch.setattr("rcod.using.cluster.run_on_ray", run)
    upscale_on_ray([Path("pages.tif")], tmp_path / "out", options, networks, None, False)
    note = f"note: {task['source']} has more than one page; the first is taken"
    assert note in capsys.readouterr().out


@needs_fsspec
@needs_tiny
def test_a_photo_may_have_any_name(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    options = Options(realism=0.0, scale=1.0)
    for name in ("out", "photo", "results"):
        (tmp_path / name).write_bytes((tmp_path / "photo.png").read_bytes())
        hand = Hand(Networks("tiny", "cpu", "float32"), options, str(tmp_path / "into"), 1)
        task = PhotoTask(source=f"file://{tmp_path}/{name}", place=name, print="")
        assert hand.take(task)["files"] == [f"{name}.png"]


@needs_fsspec
@needs_tiny
def test_photos_in_an_archive_keep_their_chain(tmp_path, monkeypatch):
    draw(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("many.zip", "w") as archive:
        archive.write("photos/below/photo000.png", "below/photo000.png")
        archive.write("photos/photo001.png", "photo001.png")
    end = f"::file://{tmp_path}/many.zip"
    one, both = f"zip://below/photo000.png{end}", {"below/photo000", "photo001"}
    Path("list.txt").write_text("zip://below/photo000.png::many.zip\n")
    for given, places in (
        (one, {"photo000"}),
        ("list.txt", {"photo000"}),
        ("zip://::many.zip", both),
    ):
        folder = f"{PLAN}-{len(given)}"
        assert plan([given], "out", folder, "", "same", True).refused == ()
        tasks: list[PhotoTask] = [json.loads(line) for line in Store("out").lines(folder)]
        assert {task["place"] for task in tasks} == places
        assert all(task["source"].endswith(end) for task in tasks)
        assert one in {task["source"] for task in tasks}
    assert f"zip://photo001.png{end}" in {task["source"] for task in tasks}  # of both
    options = Options(realism=0.0, scale=1.0)
    for task in tasks:
        record = Hand(Networks("tiny", "cpu", "float32"), options, "out", 1).take(task)
        assert (record["error"], record["files"]) == (None, [f"{task['place']}.png"])


@needs_fsspec
def test_a_chain_leads_where_it_was_typed():
    assert address(Path("zip://a.png::file:///x/many.zip")) == "zip://a.png::file:///x/many.zip"
    assert address(Path("zip://::s3://bucket/many.zip")) == "zip://::s3://bucket/many.zip"
    assert address(Path("simplecache::s3://bucket/a")) == "simplecache::s3://bucket/a"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("http://host/below/a.jpg?sig=abc/def", "a.jpg"),
        ("https://host/a.jpg#of/x", "a.jpg"),
        ("s3://bucket/what?/a#1.jpg", "a#1.jpg"),
        ("photos/why?.jpg", "why?.jpg"),
        ("zip://below/a.png::http://host/many.zip?sig=b/c.png", "a.png"),
        ("simplecache::zip://a.png::s3://bucket/many.zip", "a.png"),
        ("filecache://::s3://bucket/a.png", "a.png"),
        ("s3://", ""),
    ],
)
def test_a_name_is_of_the_file_alone(given, name):
    assert name_of(given) == name


@needs_fsspec
def test_what_http_is_asked_by_is_no_name(tmp_path):
    (listed := tmp_path / "photos.txt").write_text("http://host/a.jpg?sig=abc/def\n")
    plan([str(listed)], str(tmp_path / "out"), PLAN, "", "same", True)
    (line,) = Store(str(tmp_path / "out")).lines(PLAN)
    task = json.loads(line)
    assert (task["source"], task["place"]) == ("http://host/a.jpg?sig=abc/def", "a")


@needs_fsspec
def test_a_cache_of_files_elsewhere_is_not_this_machine():
    assert is_here(Store("file:///out").fs)
    assert not is_here(Store("filecache::memory://out").fs)


@pytest.mark.parametrize("out", ["memory://out", "simplecache::memory://out"])
def test_results_do_not_stay_in_a_worker_s_memory(tmp_path, out):
    with pytest.raises(RcodError, match=r"must outlive the worker that .*memory:"):
        run_on_ray(Networks("tiny", "cpu", "float32"), [str(tmp_path)], out, Options())


@needs_fsspec
def test_of_several_calls_the_last_one_counts(tmp_path):
    draw(tmp_path / "photos", 1)
    photos, out = [str(tmp_path / "photos")], str(tmp_path / "out")
    for settings in ("fidelity", "realism", "fidelity"):
        planned = plan(photos, out, f"{PLAN}-{uuid.uuid4().hex}", settings, "same", True)
        (path,) = planned.portions  # what lies there was made by other settings
        finish(tmp_path / "out", Path(path).read_text().splitlines())
    assert plan(photos, out, PLAN, "fidelity", "same", True).done == 1


@needs_fsspec
def test_no_result_takes_the_place_of_a_photo(tmp_path):
    for name in ("a.webp", "a.png", "b.png"):
        write(tmp_path / name, Photo(torch.zeros(3, 4, 4)))
    first, second, own = (str(tmp_path / name) for name in ("a.webp", "a.png", "b.png"))
    with pytest.raises(RcodError, match=r"a\.png: a photo to enlarge is never overwritten"):
        plan([first, second], str(tmp_path), PLAN, "", "png", True)
    planned = plan([second, own, first], str(tmp_path), PLAN, "", "png", True)
    assert planned.tasks == 0 and all("is never overwritten" in one for one in planned.refused)


@needs_fsspec
@needs_tiny
def test_a_worker_replaces_no_file_of_the_user(tmp_path):
    draw(tmp_path / "photos", 1)
    source, out = next((tmp_path / "photos").rglob("*.png")), tmp_path / "out"
    task = PhotoTask(source=f"file://{source}", place="photo000", print="")
    options = Options(realism=0.0, scale=1.0)

    def take(where: Path, options: Options = options) -> str | None:
        return Hand(Networks("tiny", "cpu", "float32"), options, str(where), 1).take(task)["error"]

    assert take(out) is None is take(out)  # its own is replaced
    before = source.read_bytes()
    (out / "photo000.png").write_bytes(b"mine")
    assert "photo000.png exists already" in str(take(out))
    assert (out / "photo000.png").read_bytes() == b"mine"
    assert take(out, replace(options, overwrite=True)) is None
    task["place"] = source.stem  # beside the photo
    error = take(source.parent, replace(options, overwrite=True))
    assert error == f"file://{source}: a photo to enlarge is never overwritten"
    assert source.read_bytes() == before
    with pytest.raises(RcodError, match="another folder than the photos"):
        plan([str(tmp_path / "photos")], str(tmp_path / "photos"), PLAN, "", "same", True)


@needs_fsspec
def test_two_photos_of_one_name_are_refused(tmp_path):
    listed = tmp_path / "photos.txt"
    listed.write_text("\ufeffs3://one/a.jpg\ns3://two/a.jpg\n.\n", encoding="utf-8")
    planned = plan([str(listed)], str(tmp_path / "out"), PLAN, "", "same", True)
    assert planned.tasks == 1
    assert "s3://two/a.jpg: every photo needs an output name of its own" in planned.refused[0]
    assert planned.refused[1].startswith(".: must be a photo's address")


@needs_fsspec
@pytest.mark.parametrize(("workers", "memory"), [(2, 4_000), (5, 2_000)])
def test_workers_of_a_machine_share_the_memory(tmp_path, monkeypatch, workers, memory):
    ray = MagicMock()
    ray.cluster_resources.return_value = {"CPU": 6}
    ray.nodes.return_value = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (4, 2)]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    draw(tmp_path / "photos", 1)
    networks = Networks("tiny", "cpu", "float32")
    given = [str(tmp_path / "photos")], str(tmp_path / "out"), Options(memory=8_000), workers
    with pytest.raises(RcodError, match="every photo must come back"):
        run_on_ray(networks, *given)
    map_batches = ray.data.read_text.return_value.repartition.return_value.map_batches
    _, options, _, _ = map_batches.call_args.kwargs["fn_constructor_args"]
    assert options.memory == memory
    ray.data.ActorPoolStrategy.assert_called_once_with(size=workers)


@needs_fsspec
def test_a_call_leaves_no_plan_and_other_calls_plans_alone(tmp_path, monkeypatch):
    ray = MagicMock()
    ray.cluster_resources.return_value = {"CPU": 2}
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    draw(tmp_path / "photos", 1)
    photos, out = [str(tmp_path / "photos")], tmp_path / "out"
    plan(photos, str(out), f"{PLAN}-other", "", "same", True)

    def rows():
        (portion,) = ray.data.read_text.call_args.args[0]
        task = json.loads(Path(portion).read_text())
        yield {"record": json.dumps({**task, "files": [], "error": None})}

    blocks = ray.data.read_text.return_value.repartition.return_value
    blocks.map_batches.return_value.iter_rows.side_effect = rows
    planned, failed = run_on_ray(Networks("tiny", "cpu", "float32"), photos, str(out), Options())
    assert (planned.tasks, failed, len(records(out))) == (1, [], 1)
    assert sorted(path.name for path in out.iterdir()) == [DONE, f"{PLAN}-other"]


@needs_fsspec
def test_without_ray_nothing_is_planned(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    draw(tmp_path / "photos", 1)
    given = [str(tmp_path / "photos")], str(tmp_path / "out"), Options()
    with pytest.raises(RcodError, match="ray must be installed"):
        run_on_ray(Networks("tiny", "cpu", "float32"), *given)
    assert not (tmp_path / "out").exists()


@needs_fsspec
def test_what_cannot_be_planned_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", MagicMock())
    monkeypatch.setitem(sys.modules, "ray.data", MagicMock())
    draw(tmp_path / "photos", 1)
    (tmp_path / "latin.txt").write_bytes(b"/photos/caf\xe9.jpg\n")
    file = tmp_path / "photos" / "below" / "photo000.png"
    for photos, out, words in (
        ("none.txt", "out", "none.txt must be a list of addresses in UTF-8, got: .*No such file"),
        ("latin.txt", "out", "latin.txt must be a list of addresses in UTF-8, got: .*can't decode"),
        ("photos", file, "photo000.png must be a folder to write to, got: "),
    ):
        with pytest.raises(RcodError, match=words):
            run_on_ray(Networks("tiny", "cpu", "float32"), [str(tmp_path / photos)],
                       str(tmp_path / out), Options())  # fmt: skip
    assert not (tmp_path / "out").exists()


@needs_tiny
def test_what_a_cluster_cannot_do_is_refused(tmp_path, here):
    for more, words in (
        (("-o", "-"), "below an address, and -o - has none"),
        (("-o", "s3://bucket/out", "--dry-run"), "--dry-run tells what this machine"),
    ):
        done = here("upscale", "s3://bucket/photos", *more, "--engine", "ray")
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


@needs_fsspec
def test_addresses_lead_where_they_were_typed(tmp_path):
    for protocol in ("file", "local"):
        given = address(Path(f"{protocol}://{tmp_path / 'out'}"))
        assert Store(given).root == str(tmp_path / "out")
    assert address(Path("s3://bucket/photos")) == "s3://bucket/photos"
    assert address(tmp_path) == str(tmp_path)


@needs_fsspec
def test_wrong_addresses_are_named(tmp_path):
    with pytest.raises(RcodError, match="must be an address that fsspec knows"):
        plan(["nosuch://x/y"], str(tmp_path / "out"), PLAN, "", "same", True)
    with pytest.raises(RcodError, match="no such file or folder"):
        plan([str(tmp_path / "missing")], str(tmp_path / "out"), PLAN, "", "same", True)
