"""What does OSEDiff's own order of work cost, with the same layers?

Its program hears a text for every photo, keeps its adapters beside the layers, draws from the
posterior, and leaves memory in the order in which pictures come. Here that order is followed
with the networks that `fullsize` measures, so that the difference is the order and nothing else.

    up, text tower -> tokens      encode with adapters -> sample -> UNet with adapters -> decode
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rcod.device import DTYPES
from rcod.diffusion.schedule import alphas, predict_clean
from rcod.judging.fullsize import (
    SystemCost,
    count,
    fill,
    is_adapted,
    random_factors,
    text_tower,
)
from rcod.judging.peers import peak_mb
from rcod.networks.lora import attach_factors
from rcod.networks.onestep import enlarge
from rcod.networks.shapes import UNET, VAE, WORDS
from rcod.networks.stable import Part, empty_network
from rcod.networks.systems import OSEDIFF
from rcod.pixels.color import match_adain
from rcod.using.passes import clock

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.modeling_outputs import AutoencoderKLOutput
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

NAME = "osediff-own"
RANK = 4
TIMESTEP = 999


@torch.inference_mode()
def measure_ancestor(side: int, dtype: str) -> SystemCost:
    """Time the first call of OSEDiff's own order of work, in this process.

    Args:
        side: pixels of the photo.
        dtype: of all networks and all sums, bfloat16 or float32.
    """
    precision = DTYPES[dtype]
    unet, vae = _adapted(UNET, "unet", precision), _adapted(VAE, "vae", precision)
    tower, heard = text_tower(precision, 1)
    lr = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, float] = {}
    _restore(lr, cast("UNet2DConditionModel", unet), cast("AutoencoderKL", vae), tower, seconds)
    return SystemCost(
        system=NAME, dtype=dtype, size_in=side, size_out=4 * side,
        threads=torch.get_num_threads(),
        seconds=seconds | {"total": sum(seconds.values())},
        gmacs=count(OSEDIFF, side) | {"tokens": heard}, text=None,
        parameters=sum(p.numel() for net in (unet, vae, tower) for p in net.parameters()) / 1e6,
        peak_mb=peak_mb(),
    )  # fmt: skip


def _restore(
    lr: Tensor,
    unet: "UNet2DConditionModel",
    vae: "AutoencoderKL",
    tower: nn.Module,
    seconds: dict[str, float],
) -> Tensor:
    """One photo (1, 3, h, w) as OSEDiff's program takes it -> (1, 3, 4h, 4w)."""
    up = enlarge(lr)
    with clock(seconds, "tokens"):
        tokens = tower(torch.ones(1, WORDS, dtype=torch.long)).last_hidden_state
    with clock(seconds, "encode"):
        encoded = cast("AutoencoderKLOutput", vae.encode((2 * up - 1).to(unet.dtype)))
        z = encoded.latent_dist.sample() * vae.config["scaling_factor"]
    with clock(seconds, "predict"):
        t = torch.tensor([TIMESTEP])
        eps = unet(z, t, tokens, return_dict=False)[0]
        z = predict_clean(z.float(), eps.float(), t, alphas()).to(unet.dtype)
    with clock(seconds, "decode"):
        sr = vae.decode(z / vae.config["scaling_factor"], return_dict=False)[0].float()
    with clock(seconds, "color"):
        return match_adain((sr / 2 + 0.5).clamp(0, 1), up)


def _adapted(config: dict[str, object], part: Part, dtype: torch.dtype) -> nn.Module:
    """A network of the true shape with its adapters beside the layers."""
    network = fill(empty_network(config, part), dtype)
    adapters = {
        name: random_factors(layer, RANK)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and is_adapted(name, part)
    }
    attach_factors(network, adapters)
    return network.eval().requires_grad_(False)
