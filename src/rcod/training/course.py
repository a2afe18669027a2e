"""What does every run of training have, whatever it trains?

Steps and batches, an optimizer, how often it is written down, and what happens when numbers
cease to be numbers. Recipes add what they compute; `changed` applies a user's `key=value`.
"""

from typing import Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from rcod.diffusion.grouping import LEVELS
from rcod.errors import RcodError, explain

Precision = Literal["float32", "bfloat16", "float16"]
MEASURES = ("psnr", "ssim", "lpips-hed")  # of the photos that are watched


class OptimSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """AdamW, a warm-up, a plateau and a straight fall to zero."""

    lr: float = Field(default=5e-4, gt=0)
    muon: float = Field(default=0.0, ge=0)  # rate of matrices and kernels; 0: AdamW for them too
    beta: float = Field(default=0.9, ge=0, lt=1)  # decay of AdamW's first moment
    beta2: float = Field(default=0.99, ge=0, lt=1)  # and of its second
    warmup: int = Field(default=200, ge=0)  # steps
    decay: float = Field(default=0.3, ge=0, le=1)  # last part of the run, in which the rate falls
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.5, gt=0)  # largest gradient norm
    ema: float = Field(
        default=0.999, ge=0, lt=1
    )  # decay of the averaged weights, which are the result; 0 keeps the weights themselves


class Course(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How a run proceeds."""

    name: str
    summary: str
    steps: int = Field(ge=1)
    batch: int = Field(default=16, ge=1)  # samples at a time, in each process
    accumulate: int = Field(default=1, ge=1)  # batches whose gradients make one step
    window: int = Field(default=128, ge=32, multiple_of=8)  # HR pixels a side
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Precision = "bfloat16"
    optim: OptimSettings = OptimSettings()
    log_every: int = Field(default=50, ge=1)  # steps
    save_every: int = Field(default=250, ge=1)
    watch_every: int = Field(default=500, ge=1)  # where there are photos to watch
    best: str = "lpips-hed"  # the measure by which the best model is kept, where it is watched
    patience: int = Field(default=5, ge=1)  # bad steps in a row, after which the run goes back
    retreat: float = Field(default=0.5, gt=0, lt=1)  # factor of the rate from there on
    retreats: int = Field(default=5, ge=0)  # how often, before it gives up

    @model_validator(mode="after")
    def the_best_is_measured(self) -> Self:
        """Refuse a measure that nobody takes, or of a level that is none."""
        level, slash, measure = self.best.rpartition("/")
        if measure not in MEASURES or (slash and level not in LEVELS):
            raise ValueError(
                f"best must be of {', '.join(MEASURES)}, perhaps at a level ({', '.join(LEVELS)}) "
                f"as in neutral/psnr, got {self.best}"
            )
        return self


FREE = ("steps", "log_every", "save_every", "watch_every", "best")  # may change on the way
Kind = TypeVar("Kind", bound=Course)


def changed(course: Kind, changes: dict[str, str]) -> Kind:
    """A recipe with `key=value` changes; nested keys are dotted, as in `optim.lr=1e-4`."""
    values: dict[str, object] = course.model_dump()
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
        if key in ("name", "summary", "goal", "system"):
            raise RcodError(f"{key} belongs to the recipe; choose another recipe instead")
        several = isinstance(place[last], tuple)
        place[last] = (value.split(",") if value else []) if several else value
    try:
        return type(course).model_validate(values)
    except ValidationError as error:
        raise RcodError(explain(error, course.name)) from None


def differences(one: Course, other: Course) -> list[str]:
    """The dotted keys in which two recipes differ, those aside that may change on the way."""
    return sorted(_unlike(one.model_dump(exclude=set(FREE)), other.model_dump(exclude=set(FREE))))


def _unlike(one: dict[str, object], other: dict[str, object]) -> list[str]:
    found: list[str] = []
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{inner}" for inner in _unlike(a, b)]
        elif a != b:
            found.append(key)
    return found
