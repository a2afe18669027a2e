"""Published systems in training, on the golden tiny bases."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import ENVIRONMENT
from safetensors.torch import load_file, save_file
from test_golden_systems import BASES, FILES, GOLDEN, converted
from torch.nn.functional import avg_pool2d, interpolate

from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.networks.checkpoint import load, read_tensors, write_tensors
from rcod.networks.stable import StableBackbone, empty_network, fill_network, read_config
from rcod.networks.systems import SYSTEMS, covers
from rcod.training import published_losses as losses
from rcod.training import published_task, train
from rcod.training.captions import read_captions
from rcod.training.catalog import recipe_named
from rcod.training.degradation import DegradeSettings, Round
from rcod.training.published_recipe import PUBLISHED, PublishedRecipe
from rcod.training.published_student import TARGETS, open_student
from rcod.training.published_task import AdapterTask
from rcod.training.stream import Dice, Lot, Numbers, Samples, collate
from rcod.training.task import Sources
from rcod.training.team import Team, is_split

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")
if not GOLDEN.is_dir():
    pytest.skip("not checked here: shared/golden isn't there", allow_module_level=True)

CPU = torch.device("cpu")
TEAM = Team(CPU)
SMALL = {
    "window": "64", "batch": "2", "accumulate": "1", "workers": "0", "precision": "float32",
    "unet_rank": "4", "vae_rank": "4", "critic_rank": "2", "optim.warmup": "1", "trunk": "hed",
    "judge": "patch", "log_every": "1", "checkpointing": "false",
}  # fmt: skip

RANKS = {"unet_rank": "8"}  # of the golden files of S3Diff and RCOD_S


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of a few soft spots each."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 11, 3), np.uint8))
        coarse.resize((110, 90), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def recipe(name: str, **changes: str) -> PublishedRecipe:
    kind = next(one for one in PUBLISHED if one.name == name)
    ranks = RANKS if SYSTEMS[kind.system].adapters == "guided" else {}
    given = SMALL | ranks | {key.replace("__", "."): value for key, value in changes.items()}
    found = recipe_named(name, given)
    assert isinstance(found, PublishedRecipe)
    return found


def sources(setting: PublishedRecipe, photos: Path) -> Sources:
    base = str(GOLDEN / "bases" / BASES[str(SYSTEMS[setting.system].base)])
    start = None
    if SYSTEMS[setting.system].adapters == "guided":
        start = converted(setting.system)  # for its estimator
    vision = str(GOLDEN / "bases/clip-vision-tiny")
    vision = vision if SYSTEMS[setting.system].condition == "visual" else None
    return Sources(photos, start, base=base, vision=vision, cache=photos.parent)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick distance in place of LPIPS: which one it is, is no part of these laws."""

    def far(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return avg_pool2d(sr - hr, 4).abs().flatten(1).mean(dim=1)

    monkeypatch.setattr(published_task, "perception", lambda recipe, aids, device: far)


def task_of(setting: PublishedRecipe, photos: Path) -> AdapterTask:
    return published_task.prepare(setting, sources(setting, photos), photos, TEAM)


@pytest.mark.parametrize("name", ["osediff", "pisa_sr", "s3diff"])
def test_fresh_adapters_cover_the_layers_of_the_published_ones(name: str):
    published, _ = read_tensors(converted(name))
    base = GOLDEN / "bases" / BASES[str(published.base)]
    for key, targets in TARGETS[published.adapters].items():
        part = "unet" if key.startswith("unet") else "vae"
        network = empty_network(read_config(base, part), part)
        layers = [
            layer
            for layer, module in network.named_modules()
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        ]
        theirs = {layer for layer in layers if covers(published.targets[key], layer)}
        assert {layer for layer in layers if covers(targets, layer)} == theirs
        assert theirs


def test_a_student_from_a_file_restores_as_that_file_does(photos: Path):
    for name in FILES:
        setting = recipe(name)
        given = sources(setting, photos)._replace(start=converted(name))
        student = open_student(setting, given, CPU)
        told: dict[str, object] = {"base": given.base, "merge": False}
        told |= {"vision": given.vision} if given.vision else {}
        _, onestep, _ = load(converted(name), Parts.model_validate(told))
        up = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        t, features = torch.tensor([499]), torch.zeros(1, 2, 128)
        with torch.no_grad():
            ours, theirs = student.onestep, onestep
            if onestep.estimator is not None:
                ours, theirs = ours.tuned(features), theirs.tuned(features)
            z_up = theirs.encode(up)
            tokens = theirs.prompt(up)
            torch.testing.assert_close(ours.encode(up), z_up, rtol=1e-4, atol=1e-4)
            wanted = theirs.noise(z_up, t, tokens)
            found = ours.noise(z_up, t, ours.prompt(up))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert student.tensors().keys() == read_tensors(converted(name))[1].keys() | (
            {"text.tokens"} if SYSTEMS[name].texts else set()
        )


def test_teacher_critic_and_student_equal_three_networks(photos: Path):
    """One frozen base with voices against a network of its own for each."""
    setting = recipe("osediff")
    given = sources(setting, photos)._replace(start=converted("osediff"))
    student = open_student(setting, given, CPU)
    rng = torch.Generator().manual_seed(0)
    for parameter in student.critic:
        parameter.data = torch.randn(parameter.shape, generator=rng) / 10
    base = Path(str(given.base))

    def bare() -> torch.nn.Module:
        empty = empty_network(read_config(base, "unet"), "unet")
        return fill_network(empty, base / "unet", torch.float32)

    from rcod.networks.voices import Choir, add_voice

    alone, choir = bare(), Choir()
    layers = TARGETS["plain"]["unet.plain"]
    own = add_voice(alone, lambda x: covers(layers, x), 2, choir.voice("critic"), rng)
    for mine, theirs in zip(own, student.critic, strict=True):
        mine.data = theirs.data.clone()
    z = torch.randn(2, 4, 8, 8, generator=rng)
    t, tokens = torch.tensor([300, 700]), torch.randn(2, 77, 8, generator=rng)
    vae = student.onestep.backbone.vae
    for ours, network in (
        (losses.teacher_of(student, None, 7.5), bare()),
        (losses.critic_of(student), alone),
    ):
        wanted = StableBackbone([network], vae).predict(z, t, tokens)  # pyright: ignore
        torch.testing.assert_close(ours(z, t, tokens), wanted, rtol=1e-4, atol=1e-4)
    _, onestep, _ = load(converted("osediff"), Parts(base=str(base), merge=False))
    wanted = onestep.backbone.predict(z, t, tokens)
    found = student.onestep.backbone.predict(z, t, tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("critic", ["released", "all_adapters"])
def test_the_released_critic_learns_in_the_middle_alone(critic: str, photos: Path, blind: None):
    # its middle looks at 2 x 2 places, since a single one has nothing to attend to
    setting = recipe("osediff", critic=critic, window="80", steps="3")
    task = task_of(setting, photos)
    unet = task.roles.student.onestep.backbone.unets[0]
    names = {id(tensor): name for name, tensor in unet.named_parameters()}
    before = {names[id(x)]: x.detach().clone() for x in task.roles.student.critic}
    for n in range(2):  # the first step opens what begins at zero
        train.step(task, setting, n, TEAM)
    after = {names[id(x)]: x.detach() for x in task.roles.student.critic}
    assert not [name for name in before if torch.equal(before[name], after[name])]
    middle = {name for name in before if name.startswith("mid_block.")}
    assert middle
    assert (set(before) == middle) == (critic == "released")


@pytest.mark.parametrize("encoder", ["adapted", "frozen"])
def test_groups_are_measured_with_the_encoder_asked_for(encoder: str, photos: Path, blind: None):
    setting = recipe("rcod_o", group_encoder=encoder)
    student = task_of(setting, photos).roles.student
    rng = torch.Generator().manual_seed(0)
    hr, up = (torch.rand(2, 3, 64, 64, generator=rng) for _ in range(2))

    def metric() -> torch.Tensor:
        return losses.measure(student, student.onestep, up, hr, setting)

    before = metric()
    for name, tensor in student.handles.items():
        if name.startswith("vae.") and name.endswith(".up"):
            tensor.data = torch.randn(tensor.shape, generator=rng) / 10
    assert torch.equal(before, metric()) == (encoder == "frozen")


@torch.no_grad()
def test_what_is_kept_in_float32_trains_in_float32(photos: Path):
    """Autoencoder, metric, scores and estimate under autocast; the UNet alone is rounded."""
    setting = recipe("mem", precision="bfloat16")
    student = open_student(setting, sources(setting, photos), CPU)
    rng = torch.Generator().manual_seed(0)
    hr, lr = torch.rand(1, 3, 64, 64, generator=rng), torch.rand(1, 3, 16, 16, generator=rng)
    lot = Lot((0,), hr, lr, (0,), ())

    def seen() -> list[torch.Tensor]:
        backbone = losses.tuned(student, lot).backbone
        loss, values = losses.metric_loss(student, lot, setting)
        z = backbone.encode(hr)
        return [loss, values["metric"], z, backbone.decode(z)]

    wanted = seen()
    with published_task.cast_to(setting.precision, CPU):
        found = seen()
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)


def test_a_goal_that_is_damaged_is_nothing_to_the_adversary(photos: Path):
    setting = recipe("s3diff", negative_share="0.999")
    student = open_student(setting, sources(setting, photos), CPU)
    seen: list[torch.Tensor] = []

    class Judge(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((1, 2, 3))[:, None]

    roles = losses.Roles(student, None, Judge())
    hr, lr = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 16, 16)
    dice = Dice(0, (0, 1), CPU)
    shown = losses.restore(student, Lot((0, 1), hr, lr, (0, 1), ()), setting, setting.groups, dice)
    assert shown.worse.all() and not torch.equal(shown.hr, hr)
    _, terms = losses.student_loss(roles, shown, None, setting, dice, False)
    assert float(terms["adversary"]) == 0
    own = losses.discriminator_loss(roles, shown, dice)
    assert torch.equal(seen[-2], hr)  # photos are photos
    torch.testing.assert_close(own, torch.nn.functional.softplus(-hr.mean((1, 2, 3))).mean())
    half = shown._replace(worse=torch.tensor([True, False]))
    paid = torch.nn.functional.softplus(shown.sr[1].mean())
    torch.testing.assert_close(losses.discriminator_loss(roles, half, dice), own + paid)


@pytest.mark.parametrize("name", ["osediff", "mem"])
def test_what_a_run_begins_with_is_not_rounded(name: str, photos: Path, tmp_path: Path):
    setting = recipe(name, precision="bfloat16")
    given = sources(setting, photos)._replace(start=converted(setting.system))
    _, before = read_tensors(converted(setting.system))
    student = open_student(setting, given, CPU)
    after = student.tensors()
    assert all(torch.equal(after[key], before[key]) for key in before if key in after)


def test_ranks_of_a_start_are_the_recipes(photos: Path):
    setting = recipe("osediff", unet_rank="7")
    given = sources(setting, photos)._replace(start=converted("osediff"))
    with pytest.raises(RcodError, match=r"unet_rank must be \d+, .* got 7; set unet_rank="):
        open_student(setting, given, CPU)


def test_captions_are_told_apart_by_their_folders(tmp_path: Path):
    photos = [tmp_path / name for name in ("a/1.png", "b/1.png", "b/2.png")]
    told = tmp_path / "captions.txt"
    told.write_text(f"{photos[0]}\tred\nb/1.png\tblue\n2\tgreen\n")
    assert read_captions(told, [*photos]) == ["red", "blue", "green"]
    told.write_text("1.png\tred\n2.png\tblue\n")
    with pytest.raises(RcodError, match=r"has none for .*a/1\.png"):
        read_captions(told, [*photos])


def test_distillation_without_a_critic_asks_two_questions(photos: Path):
    setting = recipe("pisa_sr")
    student = open_student(setting, sources(setting, photos), CPU)
    rng = torch.Generator().manual_seed(0)
    towards, away = torch.randn(2, 77, 8, generator=rng), torch.randn(1, 77, 8, generator=rng)
    heard: list[torch.Tensor] = []
    unet = student.onestep.backbone.unets[0]
    unet.register_forward_pre_hook(lambda _, given: heard.append(given[2]))
    z = torch.randn(2, 4, 8, 8, generator=rng, requires_grad=True)
    shown = losses.StudentOutput(
        z, z, torch.zeros(2).bool(), z, z, torch.ones(2), torch.tensor([1, 1])
    )
    told = losses.Heard(towards, away)
    paid = losses.distilled(student, shown, told, setting, Dice(0, (0, 1), CPU))
    assert len(heard) == 2
    assert torch.equal(heard[0], towards) and torch.equal(heard[1], away.expand_as(towards))
    (grad,) = torch.autograd.grad(paid.sum(), z)
    assert float(grad.abs().max()) > 0


def test_damage_on_the_device_is_the_workers_own(photos: Path, blind: None):
    lots = []
    for damage in ("workers", "device"):
        task = task_of(recipe("osediff", damage=damage), photos)
        lots.append([task._next() for _ in range(2)])
    for theirs, ours in zip(*lots, strict=True):
        assert torch.equal(theirs.hr, ours.hr)
        assert torch.equal(theirs.lr, ours.lr)


def test_weights_that_make_no_numbers_make_a_bad_step(photos: Path, blind: None):
    task = task_of(recipe("rcod_o", das="off", distill="off"), photos)
    for handle, tensor in task.roles.student.handles.items():
        if handle.startswith("vae."):
            tensor.data.fill_(torch.nan)
    assert np.isnan(train.step(task, task.recipe, 0, TEAM)["norm"])


@pytest.mark.parametrize("name", ["osediff", "pisa_sr"])
def test_matrices_alone_can_turn(name: str, photos: Path, blind: None):
    task = task_of(recipe(name, optim__muon="0.01"), photos)
    weights = [p for learner in task.learners.values() for p in learner.parameters]
    before = [p.detach().clone() for p in weights]
    assert train.step(task, task.recipe, 0, TEAM)["norm"] > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


class Two(Team):
    """A team whose other process has met a broken photo."""

    def collect(self, words: Sequence[str]) -> list[str]:
        return [*words, "b.png: must be a picture"]


def test_photos_that_others_could_not_read_are_named_once(photos: Path, blind: None):
    setting = recipe("osediff")
    task = published_task.prepare(setting, sources(setting, photos), photos, Two(CPU))
    for _ in range(2):
        task._next()
    assert task.notes == ["passed over b.png: must be a picture"]


def test_checkpointing_changes_no_gradient(photos: Path, blind: None):
    found: list[list[torch.Tensor]] = []
    for checkpointing in ("true", "false"):
        setting = recipe("rcod_o", checkpointing=checkpointing, optim__ema="0")
        task = task_of(setting, photos)
        for n in range(2):
            train.step(task, setting, n, TEAM)
        found.append([p.detach() for x in task.learners.values() for p in x.parameters])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_a_trained_file_runs_and_a_resumed_run_equals_an_unbroken_one(
    photos: Path, tmp_path: Path, blind: None, monkeypatch: pytest.MonkeyPatch
):
    setting = recipe("rcod_o", steps="4", save_every="2", group_by="quantiles")
    given = sources(setting, photos)
    monkeypatch.setattr(published_task, "MEASURED", 6)
    whole = train.run(setting, given, tmp_path / "whole").model
    step = train.step

    def stop_at_three(*values: object) -> dict[str, float]:
        if values[2] == 3:
            raise KeyboardInterrupt
        return step(*values)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(train, "step", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            train.run(setting, given, tmp_path / "broken")
    again = train.run(setting, given, tmp_path / "broken", resume=True).model
    assert whole.read_bytes() == again.read_bytes()
    system, onestep, _ = load(whole, Parts(base=given.base, vision=given.vision))
    assert system.groups != setting.groups  # the data's own
    assert onestep.encode(torch.rand(1, 3, 64, 64)).isfinite().all()
    fewer = tmp_path / "fewer.txt"
    fewer.write_text(f"{photos}/0.png\n")
    with pytest.raises(RcodError, match="--photos must be the photos that the run was begun with"):
        train.run(setting, given._replace(photos=fewer), tmp_path / "broken", resume=True)


def test_groups_are_measured_in_the_precision_of_the_steps(
    photos: Path, blind: None, monkeypatch: pytest.MonkeyPatch
):
    task = task_of(recipe("rcod_o", group_by="quantiles", precision="bfloat16"), photos)
    seen: list[bool] = []

    def look(self: AdapterTask, tell: object) -> GroupSettings:
        seen.append(torch.is_autocast_enabled("cpu"))
        return self.recipe.groups

    monkeypatch.setattr(AdapterTask, "measure", look)
    assert task.begin(print) and not task.begin(print)
    assert seen == [True]


def test_groups_are_measured_aloud_by_workers_and_kept(
    photos: Path, tmp_path: Path, blind: None, monkeypatch: pytest.MonkeyPatch
):
    photos = shutil.copytree(photos, tmp_path / "photos")
    (photos / "0b.png").write_bytes(b"no")
    monkeypatch.setattr(published_task, "MEASURED", 6)
    monkeypatch.setattr(published_task, "TOLD", 4)
    setting = recipe("rcod_o", group_by="quantiles", workers="1", steps="1")
    given, seen = sources(setting, photos), list[int]()
    drawn = published_task.lots

    def count(samples: Samples, numbers: Numbers, workers: int) -> Iterator[Lot]:
        seen.append(workers)
        return drawn(samples, numbers, workers)

    def die(*given: object) -> dict[str, float]:
        raise KeyboardInterrupt  # before the first step is done

    monkeypatch.setattr(published_task, "lots", count)
    with monkeypatch.context() as patch:
        patch.setattr(train, "step", die)
        with pytest.raises(KeyboardInterrupt):
            train.run(setting, given, tmp_path / "run")
    assert seen == [1]
    notes = notes_of(tmp_path / "run")
    assert notes[0] == "measuring groups: 4 of 6" and notes[1].startswith("groups: edges 0.")
    train.run(setting, given, tmp_path / "run", resume=True)
    assert seen == [1, 1]  # the steps' own: what was found had been saved
    (lost,) = notes_of(tmp_path / "run")[2:]
    assert lost.startswith("passed over ") and "0b.png" in lost


def notes_of(run: Path) -> list[str]:
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    return [row["note"] for row in rows if "note" in row]


class Half(Team):
    """One of two processes, which hears from the other one what it says before `mean`."""

    def __init__(self, rank: int, said: list[torch.Tensor]) -> None:
        super().__init__(CPU)
        self.size, self.own, self.said = 2, rank, said

    @property
    def rank(self) -> int:
        return self.own

    @rank.setter
    def rank(self, value: int) -> None:
        pass

    def mean(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        self.said.append(tensors[0])
        return [sum(self.said) / 2]  # pyright: ignore[reportReturnType]


def test_processes_share_the_measuring_of_groups(
    photos: Path, blind: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(published_task, "MEASURED", 3)
    setting, said = recipe("rcod_o", group_by="quantiles"), list[torch.Tensor]()
    task, found = task_of(setting, photos), list[GroupSettings]()
    for team in (TEAM, Half(0, said), Half(1, said)):
        task.team = team
        found.append(task.measure(print))
    alone, _, both = found
    assert [int((part != 0).sum()) for part in said] == [2, 1]
    assert both == alone


def test_what_is_enlarged_in_training_is_enlarged_bicubically(photos: Path):
    lot = Lot((0, 1), torch.rand(2, 3, 64, 64), torch.rand(2, 3, 16, 16), (0, 1), ())
    whole = DegradeSettings(first=Round())  # nothing is spared
    for name in ("osediff", "s3diff"):
        setting = recipe(name).model_copy(update={"degradation": whole})
        wanted = interpolate(lot.lr, scale_factor=4, mode="bicubic").clamp(0, 1)
        torch.testing.assert_close(losses.up_of(lot, setting), wanted)


def test_some_students_of_s3diff_are_shown_the_photo_itself():
    numbers = tuple(range(1000))
    lot = Lot(numbers, torch.ones(1000, 3, 4, 4), torch.zeros(1000, 3, 1, 1), numbers, ())
    spared = losses.up_of(lot, recipe("s3diff"))[:, 0, 0, 0]
    assert 2 <= int(spared.sum()) <= 25 and set(spared.tolist()) == {0, 1}
    alone = losses.up_of(
        Lot((int(spared.argmax()),), lot.hr[:1], lot.lr[:1], (0,), ()), recipe("s3diff")
    )
    assert alone.all()  # it is the sample's own fate
    assert not losses.up_of(lot, recipe("osediff")).any()


@pytest.mark.parametrize(("name", "share"), [("osediff", "1"), ("pisa_sr", "0.5")])
def test_the_student_hears_captions_as_often_as_it_is_told(
    name: str, share: str, photos: Path, tmp_path: Path, blind: None
):
    told = tmp_path / "captions.txt"
    told.write_text("0\tred\n1\tblue\n2\tgreen\n")
    setting = recipe(name, text="captions", distill="off", batch="8", accumulate="1")
    assert setting.caption_share == float(share)
    given = sources(setting, photos)._replace(captions=told)
    task = published_task.prepare(setting, given, photos, TEAM)
    assert task.texts.hear is not None and not task.texts.note
    heard, student = list[torch.Tensor](), task.roles.student
    student.onestep.backbone.unets[0].register_forward_pre_hook(lambda _, x: heard.append(x[2]))
    lot = task._next()
    captions = task.texts.hear(lot).towards
    (own,) = student.onestep.prompt(lot.hr[:1])
    task.done, task._lots = 0, None
    next(task.parts(0))
    same = [torch.equal(mine, theirs) for mine, theirs in zip(heard[0], captions, strict=True)]
    assert all(same) if share == "1" else 0 < sum(same) < 8
    assert all(torch.equal(x, own) for x, hears in zip(heard[0], same, strict=True) if not hears)


def test_a_run_says_that_its_student_hears_no_captions(photos: Path, blind: None):
    said = list[str]()
    for name in ("pisa_sr", "rcod_o"):
        task_of(recipe(name, distill="off", das="off"), photos).begin(said.append)
    (note,) = said
    assert "released it hears captions of 0.5 of its samples, with text=captions and" in note


def test_photos_are_the_same_while_they_lie_there_unchanged(
    photos: Path, tmp_path: Path, blind: None
):
    setting = recipe("osediff")
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    place = task_of(setting, tmp_path / "photos").position()
    task_of(setting, tmp_path / "link").seek(place)
    shutil.copy(photos / "1.png", tmp_path / "photos" / "0.png")
    with pytest.raises(RcodError, match="begun with, unchanged, in the same order"):
        task_of(setting, tmp_path / "photos").seek(place)


def test_a_run_goes_on_with_the_file_that_it_began_with(photos: Path, tmp_path: Path, blind: None):
    setting, other = recipe("pisa_sr", distill="off"), tmp_path / "other.safetensors"
    row, tensors = read_tensors(converted("pisa_sr"))
    write_tensors(other, row, tensors | {"unet.pixel.unused": torch.zeros(1)})
    given = sources(setting, photos)
    ours, theirs = (
        published_task.prepare(setting, given._replace(start=start), photos, TEAM)
        for start in (converted("pisa_sr"), other)
    )
    place = ours.position() | {"done": 4}
    with pytest.raises(RcodError, match="--start must be the file that the run was begun with"):
        theirs.seek(place)
    ours.seek(place)
    del place["origin"]  # as states were before
    theirs.seek(place)
    assert ours.done == theirs.done == 4


def shifted(folder: Path, out: Path) -> Path:
    """A folder of networks whose weights are others."""
    shutil.copytree(folder, out)
    for path in out.rglob("*.safetensors"):
        save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    return out


def test_a_run_goes_on_with_the_networks_and_captions_that_it_began_with(
    photos: Path, tmp_path: Path, blind: None
):
    setting = recipe("rcod_o", text="captions")
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("0\tred\n1\tblue\n2\tgreen\n")
    second.write_text("0\tred\n1\tblue\n2\tgrey\n")
    moved = shutil.copytree(str(sources(setting, photos).base), tmp_path / "moved")
    given = sources(setting, photos)._replace(captions=first)
    place = published_task.prepare(setting, given, photos, TEAM).position()
    base, vision = (shifted(Path(str(x)), tmp_path / Path(str(x)).name) for x in given[4:6])
    for change, words in (
        ({"captions": second}, "--captions must say of every photo what it said when"),
        ({"base": str(base)}, "--base and --vision must be the networks that the run was begun"),
        ({"vision": str(vision)}, "--base and --vision must be the networks that the run was"),
    ):
        other = published_task.prepare(setting, given._replace(**change), photos, TEAM)
        with pytest.raises(RcodError, match=words):
            other.seek(place)
        older = {name: x for name, x in place.items() if name not in ("captions", "frozen")}
        other.seek(older)
    published_task.prepare(setting, given._replace(base=str(moved)), photos, TEAM).seek(place)


def test_a_metric_is_estimated_by_the_encoder_that_found_its_groups(photos: Path, tmp_path: Path):
    row, tensors = read_tensors(converted("rcod_s"))
    start = tmp_path / "start.safetensors"
    made = recipe("rcod_s", group_encoder="frozen").model_dump_json()
    write_tensors(start, row.model_copy(update={"metric": False}), tensors, made)
    setting = recipe("mem")
    given = sources(setting, photos)._replace(start=start)
    with pytest.raises(RcodError, match="group_encoder must be frozen, which measured for the gr"):
        open_student(setting, given, CPU)
    open_student(recipe("mem", group_encoder="frozen"), given, CPU)
    open_student(setting, given._replace(start=converted("rcod_s")), CPU)  # which doesn't say


def test_metric_estimation_leaves_the_rest_of_the_row_alone(photos: Path, tmp_path: Path):
    row, tensors = read_tensors(converted("rcod_s"))
    groups = GroupSettings(edges=(0.31, 0.62), timesteps=(750, 500, 250))
    row = row.model_copy(update={"formula": "general", "groups": groups, "metric": False})
    start = tmp_path / "start.safetensors"
    write_tensors(start, row, tensors)
    setting = recipe("mem", steps="1")
    given = sources(setting, photos)._replace(start=start)
    found, _ = read_tensors(train.run(setting, given, tmp_path / "run").model)
    assert found == row.model_copy(update={"metric": True})
    by_distance = GroupSettings(edges=(-0.9, -0.4), timesteps=(750, 500, 250), by="l1")
    write_tensors(start, row.model_copy(update={"groups": by_distance}), tensors)
    with pytest.raises(RcodError, match="mem learns the cosine, and --start must be grouped by it"):
        train.run(setting, given, tmp_path / "other")
    write_tensors(start, row.model_copy(update={"timestep": 999}), tensors)
    with pytest.raises(RcodError, match="a dial for mem to turn, got rcod_s's one timestep"):
        open_student(setting, given, CPU)


def test_what_lacks_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RCOD_AIDS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refused(name: str, words: str, start: bool = True, **changes: str) -> None:
        setting = recipe(name, **changes)
        given = sources(setting, photos)._replace(aids=tmp_path)
        given = given if start else given._replace(start=None)
        with pytest.raises(RcodError, match=words):
            published_task.prepare(setting, given, tmp_path, TEAM)

    refused("osediff", r"the aid hed_vgg16\.safetensors must be a file", trunk="hed")
    refused("osediff", "LPIPS needs torchvision's weights vgg16.*or set trunk=hed", trunk="vgg")
    refused("osediff", "text=captions needs --captions FILE", lpips="0", text="captions")
    refused("s3diff", "stands on S3Diff's trained degradation estimator", False, lpips="0")
    refused("osediff", "processors can't train in float16", precision="float16")
    refused("mem", "mem learns the metric of a trained rcod_s; name it with --start", False)
    setting = recipe("osediff", lpips="0")
    given = sources(setting, photos)._replace(captions=tmp_path / "tags.txt")
    with pytest.raises(RcodError, match="--captions is heard with text=captions alone"):
        published_task.prepare(setting, given, tmp_path, TEAM)
    setting, told = recipe("osediff", text="captions", lpips="0"), photos / "0.png"
    with pytest.raises(RcodError, match=r"--captions must be lines of .*0\.png, which is no text"):
        published_task.prepare(setting, given._replace(captions=told), tmp_path, TEAM)


CHILD = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rcod.training import team, train
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.captions import read_captions
from rcod.training.task import Sources
team.LEAST = 16384  # few layers are enough, and each takes its time
for recipe, photos, base, vision, start, way, folder in json.loads(sys.argv[1]):
    os.environ["ACCELERATE_USE_FSDP"] = way  # as the launch has it, or as without --use_fsdp
    given = Sources(photos, start and Path(start), Path(folder).parent, None, base, vision)
    train.run(PublishedRecipe.model_validate(recipe), given._replace(device="cpu"), Path(folder))
"""


LAUNCH = (
    "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
    "--dynamo_backend", "no", "--mixed_precision", "no", "--num_cpu_threads_per_process", "1",
    "--use_fsdp",
)  # fmt: skip


# recipe, how one process takes what two take, and who holds the frozen networks in parts.
# In turn, every sum is the same to its last bit: random networks multiply one until, twenty
# steps on, weights have nothing in common. Guided adapters change from photo to photo, too. Of the
# seed nothing is asked but that no gradient is so near to nothing that AdamW takes its rounding.
PAIRED = (("rcod_o", {"accumulate": "2"}, ("true",)), ("mem", {"batch": "2"}, ("true", "false")))


def test_two_processes_equal_one_with_twice_the_batch(photos: Path, tmp_path: Path):
    """Through `accelerate launch`, over gloo; started once, since that takes longest."""
    pytest.importorskip("accelerate", reason="not checked here: pip install 'rcod[train]'")
    photos = shutil.copytree(photos, tmp_path / "photos")
    (photos / "0b.png").write_bytes(b"no")  # the second process meets it, at once
    jobs, threads = list[list[object]](), torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two
    for name, at_once, ways in PAIRED:
        course = {"steps": "20", "save_every": "100", "optim.lr": "1e-3", "lpips": "0"}
        course |= {"text": "none", "batch": "1", "seed": "1"}
        given = sources(recipe(name), photos)._replace(device="cpu")
        train.run(recipe(name, **course | at_once), given, tmp_path / "one" / name)
        told = [recipe(name, **course).model_dump(mode="json"), str(photos), given.base]
        told += [given.vision, given.start and str(given.start)]
        jobs += [[*told, way, str(tmp_path / f"two{way}" / name)] for way in ways]
    torch.set_num_threads(threads)
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, *LAUNCH, str(script), json.dumps(jobs)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    for *_, way, folder in jobs:
        run = Path(str(folder))
        check_equal(tmp_path / "one" / run.name / "model.safetensors", run / "model.safetensors")
        rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
        notes = [row["note"] for row in rows if row["step"] == 1 and "note" in row]
        assert "0b.png: must be a" in notes.pop()
        assert len(notes) == (way == "true")
        for note in notes:
            now, before = map(float, re.findall(r"\d+\.\d+", note))
            assert now < 0.9 * before, note  # what learns stays whole, as do small layers


def check_equal(one: Path, other: Path) -> None:
    """The weights of two files."""
    mine, theirs = load_file(one), load_file(other)
    gap = max(float((mine[key] - theirs[key]).abs().max()) for key in mine)
    print(f"\ntwo processes against one: largest difference of a weight {gap:.1e}")
    assert gap <= 1e-5


def test_deepspeeds_third_stage_splits_and_its_others_do_not():
    assert is_split({"ACCELERATE_USE_FSDP": "true"})
    deepspeed = {"ACCELERATE_USE_DEEPSPEED": "true"}
    assert is_split(deepspeed | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    assert not is_split(deepspeed | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"})
    assert not is_split({})


def show_what_it_can_make(task: AdapterTask, folder: Path) -> None:
    """Make the only photo one that the student can make: what it makes, untaught, of another.

    The golden bases are random, and no latent at all gives an ordinary photo.
    """
    setting, (photo,) = task.recipe, folder.glob("*.png")
    lot = collate([task.samples[0]])
    with torch.no_grad():
        dice = Dice(setting.seed, lot.numbers, CPU)
        made = losses.restore(task.roles.student, lot, setting, setting.groups, dice).sr[0]
    pixels = made.mul(255).round().byte()
    for one in (pixels, pixels.flip(-1)):  # the sample may be the photo's mirror
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(photo)
        if torch.equal(task.samples[0].hr, pixels):
            return
    raise AssertionError("the sample must be the whole photo")


def halve(setting: PublishedRecipe, folder: Path) -> tuple[AdapterTask, float]:
    """Train until the loss is half of the first one, which is returned; dice fall alike."""
    task = task_of(setting, folder)
    show_what_it_can_make(task, folder)
    task.begin(print)
    curve: list[float] = []
    while len(curve) < 30 and min(curve, default=1.0) > 0.5 * (curve or [1.0])[0]:
        values = train.step(task, setting, len(curve), TEAM)
        assert np.isfinite(values["norm"])
        curve.append(values["loss"])
    print(f"\n{setting.name}:", *(f"{loss:.3g}" for loss in curve))
    assert curve[-1] <= 0.5 * curve[0]
    return task, curve[0]


@pytest.mark.parametrize("name", [one.name for one in PUBLISHED])
def test_a_recipe_halves_the_loss_of_a_batch_within_thirty_steps(
    name: str, tmp_path: Path, blind: None
):
    """Opponents (critic, adversary) count little: they learn too, and never yield."""
    wanted = recipe(name)
    changes = {"overfit": "true", "optim.lr": "5e-3", "batch": "1", "group_encoder": "frozen"}
    if wanted.row.adapters == "guided":  # and their innermost norms need more than one number
        changes |= {"window": "128", "optim.lr": "1e-3"}
    if wanted.distill != "off":
        changes |= {"distill_weight": "1e-3"}
    if wanted.distill == "vsd":
        changes |= {"text": "none"}
    if wanted.adversary:
        changes |= {"adversary": "1e-3"}
    setting = recipe(name, steps="60", pixel_steps="0", **changes)
    side, rng = setting.window, np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (2, 3, 3), np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    _, untaught = halve(setting, tmp_path)
    if wanted.pixel_steps:  # what its first stage learns, the second one need not
        setting = setting.model_copy(update={"pixel_steps": 30})
        task, _ = halve(setting, tmp_path)
        assert train.step(task, setting, 30, TEAM)["loss"] < untaught
