"""What do the published systems cost at their true size?

Networks of the true shapes with random weights, since speed does not depend on what they say.
Every system is measured in a process of its own; multiply-adds are counted on a copy without
memory.

    measure_all -> a process for each system -> seconds and multiply-adds of each stage, peak
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rcod.errors import RcodError
from rcod.judging.peers import peak_mb
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, Guide
from rcod.networks.lora import Factors, Network, attach_factors
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import ClipTower, FixedPrompt, VisualPrompt
from rcod.networks.stable import Guided, Part, StableBackbone, empty_network
from rcod.networks.storage import widen
from rcod.networks.systems import SYSTEMS, System
from rcod.pixels.images import Photo
from rcod.using.hosted import look_at, passing

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

# SD 2.1-base and SD-Turbo have the same networks
UNET: dict[str, object] = {
    "act_fn": "silu", "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
    "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "sample_size": 64,
    "use_linear_projection": True,
}  # fmt: skip
VAE: dict[str, object] = {
    "block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2,
    "norm_num_groups": 32, "sample_size": 768, "scaling_factor": 0.18215,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
RANKS = {"unet": 32, "vae": 16}  # S3Diff's
CHILD = (
    "import json, sys; from rcod.judging.fullsize import measure; "
    "sys.stdout.write(json.dumps(measure(*json.loads(sys.argv[1]))))"
)


class Cost(TypedDict):
    """One system at full size; seconds and 10^9 multiply-adds of each stage."""

    system: str
    dtype: str
    size_in: int
    size_out: int
    threads: int
    seconds: dict[str, float]
    gmacs: dict[str, float]
    peak_mb: float


def measure_all(names: Sequence[str], side: int = 128, dtype: str = "bfloat16") -> list[Cost]:
    """Measure systems one after another, each in a fresh process."""
    known = [name for name, system in SYSTEMS.items() if system.base is not None]
    if wrong := [name for name in names if name not in known]:
        raise RcodError(f"--systems must be among {','.join(known)}, got {wrong[0]}")
    costs: list[Cost] = []
    for name in names:
        given = json.dumps([name, side, dtype])
        done = subprocess.run([sys.executable, "-c", CHILD, given], capture_output=True, text=True)
        if done.returncode:
            raise RcodError(f"{name} must run at full size, it said: {done.stderr.strip()[-500:]}")
        costs.append(json.loads(done.stdout))
    return costs


@torch.inference_mode()
def measure(name: str, side: int, dtype: str) -> Cost:
    """Measure one system in this process."""
    system = SYSTEMS[name]
    onestep = invent(system, torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    photo = Photo(torch.rand(3, side, side), None, None, None)
    begin = time.perf_counter()
    seen = look_at(system, onestep, photo, measure=system.metric)
    size = (side * system.scale, side * system.scale)
    t = system.timestep if system.timestep is not None else system.groups.timesteps[1]
    seconds = dict(seen.seconds)
    tuned = seen.onestep or onestep
    gmacs = count(tuned, seen.z_up, seen.tokens)
    passed = passing(
        system, onestep, photo, seen, t, size, system.color, 512, seconds, lambda share: None
    )
    for _ in passed.pieces():
        pass
    seconds["total"] = sum(seconds.values())
    assert time.perf_counter() > begin
    return Cost(
        system=name, dtype=dtype, size_in=side, size_out=size[0],
        threads=torch.get_num_threads(), seconds=seconds, gmacs=gmacs, peak_mb=peak_mb(),
    )  # fmt: skip


def invent(system: System, dtype: torch.dtype) -> OneStep[StableBackbone]:
    """A system of the true shapes with random weights."""
    unet, vae = (
        fill(empty_network(UNET, "unet"), dtype),
        fill(empty_network(VAE, "vae"), torch.float32),
    )
    guided: dict[Part, Guided] = {}
    estimator = None
    if system.adapters == "guided":
        estimator = fill(DegradationEstimator(system.metric), torch.float32)
        for part, network, blocks in (("unet", unet, UNET_BLOCKS), ("vae", vae, VAE_BLOCKS)):
            guide = fill(Guide(RANKS[part], blocks), torch.float32)
            adapters = {
                layer: random_factors(module, RANKS[part])
                for layer, module in network.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d) and is_adapted(layer, part)
            }
            attach_factors(network, adapters, with_core=True)
            guided["unet" if part == "unet" else "vae"] = Guided(guide, adapters, fold=False)
    if dtype != torch.float32:
        widen(unet)
    backbone = StableBackbone(
        [cast("UNet2DConditionModel", unet)], cast("AutoencoderKL", vae), guided=guided
    )
    prompt: VisualPrompt | FixedPrompt = FixedPrompt(
        torch.randn(2 if system.guidance != 1 else 1, 77, 1024)
    )
    if system.condition == "visual":
        prompt = VisualPrompt(invent_tower(), 1024, 1024)
    onestep = OneStep(backbone, prompt, system.formula, 4, system.step, system.guidance, estimator)
    return onestep.eval().requires_grad_(False)


def invent_tower() -> ClipTower:
    """CLIP ViT-L/14's image tower."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        patch_size=14, image_size=224,
    )  # fmt: skip
    return ClipTower(CLIPVisionModel(config))


def fill(network: Network, dtype: torch.dtype) -> Network:
    """Random weights of a sensible size, in place; one stretch of noise, repeated."""
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


def count(onestep: OneStep, z: Tensor, tokens: Tensor) -> dict[str, float]:
    """10^9 multiply-adds of the UNet call (both texts of a guided one) and of the autoencoder."""
    backbone = onestep.backbone
    assert isinstance(backbone, StableBackbone)
    found: dict[str, float] = {}
    z_, tokens_ = z.to("meta"), tokens.to("meta").float()
    unet, vae = empty_network(UNET, "unet"), empty_network(VAE, "vae")
    bare = StableBackbone(
        [cast("UNet2DConditionModel", unet)], cast("AutoencoderKL", vae), backbone.shares
    ).eval()
    times = len(tokens) // len(z)
    image = torch.empty(len(z), 3, 8 * z.shape[-2], 8 * z.shape[-1], device="meta")
    t = torch.zeros(len(z) * times, device="meta")
    for stage, call in (
        ("predict", lambda: bare.predict(z_.repeat(times, 1, 1, 1), t, tokens_)),
        ("encode", lambda: bare.encode(image)),
        ("decode", lambda: bare.decode(z_)),
    ):
        with FlopCounterMode(display=False) as counter:
            call()
        found[stage] = counter.get_total_flops() / 2e9
    return found
