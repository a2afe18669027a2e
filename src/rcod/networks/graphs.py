"""What of a system can leave PyTorch?

Everything: six small graphs with the sizes left open and the timestep an input, so that the
dial survives. A program without PyTorch runs them one after the other; an engine takes the
three in the middle, which are the three calls of a backbone. Where adapters follow the photo a
seventh finds its scores, which encode and clean are given too.

    photo -> enlarge -> up -> encode -> z -> clean(t, tokens) -> z_sr -> decode -> sr
      '-> scores - -' - - -' - - - - - - - -'  |        sr, up -> color -> the photo, restored
                        up -> prompt -> tokens '
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.diffusion.schedule import CleanLatent, restore_clean
from rcod.networks.backbone import TinyBackbone
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.framing import BORDER, Framing, continued, cut
from rcod.networks.onestep import OneStep, apply_guidance
from rcod.networks.prompts import SIDE, FixedPrompt, VisualPrompt
from rcod.networks.stable import StableBackbone
from rcod.networks.swift import SwiftBackbone, mirrored, returned
from rcod.networks.systems import System
from rcod.pixels.color import OCTAVES, match_adain
from rcod.pixels.resample import cubic_weight

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

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.framing = framing

    def forward(self, photo: Tensor) -> Tensor:
        """As `framing.frame`, in one step, of a photo that needs no padding."""
        height, width = photo.shape[-2:]
        size = (4 * height, 4 * width)  # whole numbers stay whole in a graph; factors don't
        if self.framing != "pillow":
            mode = "bicubic" if self.framing == "free" else "bilinear"
            return F.interpolate(photo, size, mode=mode, align_corners=False).clamp(0, 1)
        across = _byte(F.linear(_byte(photo), sharp(width, photo))).transpose(2, 3)
        return _byte(F.linear(across, sharp(height, photo))).transpose(2, 3)


def sharp(length: int, like: Tensor) -> Tensor:
    """As `taps` for four times a side, (4 length, length): theirs can't be traced with it open."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    centre = (torch.arange(4 * length, device=like.device, dtype=like.dtype) + 0.5) / 4
    weight = cubic_weight((place - centre[:, None]).abs())
    return weight / weight.sum(1, keepdim=True)


def _byte(x: Tensor) -> Tensor:
    """In steps of 1 / 255."""
    return (255 * x.clamp(0, 1)).round() / 255


class Scores(nn.Module):
    """Photo (1, 3, h, w) in [0, 1] -> how blurred and how noisy, (1, 2)."""

    def __init__(self, estimator: DegradationEstimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, photo: Tensor) -> Tensor:
        """As `OneStep.tuned` asks for them."""
        return self.estimator.scores(self.estimator.features(photo))


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
        for level in range(OCTAVES):  # as `color.cascade`, in steps that graphs have
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
    """As `SwiftBackbone.encode`, in one band, and continued beyond the borders."""

    def __init__(self, swift: SwiftBackbone, border: int) -> None:
        super().__init__()
        self.swift, self.border = swift, border

    def forward(self, up: Tensor) -> Tensor:
        """(1, 3, 4h, 4w) -> (1, C, h + 2 border, w + 2 border)."""
        z = F.conv2d(mirrored(up), self.swift.analysis, self.swift.offset, stride=4)
        return continued(z, 4 * [self.border])


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
    """As `SwiftBackbone.decode`, in one band, without what lies beyond the borders."""

    def __init__(self, swift: SwiftBackbone, border: int) -> None:
        super().__init__()
        self.swift, self.border = swift, border

    def forward(self, z: Tensor) -> Tensor:
        """(1, C, h + 2 border, w + 2 border) -> (1, 3, 4h, 4w)."""
        blocks = F.conv2d(F.pad(z, (2, 2, 2, 2)), self.swift.synthesis)
        image = returned(F.pixel_shuffle(blocks, 4)) + self.swift.mean.view(1, 3, 1, 1)
        touched = image if self.swift.touch is None else self.swift.touch(image)
        return cut(touched, 4 * [4 * self.border])


class Call(nn.Module):
    """Stable Diffusion, tuned by the scores of a photo where its adapters follow them."""

    def __init__(self, backbone: StableBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def tuned(self, scores: Tensor | None) -> StableBackbone:
        """The backbone of a photo."""
        return self.backbone if scores is None else self.backbone.tuned(scores)


class StableEncode(Call):
    """As `StableBackbone.encode`, the posterior's mean."""

    def forward(self, up: Tensor, scores: Tensor | None = None) -> Tensor:
        """(1, 3, H, W), (1, 2) -> (1, 4, H/8, W/8)."""
        return self.tuned(scores).encode(up)


class StablePredict(Call):
    """As `StableBackbone.predict`."""

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor, scores: Tensor | None = None) -> Tensor:
        """(G, 4, h, w), (G,), (G, N, D), (1, 2) -> eps (G, 4, h, w)."""
        return self.tuned(scores).predict(z, t, tokens)


