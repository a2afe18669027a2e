"""The training loop on pictures of a few pixels."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import ENVIRONMENT
from safetensors import safe_open
from safetensors.torch import save_file

from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.networks import checkpoint
from rcod.networks.lora import attach
from rcod.networks.systems import SYSTEMS, build
from rcod.pixels.perceptual import LpipsHed
from rcod.training import tiny_task, train
from rcod.training.catalog import recipe_named
from rcod.training.data import Pairs, build_crops, build_pairs
from rcod.training.learner import Learner, orthogonal
from rcod.training.photos import photos_in
from rcod.training.recipe import TINY, Recipe
from rcod.training.rundir import RunDir
from rcod.training.task import LearnerLoss, Sources, TaskState
from rcod.training.team import Team
from rcod.training.tiny_losses import cost, prior_loss

SMALL = {
    "batch": "2", "window": "32", "data.crop": "64", "data.crops": "8",
    "precision": "float32", "optim.warmup": "1", "critic_rank": "2", "guides": "0",
}  # fmt: skip
TEAM = Team(torch.device("cpu"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8))
        coarse.resize((120, 100), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def recipe(name: str, **changes: str) -> Recipe:
    tiny = {"model.latent": "12", "model.tokens": "8", "model.heads": "2"}
    small = SMALL | tiny | {key.replace("__", "."): value for key, value in changes.items()}
    values = recipe_named(name, small).model_dump()
    values["model"] |= {"widths": (8, 16), "blocks": (1, 2, 1)}
    return Recipe.model_validate(values)


@pytest.fixture(scope="module")
def sources(photos: Path) -> Sources:
    """The photos, and a fitted autoencoder to start from."""
    given = Sources(photos, cache=photos.parent / "cache")
    folder = photos.parent / "autoencoder"
    return given._replace(start=train.run(recipe("tiny-autoencoder"), given, folder).model)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_prior_learns(sources: Sources, tmp_path: Path):
    train.run(recipe("tiny-prior", steps="100", batch="8"), sources, tmp_path / "run")
    log = rows(tmp_path / "run")
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    setting = recipe("tiny-metric", steps="6", save_every="4", log_every="1")
    whole = train.run(setting, sources, tmp_path / "whole")
    assert whole.stopped is None
    step, calls = train.step, []

    def ask_then_step(*given: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(train, "step", ask_then_step)
        broken = train.run(setting, sources, tmp_path / "broken")
    assert (broken.stopped, broken.step) == (signal.SIGTERM, 3)
    assert train.run(setting, sources, tmp_path / "broken", resume=True).step == 6
    assert whole.model.read_bytes() == broken.model.read_bytes()
    assert [row["step"] for row in rows(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RcodError, match="already holds a run; pass --resume"):
        train.run(setting, sources, tmp_path / "broken")
    other = setting.model_copy(update={"batch": 3})
    with pytest.raises(RcodError, match="was begun with another batch; leave the change out"):
        train.run(other, sources, tmp_path / "broken", resume=True)
    with safe_open(broken.model, "pt") as file:
        assert json.loads(file.metadata()["rcod.recipe"]) == json.loads(setting.model_dump_json())


CHILD = """
import sys
from pathlib import Path
from rcod.training import train
from rcod.training.recipe import Recipe
from rcod.training.task import Sources
import torch
torch.set_num_threads(2)
recipe, photos, start, folder = sys.argv[1:]
given = Sources(photos, Path(start), Path(photos).parent / "cache")
train.run(Recipe.model_validate_json(recipe), given, Path(folder), resume=True)
"""


@pytest.mark.parametrize("seed", range(int(os.environ.get("RCOD_KILLS", "2"))))
def test_a_killed_run_goes_on_bit_for_bit(sources: Sources, tmp_path: Path, seed: int):
    """A real process, killed by SIGKILL at a random moment; RCOD_KILLS says how often to try."""
    setting = recipe("tiny-metric", steps="60", save_every="7", log_every="5")
    whole = train.run(setting, sources, tmp_path / "whole").model
    folder = tmp_path / "killed"
    given = [setting.model_dump_json(), str(sources.photos), str(sources.start), str(folder)]
    command = [sys.executable, "-c", CHILD, *given]
    rng, log = np.random.default_rng(seed), folder / "log.jsonl"
    until = int(rng.integers(1, 11))  # lines of the log
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= until:
            time.sleep(float(rng.uniform(0, 0.1)))
            child.kill()
            break
        time.sleep(0.002)
    assert child.wait() == -signal.SIGKILL
    again = train.run(setting, sources, folder, resume=True).model
    assert whole.read_bytes() == again.read_bytes()
    steps = [row["step"] for row in rows(folder)]
    assert steps == list(range(5, 61, 5))
    assert not list(folder.glob("*.part"))


class Sum:
    """A task of two numbers, whose loss is what a test says."""

    def __init__(self, steps: int, bad: tuple[int, ...] = ()) -> None:
        self.weight = torch.nn.Parameter(torch.ones(2))
        optim = recipe("tiny-metric").optim
        self.learners = {"student": Learner([self.weight], optim, steps)}
        self.images, self.seen, self.bad = 1, 0, bad
        self.notes: list[str] = []

    def begin(self, tell: Callable[[str], None]) -> bool:
        return False

    def parts(self, n: int) -> Iterator[LearnerLoss]:
        self.seen += 1
        loss = self.weight.square().sum() * (torch.nan if self.seen in self.bad else 1)
        yield LearnerLoss("student", loss, {"loss": loss})

    def position(self) -> TaskState:
        return {"seen": self.seen}

    def seek(self, place: TaskState) -> None:
        self.seen = int(str(place["seen"]))

    def write(self, path: Path, recipe: str) -> None:
        path.write_text(str(self.weight.tolist()))

    def restorer(self) -> None:
        return None


def loop(task: Sum, folder: Path, **changes: str) -> train.Loop:
    setting = recipe("tiny-metric", log_every="1", **changes)
    return train.Loop(task, setting, TEAM, RunDir(folder, setting, resume=True), None)


def test_a_bad_step_moves_nothing_and_is_counted(tmp_path: Path):
    task = Sum(4, bad=(2,))
    loop(task, tmp_path, steps="4").go()
    log = rows(tmp_path)
    assert [row["skipped"] for row in log] == [0, 1, 1, 1]
    assert "loss" not in log[1]
    other = Sum(4)
    for n in (0, 2, 3):  # the same steps without the bad one
        train.step(other, recipe("tiny-metric"), n, TEAM)
    assert torch.equal(task.weight, other.weight)


def test_a_bad_step_of_one_learner_moves_no_other():
    task = Sum(4)
    other = torch.nn.Parameter(torch.ones(2))
    task.learners["adversary"] = Learner([other], recipe("tiny-metric").optim, 4)
    parts = task.parts

    def both(n: int) -> Iterator[LearnerLoss]:
        yield from parts(n)
        yield LearnerLoss("adversary", other.sum() * (torch.nan if n == 0 else 1), {})

    task.parts = both
    values = train.step(task, recipe("tiny-metric"), 0, TEAM)
    assert np.isnan(values["norm"])
    assert torch.equal(task.weight, torch.ones(2)) and torch.equal(other, torch.ones(2))
    train.step(task, recipe("tiny-metric"), 1, TEAM)
    assert not (torch.equal(task.weight, torch.ones(2)) or torch.equal(other, torch.ones(2)))


def test_many_bad_steps_in_a_row_lead_back_to_the_last_state_and_a_lower_rate(tmp_path: Path):
    task = Sum(8, bad=(5, 6))
    loop(task, tmp_path, steps="8", save_every="3", patience="2").go()
    (note,) = [row for row in rows(tmp_path) if "note" in row]
    assert note["step"] == 6
    assert "weren't finite: 2; back to step 3, 0.5 times as fast" in str(note["note"])
    assert task.learners["student"].slow == 0.5
    assert task.seen == 6 + 5  # data went on, steps 3 to 7 came again
    hopeless = Sum(8, bad=tuple(range(100)))
    with pytest.raises(RcodError, match=r"not finite after 1 retreats; the state of step 0"):
        loop(hopeless, tmp_path / "other", steps="8", patience="2", retreats="1").go()


class Poisoned(Sum):
    """Its weights cease to be numbers on the third batch."""

    def parts(self, n: int) -> Iterator[LearnerLoss]:
        if self.seen == 2:
            self.weight.data.fill_(torch.nan)
        yield from super().parts(n)


def test_speed_is_that_of_the_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    running, now, speeds = loop(Sum(8), tmp_path, steps="8", save_every="2"), [0.0], list[float]()
    step, save, log = train.step, running._save, running.rundir.log

    def take(seconds: float, work: Callable[..., object]) -> Callable[..., object]:
        def slow(*given: object, **more: object) -> object:
            now[0] += seconds
            return work(*given, **more)

        return slow

    def listen(n: int, values: dict[str, float], speed: float | None = None) -> None:
        speeds.append(float(speed or 0))
        log(n, values, speed)

    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(train, "step", take(4, step))
    monkeypatch.setattr(running, "_save", take(100, save))
    monkeypatch.setattr(running.rundir, "log", listen)
    running.since = 0.0
    running.go()
    assert speeds == [0.25] * 8
    again = Sum(8, bad=(5,))
    running = loop(again, tmp_path / "bad", steps="8", save_every="2", patience="1")
    speeds.clear()
    log = running.rundir.log
    monkeypatch.setattr(running.rundir, "log", listen)
    monkeypatch.setattr(running, "_save", take(100, running._save))
    running.go()
    assert set(speeds) == {0.25}


def test_weights_that_make_no_numbers_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task = Poisoned(6)
    loop(task, tmp_path / "run", steps="6", save_every="1", patience="2").go()
    assert task.weight.isfinite().all() and task.seen == 6 + 2
    task = Poisoned(6)
    running = loop(task, tmp_path / "stopped", steps="6", save_every="2")
    step = train.step

    def ask_then_step(*given: object) -> dict[str, float]:
        if task.seen == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(train, "step", ask_then_step)
    ended = running.go()
    assert (ended.stopped, ended.step) == (signal.SIGTERM, 2)
    state = running.rundir.load_state()
    assert state is not None and state["step"] == 2
    assert "nan" not in running.rundir.model.read_text()
    (note,) = [row for row in rows(tmp_path / "stopped") if "note" in row][-1:]
    assert "weren't finite: 2; state and model stay those of step 2" in str(note["note"])


def test_a_run_does_not_end_with_a_bad_step(tmp_path: Path):
    task = Sum(4, bad=(4,))
    running = loop(task, tmp_path, steps="4", save_every="2")
    running.go()
    (note,) = [row for row in rows(tmp_path) if "note" in row]
    assert "weren't finite: 1; back to step 2" in str(note["note"])
    state = running.rundir.load_state()
    assert state is not None and (state["step"], task.seen) == (4, 6)


def test_a_full_disk_leaves_the_old_state_whole(tmp_path: Path):
    """The kernel refuses to let any file grow past a few bytes, as a full disk would."""
    running = loop(Sum(6), tmp_path, steps="6", save_every="2")
    whole = running.rundir
    step, calls = train.step, []

    def full(*given: object) -> dict[str, float]:
        calls.append(1)
        size = 3000 if len(calls) in (3, 4) else -1  # the state of step 4 can't be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return step(*given)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "step", full)
        try:
            running.go()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.RLIM_INFINITY))
    (note,) = [row for row in rows(tmp_path) if "note" in row]
    assert note["step"] == 4
    assert "writing failed (File too large)" in str(note["note"])
    assert "those of step 2 are whole; going on" in str(note["note"])
    state = whole.load_state()
    assert state is not None and state["step"] == 6
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_at_the_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    running = loop(Sum(2), tmp_path, steps="2")

    def full(state: TaskState) -> None:
        if state["step"]:
            raise RcodError("state.pt: writing failed (No space left on device)")

    monkeypatch.setattr(running.rundir, "save_state", full)
    with pytest.raises(RcodError, match=r"No space left on device\)\); those of step 0 are whole"):
        running.go()


def test_accumulated_batches_are_one_large_batch(tmp_path: Path):
    one, many = Sum(2), Sum(2)
    for n in range(2):
        train.step(one, recipe("tiny-metric"), n, TEAM)
        train.step(many, recipe("tiny-metric", accumulate="3"), n, TEAM)
    torch.testing.assert_close(one.weight, many.weight)
    assert many.seen == 6


def restore_networks(sources: Sources, setting: Recipe) -> tiny_task.Networks:
    prior = setting.model_copy(update={"goal": "prior"})
    system, nets = tiny_task.networks(prior, sources.start, None)
    assert system.groups == setting.groups
    return nets


def pairs_of(sources: Sources, setting: Recipe) -> Pairs:
    crops = build_crops(photos_in(sources.photos), sources.cache or Path(), setting.data)
    return Pairs(crops, build_pairs(crops, setting.data, workers=1))


def test_a_restore_step_moves_student_critic_and_adversary(sources: Sources):
    setting = recipe("tiny-rcod", steps="2", losses__distill="0,0.1", losses__adversary="0,0.1")
    nets = restore_networks(sources, setting)
    attach(nets.critic, 2, torch.Generator().manual_seed(0))
    nets = nets._replace(trunk=LpipsHed())  # its weights are no part of the law
    task = tiny_task.TinyTask(setting, SYSTEMS["tiny"], nets, pairs_of(sources, setting))
    learners = task.learners
    before = {name: [p.clone() for p in x.parameters] for name, x in learners.items()}
    frozen = [p.clone() for p in nets.start.parameters()]
    values: dict[str, float] = {}
    for n in range(2):
        values = train.step(task, setting, n, TEAM)
    assert {"pixel", "distill", "critic", "adversary", "loss", "norm"} <= values.keys()
    for name, learner in learners.items():
        moved = [
            not torch.equal(a, b) for a, b in zip(before[name], learner.parameters, strict=True)
        ]
        assert any(moved), name
    assert all(torch.equal(a, b) for a, b in zip(frozen, nets.start.parameters(), strict=True))


def test_a_run_that_guides_itself_pays_nothing_until_answers_move(sources: Sources):
    ends = {"pixel": "0,0", "guide": "1,1", "latent": "0,0", "outline": "0,0"}
    setting = recipe("tiny-rcod", own_guide="yes",
                     **{f"losses__{key}": value for key, value in ends.items()})  # fmt: skip
    nets = restore_networks(sources, setting)
    batch = next(pairs_of(sources, setting).batches(2, 32, torch.Generator().manual_seed(0)))
    assert not batch.guided.any()

    def paid() -> float:
        dice = torch.Generator().manual_seed(0)  # places on the dial, and who sees image tokens
        return float(cost(nets, batch, setting, 0, dice).losses["student"].detach())

    untouched = paid()
    assert untouched == pytest.approx(1e-3, rel=1e-3)  # the rounded tip of the distance
    with torch.no_grad():
        for p in nets.onestep.backbone.unet.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    assert paid() > 2 * untouched


def hed_of_nothing(folder: Path) -> Path:
    """A folder of aids with an untaught trunk."""
    state = LpipsHed().state_dict()
    untaught = {name.removeprefix("trunk."): tensor for name, tensor in state.items()}
    save_file(untaught, folder / "hed_vgg16.safetensors")
    return folder


def test_a_restorer_keeps_its_gain(sources: Sources, tmp_path: Path):
    aids = sources._replace(aids=hed_of_nothing(tmp_path))
    first = train.run(recipe("tiny-rcod", steps="1", guides="0"), aids, tmp_path / "first").model
    other = recipe("tiny-rcod", steps="1", guides="0", data__seed="1")  # other pairs
    then = train.run(other, aids._replace(start=first), tmp_path / "then").model
    gains = [checkpoint.load(path)[1].gain for path in (first, then)]
    assert not torch.equal(gains[0], torch.ones_like(gains[0]))
    assert torch.equal(*gains)


def test_one_end_of_the_dial_learns_and_the_model_keeps_its_shape(sources: Sources, tmp_path: Path):
    aids = sources._replace(aids=hed_of_nothing(tmp_path))
    first = train.run(recipe("tiny-rcod", steps="1", guides="0"), aids, tmp_path / "first").model
    then = train.run(recipe("tiny-fidelity", steps="2"), aids._replace(start=first), tmp_path / "b")
    before, after = (checkpoint.load(path)[1].state_dict() for path in (first, then.model))
    assert before.keys() == after.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and all(".modulate." in name for name in moved)


def test_adapters_alone_learn_and_are_merged_into_the_result(sources: Sources, tmp_path: Path):
    """A student of rank 2, here by the prior's cheap loss, ends as a plain model file."""
    setting = recipe("tiny-rcod", steps="2", rank="2")
    nets = restore_networks(sources, setting)
    unet = nets.onestep.backbone.unet
    adapters = attach(unet, setting.rank, torch.Generator().manual_seed(0))
    learner = Learner(unet, setting.optim, 2)
    assert {id(p) for p in learner.parameters} == {id(p) for p in adapters}
    data = pairs_of(sources, setting)
    batch = next(data.batches(2, 32, torch.Generator().manual_seed(0)))
    for n in range(2):
        learner.add(prior_loss(nets, batch, setting, torch.Generator().manual_seed(n)))
        learner.weigh(TEAM)
        learner.move(n)
    row = SYSTEMS["tiny"].model_copy(update={"model": nets.onestep.backbone.settings})
    prior = setting.model_copy(update={"goal": "prior"})
    path = tmp_path / "model.safetensors"
    tiny_task.TinyTask(prior, row, nets, data).write(path, setting.model_dump_json())
    _, merged, _ = checkpoint.load(path)
    z, t, tokens = torch.randn(1, 12, 8, 8), torch.tensor([499]), torch.zeros(1, 49, 8)
    wanted = nets.onestep.backbone.predict(z, t, tokens)
    got = merged.backbone.predict(z, t, tokens)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_metrics_estimator_learns_beside_a_dial_that_stays():
    inside = checkpoint.find_weights("tiny")
    system, _, _ = checkpoint.load(inside)
    assert system.groups != TINY["tiny-metric"].groups
    assert tiny_task.begun(TINY["tiny-metric"], inside)[0] == system


