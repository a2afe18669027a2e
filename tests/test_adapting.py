"""Published systems in training, on the golden tiny bases."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import ENVIRONMENT
from safetensors.torch import load_file
from test_golden_systems import BASES, FILES, GOLDEN, converted
from torch.nn.functional import avg_pool2d

from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.networks.checkpoint import load, read_tensors
from rcod.networks.stable import StableBackbone, empty_network, fill_network, read_config
from rcod.networks.systems import SYSTEMS, covers
from rcod.training import adapting, lessons, train
from rcod.training.adaptation import PUBLISHED, Adaptation
from rcod.training.adapting import AdapterTask
from rcod.training.catalog import recipe_named
from rcod.training.student import TARGETS, open_student
from rcod.training.task import Sources
from rcod.training.team import Team, is_split

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")
if not GOLDEN.is_dir():
    pytest.skip("not checked here: shared/golden isn't there", allow_module_level=True)

CPU = torch.device("cpu")
TEAM = Team(CPU)
SMALL = {
    "window": "64", "batch": "2", "accumulate": "1", "workers": "0", "precision": "float32",
    "unet_rank": "4", "vae_rank": "2", "critic_rank": "2", "optim.warmup": "1", "trunk": "hed",
    "judge": "patch", "log_every": "1", "checkpointing": "false",
}  # fmt: skip


def photos_of(folder: Path, spots: tuple[int, int], size: tuple[int, int]) -> Path:
    """Three photos of a few soft spots each."""
    rng = np.random.default_rng(0)
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 255, (*spots, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos_of(tmp_path_factory.mktemp("photos"), (9, 11), (110, 90))


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly more than colours, which a random decoder comes nearest to."""
    return photos_of(tmp_path_factory.mktemp("soft"), (2, 3), (160, 140))


def recipe(name: str, **changes: str) -> Adaptation:
    given = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    found = recipe_named(name, given)
    assert isinstance(found, Adaptation)
    return found


def sources(setting: Adaptation, photos: Path) -> Sources:
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

    monkeypatch.setattr(adapting, "perception", lambda recipe, aids, device: far)


