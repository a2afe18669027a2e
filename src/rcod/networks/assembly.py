"""How do a base, adapters and what the caller says become a system that runs?

find_base -> read UNet and autoencoder, adapters folded in -> StableBackbone --.
image tower and its Linear, or texts ------------------------------> prompt ---+-> OneStep
degradation estimator ---------------------------------------------------------'
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from rcod.errors import RcodError
from rcod.networks.bases import find_base
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, Guide
from rcod.networks.lora import Factors, attach_factors
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import FixedPrompt, VisualPrompt, embed_texts, read_tower, tagged
from rcod.networks.stable import (
    Adapters,
    Guided,
    Part,
    StableBackbone,
    check_schedule,
    empty_network,
    fill_network,
    read_config,
    read_distilled,
)
from rcod.networks.storage import widen
from rcod.networks.systems import System, covers

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

FIXED = "text.tokens"  # a system's own texts, embedded when it was converted
NEEDED = {"pair": ("unet.pixel",), "guided": ("unet.guided", "vae.guided")}  # what is done apart


class Parts(BaseModel, frozen=True, extra="forbid"):
    """What a published system needs beside its own file, and how it is asked."""

    base: str | None = None  # folder or hub id
    vision: str | None = None  # folder or hub id
    vae: str | None = None  # distilled, whose decoder is taken: `tiny` is TAESD, or a folder or id
    prompt: str | None = None  # heard as it is
    tags: str | None = None  # of the image; joined with the prompt as OSEDiff does
    pixel: float = 1.0  # PiSA-SR's scales
    semantic: float = 1.0
    sample: int | None = None  # seed to draw from the autoencoder's posterior, as published
    merge: bool = True  # fold adapters into the weights where nothing varies from photo to photo
    fold: bool = False  # fold those that vary, too, anew for every photo


def check_parts(system: System, parts: Parts) -> None:
    """Refuse what a system has no use for."""
    given = parts.model_fields_set
    useful: set[str] = set()
    if system.base is not None:
        useful |= {"base", "sample", "merge", "fold", "vae"}
        useful |= {"prompt", "tags"} if system.condition == "text" else {"vision"}
    if system.adapters == "pair":
        useful |= {"pixel", "semantic"}
    changed = {name for name in given if getattr(parts, name) != Parts.model_fields[name].default}
    if wrong := sorted(changed - useful):
        raise RcodError(f"{system.name} has no use for --{wrong[0]}; leave it out")
    for name, value in (("pixel", parts.pixel), ("semantic", parts.semantic)):
        if not (isfinite(value) and 0 <= value <= 3):
            raise RcodError(f"--{name} must lie in [0, 3], got {value}; 1 is as trained")


def assemble(
    system: System, tensors: Mapping[str, Tensor], parts: Parts, dtype: torch.dtype
) -> OneStep[StableBackbone]:
    """The networks of a published system, frozen, on the CPU.

    Args:
        system: its row, as read from its file's header.
        tensors: its file's tensors.
        parts: where the frozen networks lie, and what the caller asks.
        dtype: of the large networks' weights; the rest is float32, which costs little.
    """
    assert system.base is not None
    check_parts(system, parts)
    base = find_base(system.base, parts.base)
    check_schedule(base)
    adapters = {key: factors_of(tensors, key) for key in system.targets}
    for key in NEEDED.get(system.adapters, ()):
        if not adapters.get(key):
            raise RcodError(f"{system.name}'s file must hold {key} adapters; convert it again")
    unets, shares = _unets(system, base, tensors, adapters, parts, dtype)
    sets = _checked(base, "vae", system, adapters)
    vae = _network(system, base, "vae", sets, {}, parts, dtype)
    guided: dict[Part, Guided] = {}
    estimator = None
    if system.adapters == "guided":
        sizes: dict[Part, int] = {"unet": UNET_BLOCKS, "vae": VAE_BLOCKS}
        for part, blocks in sizes.items():
            guide = _guide(tensors, part, blocks)
            guided[part] = Guided(guide, adapters[f"{part}.guided"], parts.fold)
        estimator = DegradationEstimator(with_metric="estimator.head.weight" in tensors)
        _load(estimator, tensors, "estimator.")
    decoder = None
    if parts.vae is not None:
        decoder = read_distilled(find_base("taesd", None if parts.vae == "tiny" else parts.vae))
    backbone = StableBackbone(unets, cast("AutoencoderKL", vae), shares, guided, decoder)
    width = cast("int", read_config(base, "unet")["cross_attention_dim"])
    prompt = _prompt(system, base, tensors, parts, width, dtype)
    onestep = OneStep(
        backbone, prompt, system.formula, backbone.channels, system.step, system.guidance,
        estimator, parts.sample,
    )  # fmt: skip
    return onestep.eval().requires_grad_(False)


def fixed_texts(system: System, base: Path) -> dict[str, Tensor]:
    """A system's own texts, embedded once, so that its base's text tower is not needed again."""
    return {FIXED: embed_texts(base, system.texts)} if system.texts else {}


def check_fit(system: System, tensors: Mapping[str, Tensor], base: Path) -> None:
    """Refuse a system's adapters that do not fit a base, layer by layer."""
    check_schedule(base)
    adapters = {key: factors_of(tensors, key) for key in system.targets}
    for part in ("unet", "vae"):
        _checked(base, part, system, adapters)


