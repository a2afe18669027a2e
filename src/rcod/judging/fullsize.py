"""What do the published systems cost at their true size?

Networks of the true shapes with random weights, since speed does not depend on what they say.
Multiply-adds are counted on a copy without memory. A text is heard once, when a system is
loaded, so its tower stands apart from the stages.

    name, side, precision -> measure -> seconds and multiply-adds of each stage, peak
"""

import time
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn

from rcod.device import DTYPES
from rcod.judging.peers import peak_mb
from rcod.judging.workload import gmacs_of
from rcod.networks.checkpoint import arrange
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, Guide
from rcod.networks.lora import Factors, Network, attach_factors
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import ClipTower, FixedPrompt, VisualPrompt
from rcod.networks.shapes import TEXT, UNET, VAE, VISION, WIDTH, WORDS, hollow_tower
from rcod.networks.stable import Guided, Part, StableBackbone, empty_network
from rcod.networks.storage import widen
from rcod.networks.systems import SYSTEMS, System
from rcod.pixels.images import Photo
from rcod.using.passes import TILE
from rcod.using.published_pass import look_at, passing

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

RANKS = {"unet": 32, "vae": 16}  # S3Diff's


class SystemCost(TypedDict):
    """One call at full size; seconds and 10^9 multiply-adds of each stage."""

    system: str
    dtype: str
    size_in: int
    size_out: int
    threads: int
    seconds: dict[str, float]
    gmacs: dict[str, float]
    text: tuple[float, float] | None  # seconds and 10^9 multiply-adds of its texts, once
    parameters: float  # millions, of everything that runs for a photo
    peak_mb: float


@torch.inference_mode()
def measure(name: str, side: int, dtype: str) -> SystemCost:
    """Time one system's first call, in this process.

    Args:
        name: of a system that stands on Stable Diffusion.
        side: pixels of the photo.
        dtype: of the UNet's weights, bfloat16 or float32.
    """
    system, counts = SYSTEMS[name], count(SYSTEMS[name], side)
    text = hear(system) if system.condition == "text" else None
    onestep = invent(system, DTYPES[dtype])
    photo = Photo(torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)))
    return SystemCost(
        system=name, dtype=dtype, size_in=side, size_out=side * system.scale,
        threads=torch.get_num_threads(),
        seconds=call(system, onestep, photo), gmacs=counts, text=text,
        parameters=sum(tensor.numel() for tensor in onestep.parameters()) / 1e6,
        peak_mb=peak_mb(),
    )  # fmt: skip


def call(system: System, onestep: OneStep, photo: Photo) -> dict[str, float]:
    """Restore a photo as `rcod upscale` does; seconds of each stage."""
    started = time.perf_counter()
    seen = look_at(system, onestep, photo, measure=system.metric)
    height, width = photo.pixels.shape[-2:]
    size = (height * system.scale, width * system.scale)
    t = system.timestep if system.timestep is not None else system.groups.timesteps[1]
    seconds = dict(seen.seconds)
    passed = passing(
        system, onestep, photo, seen, t, size, system.color, TILE, seconds, lambda share: None
    )
    for piece, _, _ in passed.pieces():
        assert piece.pixels.shape[-2:] == size
    return seconds | {"total": time.perf_counter() - started}


