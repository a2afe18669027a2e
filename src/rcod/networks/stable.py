"""Stable Diffusion behind the three calls of a backbone.

The networks are diffusers' own, read from any folder in its layout. Adapters are added to the
weights while they are read, in float32, so that afterwards they cost nothing and no second
copy is held. Adapters that depend on the photo stay beside the network, and `tuned` gives the
backbone of one photo; nothing is ever left on a module for the next call to find.

    folder, factors -> fill_network -> UNet, autoencoder -> StableBackbone -> tuned(scores)

diffusers is imported where a network is made: whoever runs the tiny model needs none.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rcod.errors import RcodError
from rcod.networks.guide import Guide, block_of
from rcod.networks.lora import Factors, Network, twin
from rcod.networks.steady import settle
from rcod.pickles import DAMAGE, unpickled

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.modeling_outputs import AutoencoderKLOutput
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

Part = Literal["unet", "vae"]
Adapters = Mapping[str, Factors]  # of layers, by dotted name

FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Guided(NamedTuple):
    """Adapters of one network that wait for a photo's scores."""

    guide: Guide
    adapters: Adapters
    fold: bool  # into the weights of each photo; otherwise they stand on their layers already


class StableBackbone(nn.Module):
    """A latent diffusion model with four latent channels, 8 x 8 pixels each."""

    factor = 8
    channels = 4

    def __init__(
        self,
        unets: Sequence["UNet2DConditionModel"],
        vae: "AutoencoderKL",
        shares: Sequence[float] = (1.0,),
        guided: Mapping[Part, Guided] | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        assert len(unets) == len(shares)
        self.unets = nn.ModuleList(unets)
        self.vae = vae
        self.shares = tuple(shares)  # of each UNet in the noise; PiSA-SR mixes two
        self.guided = dict(guided or {})
        self.decoder = decoder  # a distilled one, which takes latents as they are
        self.guides = nn.ModuleList(one.guide for one in self.guided.values())  # follow .to()

    def encode(self, image: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> latent (B, 4, H/8, W/8) float32.

        Args:
            image: the enlarged photo.
            rng: draws from the posterior as the published programs do; nothing takes its mean.
        """
        with self._uncast(image.device):
            encoded = self.vae.encode((2 * image - 1).to(self.vae.dtype))
        posterior = cast("AutoencoderKLOutput", encoded).latent_dist
        z = posterior.mean.float()
        if rng is not None:
            noise = torch.randn(z.shape, generator=rng, device=rng.device).to(z.device)
            z = z + posterior.std.float() * noise
        return z * self.vae.config["scaling_factor"]

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Latent (B, 4, h, w), timesteps (B,), tokens (B, N, D) -> noise (B, 4, h, w) float32."""
        eps = torch.zeros_like(z, dtype=torch.float32)
        for module, share in zip(self.unets, self.shares, strict=True):
            unet = cast("UNet2DConditionModel", module)
            # sums on a processor are float32 whatever the weights take (see `storage`)
            dtype = torch.float32 if z.device.type == "cpu" else unet.dtype
            found = unet(z.to(dtype), t, tokens.to(dtype), return_dict=False)[0]
            eps = eps + share * found.float()
        return eps

    def decode(self, z: Tensor) -> Tensor:
        """Latent (B, 4, h, w) -> image (B, 3, 8 h, 8 w) float32, not clamped."""
        if self.decoder is not None:
            return self.decoder(z.float()) / 2 + 0.5
        scaled = (z / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        with self._uncast(z.device):
            return self.vae.decode(scaled, return_dict=False)[0].float() / 2 + 0.5

    def _uncast(self, device: torch.device) -> AbstractContextManager[object]:
        """Let an autoencoder of float32 weights compute in float32, in training as elsewhere."""
        kind, exact = device.type, self.vae.dtype == torch.float32
        if exact and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            return torch.autocast(kind, enabled=False)
        return nullcontext()  # not one that is off already, which a tracer would write down

    def steadied(self, show: Callable[[Self], object]) -> Self:
        """The backbone for tiles of one picture, whose autoencoder norms them all alike.

        Args:
            show: lets the backbone that it is given see probes of the picture.
        """
        unets = [cast("UNet2DConditionModel", unet) for unet in self.unets]
        vae = settle(self.vae, lambda vae: show(type(self)([], vae, (), None, self.decoder)))
        return type(self)(unets, vae, self.shares, None, self.decoder)

    def tuned(self, scores: Tensor) -> Self:
        """The backbone of one batch of photos, by its degradation scores (B, 2).

        What depends on the scores enters as an argument and leaves in the backbone returned;
        this one stays as it is, and several photos may be under way at once.
        """
        unets = [cast("UNet2DConditionModel", unet) for unet in self.unets]
        vae = self.vae
        for part, guided in self.guided.items():
            if part == "vae":
                vae = tune(vae, guided, scores)
            else:
                unets = [tune(unet, guided, scores) for unet in unets]
        return type(self)(unets, vae, self.shares, None, self.decoder)


def tune(network: Network, guided: Guided, scores: Tensor) -> Network:
    """A twin of a network whose adapters have the cores of some scores, (B, 2)."""
    cores = guided.guide(scores)  # (B, blocks, r, r)
    changed: dict[str, Tensor] = {}
    for layer, factors in guided.adapters.items():
        core = cores[:, block_of(layer, cores.shape[1])]  # (B, r, r)
        if not guided.fold:
            changed[f"{layer}.core"] = core
            continue
        assert len(core) == 1, "weights belong to one photo; leave adapters unfolded for a batch"
        weight = network.get_parameter(f"{layer}.weight")
        delta = factors.delta(core[0]).to(weight.device)
        changed[f"{layer}.weight"] = (weight + delta).to(weight.dtype)
    return twin(network, changed)


def fill_network(
    network: nn.Module,
    folder: Path,
    dtype: torch.dtype,
    adapters: Sequence[Adapters] = (),
    whole: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Read an empty network's weights, adapters folded in; frozen.

    Args:
        network: as `empty_network` makes it.
        folder: one part of a base, in diffusers' layout.
        dtype: of the weights; sums are made in float32.
        adapters: sets of factors by layer, all added.
        whole: tensors that replace the base's own.
    """
    state: dict[str, Tensor] = {}
    wanted = dict(network.named_parameters())
    for found, tensor in _tensors(folder):
        name = _current_name(found)
        if name not in wanted:
            raise RcodError(f"{folder} holds a tensor that its config doesn't know: {found}")
        if (whole or {}).get(name) is not None:
            tensor = (whole or {})[name]
        if tensor.numel() != wanted[name].numel():
            raise RcodError(
                f"{name} must be {tuple(wanted[name].shape)} by the config in {folder}, "
                f"got {tuple(tensor.shape)}"
            )
        tensor = tensor.view(wanted[name].shape).float()
        for one in adapters:
            if name.endswith(".weight") and (layer := name.removesuffix(".weight")) in one:
                tensor = tensor + one[layer].delta()
        state[name] = tensor.to(dtype)
    if lost := sorted(wanted.keys() - state.keys()):
        raise RcodError(f"{folder} lacks {len(lost)} tensors, the first is {lost[0]}")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def read_distilled(folder: Path) -> nn.Module:
    """The decoder of a distilled autoencoder (diffusers' AutoencoderTiny), float32, frozen."""
    config = read_config(folder, None)
    config.pop("block_out_channels", None)  # diffusers writes it, and warns of it when it reads it
    must = {"_class_name": "AutoencoderTiny", "latent_channels": 4, "scaling_factor": 1.0}
    for key, value in must.items():
        if (came := config.get(key, value)) != value:
            raise RcodError(
                f"--vae must be an autoencoder with {key} {value}, got {came} in {folder}"
            )
    network = fill_network(empty_network(config, "distilled"), folder, torch.float32)
    return network.get_submodule("decoder")


def empty_network(config: dict[str, object], part: Part | Literal["distilled"]) -> nn.Module:
    """A network without memory for its weights, to be filled."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    except ImportError as error:
        raise RcodError(
            f"systems on Stable Diffusion need diffusers and transformers, got: {error}; "
            "pip install 'rcod[sd]'"
        ) from None
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "distilled": AutoencoderTiny}
    with torch.device("meta"):
        return cast("nn.Module", kinds[part].from_config(config))


def read_config(base: Path, part: Part | Literal["scheduler"] | None) -> dict[str, object]:
    """The settings of one part of a base, or of a folder that is one network."""
    path = base / (part or "") / ("scheduler_config.json" if part == "scheduler" else "config.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RcodError(
            f"a base must be a folder in diffusers' layout with {path.relative_to(base)}, "
            f"got {base}: {error}"
        ) from None


def check_schedule(base: Path) -> None:
    """Refuse a base that was trained on another schedule, or to predict something else."""
    config = read_config(base, "scheduler")
    for key, must in (
        ("prediction_type", "epsilon"),
        ("beta_schedule", "scaled_linear"),
        ("beta_start", 0.00085),
        ("beta_end", 0.012),
        ("num_train_timesteps", 1000),
    ):
        if (came := config.get(key, must)) != must:
            raise RcodError(
                f"{base} must be SD 2.1-base or SD-Turbo, with {key} {must} in its scheduler, "
                f"got {came}"
            )


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a network's file, one after another."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise RcodError(f"{folder} must hold weights, one of {', '.join(FILES)}; none is there")
    try:
        if path.suffix == ".bin":
            yield from cast("dict[str, Tensor]", unpickled(path)).items()
            return
        with safe_open(path, framework="pt") as file:
            for name in list(file.keys()):
                yield name, file.get_tensor(name)
    except (SafetensorError, UnpicklingError, *DAMAGE) as error:
        raise RcodError(f"{path} must be whole, and cannot be read: {error}") from None


def _current_name(name: str) -> str:
    """Older files name an autoencoder's attention differently."""
    for old, new in OLD_NAMES.items():
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return name
