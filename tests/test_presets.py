"""Laws of damages by name and by file."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.training.catalog import recipe_named
from rcod.training.degradation import DegradeSettings, Round
from rcod.training.kernels import draw
from rcod.training.presets import SETTINGS, settings_named
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.recipe import Recipe

pytest.importorskip("yaml", reason="not checked here: pip install 'rcod[train]'")
MINE = "first: {jpeg: 0.0}\nsecond: null\nfinal_sinc: 0.0\n"


def test_the_papers_new_damage_holds_its_numbers():
    new = SETTINGS["new"]
    kernel, once = new.first.kernel, new.first
    assert new.second is None and not new.final_sinc and not once.noise and not kernel.sinc
    assert (kernel.sizes, kernel.sigma) == ((1, 21), (1, 15))
    assert (once.scale, once.quality) == ((0.5, 1.5), (50, 99))
    assert once.resize[0] == once.resize[1] and not once.resize[2]  # evenly over .5 to 1.5
    sizes = {len(draw(kernel, torch.Generator().manual_seed(i))) for i in range(200)}
    assert sizes == set(range(1, 22, 2))


def test_a_file_holds_settings_and_a_recipe_holds_them_whole(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(MINE)
    settings = settings_named(str(path))
    assert settings.second is None and settings.first.jpeg == 0
    recipe = recipe_named("osediff", {"degradation": str(path)})
    assert isinstance(recipe, PublishedRecipe) and recipe.degradation == settings
    tiny = recipe_named("tiny-rcod", {"data.mix": "new:.5,own:.5", "data.own": str(path)})
    assert isinstance(tiny, Recipe) and tiny.data.damage("own") == settings
    assert tiny.data.mix == {"new": 0.5, "own": 0.5} and tiny.data.damage("new") == SETTINGS["new"]
    path.unlink()  # neither needs the file any more
    for one in (recipe, tiny):
        assert type(one).model_validate_json(one.model_dump_json()) == one


def test_the_example_of_the_guide_can_be_read(tmp_path: Path):
    guide = (Path(__file__).parents[1] / "docs/train.md").read_text(encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text(guide.split("```yaml\n")[1].split("```")[0])
    settings = settings_named(str(path))
    assert settings.second is None and settings.first.quality == (60, 95)


def test_a_file_without_a_second_round_has_none(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("first: {}")
    assert settings_named(str(path)) == DegradeSettings(first=Round(), second=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frist: {}", "own.yaml: first: Field required, got {'frist': {}}"),
        (MINE + "last: 1", "own.yaml: there is no setting called last"),
        (MINE.replace("jpeg", "jpg"), "own.yaml: there is no setting called first.jpg"),
        (
            MINE.replace("{jpeg: 0.0}", "{quality: [95, 30]}"),
            "first.quality: a range goes from low",
        ),
        (MINE.replace("0.0}", "2}"), "first.jpeg: Input should be less than or equal to 1, got 2"),
        (MINE + "factor: 2", "factor must be 4, as every system enlarges, got 2"),
        ("first: [", "must be YAML, and is none: while parsing"),
        ("", "all of it: Input should be a valid dictionary.*, got None"),
    ],
)
def test_one_sentence_names_what_is_wrong(text: str, words: str, tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(RcodError, match=words) as told:
        settings_named(str(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("osediff", {"degradation": "bad"}, "degradation must be one of osediff, seesr.* got bad"),
        (
            "tiny-rcod",
            {"data.mix": "bad:1"},
            "mix must be of camera, .* got bad; describe one of your",
        ),
        ("tiny-rcod", {"data.mix": "own"}, "mix must be of camera, new, .* got own"),
        ("tiny-rcod", {"data.mix": "new:0"}, "mix must give something a share"),
        ("tiny-rcod", {"data.mix": "new:x"}, "data.mix.new: .*valid number"),
    ],
)
def test_a_recipe_knows_its_damages_before_it_begins(
    name: str, changes: dict[str, str], words: str
):
    with pytest.raises(RcodError, match=words):
        recipe_named(name, changes)


def test_texts_may_hold_commas():
    recipe = recipe_named("osediff", {"phrase": "sharp, clean"})
    assert isinstance(recipe, PublishedRecipe) and recipe.phrase == "sharp, clean"


def test_degrade_takes_a_file_and_draws_a_sheet(
    here: Callable[..., CompletedProcess[str]], tmp_path: Path
):
    Image.effect_mandelbrot((160, 128), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "p.png")
    (tmp_path / "own.yaml").write_text(MINE)
    given = ("degrade", str(tmp_path / "p.png"), "--side", "128", "--settings")
    done = here(*given, str(tmp_path / "own.yaml"), "-o", str(tmp_path / "set"))
    assert done.returncode == 0 and "1 pairs" in done.stdout, done.stderr
    told = json.loads((tmp_path / "set/degrade.json").read_text())["degradation"]
    assert DegradeSettings.model_validate(told).first.jpeg == 0
    with Image.open(tmp_path / "set/sheet.png") as sheet:
        assert sheet.size == (256, 22 + 128)
    (tmp_path / "own.yaml").write_text("second: null")
    done = here(*given, str(tmp_path / "own.yaml"), "-o", str(tmp_path / "other"))
    assert done.returncode == 2 and "own.yaml: first: Field required" in done.stderr
