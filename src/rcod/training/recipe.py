"""A whole training run as one frozen, validated value.

`RECIPES` names the runs that make the model inside; each continues from the model file of
the one before:

    tiny-autoencoder -> tiny-prior -> tiny-rcod -> tiny-metric
"""

from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from rcod.diffusion.grouping import Distill, GroupSettings
from rcod.diffusion.schedule import CleanLatent
from rcod.errors import RcodError
from rcod.networks.backbone import TinySettings
from rcod.training.data import DataSettings
from rcod.training.losses import LossSettings


class OptimSettings(BaseModel, frozen=True, extra="forbid"):
    """AdamW, a warm-up, a plateau and a straight fall to zero."""

    lr: float = Field(default=5e-4, gt=0)
    muon: float = Field(default=0.0, ge=0)  # rate of matrices and kernels; 0: AdamW for them too
    beta: float = Field(default=0.9, ge=0, lt=1)  # decay of AdamW's first moment
    warmup: int = Field(default=200, ge=0)  # steps
    decay: float = Field(default=0.3, ge=0, le=1)  # last part of the run, in which the rate falls
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.5, gt=0)  # largest gradient norm
    ema: float = Field(
        default=0.999, ge=0, lt=1
    )  # decay of the averaged weights, which are the result


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what a run computes."""

    name: str
    goal: Literal["autoencoder", "prior", "restore", "metric"]
    summary: str
    steps: int = Field(ge=1)
    batch: int = Field(default=16, ge=1)
    window: int = Field(default=128, ge=32, multiple_of=8)  # HR pixels a side
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    optim: OptimSettings = OptimSettings()
    data: DataSettings = DataSettings()
    model: TinySettings = TinySettings()
    formula: CleanLatent = "residual"
    groups: GroupSettings = GroupSettings()
    explore: float = Field(
        default=0.5, ge=0, le=1
    )  # samples placed anywhere on the dial, not by group
    blind: float = Field(default=0.1, ge=0, le=1)  # samples whose image tokens are left out
    losses: LossSettings = LossSettings()
    rank: int = Field(default=0, ge=0)  # LoRA rank of the student; 0 trains its full weights
    distill_way: Distill = "released"  # degradation-aware sampling
    guides: int = Field(default=0, ge=0)  # crops that a larger restorer has restored, too
    perceive_from: int = Field(default=0, ge=0)  # first step with the perceptual term
    adversary_from: int = Field(default=0, ge=0)  # first step with the adversary
    adversary_lr: float = Field(default=2e-4, gt=0)
    distill_from: int = Field(default=0, ge=0)  # first step with distillation
    critic_rank: int = Field(default=16, ge=1)  # LoRA rank of the critic
    critic_lr: float = Field(default=5e-4, gt=0)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="tiny-autoencoder",
            goal="autoencoder",
            summary="fit the linear autoencoder to the crops, in closed form",
            steps=1,
            model=TinySettings(lap=-15.0, waves=4.0),
        ),
        Recipe(
            name="tiny-prior",
            goal="prior",
            summary="an ordinary diffusion prior over clean latents, with image tokens",
            steps=800,
            optim=OptimSettings(lr=1e-3, muon=0.01, clip=0.5, warmup=50, decay=0.5),
        ),
        Recipe(
            name="tiny-rcod",
            goal="restore",
            summary="the one-step restorer: grouping, image tokens, guides at the realism end",
            steps=4000,
            optim=OptimSettings(lr=4e-4, clip=0.2, warmup=50, decay=0.5),
            losses=LossSettings(
                pixel=(1.0, 0.0),
                guide=(0.0, 1.0),
                texture=(0.0, 0.0),
                perceptual=(0.1, 0.3),
                distill=(0.0, 0.0),
                adversary=(0.0, 0.0),
                share=0.125,
            ),
            guides=1472,
        ),
        Recipe(
            name="tiny-metric",
            goal="metric",
            summary="metric estimation: guess the latent metric from the photo alone",
            steps=900,
            batch=32,
        ),
    )
}


def recipe_named(name: str, changes: dict[str, str]) -> Recipe:
    """A named recipe with `key=value` changes; nested keys are dotted, as in `optim.lr=1e-4`."""
    if name not in RECIPES:
        raise RcodError(f"no recipe is called {name}; there are {', '.join(RECIPES)}")
    values: dict[str, object] = RECIPES[name].model_dump()
    for key, value in changes.items():
        *path, last = key.split(".")
        place = values
        for part in path:
            inner = place.get(part)
            if not isinstance(inner, dict):
                raise RcodError(f"no setting of a recipe is called {key}")
            place = inner
        if last not in place:
            raise RcodError(f"no setting of a recipe is called {key}; there are {', '.join(place)}")
        place[last] = [float(x) for x in value.split(",")] if "," in value else value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RcodError(f"{where}: {first['msg']}, got {first['input']}") from None