class StableDecode(Call):
    """As `StableBackbone.decode`, which no adapter touches."""

    def forward(self, z: Tensor) -> Tensor:
        """(1, 4, h, w) -> (1, 3, 8h, 8w)."""
        return self.backbone.decode(z)


class Clean(nn.Module):
    """Latent of the enlarged photo -> latent of the result, the system's formula included."""

    def __init__(self, onestep: OneStep, predict: nn.Module) -> None:
        super().__init__()
        self.predict = predict
        self.gain, self.alphas = nn.Buffer(onestep.gain), nn.Buffer(onestep.alphas)
        self.formula: CleanLatent = onestep.formula
        self.step, self.guidance = onestep.step, onestep.guidance

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor, scores: Tensor | None = None) -> Tensor:
        """(1, C, h, w), (1,), (G, N, D), (1, 2) -> (1, C, h, w)."""
        more = () if scores is None else (scores,)
        if len(tokens) == 1:
            eps = self.predict(z, t, tokens, *more)
        else:
            both = self.predict(z.repeat(2, 1, 1, 1), t.repeat(2), tokens, *more)
            positive, negative = both.chunk(2)
            eps = apply_guidance(positive, negative, self.guidance)
        eps = eps * self.gain.view(1, -1, 1, 1)
        return restore_clean(z, eps, t, self.alphas, self.formula, self.step)


def backbone_graphs(backbone: nn.Module, tokens: Tensor, border: int = 0) -> dict[str, Graph]:
    """The three calls of a backbone as graphs.

    Args:
        backbone: frozen, in float32, on the processor.
        tokens: of any photo, (G, N, D), for their shape.
        border: latents by which tiny's encoder continues a photo and its decoder cuts it again.
    """
    scores: dict[str, Tensor] = {}
    if isinstance(backbone, TinyBackbone):
        swift = SwiftBackbone(backbone)
        modules = TinyEncode(swift, border), TinyPredict(backbone), TinyDecode(swift, border)
        channels, factor, unit = backbone.settings.latent, backbone.factor, 1
    else:
        assert isinstance(backbone, StableBackbone)
        modules = StableEncode(backbone), StablePredict(backbone), StableDecode(backbone)
        channels, factor, unit = backbone.channels, backbone.factor, 8
        if backbone.guided:
            scores["scores"] = torch.full((1, 2), 0.5)
    z, t = torch.zeros(1, channels, HEIGHT, WIDTH), torch.tensor([500])
    up = torch.zeros(1, 3, factor * HEIGHT, factor * WIDTH)
    many = {"z": z.repeat(len(tokens), 1, 1, 1), "t": t.repeat(len(tokens)), "tokens": tokens}
    return {
        "encode": Graph("encode", modules[0], {"up": up} | scores, {"up": factor * unit}, "z"),
        "predict": Graph("predict", modules[1], many | scores, {"z": unit}, "eps"),
        "decode": Graph("decode", modules[2], {"z": z}, {"z": unit}, "sr"),
    }


def all_graphs(onestep: OneStep, system: System) -> list[Graph]:
    """Everything between a photo and the restored one; `onestep` in float32 on the processor."""
    photo, up = torch.zeros(1, 3, HEIGHT, WIDTH), torch.zeros(1, 3, 4 * HEIGHT, 4 * WIDTH)
    three = backbone_graphs(onestep.backbone, tokens := onestep.prompt(up).detach(), BORDER)
    z, unit = three["decode"].inputs["z"], three["decode"].unit["z"]
    more = {name: x for name, x in three["encode"].inputs.items() if name == "scores"}
    given = {"z": z, "t": torch.tensor([500]), "tokens": tokens} | more
    both = {"sr": torch.zeros_like(up), "up": up}  # one tensor twice would be one input
    found = [
        Graph("enlarge", Enlarge(system.framing), {"photo": photo}, {"photo": 1}, "up"),
        Graph("prompt", Prompt(onestep.prompt), {"up": up}, {"up": 4}, "tokens"),
        three["encode"],
        Graph("clean", Clean(onestep, three["predict"].module), given, {"z": unit}, "z_sr"),
        three["decode"],
        Graph("color", Color(system.color), both, {"sr": 1, "up": 1}, "restored"),
    ]
    if onestep.estimator is not None:
        scores = Scores(onestep.estimator)
        found.insert(1, Graph("scores", scores, {"photo": photo}, {"photo": 1}, "scores"))
    return found
