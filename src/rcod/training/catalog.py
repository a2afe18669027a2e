"""Which runs have a name?"""

from collections.abc import Mapping

from rcod.errors import RcodError
from rcod.training.course import changed
from rcod.training.published_recipe import PUBLISHED, PublishedRecipe
from rcod.training.recipe import TINY, Recipe

RECIPES: Mapping[str, Recipe | PublishedRecipe] = TINY | {one.name: one for one in PUBLISHED}


def recipe_named(name: str, changes: dict[str, str]) -> Recipe | PublishedRecipe:
    """A named recipe with `key=value` changes; nested keys are dotted, as in `optim.lr=1e-4`."""
    if name not in RECIPES:
        raise RcodError(f"no recipe is called {name}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    return changed(recipe, changes)
