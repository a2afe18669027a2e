"""Laws of looking at a model while it learns."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_train import TEAM, Sum, photos, recipe, sources  # noqa: F401  (fixtures)

from rcod.errors import RcodError
from rcod.training import train
from rcod.training.rundir import RunDir
from rcod.training.task import Sources
from rcod.training.watch import Watch


def test_a_run_is_seen_at_every_level_and_the_best_model_kept(sources: Sources, tmp_path: Path):  # noqa: F811
    setting = recipe("tiny-prior", steps="4", watch_every="2", best="neutral/psnr", log_every="2")
    folder = tmp_path / "run"
    train.run(setting, sources._replace(watch=sources.photos), folder)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    scored = [row for row in rows if "neutral/psnr" in row]
    assert [row["step"] for row in scored] == [2, 4]
    assert {"fidelity/psnr", "realism/ssim"} <= scored[0].keys()
    assert (folder / "best.safetensors").is_file()
    assert next(row["note"] for row in rows if "note" in row) == "best neutral/psnr so far"
    with Image.open(folder / "samples" / "0000002.png") as sheet:
        assert sheet.size == (5 * 96, 22 + 2 * 96)  # input, three levels, truth; two photos
    assert list(folder.glob("events.out.tfevents.*"))


def test_the_best_is_the_best_in_its_own_direction():
    watch = Watch([], "psnr", None)
    first = {"fidelity/psnr": 20.0, "realism/psnr": 22.0}
    assert watch.is_best(first) and watch.is_best(first)  # until its model is kept
    watch.keep(first)
    assert not watch.is_best({"fidelity/psnr": 20.0, "realism/psnr": 21.0})
    assert watch.is_best({"psnr": 22.0})


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RCOD_AIDS", str(tmp_path))
    Image.new("RGB", (160, 160)).save(tmp_path / "photo.png")
    given = Sources(tmp_path, watch=tmp_path, aids=tmp_path / "mine")
    for best in ("neutral/lpips-hed", "lpips-hed"):
        with pytest.raises(RcodError, match=r"needs .*mine.hed_vgg16\.safetensors; fetch it"):
            Watch.open(given, recipe("tiny-prior", best=best))


def test_what_is_watched_is_looked_at_before_the_long_work(sources: Sources, tmp_path: Path):  # noqa: F811
    setting = recipe("tiny-prior", steps="1", best="ssim")
    given = sources._replace(cache=tmp_path / "cache")
    for watch, words in (
        (None, "best=ssim is of photos that are watched; name them with --watch, or leave it out"),
        (tmp_path / "none", "photos must be a folder or a list of paths"),
    ):
        with pytest.raises(RcodError, match=words):
            train.run(setting, given._replace(watch=watch), tmp_path / "run")
    assert not (tmp_path / "cache").exists()


def test_unfit_photos_are_named_once_and_not_watched(sources: Sources, tmp_path: Path):  # noqa: F811
    setting = recipe("tiny-prior", steps="2", watch_every="1", best="psnr")
    folder = tmp_path / "watched"
    shutil.copytree(sources.photos, folder)
    (folder / "0b.png").write_bytes(b"no")
    train.run(setting, sources._replace(watch=folder), tmp_path / "run")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    notes = [row["note"] for row in map(json.loads, lines) if "note" in row]
    assert [note for note in notes if "0b.png" in note] == [notes[0]]
    assert notes[0].startswith("passed over of --watch: ")
    with Image.open(tmp_path / "run" / "samples" / "0000001.png") as sheet:
        assert sheet.height == 22 + 2 * 96  # two photos, none of them twice
    for path in folder.glob("[01].png"):
        path.unlink()
    with pytest.raises(
        RcodError, match=r"--watch must hold a photo that is fit, got none: .*0b\.p"
    ):
        train.run(setting, sources._replace(watch=folder), tmp_path / "other")


def best_of_a_run(folder: Path, by: str, best: float | None, watched: bool = True) -> float:
    """The best score a run begins with, which ends at once; `best` is reached on the way."""
    setting = recipe("tiny-metric", steps="1", best=by)
    watch = Watch([], by, None) if watched else None
    loop = train.Loop(Sum(1), setting, TEAM, RunDir(folder, setting, resume=True), watch)
    loop._begin()
    begun = math.inf if watch is None else watch.best
    if watch is not None and best is not None:
        watch.best = best
    loop._save()
    return begun


def test_the_best_so_far_is_held_against_its_own_measure_alone(tmp_path: Path):
    assert best_of_a_run(tmp_path, "psnr", -27.0) == math.inf
    assert best_of_a_run(tmp_path, "psnr", None, watched=False) == math.inf
    assert best_of_a_run(tmp_path, "ssim", None) == math.inf
    assert best_of_a_run(tmp_path, "psnr", None) == -27
    assert best_of_a_run(tmp_path, "ssim", -0.8) == math.inf
    assert best_of_a_run(tmp_path, "psnr", None) == math.inf
    assert best_of_a_run(tmp_path, "ssim", None) == -0.8


def test_states_that_do_not_say_by_what_they_measured_leave_it_to_their_recipe(tmp_path: Path):
    best_of_a_run(tmp_path, "psnr", -27.0)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["measure"]
    torch.save(state, tmp_path / "state.pt")
    assert best_of_a_run(tmp_path, "psnr", None) == -27
    torch.save(state, tmp_path / "state.pt")
    assert best_of_a_run(tmp_path, "ssim", None) == math.inf
