"""What shape have Stable Diffusion 2.1 and CLIP's towers, where no file is at hand to say it?

SD 2.1-base and SD-Turbo have the same networks. Whoever counts or measures needs no weights.

    shape -> hollow -> a network without memory -> lay -> whatever lies there
"""

import torch
from torch import nn

from rcod.networks.prompts import ATTENTION, SIDE, ClipTower
from rcod.networks.stable import Part, empty_network

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
SHAPES: dict[Part, dict[str, object]] = {"unet": UNET, "vae": VAE}
CLIP: dict[str, object] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "attn_implementation": ATTENTION,
}  # fmt: skip
VISION = CLIP | {"num_hidden_layers": 24, "patch_size": 14, "image_size": SIDE}  # ViT-L/14
TEXT = CLIP | {"num_hidden_layers": 23, "hidden_act": "gelu", "vocab_size": 49408}  # SD 2.1's
WIDTH = 1024  # of a text's and an image's tokens
WORDS = 77  # tokens of a text


def hollow(part: Part, dtype: torch.dtype) -> nn.Module:
    """A network of the true shape, without memory."""
    network = empty_network(SHAPES[part], part)
    return nn.Module.to(network, dtype).eval().requires_grad_(False)


def hollow_tower(shape: dict[str, object] = VISION) -> ClipTower:
    """CLIP's image tower, the same way."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(**shape)  # pyright: ignore[reportArgumentType]
    with torch.device("meta"):
        tower = CLIPVisionModel(config)
    return ClipTower(tower.eval().requires_grad_(False))


def lay(network: nn.Module) -> None:
    """Allocate every tensor that is on `meta`, in place; values are left undefined."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                laid = torch.empty(parameter.shape, dtype=parameter.dtype)
                module.register_parameter(name, nn.Parameter(laid, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                make = torch.empty if buffer.is_floating_point() else torch.zeros
                module._buffers[name] = make(buffer.shape, dtype=buffer.dtype)