def _unets(
    system: System,
    base: Path,
    tensors: Mapping[str, Tensor],
    adapters: Mapping[str, Adapters],
    parts: Parts,
    dtype: torch.dtype,
) -> tuple[list["UNet2DConditionModel"], list[float]]:
    """The UNets whose noises are mixed, and their shares: one, or two for PiSA-SR's scales."""
    sets = _checked(base, "unet", system, adapters)
    mixes: list[tuple[Sequence[Adapters], float]] = [(sets, 1.0)]
    if system.adapters == "pair" and (parts.pixel, parts.semantic) != (1, 1):
        pixel = [adapters["unet.pixel"]]
        # pixel eps_pix + semantic (eps_both - eps_pix)
        mixes = [(pixel, parts.pixel - parts.semantic), (sets, parts.semantic)]
        mixes = [(mix, share) for mix, share in mixes if share]
    whole = {
        name.removeprefix("unet.whole."): tensor
        for name, tensor in tensors.items()
        if name.startswith("unet.whole.")
    }
    unets = [_network(system, base, "unet", mix, whole, parts, dtype) for mix, _ in mixes]
    return [cast("UNet2DConditionModel", unet) for unet in unets], [share for _, share in mixes]


def _network(
    system: System,
    base: Path,
    part: Part,
    sets: Sequence[Adapters],
    whole: Mapping[str, Tensor],
    parts: Parts,
    dtype: torch.dtype,
) -> nn.Module:
    """One network, its adapters folded in or put on."""
    guided = system.adapters == "guided"
    folded = sets if parts.merge and not guided else ()
    network, folder = _empty(base, part)
    if read_config(base, part).get("force_upcast", False):
        dtype = torch.float32  # the autoencoder's own wish: it loses too much in half precision
    fill_network(network, folder, dtype, folded, whole)
    if not folded and not (guided and parts.fold):
        for one in sets:
            attach_factors(network, one, with_core=guided)
    return network if dtype == torch.float32 else widen(network)


def _empty(base: Path, part: Part) -> tuple[nn.Module, Path]:
    return empty_network(read_config(base, part), part), base / part


def _checked(
    base: Path, part: Part, system: System, adapters: Mapping[str, Adapters]
) -> list[Adapters]:
    """The sets of one network's adapters, each on exactly the layers it should be on."""
    network = _empty(base, part)[0]
    layers = {
        name: module.weight.shape
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    sets = {key: one for key, one in adapters.items() if key.startswith(f"{part}.")}
    for key, set_ in sets.items():
        expected = {name for name in layers if covers(system.targets[key], name)}
        if lost := sorted(expected - set_.keys()):
            raise RcodError(f"{system.name}'s file has no {key} adapter for {lost[0]} of {base}")
        if extra := sorted(set_.keys() - expected):
            raise RcodError(
                f"{system.name}'s file has a {key} adapter for {extra[0]}, which {base} lacks"
            )
        for layer, factors in set_.items():
            made = (len(factors.up), *factors.down.shape[1:])
            if made != tuple(layers[layer]) or factors.up.shape[1] != len(factors.down):
                raise RcodError(
                    f"the {key} adapter of {layer} must make {tuple(layers[layer])} for {base}, "
                    f"and makes {made}; is it for another base?"
                )
    return list(sets.values())


def factors_of(tensors: Mapping[str, Tensor], key: str) -> dict[str, Factors]:
    """A set's factors by layer."""
    prefix = f"{key}."
    found: dict[str, Factors] = {}
    for name, down in tensors.items():
        if name.startswith(prefix) and name.endswith(".down"):
            stem = name.removesuffix(".down")
            if (up := tensors.get(f"{stem}.up")) is None:
                raise RcodError(f"the file lacks {stem}.up; convert it again")
            found[stem.removeprefix(prefix)] = Factors(down, up)
    return found


def _guide(tensors: Mapping[str, Tensor], part: Part, blocks: int) -> Guide:
    """One network's modulation."""
    rank = next(len(t) for name, t in tensors.items()
                if name.startswith(f"{part}.guided.") and name.endswith(".down"))  # fmt: skip
    guide = Guide(rank, blocks)
    _load(guide, tensors, f"guide.{part}.")
    return guide


def _prompt(
    system: System,
    base: Path,
    tensors: Mapping[str, Tensor],
    parts: Parts,
    width: int,
    dtype: torch.dtype,
) -> VisualPrompt | FixedPrompt:
    """What the system hears: the image itself, or texts."""
    if system.condition == "visual":
        tower = read_tower(find_base("clip-l", parts.vision), dtype)
        tower = tower if dtype == torch.float32 else widen(tower)
        prompt = VisualPrompt(tower, tower.width, width)
        _load(prompt.project, tensors, "prompt.project.")
        return prompt
    said = tagged(parts.tags, parts.prompt)
    if said is None and FIXED in tensors:
        return FixedPrompt(tensors[FIXED])
    texts = system.texts if said is None else (said, *system.texts[1:])
    return FixedPrompt(embed_texts(base, texts))


def _load(network: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Load a small network strictly."""
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise RcodError(f"{prefix}* of the file doesn't fit: {error}") from None
