"""How does ComfyUI enlarge a picture? Three nodes, in its own protocol.

    RCOD model ------.
    IMAGE, MASK -----+-> RCOD upscale -> IMAGE, what there is to say of it
    IMAGE, IMAGE of the same photo at fidelity -> RCOD invention -> MASK, share

ComfyUI finds them in a folder of its `custom_nodes` (`examples/comfyui` is one). Its pictures are
float (B, H, W, 3) in [0, 1], its masks (B, H, W).
"""

from collections.abc import Callable
from importlib import import_module
from typing import ClassVar, cast, get_args

import torch
from torch import Tensor

from rcod.device import DtypeName
from rcod.diffusion.dial import Dial, check_shape
from rcod.diffusion.grouping import LEVELS
from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.pixels.color import ColorFix
from rcod.using.open_photo import measure_invention
from rcod.using.restore import Restorer, Result

Inputs = dict[str, dict[str, tuple[object, ...]]]

NUMBER = "number"  # what the dial says when it is none of the names


class RcodModel:
    """Loads a model: the one inside, or a file that `rcod convert` or `rcod train` wrote."""

    CATEGORY = "loaders"
    RETURN_TYPES = ("RCOD_MODEL",)
    FUNCTION = "load"
    DESCRIPTION = "tiny ships with rcod; published systems need a base, and RCOD's a vision tower."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node asks for."""
        return {
            "required": {
                "model": ("STRING", {"default": "tiny"}),
                "device": (["auto", "cpu", "cuda", "mps"],),
                "dtype": (list(get_args(DtypeName)),),
            },
            "optional": {"base": ("STRING", {}), "vision": ("STRING", {})},
        }

    def load(
        self, model: str, device: str, dtype: str, base: str = "", vision: str = ""
    ) -> tuple[Restorer]:
        """Load it; ComfyUI keeps what comes out until an input changes."""
        parts = Parts(base=base or None, vision=vision or None)
        return (Restorer.load(model, device, dtype, parts),)


class RcodUpscale:
    """Enlarges and restores a batch, picture by picture."""

    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "facts")
    FUNCTION = "upscale"
    DESCRIPTION = (
        "One diffusion step. The dial goes from fidelity (0, keeps what is there) to realism "
        "(1, invents what is likely); auto chooses by the damage of the picture."
    )
    DIALS: ClassVar = ["auto", "auto-local", *LEVELS, NUMBER]

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node asks for; a mask says the realism of every place in the dial's stead."""
        return {
            "required": {
                "model": ("RCOD_MODEL",),
                "image": ("IMAGE",),
                "dial": (cls.DIALS,),
                "realism": (
                    "FLOAT",
                    {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01, "display": "slider",
                     "tooltip": "heard where the dial says number"},
                ),
                "scale": ("FLOAT", {"default": 4.0, "min": 1.0, "max": 8.0, "step": 0.25}),
                "color": (list(get_args(ColorFix)),),
            },
            "optional": {
                "where": ("MASK", {"tooltip": "black is fidelity, white realism; leads the dial"})
            },
        }  # fmt: skip

    def upscale(
        self,
        model: Restorer,
        image: Tensor,
        dial: str,
        realism: float,
        scale: float,
        color: str,
        where: Tensor | None = None,
    ) -> tuple[Tensor, str]:
        """Restore the pictures (B, H, W, 3), each as if it were alone.

        Returns:
            Pictures (B, round(scale * H), round(scale * W), 3), and one line about each.
        """
        if where is not None:
            if len(where) not in (1, len(image)):
                raise RcodError(
                    f"there must be one mask or one for each of {len(image)} pictures, got "
                    f"{len(where)}"
                )
            check_shape(where[0], (image.shape[1], image.shape[2]))
        tell = progress(len(image))
        done: list[Result] = []
        for number, picture in enumerate(image):
            place = realism if dial == NUMBER else cast(Dial, dial)
            if where is not None:
                place = where[number % len(where)].clamp(0, 1)
            lr = picture.movedim(-1, 0).clamp(0, 1)  # (3, H, W)
            done.append(model(lr, place, scale, cast(ColorFix, color), tell(number)))
        pictures = torch.stack([result.photo.pixels.movedim(0, -1) for result in done])
        return pictures, "\n".join(map(facts, done))


class RcodInvention:
    """Shows where a result departs from the same photo's result at fidelity."""

    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("MASK", "FLOAT")
    RETURN_NAMES = ("where", "share")
    FUNCTION = "compare"
    DESCRIPTION = "Where detail was invented, and which part of the fine structure on show it is."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node asks for."""
        return {"required": {"image": ("IMAGE",), "fidelity": ("IMAGE",)}}

    def compare(self, image: Tensor, fidelity: Tensor) -> tuple[Tensor, float]:
        """Compare pictures (B, H, W, 3); the mask (B, H, W) is their local mean departure."""
        if image.shape != fidelity.shape:
            raise RcodError(
                f"both pictures must be results of one photo at one scale, got "
                f"{tuple(image.shape)} and {tuple(fidelity.shape)}"
            )
        found = [
            measure_invention(sr.movedim(-1, 0), kept.movedim(-1, 0))
            for sr, kept in zip(image, fidelity, strict=True)
        ]
        where = torch.stack([invention.where for invention in found])
        return where, sum(invention.share for invention in found) / len(found)


NODE_CLASS_MAPPINGS = {
    "RcodModel": RcodModel,
    "RcodUpscale": RcodUpscale,
    "RcodInvention": RcodInvention,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "RcodModel": "RCOD model",
    "RcodUpscale": "RCOD upscale",
    "RcodInvention": "RCOD invention",
}


def facts(result: Result) -> str:
    """How a result came about, in a line."""
    metric = "" if result.metric is None else f", metric {result.metric:.3f}"
    return f"{result.level}, realism {result.realism:.2f}, t = {result.timestep}{metric}"


def progress(pictures: int) -> Callable[[int], Callable[[float], None]]:
    """ComfyUI's bar for some pictures; it raises when the user has stopped the work."""
    try:
        bar = import_module("comfy.utils").ProgressBar(pictures * 100)
    except ImportError:  # the nodes are called from elsewhere
        return lambda number: lambda share: None
    return lambda number: lambda share: bar.update_absolute(round(100 * (number + share)))
