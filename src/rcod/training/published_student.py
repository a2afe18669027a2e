"""What of a published system learns, and what stays frozen?

Its adapters, fresh or from a file, are put onto the frozen base, and the critic's onto the same
layers; three networks in one, told apart by voice. What is written is a file like a converted
one: the layers that learnt, under their names.

    base, adapters -> assemble -> OneStep -.
    critic's adapters ---------------------+-> Student -> tensors of a file
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rcod.device import DTYPES, seeded
from rcod.errors import RcodError
from rcod.networks.assembly import FIXED, Parts, assemble, fixed_texts
from rcod.networks.bases import find_base
from rcod.networks.checkpoint import read_tensors
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, WAVES, Guide
from rcod.networks.lora import LowRank, Replaced, Voice
from rcod.networks.onestep import OneStep
from rcod.networks.published import estimator_tensors
from rcod.networks.stable import Part, StableBackbone, empty_network, read_config
from rcod.networks.systems import System, Targets, covers
from rcod.networks.voices import Choir, add_voice
from rcod.pickles import read_pickle
from rcod.pixels.aids import digest, find_published
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.task import Sources, check_cosine, check_encoder, check_ranks

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv", "conv1", "conv2", "conv_shortcut", "conv_out",
)  # fmt: skip  # of a UNet, by the ends of their names
CODER = r"encoder\..*(conv|conv1|conv2|conv_in|conv_out|conv_shortcut|to_q|to_k|to_v|to_out\.0)"
TARGETS: dict[str, dict[str, Targets]] = {
    "plain": {"unet.plain": (*LAYERS, "conv_in"), "vae.plain": CODER + "|quant_conv"},
    "pair": {"unet.pixel": (*LAYERS, "conv_in"), "unet.semantic": (*LAYERS, "conv_in")},
    "guided": {"unet.guided": LAYERS, "vae.guided": CODER},
}
ESTIMATOR = "de_net.pth"  # S3Diff's, among the aids
CONV_IN = "unet.whole.conv_in"


@dataclass(frozen=True)
class Student:
    """A published system that learns, its teacher and its critic in the same networks."""

    system: System
    onestep: OneStep[StableBackbone]
    choir: Choir
    own: tuple[str, ...]  # the student's voices; nobody's are the teacher's
    handles: Mapping[str, Tensor]  # by their names in a file
    kept: Mapping[str, Tensor]  # the rest of the file
    critic: list[nn.Parameter] = field(default_factory=list)
    origin: str = ""  # the digest of the file that it began with, if there was one

    def parameters(self, *starts: str) -> list[nn.Parameter]:
        """What learns under names that start so; told to learn."""
        found = [
            tensor.requires_grad_()
            for name, tensor in self.handles.items()
            if name.startswith(starts) and isinstance(tensor, nn.Parameter)
        ]
        return cast(list[nn.Parameter], found)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds."""
        own = {name: tensor.detach().float().cpu() for name, tensor in self.handles.items()}
        return {name: tensor.contiguous() for name, tensor in {**self.kept, **own}.items()}


def open_student(recipe: PublishedRecipe, sources: Sources, device: torch.device) -> Student:
    """A recipe's student on a device: from a file of the same kind, or fresh."""
    system, started = _started(recipe, sources)
    assert system.base is not None
    base = find_base(system.base, sources.base)
    parts = Parts(base=str(base), vision=sources.vision, merge=False)
    networks: dict[Part, nn.Module] = {
        "unet": empty_network(read_config(base, "unet"), "unet"),
        "vae": empty_network(read_config(base, "vae"), "vae"),
    }
    tensors = fresh(system, networks, recipe)
    if recipe.goal != "metric":  # for which adapters stay as they are
        check_ranks(tensors, started)
    tensors |= started
    if system.condition == "visual" and "prompt.project.weight" not in tensors:
        tensors |= _projection(base, parts, recipe)
    if system.metric and "estimator.head.weight" not in tensors and recipe.goal != "metric":
        system = system.model_copy(update={"metric": False})  # until `mem` has trained one
    tensors |= {} if FIXED in tensors else fixed_texts(system, base)
    without = {name: t for name, t in tensors.items() if not name.startswith("unet.whole.")}
    onestep = assemble(system, without, parts, DTYPES[recipe.precision]).to(device)
    origin = "" if sources.start is None else digest(sources.start)
    return replace(enrol(system, onestep, tensors, recipe), origin=origin)