def count(system: System, side: int) -> dict[str, float]:
    """10^9 multiply-adds of each stage, adapters and second texts included, in one piece."""
    with torch.device("meta"):
        onestep = invent(system, torch.float32)
        lr = torch.empty(1, 3, side, side)
        up = torch.empty(1, 3, side * system.scale, side * system.scale)
        z = torch.empty(1, 4, up.shape[-2] // 8, up.shape[-1] // 8)
        t, found = torch.zeros(1), {}
        tuned = onestep
        if onestep.estimator is not None:
            estimator = onestep.estimator
            found["metric"] = gmacs_of(lambda: estimator.features(lr))
            tuned = onestep.tuned(torch.empty(1, 2, 128))
        tokens = onestep.prompt(up)
        return found | {
            "encode": gmacs_of(lambda: tuned.encode(up)),
            "tokens": gmacs_of(lambda: tuned.prompt(up)),
            "predict": gmacs_of(lambda: tuned.noise(z, t, tokens)),
            "decode": gmacs_of(lambda: tuned.backbone.decode(z)),
        }


def hear(system: System) -> tuple[float, float]:
    """Seconds and 10^9 multiply-adds of a system's texts through SD 2.1's text tower."""
    ids = torch.ones(len(system.texts), WORDS, dtype=torch.long)
    tower, gmacs = text_tower(torch.float32, len(ids))
    started = time.perf_counter()
    tower(ids)
    return time.perf_counter() - started, gmacs


def text_tower(dtype: torch.dtype, texts: int) -> tuple[nn.Module, float]:
    """SD 2.1's text tower with random weights, and the 10^9 multiply-adds of some texts."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        tower = CLIPTextModel(CLIPTextConfig(**TEXT))  # pyright: ignore[reportArgumentType]
        gmacs = gmacs_of(lambda: tower(torch.ones(texts, WORDS, dtype=torch.long)))
    tower = fill(tower, dtype).eval().requires_grad_(False)
    place(tower)
    return tower, gmacs


def invent(system: System, dtype: torch.dtype) -> OneStep[StableBackbone]:
    """A system of the true shapes with random weights; without memory on the device `meta`."""
    unet, vae = (
        fill(empty_network(UNET, "unet"), dtype),
        fill(empty_network(VAE, "vae"), torch.float32 if system.adapters == "guided" else dtype),
    )
    guided: dict[Part, Guided] = {}
    estimator = None
    if system.adapters == "guided":
        estimator = fill(DegradationEstimator(system.metric), torch.float32)
        parts: tuple[tuple[Part, nn.Module, int], ...] = (
            ("unet", unet, UNET_BLOCKS),
            ("vae", vae, VAE_BLOCKS),
        )
        for part, network, blocks in parts:
            guide = fill(Guide(RANKS[part], blocks), torch.float32)
            adapters = {
                layer: random_factors(module, RANKS[part])
                for layer, module in network.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d) and is_adapted(layer, part)
            }
            attach_factors(network, adapters, with_core=True)
            guided[part] = Guided(guide, adapters, fold=False)
    for network in (unet, vae):
        if next(network.parameters()).dtype != torch.float32:
            widen(network)
    backbone = StableBackbone(
        [cast("UNet2DConditionModel", unet)], cast("AutoencoderKL", vae), guided=guided
    )
    prompt: VisualPrompt | FixedPrompt = FixedPrompt(torch.randn(len(system.texts), WORDS, WIDTH))
    if system.condition == "visual":
        prompt = VisualPrompt(invent_tower(dtype), WIDTH, WIDTH)
    onestep = OneStep(backbone, prompt, system.formula, 4, system.step, system.guidance, estimator)
    arrange(onestep, torch.get_default_device(), dtype)
    return onestep.eval().requires_grad_(False)


def invent_tower(dtype: torch.dtype) -> ClipTower:
    """CLIP ViT-L/14's image tower."""
    tower = hollow_tower(VISION)
    if torch.get_default_device().type != "meta":
        place(fill(tower, dtype))
        if dtype != torch.float32:
            widen(tower)
    return tower


def place(tower: nn.Module) -> None:
    """Give a tower that was made without memory the numbers of its places."""
    for module in tower.modules():
        if isinstance(places := getattr(module, "position_ids", None), Tensor):
            module.position_ids = torch.arange(places.shape[-1])[None]


def fill(network: Network, dtype: torch.dtype) -> Network:
    """Random weights of a sensible size, in place; one stretch of noise, repeated."""
    if torch.get_default_device().type == "meta":
        return network
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        length = tensor.numel()
        values = noise.repeat(-(-length // len(noise)))[:length].view(tensor.shape)
        width = tensor[0].numel() if tensor.ndim > 1 else 100
        near_one = "norm" in name and name.endswith("weight")
        state[name] = (1 + 0.02 * values if near_one else values / width**0.5).to(dtype)
    network.load_state_dict(state, assign=True)
    return network


def random_factors(layer: nn.Linear | nn.Conv2d, rank: int) -> Factors:
    """An adapter for a layer."""
    out, *rest = layer.weight.shape
    up = torch.randn(out, rank, *(1 for _ in rest[1:])) / rank**0.5
    return Factors(torch.randn(rank, *rest) / layer.weight[0].numel() ** 0.5, 0.1 * up)


def is_adapted(layer: str, part: str) -> bool:
    """Where S3Diff has adapters."""
    if part == "vae":
        return layer.startswith("encoder.")
    return "time_emb" not in layer and layer != "conv_in"
