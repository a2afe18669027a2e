"""Which parts make a system? One table.

A system is a row of settings, not a class: what it stands on, which adapters it brings, what
it hears, which timesteps it knows, the formula of its clean latent, its resize and its colour
fix. The row travels in the header of its weights.
"""

import re
from typing import Literal

from pydantic import BaseModel, Field
from torch import nn

from rcod.diffusion.grouping import GroupSettings
from rcod.diffusion.schedule import STEPS, CleanLatent
from rcod.errors import RcodError
from rcod.networks.backbone import LastTouch, TinyBackbone, TinySettings, TinyUNet
from rcod.networks.bases import Base
from rcod.networks.estimators import MetricEstimator
from rcod.networks.framing import Framing
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import TinyTower, VisualPrompt

LONGEST = 300  # characters of a pattern for layers
FEW = 2  # repeats in it, and groups: more can be matched in more ways than anybody waits for
REPEATED_GROUP = re.compile(r"\)[*+?{]")

Targets = str | tuple[str, ...]  # a pattern for whole names of layers, or names and their ends


class System(BaseModel, frozen=True, extra="forbid"):
    """One way to restore a photo, and what it was trained to expect."""

    name: str
    summary: str
    licence: str
    weights: str | None = None  # file inside the package
    model: TinySettings = TinySettings()  # shape of tiny; the others' base knows its own
    groups: GroupSettings = GroupSettings()
    formula: CleanLatent = "residual"
    step: int = Field(default=200, ge=0, lt=STEPS)  # of the formula `constant`
    scale: int = Field(default=4, ge=1, le=16)  # enlargement it was trained for
    base: Base | None = None  # frozen networks it stands on
    adapters: Literal["none", "plain", "pair", "guided"] = "none"
    targets: dict[str, Targets] = {}  # the layers that a file's adapters must cover
    condition: Literal["visual", "text"] = "visual"
    texts: tuple[str, ...] = ()  # heard where the caller says nothing: positive, negative
    guidance: float = 1.0  # from the negative text to the positive one
    timestep: int | None = Field(default=None, ge=0, lt=STEPS)  # its only one, or the group's
    metric: bool = False  # whether an estimator can choose the group
    framing: Framing = "free"
    least: int = Field(default=1, ge=1, le=4096)  # pixels a side; shorter ones are brought to it
    color: Literal["wavelet", "adain"] = "wavelet"
    truncate: bool = False  # whether its published pictures were rounded down


TINY = System(
    name="tiny",
    summary="RCOD on the project's own small model, trained from scratch",
    licence="MIT",
    weights="tiny.safetensors",
    metric=True,
)
OSEDIFF = System(
    name="osediff",
    summary="OSEDiff: one step from pure texts or image tags",
    licence="Apache-2.0, its base OpenRAIL++",
    base="sd21-base",
    adapters="plain",
    condition="text",
    texts=("",),
    timestep=999,
    formula="general",
    framing="pillow",
    least=64,
    color="adain",
    truncate=True,
)
RCOD_O = OSEDIFF.model_copy(
    update={
        "name": "rcod_o",
        "summary": "RCOD on OSEDiff: visual prompts and the dial",
        "licence": "as released by its authors, its base OpenRAIL++",
        "condition": "visual",
        "texts": (),
        "timestep": None,
        "formula": "constant",
        "step": 200,
    }
)
PISA_SR = OSEDIFF.model_copy(
    update={
        "name": "pisa_sr",
        "summary": "PiSA-SR: a pixel adapter and a semantic one, each with a scale",
        "adapters": "pair",
        "timestep": 1,
        "formula": "residual",
    }
)
S3DIFF = System(
    name="s3diff",
    summary="S3Diff: adapters that follow the photo's degradation",
    licence="Apache-2.0, its base SD-Turbo's research licence",
    base="sd-turbo",
    adapters="guided",
    condition="text",
    texts=(
        "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, "
        "and natural lighting.",
        "oil painting, cartoon, blur, dirty, messy, low quality, deformation, "
        "low resolution, oversmooth",
    ),
    guidance=1.07,
    timestep=999,
    formula="general",
    framing="padded",
    truncate=True,
)
RCOD_S = S3DIFF.model_copy(
    update={
        "name": "rcod_s",
        "summary": "RCOD on S3Diff: visual prompts, the dial, and auto",
        "licence": "as released by its authors, its base SD-Turbo's research licence",
        "condition": "visual",
        "texts": (),
        "guidance": 1.0,
        "timestep": None,
        "formula": "constant",
        "step": 249,
        "metric": True,
    }
)
SYSTEMS = {system.name: system for system in (TINY, OSEDIFF, RCOD_O, S3DIFF, RCOD_S, PISA_SR)}


def build(system: System) -> tuple[OneStep[TinyBackbone], MetricEstimator]:
    """Fresh networks of the tiny model, untrained."""
    width = system.model.tokens
    prompt = VisualPrompt(TinyTower(width), width, width)
    onestep = OneStep(TinyBackbone(system.model), prompt, system.formula, system.model.latent)
    return onestep, MetricEstimator()


def sized(system: System) -> dict[str, nn.Module]:
    """Networks of tiny whose size its settings say, by the start of their tensors' names."""
    width = system.model.tokens
    found: dict[str, nn.Module] = {
        "onestep.backbone.unet.": TinyUNet(system.model),
        "onestep.prompt.": VisualPrompt(TinyTower(width), width, width),
    }
    if system.model.touch:
        found["onestep.backbone.touch."] = LastTouch(system.model.touch)
    return found


def covers(targets: Targets | list[str], layer: str) -> bool:
    """Whether a layer is among an adapter's targets, as peft reads them."""
    if isinstance(targets, str):
        return pattern(targets).fullmatch(layer) is not None
    return any(layer == one or layer.endswith(f".{one}") for one in targets)


def pattern(text: str) -> re.Pattern[str]:
    """A pattern for whole names of layers, which a file may bring along.

    Raises:
        RcodError: if it is none, or one that could take for ever to match.
    """
    repeats = sum(text.count(sign) for sign in "*+?{")
    if len(text) > LONGEST or max(repeats, text.count("(")) > FEW or REPEATED_GROUP.search(text):
        raise RcodError(
            f"a pattern for layers must have {LONGEST} characters, {FEW} repeats and {FEW} groups "
            f"at most, no group repeated, got {text[:60]}; name the layers one by one instead"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError) as error:
        raise RcodError(
            f"a pattern for layers must be a regular expression, got {text[:60]}: {error}"
        ) from None