def enrol(
    system: System,
    onestep: OneStep[StableBackbone],
    tensors: Mapping[str, Tensor],
    recipe: PublishedRecipe,
) -> Student:
    """Give an assembled system its voices, its trained first layer and its critic."""
    unet, vae = onestep.backbone.unets[0], onestep.backbone.vae
    choir = Choir()
    handles = _adapters(system, {"unet": unet, "vae": vae}, tensors, choir)
    own = tuple(choir.voices)
    if system.adapters != "pair":
        handles |= _stand_in(unet, tensors, choir.voice("student"))
    critic: list[nn.Parameter] = []
    if recipe.distill == "vsd":
        voice = choir.voice("critic")
        everywhere = TARGETS["plain"]["unet.plain"]
        middle = recipe.critic == "released"
        critic = add_voice(
            unet,
            lambda name: covers(everywhere, name) and (not middle or name.startswith("mid_block.")),
            recipe.critic_rank, voice, seeded(recipe.seed + 1),
        )  # fmt: skip
    for prefix, network in (
        ("prompt.project", getattr(onestep.prompt, "project", None)),
        ("estimator", onestep.estimator),
        *((f"guide.{part}", guided.guide) for part, guided in onestep.backbone.guided.items()),
    ):
        if network is not None:
            handles |= {f"{prefix}.{key}": value for key, value in network.named_parameters()}
    if recipe.checkpointing:
        cast("UNet2DConditionModel", unet).enable_gradient_checkpointing(choir.remember())
        vae.enable_gradient_checkpointing(choir.remember())
    onestep.requires_grad_(False)
    choir.rest(own)
    kept = {name: tensor for name, tensor in tensors.items() if name not in handles}
    for parameter in critic:
        parameter.requires_grad_()
    return Student(system, onestep, choir, own, handles, kept, critic)


def _adapters(
    system: System, networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], choir: Choir
) -> dict[str, Tensor]:
    """The student's adapters by their names in a file, in float32, each with its voice."""
    handles: dict[str, Tensor] = {}
    depth: dict[str, int] = {}  # sets of one network lie upon each other, the first innermost
    for key in system.targets:
        part, _, kind = key.partition(".")
        voice = choir.voice(kind if system.adapters == "pair" else "student")
        for name in tensors:
            if not (name.startswith(f"{key}.") and name.endswith(".down")):
                continue
            layer = name.removeprefix(f"{key}.").removesuffix(".down")
            adapter = _stack(networks[part].get_submodule(layer))[depth.get(part, 0)]
            adapter.voice = voice
            for end, half in (("down", adapter.down), ("up", adapter.up)):
                parameter = renew(half, "weight", torch.float32)
                parameter.data.copy_(tensors[f"{key}.{layer}.{end}"])  # not rounded as the network
                handles[f"{key}.{layer}.{end}"] = parameter
        depth[part] = depth.get(part, 0) + 1
    return handles


def _stack(module: nn.Module) -> list[LowRank]:
    """The adapters of a layer, the innermost first."""
    found: list[LowRank] = []
    while isinstance(module, LowRank):
        found.insert(0, module)
        module = module.base
    return found


def _stand_in(
    unet: nn.Module, tensors: Mapping[str, Tensor], voice: Voice
) -> dict[str, nn.Parameter]:
    """Let the student train a first convolution of its own, under its adapter if it has one."""
    holder, name = unet, "conv_in"
    while isinstance(layer := getattr(holder, name), LowRank):
        holder, name = layer, "base"
    own, handles = copy.copy(layer), dict[str, nn.Parameter]()
    own._parameters = dict(layer._parameters)
    for kind in ("weight", "bias"):
        handles[f"{CONV_IN}.{kind}"] = parameter = renew(own, kind, torch.float32)
        if (known := tensors.get(f"{CONV_IN}.{kind}")) is not None:
            parameter.data.copy_(known)
    setattr(holder, name, Replaced(layer, own, voice))
    return handles


def renew(layer: nn.Module, kind: str, dtype: torch.dtype) -> nn.Parameter:
    """Give a layer a parameter of its own in another dtype; returns it."""
    parameter = nn.Parameter(layer.get_parameter(kind).detach().to(dtype, copy=True))
    layer.register_parameter(kind, parameter)
    return parameter