def test_errors_say_what_to_do(sources: Sources, tmp_path: Path):
    bare = sources._replace(start=None)
    with pytest.raises(RcodError, match="continues from a model; name it with --start"):
        train.run(recipe("tiny-prior"), bare, tmp_path / "run")
    with pytest.raises(RcodError, match="tiny-prior trains on the processor, got --device cuda:0"):
        elsewhere = sources._replace(device="cuda:0")
        train.run(recipe("tiny-prior"), elsewhere, tmp_path / "run")
    for other in (
        sources._replace(base="sd"),
        sources._replace(vision="clip"),
        sources._replace(captions=tmp_path / "tags.txt"),
    ):
        with pytest.raises(RcodError, match="is of published systems, and tiny-prior trains the p"):
            train.run(recipe("tiny-prior"), other, tmp_path / "run")
    with pytest.raises(RcodError, match="photos must be a folder or a list"):
        train.run(recipe("tiny-prior"), Sources(tmp_path / "none"), tmp_path / "other")
    with pytest.raises(RcodError, match=r"the aid hed_vgg16\.safetensors must be a file"):
        nothing = sources._replace(aids=tmp_path)
        train.run(recipe("tiny-rcod"), nothing, tmp_path / "third")
    (tmp_path / "file").touch()
    with pytest.raises(RcodError, match=r"--run must be a folder that can be made, got .*File ex"):
        train.run(recipe("tiny-prior"), sources, tmp_path / "file")


