"""Laws of recipes."""

import pytest
import torch

from rcod.errors import RcodError
from rcod.training.catalog import RECIPES, recipe_named
from rcod.training.learner import Learner
from rcod.training.published_recipe import PUBLISHED, PublishedRecipe
from rcod.training.recipe import Recipe


def test_a_recipe_survives_its_own_text():
    for recipe in RECIPES.values():
        assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe


def test_settings_change_by_dotted_name():
    recipe = recipe_named("tiny-rcod", {"steps": "7", "optim.lr": "1e-4", "losses.distill": "0,1"})
    assert isinstance(recipe, Recipe)
    assert (recipe.steps, recipe.optim.lr, recipe.losses.distill) == (7, 1e-4, (0, 1))
    assert RECIPES["tiny-rcod"].steps != 7


def test_a_tuple_may_be_emptied():
    whole = recipe_named("tiny-fidelity", {"end": ""})
    assert isinstance(whole, Recipe) and whole.end == ()
    one = recipe_named("tiny-rcod", {"groups.edges": "", "groups.timesteps": "499"})
    assert isinstance(one, Recipe) and one.groups.edges == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": "7"}, "no setting of a recipe is called stepz; there are name, summary"),
        ({"optim.rate": "7"}, "no setting of a recipe is called optim.rate; there are lr"),
        ({"steps": "many"}, "steps: Input should be a valid integer.*got many"),
        ({"window": "100"}, "window: Input should be a multiple of 8, got 100"),
        ({"end": "349,360"}, "at least 50 apart, the first among .* got 349,360"),
        ({"end": "100,400"}, "two timesteps from 200 to 799, .* got 100,400"),
        ({"end": "780,300"}, "the first among those of the groups, got 780,300"),
        ({"losses.sharpen": "inf,1"}, "losses.sharpen.0: .* finite number"),
        ({"data.mix": "camera:inf"}, "data.mix.camera: .* finite number"),
        ({"data.soft": "nan"}, "data.soft: .* finite number"),
        ({"end": "349,600", "rank": "4"}, "end is of a restorer whose rank is 0; leave it empty"),
        (
            {"window": "120", "groups.at": "reduced"},
            "window must be a multiple of 16 with groups.a",
        ),
        (
            {"losses.perceptual": "-0.1,1"},
            "losses.perceptual.0: .* greater than or equal to 0, got",
        ),
        ({"data.seed": "-1"}, "data.seed: .* greater than or equal to 0, got -1"),
        ({"seed": "9" * 23}, "seed: .* less than 9223372036854775808, got 9"),
        ({"groups.by": "l1"}, "l1 is a distance .* edges must lie below 0, got"),
        ({"window": "264"}, "window must be 256 at most, the side of a crop, got 264; set"),
        ({"data.crops": "1471"}, "guides must be 1471 at most, since that many.*, got 1472; set"),
        ({"best": "loss"}, "best must be of psnr, ssim, lpips-hed, perhaps at a level.*, got loss"),
        ({"best": "middle/psnr"}, "level .fidelity, neutral, realism. as in.*, got middle/psnr"),
        ({"best": "/psnr"}, "got /psnr"),
        ({"precision": "float16"}, "tiny-rcod: processors can't train in float16; set precision=b"),
    ],
)
def test_errors_say_what_came(changes: dict[str, str], words: str):
    with pytest.raises(RcodError, match=words):
        recipe_named("tiny-rcod", changes)


