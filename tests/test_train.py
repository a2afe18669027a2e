"""The training loop on pictures of a few pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.networks import checkpoint
from rcod.pixels.perceptual import LpipsHed
from rcod.training import train
from rcod.training.learner import Learner, orthogonal
from rcod.training.objectives import prior_loss
from rcod.training.recipe import Recipe, recipe_named

SMALL = {
    "batch": "2", "window": "32", "data.crop": "64", "data.crops": "8",
    "precision": "float32", "optim.warmup": "1", "critic_rank": "2",
}  # fmt: skip


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
def autoencoder(photos: Path) -> Path:
    folder = photos.parent / "autoencoder"
    return train.run(recipe("tiny-autoencoder"), photos, folder, cache=photos.parent / "cache")


def test_the_prior_learns(photos: Path, autoencoder: Path, tmp_path: Path):
    setting = recipe("tiny-prior", steps="100", batch="8")
    cache = photos.parent / "cache"
    train.run(setting, photos, tmp_path / "run", start=autoencoder, cache=cache)
    log = (tmp_path / "run" / "log.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_resumed_run_equals_an_unbroken_one(
    photos: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train, "SAVE_EVERY", 3)
    setting, cache = recipe("tiny-metric", steps="6"), photos.parent / "cache"

    def go(folder: Path, resume: bool = False) -> Path:
        return train.run(setting, photos, folder, start=autoencoder, cache=cache, resume=resume)

    whole = go(tmp_path / "whole")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)  # dies right after the state is written
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "broken")
    again = go(tmp_path / "broken", resume=True)
    assert whole.read_bytes() == again.read_bytes()
    with pytest.raises(RcodError, match="already holds a run; pass --resume"):
        go(tmp_path / "broken")


def test_a_restore_step_moves_student_critic_and_adversary(
    photos: Path, autoencoder: Path, tmp_path: Path
):
    setting = recipe("tiny-rcod", steps="2", losses__distill="0,0.1", losses__adversary="0,0.1")
    crops = train.build_crops(train.photos_in(photos), photos.parent / "cache", setting.data)
    pairs = train.build_pairs(crops, setting.data, workers=1)
    system, nets = train.prepare(setting.model_copy(update={"goal": "prior"}), autoencoder, None)
    assert system.groups == setting.groups
    train.attach(nets.critic, 2, train.seeded(0))
    nets = nets._replace(trunk=LpipsHed())  # its weights are no part of the law
    learners = train.learners_of(nets, setting)
    before = {name: [p.clone() for p in x.parameters] for name, x in learners.items()}
    frozen = [p.clone() for p in nets.teacher.parameters()]
    batches = train.Pairs(crops, pairs).batches(2, 32, train.seeded(0))
    values: dict[str, float] = {}
    for n in range(2):
        values = train.step(nets, next(batches), setting, learners, (n, train.seeded(n)))
    assert {"pixel", "distill", "critic", "adversary", "loss", "norm"} <= values.keys()
    for name, learner in learners.items():
        moved = [
            not torch.equal(a, b) for a, b in zip(before[name], learner.parameters, strict=True)
        ]
        assert any(moved), name
    assert all(torch.equal(a, b) for a, b in zip(frozen, nets.teacher.parameters(), strict=True))


def test_adapters_alone_learn_and_are_merged_into_the_result(
    photos: Path, autoencoder: Path, tmp_path: Path
):
    """A student of rank 2, here by the prior's cheap loss, ends as a plain model file."""
    setting = recipe("tiny-rcod", steps="2", rank="2")
    _, nets = train.prepare(setting.model_copy(update={"goal": "prior"}), autoencoder, None)
    unet = nets.onestep.backbone.unet
    adapters = train.attach(unet, setting.rank, train.seeded(0))
    learner = Learner(unet, setting.optim, 2)
    assert {id(p) for p in learner.parameters} == {id(p) for p in adapters}
    crops = train.build_crops(train.photos_in(photos), photos.parent / "cache", setting.data)
    batch = next(train.Pairs(crops, None).batches(2, 32, train.seeded(0)))
    for n in range(2):
        learner.update(prior_loss(nets, batch, setting, train.seeded(n)), n)
    rundir = train.RunDir(tmp_path / "run", setting, resume=False)
    train.save_average(nets, learner, train.SYSTEMS["tiny"].model_copy(
        update={"model": setting.model}), rundir)  # fmt: skip
    _, merged, _ = checkpoint.load(rundir.model)
    learner.swap()  # the file holds the average
    z, t, tokens = torch.randn(1, 12, 8, 8), torch.tensor([499]), torch.zeros(1, 49, 8)
    wanted = nets.onestep.backbone.predict(z, t, tokens)
    got = merged.backbone.predict(z, t, tokens)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_errors_say_what_to_do(photos: Path, tmp_path: Path):
    with pytest.raises(RcodError, match="continues from a model; name it with --start"):
        train.run(recipe("tiny-prior"), photos, tmp_path / "run", cache=photos.parent / "cache")
    with pytest.raises(RcodError, match="photos must be a folder or a list"):
        train.run(recipe("tiny-prior"), tmp_path / "none", tmp_path / "other")


def test_orthogonal_steps_have_equal_singular_values():
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)) * 1e-4
    for each in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(torch.stack([each, 3 * each])))
        assert values.min() > 0.5
        assert values.max() < 1.4
