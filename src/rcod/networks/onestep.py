"""The heart: an enlarged photo to a restored one in a single UNet call.

    up -> encode -> z_up -> predict(t, tokens) -> eps -> restore_clean -> z_sr -> decode -> sr

No noise is ever added to z_up. The timestep alone says how much to invent.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.diffusion.grouping import GroupSettings, MetricSize, latent_metric
from rcod.diffusion.schedule import CleanLatent, alphas, restore_clean
from rcod.networks.backbone import Backbone, TinyBackbone
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.prompts import FixedPrompt, VisualPrompt
from rcod.networks.stable import StableBackbone
from rcod.pixels.resample import resize
from rcod.pixels.stretches import along

Body = TypeVar("Body", bound=Backbone)
Encode = Callable[[Tensor], Tensor]


class Restored(NamedTuple):
    """What one step gives."""

    z_up: Tensor  # (B, C, h, w) latent of the input
    z_sr: Tensor  # (B, C, h, w) latent of the result
    sr: Tensor  # (B, 3, H, W) result, not clamped


def apply_guidance(positive: Tensor, negative: Tensor, guidance: float) -> Tensor:
    """eps = negative + guidance (positive - negative)."""
    return negative + guidance * (positive - negative)


class OneStep(nn.Module, Generic[Body]):
    """A backbone, what it hears, and the formula of the clean latent."""

    def __init__(
        self,
        backbone: Body,
        prompt: VisualPrompt | FixedPrompt,
        formula: CleanLatent,
        channels: int,
        step: int = 200,
        guidance: float = 1.0,
        estimator: DegradationEstimator | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.formula: CleanLatent = formula
        self.step = step  # of the formula `constant`
        self.guidance = guidance  # how far to go from the negative text to the positive one
        self.estimator = estimator  # whose scores tune the backbone, where there is one
        self.seed = seed  # draws the latent as published; nothing takes the posterior's mean
        self.alphas = nn.Buffer(alphas(), persistent=False)
        self.gain = nn.Buffer(torch.ones(channels))  # how far unit noise moves each channel

    def forward(self, up: Tensor, t: Tensor, tokens: Tensor) -> Restored:
        """Restore in one UNet call (RCOD, Eq. 3).

        Args:
            up: enlarged photo, (B, 3, H, W) in [0, 1], H and W multiples of the backbone's factor.
            t: timestep of each sample, (B,) int64 in [0, 1000).
            tokens: visual tokens, (B, N, D).
        """
        z_up = self.backbone.encode(up)  # (B, C, h, w)
        z_sr = self.clean(z_up, t, tokens)  # (B, C, h, w)
        return Restored(z_up, z_sr, self.backbone.decode(z_sr))

    def clean(self, z_up: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The latent part of `forward`: (B, C, h, w) -> (B, C, h, w)."""
        eps = self.noise(z_up, t, tokens).to(z_up.dtype)
        eps = eps * self.gain.view(1, -1, 1, 1)
        return restore_clean(z_up, eps, t, self.alphas, self.formula, self.step)

    def noise(self, z_up: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The noise found: (B, C, h, w), (B,), tokens (G * B, N, D) -> (B, C, h, w).

        With twice as many tokens as latents the second half is a negative text, and one
        batched call answers both: eps = negative + guidance (positive - negative).
        """
        if len(tokens) == len(z_up):
            return self.backbone.predict(z_up, t, tokens)
        both = self.backbone.predict(z_up.repeat(2, 1, 1, 1), t.repeat(2), tokens)
        positive, negative = both.chunk(2)
        return apply_guidance(positive, negative, self.guidance)

    def encode(self, up: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """The latent of an enlarged photo; `rng` draws it where the posterior has a width."""
        if isinstance(self.backbone, StableBackbone):
            return self.backbone.encode(up, rng)
        return self.backbone.encode(up)

    def tuned(self, features: Tensor) -> "OneStep[StableBackbone]":
        """This step for one photo, by its degradation features (1, 2, D); shares all it can."""
        assert self.estimator is not None
        assert isinstance(self.backbone, StableBackbone)
        tuned = OneStep(
            self.backbone.tuned(self.estimator.scores(features)),
            self.prompt,
            self.formula,
            len(self.gain),
            self.step,
            self.guidance,
        )
        tuned.alphas, tuned.gain = self.alphas, self.gain
        return tuned.eval()


def compared(encode: Encode, lr: Tensor, hr: Tensor, at: MetricSize) -> tuple[Tensor, Tensor]:
    """The latents that a latent metric compares.

    Enlarged, as the paper has it, a detailed photo looks damaged whatever happened to it, since no
    small one can hold its detail. Reduced, both have the small photo's size, and nothing but damage
    is between them.

    Args:
        encode: pictures (B, 3, H, W) -> latents (B, C, h, w).
        lr: damaged photos, (B, 3, H, W) in [0, 1].
        hr: the true ones, (B, 3, 4 H, 4 W) in [0, 1].
        at: which of the two sizes.

    Returns:
        Latents of the photos and of the truth, (B, C, h, w) each.
    """
    if at == "enlarged":
        return encode(enlarge(lr)), encode(hr)
    height, width = (side - side % TinyBackbone.factor for side in lr.shape[-2:])  # whole latents
    small = resize(hr[..., : 4 * height, : 4 * width], (height, width)).clamp(0, 1)
    return encode(lr[..., :height, :width]), encode(small)


@torch.no_grad()
def measured(encode: Encode, lr: Tensor, hr: Tensor, groups: GroupSettings) -> Tensor:
    """The latent metric of every photo, (B,), by the kind and at the size of these groups."""
    return latent_metric(*compared(encode, lr, hr, groups.at), groups.by)


def enlarge(lr: Tensor, scale: int = 4) -> Tensor:
    """The `up` of a photo: bicubic, (B, 3, h, w) -> (B, 3, scale h, scale w) in [0, 1]."""

    def bicubic(rows: Tensor) -> Tensor:  # (n, L) -> (n, scale L)
        one = F.interpolate(
            rows[:, None, None], scale_factor=(1, scale), mode="bicubic", align_corners=False
        )
        return one[:, 0, 0]

    for axis in (3, 2):
        lr = along(lr, axis, bicubic, 2, scale)
    return lr.clamp_(0, 1)