def test_a_metric_has_edges_of_its_own_and_an_estimator_is_of_the_cosine():
    found = recipe_named("tiny-rcod", {"groups.by": "l1", "groups.edges": "-0.9,-0.4"})
    assert isinstance(found, Recipe) and found.groups.edges == (-0.9, -0.4)
    with pytest.raises(RcodError, match="an estimator learns the cosine; leave"):
        recipe_named("tiny-metric", {"groups.by": "l1", "groups.edges": "-0.9,-0.4"})
    for change in ({"groups.edges": "0.42,0.67"}, {"formula": "general"}):
        with pytest.raises(RcodError, match="leaves step and dial as --start has them; leave form"):
            recipe_named("tiny-metric", change)


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(RcodError, match="there are tiny-autoencoder, tiny-prior"):
        recipe_named("huge", {})


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("osediff", {"das": "paper"}, "osediff has one timestep, so das has nothing to follow"),
        ("osediff", {"best": "neutral/psnr"}, "osediff has one timestep and no levels, got best"),
        ("osediff", {"group_by": "paper"}, "osediff has one timestep and no groups"),
        ("rcod_o", {"distill": "off"}, "das places the timesteps of vsd; set distill=vsd or das"),
        ("rcod_o", {"window": "100"}, "window: Input should be a multiple of 8, got 100"),
        ("rcod_s", {"window": "520"}, "window must be a multiple of 64 for rcod_s, got 520"),
        ("rcod_o", {"group_metric": "l1"}, "with group_metric=l1 take group_by=quantiles"),
        ("rcod_o", {"groups.at": "reduced"}, "rcod_o is grouped by the enlarged photo; leave"),
        ("rcod_o", {"negative_share": ".1"}, "rcod_o hears no negative text; set negative_share=0"),
        ("s3diff", {"distill": "vsd"}, "s3diff has no critic; set distill=off and adversary"),
        ("pisa_sr", {"distill": "vsd"}, "pisa_sr has no critic; set distill=csd"),
        ("rcod_o", {"caption_share": "1"}, "rcod_o hears no caption of a photo; set caption_sh"),
        ("s3diff", {"caption_share": "1"}, "s3diff hears no caption of a photo; set caption_sh"),
        ("osediff", {"pixel_steps": "5"}, "osediff has one adapter; set pixel_steps=0"),
        ("osediff", {"goal": "metric"}, "goal belongs to the recipe; choose another recipe"),
        ("osediff", {"mse": "0", "lpips": "0"}, "nothing ties the result to the photo"),
        ("osediff", {"distill_range": "980,20"}, "distill_range must rise within 0 and 1000,"),
        ("osediff", {"distill_range": "20,5000"}, "distill_range must rise within 0 and 1000,"),
        (
            "rcod_o",
            {"groups.by": "l1", "groups.edges": "-0.9,-0.4"},
            "grouped by group_metric; leave",
        ),
        ("rcod_o", {"group_count": "4"}, "group_count is of group_by=paper and quantiles"),
        ("rcod_o", {"distill_range": "20,500"}, "das places the timesteps of vsd itself"),
        ("pisa_sr", {"text": "none"}, "csd leads from the negative text.*set text=fixed"),
        ("mem", {"formula": "general"}, "mem leaves step and dial as --start has them"),
        ("mem", {"groups.edges": ".4,.8"}, "leave formula, groups and group_by out"),
        ("mem", {"group_by": "quantiles"}, "leave formula, groups and group_by out"),
    ],
)
def test_impossible_combinations_are_refused(name: str, changes: dict[str, str], words: str):
    with pytest.raises(RcodError, match=words):
        recipe_named(name, changes)


def test_the_paper_has_one_rate_for_student_and_critic():
    paper = recipe_named("rcod_o-paper", {})
    assert isinstance(paper, PublishedRecipe)
    assert paper.optim.lr == paper.critic_lr == 2e-5


def test_recipes_have_the_full_rate_at_once_as_released():
    for recipe in PUBLISHED:
        parameter = torch.nn.Parameter(torch.ones(1))
        assert Learner([parameter], recipe.optim, recipe.steps).rate(0) == 1


def test_every_published_recipe_makes_sense_by_its_own_rules():
    for recipe in PUBLISHED:
        assert PublishedRecipe.model_validate(recipe.model_dump()) == recipe
