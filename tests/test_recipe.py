"""Laws of recipes."""

import pytest

from rcod.errors import RcodError
from rcod.training.recipe import RECIPES, Recipe, recipe_named


def test_a_recipe_survives_its_own_text():
    for recipe in RECIPES.values():
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_settings_change_by_dotted_name():
    recipe = recipe_named("tiny-rcod", {"steps": "7", "optim.lr": "1e-4", "losses.distill": "0,1"})
    assert (recipe.steps, recipe.optim.lr, recipe.losses.distill) == (7, 1e-4, (0, 1))
    assert RECIPES["tiny-rcod"].steps != 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": "7"}, "no setting of a recipe is called stepz; there are name, goal"),
        ({"optim.rate": "7"}, "no setting of a recipe is called optim.rate; there are lr"),
        ({"steps": "many"}, "steps: Input should be a valid integer.*got many"),
        ({"window": "100"}, "window: Input should be a multiple of 8, got 100"),
    ],
)
def test_errors_say_what_came(changes: dict[str, str], words: str):
    with pytest.raises(RcodError, match=words):
        recipe_named("tiny-rcod", changes)


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(RcodError, match="there are tiny-autoencoder, tiny-prior"):
        recipe_named("huge", {})
