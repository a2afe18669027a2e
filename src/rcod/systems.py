"""Which parts make a system? One table.

A system is a row of settings, not a class: the backbone's shape, the groups of its dial, the
formula of its clean latent, the resize and the colour fix it was trained with. The row
travels in the header of its weights.
"""

from pydantic import BaseModel

from rcod.backbone import TinyBackbone, TinySettings
from rcod.estimators import MetricEstimator
from rcod.grouping import GroupSettings
from rcod.onestep import OneStep
from rcod.prompts import TinyTower, VisualPrompt
from rcod.schedule import CleanLatent


class System(BaseModel, frozen=True, extra="forbid"):
    """One way to restore a photo, and what it was trained to expect."""

    name: str
    summary: str
    licence: str
    weights: str | None = None  # file inside the package
    model: TinySettings = TinySettings()
    groups: GroupSettings = GroupSettings()
    formula: CleanLatent = "residual"
    scale: int = 4  # enlargement it was trained for


SYSTEMS = {
    "tiny": System(
        name="tiny",
        summary="RCOD on the project's own small model, trained from scratch",
        licence="MIT",
        weights="tiny.safetensors",
    ),
}


def build(system: System) -> tuple[OneStep, MetricEstimator]:
    """Fresh networks of a system, untrained."""
    width = system.model.tokens
    prompt = VisualPrompt(TinyTower(width), width, width)
    return OneStep(TinyBackbone(system.model), prompt, system.formula), MetricEstimator()