def fresh(
    system: System, networks: Mapping[Part, nn.Module], recipe: PublishedRecipe
) -> dict[str, Tensor]:
    """Adapters that change nothing yet, and the modulation of guided ones."""
    rng = seeded(recipe.seed)
    ranks = {"unet": recipe.unet_rank, "vae": recipe.vae_rank}
    tensors: dict[str, Tensor] = {}
    for key, targets in system.targets.items():
        part = key.partition(".")[0]
        for name, layer in networks["unet" if part == "unet" else "vae"].named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and covers(targets, name):
                out, *rest = layer.weight.shape
                rank = ranks[part]
                tensors[f"{key}.{name}.down"] = torch.randn(rank, *rest, generator=rng) / rank
                tensors[f"{key}.{name}.up"] = torch.zeros(out, rank, *(1 for _ in rest[1:]))
    if system.adapters == "guided":
        for part, blocks in (("unet", UNET_BLOCKS), ("vae", VAE_BLOCKS)):
            guide = Guide(ranks[part], blocks)
            for name in ("degree", "place", "fuse"):
                layer = cast(nn.Linear, guide.get_submodule(name))
                state = _linear(layer.out_features, layer.in_features, rng)
                tensors |= {f"guide.{part}.{name}.{kind}": v for kind, v in state.items()}
            tensors[f"guide.{part}.blocks"] = torch.randn(guide.blocks.shape, generator=rng)
            tensors[f"guide.{part}.rates"] = torch.randn(WAVES, generator=rng)
    if recipe.goal == "metric":
        state = _linear(1, 256, rng)  # of two branches' features
        tensors["estimator.head.weight"] = state["weight"]
        tensors["estimator.head.bias"] = torch.full((1,), 0.5)  # in the middle, where ReLU is open
    return tensors


def _linear(out: int, inward: int, rng: torch.Generator) -> dict[str, Tensor]:
    """A linear layer as PyTorch begins one, by our own dice."""
    reach = inward**-0.5
    shapes = {"weight": (out, inward), "bias": (out,)}
    return {k: (2 * torch.rand(shape, generator=rng) - 1) * reach for k, shape in shapes.items()}


def _started(recipe: PublishedRecipe, sources: Sources) -> tuple[System, dict[str, Tensor]]:
    """The row of what learns, and what it begins with beside fresh adapters."""
    system = recipe.row.model_copy(update={"targets": TARGETS[recipe.row.adapters]})
    found: dict[str, Tensor] = {}
    if recipe.goal == "metric" and sources.start is None:
        raise RcodError(
            f"{recipe.name} learns the metric of a trained {system.name}; name it with --start FILE"
        )
    if sources.start is not None:
        other, found = read_tensors(sources.start)
        if other.adapters != system.adapters:
            raise RcodError(
                f"--start must be a file with {system.name}'s kind of adapters, got {other.name}'s"
            )
        if recipe.goal == "metric":  # which leaves the step and its dial as they are
            system = _estimated(recipe, other)
            check_encoder(recipe.group_encoder, sources.start)
        found.pop(FIXED, None)  # of its own condition
        if other.condition != system.condition:
            found = {k: v for k, v in found.items() if not k.startswith("prompt.")}
    if system.adapters == "guided" and not any(k.startswith("estimator.") for k in found):
        path = find_published((ESTIMATOR,), sources.aids)
        if path is None:
            raise RcodError(
                f"{system.name} stands on S3Diff's trained degradation estimator; put {ESTIMATOR} "
                "into the folder of --aids, or name a file that holds one with --start"
            )
        found |= estimator_tensors(path, read_pickle(path), None)
    return system, found


def _estimated(recipe: PublishedRecipe, system: System) -> System:
    """The row of a trained system once its metric is estimated, too."""
    if system.timestep is not None:
        raise RcodError(
            f"--start must be a system with a dial for {recipe.name} to turn, got {system.name}'s "
            "one timestep; name a trained rcod_s"
        )
    check_cosine(recipe.name, system)
    return system.model_copy(update={"metric": True})


def _projection(base: Path, parts: Parts, recipe: PublishedRecipe) -> dict[str, Tensor]:
    """VPIM's Linear, fresh."""
    folder = find_base("clip-l", parts.vision)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        seen = int(config.get("vision_config", config)["hidden_size"])
    except (OSError, ValueError, KeyError) as error:
        raise RcodError(f"--vision must be CLIP's image tower, got {folder}: {error}") from None
    width = cast(int, read_config(base, "unet")["cross_attention_dim"])
    state = _linear(width, seen, seeded(recipe.seed + 2))
    return {f"prompt.project.{kind}": tensor for kind, tensor in state.items()}
