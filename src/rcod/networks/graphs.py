"""What of a system can leave PyTorch?

Everything: six small graphs with the sizes left open and the timestep an input, so that the
dial survives. A program without PyTorch runs them one after the other; an engine takes the
three in the middle, which are the three calls of a backbone.

    photo -> enlarge -> up -> encode -> z -> clean(t, tokens) -> z_sr -> decode -> sr
                        up -> prompt -> tokens ---'     sr, up -> color -> the photo, restored
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.diffusion.schedule import CleanLatent, restore_clean
from rcod.errors import RcodError
from rcod.networks.backbone import TinyBackbone
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import SIDE, FixedPrompt, VisualPrompt
from rcod.networks.stable import StableBackbone
from rcod.networks.swift import SwiftBackbone, mirrored, returned
from rcod.pixels.color import LEVELS, match_adain

HEIGHT, WIDTH = 32, 24  # latents that a graph is traced with; unlike, so that none stands for both


@dataclass(frozen=True)
class Graph:
    """A part of a system, ready to be traced."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]  # by name, of the sizes it is traced with
    unit: dict[str, int]  # inputs with open sides, and what these are multiples of
    output: str

    @property
    def shapes(self) -> tuple[dict[int, object] | None, ...]:
        """Which sides stay open, as `torch.export` wants to be told; none may be settled."""
        from torch.export import Dim

        return tuple(
            {2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if name in self.unit else None for name in self.inputs
        )


class Enlarge(nn.Module):
    """Photo (1, 3, h, w) in [0, 1] -> enlarged, (1, 3, 4h, 4w)."""

    def forward(self, photo: Tensor) -> Tensor:
        """As `onestep.enlarge`, in one step."""
        height, width = photo.shape[-2:]
        size = (4 * height, 4 * width)  # whole numbers stay whole in a graph; factors don't
        return F.interpolate(photo, size, mode="bicubic", align_corners=False).clamp(0, 1)


class Color(nn.Module):
    """Result and enlarged photo -> the result in the photo's colours, (1, 3, H, W)."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, sr: Tensor, up: Tensor) -> Tensor:
        """As `color.match_wavelet` or `color.match_adain`, in one step."""
        sr = sr.clamp(0, 1)
        if self.way == "adain":
            return match_adain(sr, up)
        low = up - sr
        for level in range(LEVELS):  # as `color.cascade`, in steps that graphs have
            for _ in range(2):
                low = _smooth(low, 2**level).transpose(2, 3)
        return (sr + low).clamp(0, 1)


def _smooth(x: Tensor, reach: int) -> Tensor:
    """[1, 2, 1] / 4 along the last side of (1, 3, H, W)."""
    padded = F.pad(x, (reach, reach, 0, 0), mode="replicate")
    return (padded[..., : -2 * reach] + 2 * x + padded[..., 2 * reach :]) / 4


class Prompt(nn.Module):
    """As `VisualPrompt`, or `FixedPrompt`, in products that every program knows."""

    def __init__(self, prompt: VisualPrompt | FixedPrompt) -> None:
        super().__init__()
        self.prompt = prompt

    def forward(self, up: Tensor) -> Tensor:
        """(1, 3, H, W) -> (G, N, D)."""
        if isinstance(self.prompt, FixedPrompt):
            return self.prompt.tokens + 0 * up.mean()  # what isn't looked at would be no input
        across = F.linear(up, view(up.shape[3], up))  # (1, 3, H, 224)
        small = F.linear(across.transpose(2, 3), view(up.shape[2], up)).transpose(2, 3)
        return self.prompt.project(self.prompt.tower(2 * small - 1))


def view(length: int, like: Tensor) -> Tensor:
    """The antialiased bilinear resize of a side to what towers look at, (224, length)."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    ratio = (place[-1] + 0.5) / SIDE
    centre = (torch.arange(SIDE, device=like.device, dtype=like.dtype) + 0.5) * ratio
    far = (place - centre[:, None]).abs() / ratio.clamp(min=1)
    weight = (1 - far).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)


class TinyEncode(nn.Module):
    """As `SwiftBackbone.encode`, in one band."""

    def __init__(self, swift: SwiftBackbone) -> None:
        super().__init__()
        self.swift = swift

    def forward(self, up: Tensor) -> Tensor:
        """(1, 3, 4h, 4w) -> (1, C, h, w)."""
        return F.conv2d(mirrored(up), self.swift.analysis, self.swift.offset, stride=4)