def task_of(setting: Adaptation, photos: Path) -> AdapterTask:
    return adapting.prepare(setting, sources(setting, photos), photos, TEAM)


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
    heard = lessons.Heard(tokens, None)
    for ours, network in (
        (lessons.teacher_of(student, heard, 7.5), bare()),
        (lessons.critic_of(student), alone),
    ):
        wanted = StableBackbone([network], vae).predict(z, t, tokens)  # pyright: ignore
        torch.testing.assert_close(ours(z, t, tokens), wanted, rtol=1e-4, atol=1e-4)
    _, onestep, _ = load(converted("osediff"), Parts(base=str(base), merge=False))
    wanted = onestep.backbone.predict(z, t, tokens)
    found = student.onestep.backbone.predict(z, t, tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


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
    monkeypatch.setattr(adapting, "MEASURED", 6)
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


def test_what_lacks_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RCOD_AIDS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refused(name: str, words: str, start: bool = True, **changes: str) -> None:
        setting = recipe(name, **changes)
        given = sources(setting, photos)._replace(aids=tmp_path)
        given = given if start else given._replace(start=None)
        with pytest.raises(RcodError, match=words):
            adapting.prepare(setting, given, tmp_path, TEAM)

    refused("osediff", r"the judging aid hed_vgg16\.safetensors must be a file", trunk="hed")
    refused("osediff", "LPIPS needs torchvision's weights vgg16.*or set trunk=hed", trunk="vgg")
    refused("osediff", "text=captions needs --captions FILE", lpips="0", text="captions")
    refused("s3diff", "stands on S3Diff's trained degradation estimator", False, lpips="0")
    refused("osediff", "processors can't train in float16", precision="float16")


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rcod.training import adapting, train
from rcod.training.adaptation import Adaptation
from rcod.training.task import Sources
recipe, photos, base, vision, start, folder = sys.argv[1:]
start = None if start == "None" else Path(start)
adapting.perception = lambda recipe, aids, device: None
given = Sources(photos, start, base=base, vision=vision, cache=Path(folder).parent, device="cpu")
train.run(Adaptation.model_validate_json(recipe), given, Path(folder))
"""


LAUNCH = (
    "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
    "--dynamo_backend", "no", "--mixed_precision", "no", "--num_cpu_threads_per_process", "1",
)  # fmt: skip


def launched(
    folder: Path, name: str, photos: Path, how: tuple[str, ...], **changes: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights that 20 steps in processes of their own end with, and what the run noted."""
    script = folder.parent / "child.py"
    script.write_text(CHILD)
    setting = recipe(name, steps="20", save_every="100", optim__lr="1e-3", lpips="0", **changes)
    given = sources(setting, photos)
    told = (setting.model_dump_json(), photos, given.base, given.vision, given.start, folder)
    command = [str(word) for word in (sys.executable, *how, script, *told)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
    notes = [row["note"] for row in rows if "note" in row]
    return load_file(folder / "model.safetensors"), notes


def check_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    gap = max(float((one[key] - other[key]).abs().max()) for key in one)
    print(f"\ntwo processes against one: largest difference of a weight {gap:.1e}")
    assert gap <= 1e-5


def test_two_processes_equal_one_that_takes_their_batches_in_turn(photos: Path, tmp_path: Path):
    """Through `accelerate launch`, over gloo; then with the frozen networks split by FSDP.

    In turn, so that every sum is the same to its last bit: these random networks multiply one
    until, twenty steps on, weights have nothing in common.
    """
    pytest.importorskip("accelerate", reason="not checked here: pip install 'rcod[train]'")
    one, _ = launched(tmp_path / "one", "rcod_o", photos, (), batch="1", accumulate="2")
    for flag, split in (("--multi_gpu", False), ("--use_fsdp", True)):
        run = tmp_path / flag
        two, notes = launched(run, "rcod_o", photos, (*LAUNCH, flag), batch="1")
        check_equal(one, two)
        assert len(notes) == split
        if split:
            now, before = map(float, re.findall(r"\d+\.\d+", notes[0]))
            assert now < 0.75 * before, notes[0]  # what learns stays whole; here it is much


def test_two_processes_equal_one_with_twice_the_batch(photos: Path, tmp_path: Path):
    """With guided adapters, too, whose networks change from photo to photo."""
    pytest.importorskip("accelerate", reason="not checked here: pip install 'rcod[train]'")
    one, _ = launched(tmp_path / "one", "mem", photos, (), batch="2")
    for flag in ("--multi_gpu", "--use_fsdp"):
        two, _ = launched(tmp_path / flag, "mem", photos, (*LAUNCH, flag), batch="1")
        check_equal(one, two)


def test_deepspeeds_third_stage_splits_and_its_others_do_not():
    assert is_split({"ACCELERATE_USE_FSDP": "true"})
    deepspeed = {"ACCELERATE_USE_DEEPSPEED": "true"}
    assert is_split(deepspeed | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    assert not is_split(deepspeed | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"})
    assert not is_split({})


@pytest.mark.parametrize("name", [one.name for one in PUBLISHED])
def test_a_recipe_comes_nearer_to_a_batch_in_thirty_steps(name: str, soft: Path, blind: None):
    """Opponents (critic, adversary) count little: they learn too, and never yield.

    What is left is the frozen decoder's: its weights are random, and no latent gives the photo.
    """
    wanted = recipe(name)
    changes = {"overfit": "true", "optim__lr": "2e-2", "batch": "1", "group_encoder": "frozen"}
    if wanted.row.adapters == "guided":  # and their innermost norms need more than one number
        changes |= {"window": "128", "optim__lr": "1e-3"}
    if wanted.distill != "off":
        changes |= {"distill_weight": "1e-3"}
    if wanted.adversary:
        changes |= {"adversary": "1e-3"}
    pixel = 30 if name == "pisa_sr" else 0  # its first stage
    if pixel:
        changes |= {"pixel_steps": "30"}
    setting = recipe(name, steps=str(30 + pixel), **changes)
    task = task_of(setting, soft)
    values = [train.step(task, setting, n, TEAM) for n in range(setting.steps)]
    assert all(np.isfinite(one["norm"]) for one in values)
    losses = [one["loss"] for one in values]
    print(f"\n{name}:", *(f"{loss:.3g}" for loss in losses[::3]))
    if pixel:
        assert min(losses[25:30]) <= 0.7 * losses[0]
        assert min(losses[-5:]) < losses[30]  # where the first stage has left it
    else:
        assert min(losses[-5:]) <= (0.5 if wanted.goal == "metric" else 0.8) * losses[0]