def test_what_is_missing_is_missed_before_the_long_work(sources: Sources, tmp_path: Path):
    given = sources._replace(cache=tmp_path / "cache", aids=hed_of_nothing(tmp_path))
    with pytest.raises(RcodError, match="continues from a model; name it with --start"):
        train.run(recipe("tiny-prior"), given._replace(start=None), tmp_path / "a")
    with pytest.raises(RcodError, match=r"the aid realesrgan_x4plus.* must be a file"):
        train.run(recipe("tiny-rcod", guides="4"), given, tmp_path / "b")
    assert not (tmp_path / "cache").exists()


def test_guides_that_are_there_need_no_elder(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Quick(tiny_task.Elder):
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(lr, scale_factor=4)

    setting = recipe("tiny-rcod", guides="4")
    given = sources._replace(cache=tmp_path / "cache", aids=hed_of_nothing(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(tiny_task.Elder, "load", lambda aids: Quick())
        first = tiny_task.prepare(setting, given, tmp_path)
    again = tiny_task.prepare(setting, given, tmp_path)
    assert again.data.guides is not None and first.data.guided == again.data.guided


def test_a_metric_is_not_taught_to_a_model_of_other_groups(tmp_path: Path):
    groups, start = GroupSettings(edges=(-0.9, -0.4), by="l1"), tmp_path / "l1.safetensors"
    system = SYSTEMS["tiny"].model_copy(update={"groups": groups})
    checkpoint.save(start, system, *build(system), torch.float32)
    with pytest.raises(RcodError, match=r"tiny-metric learns the cosine, .*, got groups by l1"):
        tiny_task.begun(TINY["tiny-metric"], start)


def test_an_older_recipe_is_named_by_what_it_has_too_much(tmp_path: Path):
    rundir = loop(Sum(1), tmp_path, steps="1").rundir
    rundir.save_state({"step": 1})
    old = rundir.recipe.model_dump() | {"group_metric": "cosine"}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    with pytest.raises(
        RcodError, match="kind to go on with, and is none: there is no setting called group_m"
    ):
        RunDir(tmp_path, rundir.recipe, resume=True)


def test_a_state_that_is_not_whole_is_one_sentence(tmp_path: Path):
    rundir = loop(Sum(1), tmp_path, steps="1").rundir
    rundir.save_state({"step": 1})
    content = rundir.state.read_bytes()
    for part in (content[: len(content) // 2], b"", b"no state"):
        rundir.state.write_bytes(part)
        with pytest.raises(RcodError, match=r"state\.pt must be a whole training state, and can't"):
            rundir.load_state()


def test_photos_that_cannot_be_read_are_named_in_the_log(sources: Sources, tmp_path: Path):
    photos = tmp_path / "photos"
    shutil.copytree(sources.photos, photos)
    content = (photos / "0.png").read_bytes()
    (photos / "cut.png").write_bytes(content[: len(content) // 2])
    given = sources._replace(photos=photos, cache=None)
    for name in ("tiny-autoencoder", "tiny-prior"):
        train.run(recipe(name, steps="1"), given, tmp_path / name)
        (note,) = [str(row["note"]) for row in rows(tmp_path / name) if "note" in row]
        assert note.startswith(f"passed over {photos}/cut.png: must be a")


def test_a_run_goes_on_with_its_own_beginning_alone(sources: Sources, tmp_path: Path):
    setting = recipe("tiny-prior", steps="1")
    done = train.run(setting, sources, tmp_path / "run")
    other = sources._replace(start=done.model)
    with pytest.raises(RcodError, match="the --start that it began with"):
        train.run(setting, other, tmp_path / "run", resume=True)
    wide = recipe("tiny-autoencoder")
    wide = wide.model_copy(update={"model": wide.model.model_copy(update={"widths": (16, 32)})})
    start = train.run(wide, sources._replace(start=None), tmp_path / "wide").model
    with pytest.raises(RcodError, match="the --start that it began with"):
        train.run(setting, sources._replace(start=start), tmp_path / "run", resume=True)
    train.run(setting, sources, tmp_path / "run", resume=True)


def test_orthogonal_steps_have_equal_singular_values():
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)) * 1e-4
    for each in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(torch.stack([each, 3 * each])))
        assert values.min() > 0.5
        assert values.max() < 1.4