class TinyPredict(nn.Module):
    """As `TinyBackbone.predict`; odd sides are filled up in a way that keeps sizes open."""

    def __init__(self, tiny: TinyBackbone) -> None:
        super().__init__()
        self.unet = tiny.unet

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """(1, C, h, w), (1,), (1, N, D) -> eps (1, C, h, w)."""
        h, w = z.shape[-2:]
        rows = torch.arange((h + 1) // 2 * 2, device=z.device).clamp(max=h - 1)
        columns = torch.arange((w + 1) // 2 * 2, device=z.device).clamp(max=w - 1)
        even = z.index_select(2, rows).index_select(3, columns)
        return self.unet(even, t, tokens)[..., :h, :w]


class TinyDecode(nn.Module):
    """As `SwiftBackbone.decode`, in one band."""

    def __init__(self, swift: SwiftBackbone) -> None:
        super().__init__()
        self.swift = swift

    def forward(self, z: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, 3, 4h, 4w)."""
        blocks = F.conv2d(F.pad(z, (2, 2, 2, 2)), self.swift.synthesis)
        image = returned(F.pixel_shuffle(blocks, 4)) + self.swift.mean.view(1, 3, 1, 1)
        return image if self.swift.touch is None else self.swift.touch(image)


class Call(nn.Module):
    """One of the three calls of Stable Diffusion."""

    def __init__(self, backbone: StableBackbone, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name

    def forward(self, *given: Tensor) -> Tensor:
        """As the backbone's."""
        return getattr(self.backbone, self.name)(*given)


class Clean(nn.Module):
    """Latent of the enlarged photo -> latent of the result, the system's formula included."""

    def __init__(self, onestep: OneStep, predict: nn.Module) -> None:
        super().__init__()
        self.predict = predict
        self.gain, self.alphas = nn.Buffer(onestep.gain), nn.Buffer(onestep.alphas)
        self.formula: CleanLatent = onestep.formula
        self.step, self.guidance = onestep.step, onestep.guidance

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """(1, C, h, w), (1,), (G, N, D) -> (1, C, h, w)."""
        if len(tokens) == 1:
            eps = self.predict(z, t, tokens)
        else:
            both = self.predict(z.repeat(2, 1, 1, 1), t.repeat(2), tokens)
            positive, negative = both.chunk(2)
            eps = negative + self.guidance * (positive - negative)
        eps = eps * self.gain.view(1, -1, 1, 1)
        return restore_clean(z, eps, t, self.alphas, self.formula, self.step)


def backbone_graphs(backbone: nn.Module, tokens: Tensor) -> dict[str, Graph]:
    """The three calls of a backbone as graphs.

    Args:
        backbone: frozen, in float32, on the processor.
        tokens: of any photo, (G, N, D), for their shape.
    """
    if isinstance(backbone, TinyBackbone):
        swift = SwiftBackbone(backbone)
        modules = TinyEncode(swift), TinyPredict(backbone), TinyDecode(swift)
        channels, factor, unit = backbone.settings.latent, backbone.factor, 1
    elif isinstance(backbone, StableBackbone) and not backbone.guided:
        modules = Call(backbone, "encode"), Call(backbone, "predict"), Call(backbone, "decode")
        channels, factor, unit = backbone.channels, backbone.factor, 8
    else:
        raise RcodError(
            "a system whose adapters follow the photo can't be exported: its weights are others "
            "for every photo; take osediff, rcod_o, pisa_sr or tiny"
        )
    z = torch.zeros(1, channels, HEIGHT, WIDTH)
    up = torch.zeros(1, 3, factor * HEIGHT, factor * WIDTH)
    t = torch.tensor([500])
    many = {"z": z.repeat(len(tokens), 1, 1, 1), "t": t.repeat(len(tokens)), "tokens": tokens}
    return {
        "encode": Graph("encode", modules[0], {"up": up}, {"up": factor * unit}, "z"),
        "predict": Graph("predict", modules[1], many, {"z": unit}, "eps"),
        "decode": Graph("decode", modules[2], {"z": z}, {"z": unit}, "sr"),
    }


def all_graphs(onestep: OneStep, color: str) -> list[Graph]:
    """Everything between a photo and the restored one; `onestep` in float32 on the processor."""
    up = torch.zeros(1, 3, 4 * HEIGHT, 4 * WIDTH)
    tokens = onestep.prompt(up).detach()  # (G, N, D)
    three = backbone_graphs(onestep.backbone, tokens)
    z, unit = three["decode"].inputs["z"], three["decode"].unit["z"]
    given = {"z": z, "t": torch.tensor([500]), "tokens": tokens}
    both = {"sr": torch.zeros_like(up), "up": up}  # one tensor twice would be one input
    clean = Clean(onestep, three["predict"].module)
    return [
        Graph(
            "enlarge", Enlarge(), {"photo": torch.zeros(1, 3, HEIGHT, WIDTH)}, {"photo": 1}, "up"
        ),
        Graph("prompt", Prompt(onestep.prompt), {"up": up}, {"up": 4}, "tokens"),
        three["encode"],
        Graph("clean", clean, given, {"z": unit}, "z_sr"),
        three["decode"],
        Graph("color", Color(color), both, {"sr": 1, "up": 1}, "restored"),
    ]
