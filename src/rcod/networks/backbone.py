"""The latent diffusion model behind three calls: encode, predict, decode.

`Backbone` is what every system stands on. `TinyBackbone` is the project's own: a linear
autoencoder (the Karhunen-Loeve basis of lapped 4 x 4 pixel blocks, whitened), a small UNet
of plain convolutions, and a last touch on the decoded pixels. It holds no image-wide statistics
and attends to the image tokens alone, so its answer at a pixel depends on the photo around it
and never on where a tile was cut.

    image -> encode -> z -> predict(z, t, tokens) -> eps
                       z -> decode -> image
"""

import math
from typing import Annotated, Protocol, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

Width = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[int, Field(ge=0, le=64)]

LOUDNESS = 8.0  # of the time embedding: at 1 the blocks hardly hear it, and the dial learns late


class Backbone(Protocol):
    """A latent diffusion model; images are (B, 3, H, W) in [0, 1], sides multiples of `factor`."""

    factor: int

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> latent (B, C, H / factor, W / factor)."""
        ...

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Latent (B, C, h, w), timesteps (B,), tokens (B, N, D) -> noise (B, C, h, w)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latent (B, C, h, w) -> image (B, 3, h * factor, w * factor), not clamped."""
        ...


class TinySettings(BaseModel, frozen=True, extra="forbid"):
    """The shape of the tiny model."""

    latent: int = Field(default=32, ge=3, le=48)  # channels; 48 would be lossless
    lap: float = Field(default=0.0, ge=-90, le=90)  # degrees by which `lap` turns pixels
    waves: float = Field(default=16.0, ge=1, le=1000)  # of time: few make an even dial
    widths: tuple[Width, Width] = (64, 128)  # channels at latent resolution and at half of it
    blocks: tuple[Blocks, Blocks, Blocks] = (5, 8, 5)  # residual: before, at half, after
    tokens: Width = 128  # width of an image token
    heads: Width = 4  # of the attention to the tokens
    touch: int = Field(default=0, ge=0, le=4096)  # channels of the decoder's last touch; 0: none

    @model_validator(mode="after")
    def heads_share_the_channels(self) -> Self:
        """Refuse heads that can't be equally wide."""
        if self.widths[1] % self.heads:
            raise ValueError(
                f"heads must divide the {self.widths[1]} channels at half resolution, "
                f"got {self.heads}"
            )
        return self


class TinyBackbone(nn.Module):
    """The project's own backbone, 4 x 4 pixels to a latent of `settings.latent` channels."""

    factor = 4

    def __init__(self, settings: TinySettings) -> None:
        super().__init__()
        self.settings = settings
        size = self.factor
        self.basis = nn.Buffer(torch.zeros(settings.latent, 3, size, size))  # orthonormal rows
        self.mean = nn.Buffer(torch.zeros(3))  # mean colour
        self.std = nn.Buffer(torch.ones(settings.latent))  # of each coefficient
        self.turn = nn.Buffer(lapping(settings.lap), persistent=False)  # (4, 4)
        self.unet = TinyUNet(settings)
        self.touch = LastTouch(settings.touch) if settings.touch else None

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> whitened block coefficients, (B, C, H/4, W/4)."""
        with torch.autocast(image.device.type, enabled=False):  # 8 bits of mantissa would show
            turned = lap(image - self.mean.view(1, 3, 1, 1), self.turn)
            z = F.conv2d(turned, self.basis, stride=self.factor)
            return z / self.std.view(1, -1, 1, 1)

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, h, w), (B,), (B, N, D) -> eps (B, C, h, w); h and w may be odd."""
        h, w = z.shape[-2:]
        dtype = next(self.unet.parameters()).dtype
        even = F.pad(z, (0, w % 2, 0, h % 2), mode="replicate").to(dtype)
        return self.unet(even, t, tokens.to(dtype))[..., :h, :w].to(z.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 4h, 4w)."""
        image = self.assemble(z)
        return image if self.touch is None else self.touch(image)

    def assemble(self, z: Tensor) -> Tensor:
        """The linear part of `decode`: the sum of all blocks."""
        with torch.autocast(z.device.type, enabled=False):
            scaled = z * self.std.view(1, -1, 1, 1)
            image = F.conv_transpose2d(scaled, self.basis, stride=self.factor)
            return lap(image, self.turn.T) + self.mean.view(1, 3, 1, 1)


def lapping(degrees: float) -> Tensor:
    """The orthogonal map of four pixels astride a border, (4, 4); 0 degrees change nothing.

    Sums and differences of mirrored pixels are formed, the differences turned, and both taken
    apart again (the time-domain lapped transform of Tran et al., 2003).
    """
    mirror = torch.eye(2).flip(0)
    top, bottom = (torch.cat(pair, 1) for pair in ((torch.eye(2), mirror), (mirror, -torch.eye(2))))
    butterfly = torch.cat([top, bottom]) / math.sqrt(2)  # its own inverse
    angle = math.radians(degrees)
    middle = torch.eye(4)
    middle[2:, 2:] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return (butterfly @ middle @ butterfly).T


def lap(image: Tensor, turn: Tensor) -> Tensor:
    """Turn the four pixels astride every border of 4 x 4 blocks, along both axes.

    Blocks of the turned image reach over their neighbours' pixels, so that an error of one block
    fades out instead of ending in an edge. The inverse is the same call with `turn.T`.

    Args:
        image: (B, 3, H, W), H and W multiples of 4.
        turn: orthogonal map of four neighbours, (4, 4), applied to rows from the right.
    """
    for _ in range(2):
        inner = image[..., 2:-2]
        borders = inner.unflatten(-1, (inner.shape[-1] // 4, 4)) @ turn  # (B, 3, H, W/4 - 1, 4)
        image = torch.cat([image[..., :2], borders.flatten(-2), image[..., -2:]], -1)
        image = image.transpose(-1, -2)
    return image


def fit_basis(crops: Tensor, channels: int, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The linear autoencoder that loses least: principal components of lapped 4 x 4 x 3 blocks.

    Args:
        crops: HR crops, (N, 3, H, W) in [0, 1], H and W multiples of 4.
        channels: how many components to keep, at most 48.
        turn: the lapping, (4, 4).

    Returns:
        Basis (C, 3, 4, 4) with orthonormal rows, mean colour (3,), standard deviations (C,).
    """
    mean = crops.mean(dim=(0, 2, 3))
    turned = lap(crops - mean.view(1, 3, 1, 1), turn)
    blocks = F.unfold(turned, TinyBackbone.factor, stride=TinyBackbone.factor)
    rows = blocks.transpose(1, 2).reshape(-1, blocks.shape[1]).double()  # (blocks, 48)
    variance, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    basis = vectors.T.flip(0)[:channels].reshape(channels, 3, 4, 4)
    return basis.float(), mean, variance.flip(0)[:channels].sqrt().float()


class LastTouch(nn.Module):
    """What a sum of blocks can't be: edges that run on smoothly from block to block.

    A few convolutions over pixels, two by two; they see 7 pixels around, or less.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        zero(self.last)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) with even sides -> the same, in float32."""
        x = F.pixel_unshuffle(image - 0.5, 2).to(self.first.weight.dtype)  # (B, 12, H/2, W/2)
        x = self.second(F.silu(self.first(x)))  # (B, width, H/2, W/2)
        return image + F.pixel_shuffle(self.last(F.silu(x)), 2).to(image.dtype)


class TinyUNet(nn.Module):
    """Noise predictor: residual trunk, its middle at half resolution, time in every block."""

    def __init__(self, settings: TinySettings) -> None:
        super().__init__()
        wide, half = settings.widths
        self.waves = settings.waves
        before, middle, after = settings.blocks
        self.time = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU())
        self.enter = nn.Conv2d(settings.latent, wide, 3, padding=1)
        self.before = nn.ModuleList(ResidualBlock(wide) for _ in range(before))
        self.down = nn.Conv2d(wide, half, 2, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(half) for _ in range(middle))
        self.look = nn.ModuleList(TokenAttention(half, settings) for _ in range(2))
        self.up = nn.ConvTranspose2d(half, wide, 2, stride=2)
        self.after = nn.ModuleList(ResidualBlock(wide) for _ in range(after))
        self.leave = nn.Conv2d(wide, settings.latent, 3, padding=1)
        self.lean = nn.Conv2d(wide, settings.latent, 3, padding=1)  # what grows with t
        zero(self.leave)
        zero(self.lean)

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, h, w) with even sides, (B,), (B, N, D) -> eps (B, C, h, w)."""
        emb = LOUDNESS * self.time(embed_time(t, self.waves).to(z.dtype))  # (B, 256)
        x = self.enter(z)  # (B, wide, h, w)
        for block in self.before:
            x = block(x, emb)
        y = self.down(x)  # (B, half, h/2, w/2)
        for i, block in enumerate(self.middle):
            if (look := self.attention_before(i)) is not None:
                y = look(y, tokens)
            y = block(y, emb)
        x = x + self.up(y)  # (B, wide, h, w)
        for block in self.after:
            x = block(x, emb)
        share = ((t.float() - 250) / 500).to(x.dtype)  # 0 at fidelity, 1 at realism
        return self.leave(x) + share.view(-1, 1, 1, 1) * self.lean(x)

    def attention_before(self, block: int) -> nn.Module | None:
        """Every fourth block of the middle has one of the two attentions before it, in turns."""
        return self.look[block // 4 % 2] if block % 4 == 0 else None


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions; time scales and shifts between them. No normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(256, 2 * width)
        zero(self.modulate)
        with torch.no_grad():
            self.second.weight.mul_(0.2)  # a deep sum of blocks starts near the identity

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, width, h, w), time (B, 256) -> (B, width, h, w)."""
        scale, shift = self.modulate(emb)[..., None, None].chunk(2, dim=1)  # (B, width, 1, 1)
        hidden = self.first(x)
        hidden = torch.addcmul(shift.to(hidden.dtype), hidden, 1 + scale.to(hidden.dtype))
        return x + self.second(F.silu(hidden))


class TokenAttention(nn.Module):
    """Every place of the latent looks at the image tokens, and at nothing else."""

    def __init__(self, width: int, settings: TinySettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.query = nn.Conv2d(width, width, 1)
        self.keys = nn.Linear(settings.tokens, 2 * width)
        self.out = nn.Conv2d(width, width, 1)
        zero(self.out)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, width, h, w), tokens (B, N, D) -> (B, width, h, w)."""
        b, c, h, w = x.shape
        q = self.query(
            F.rms_norm(x.movedim(1, -1), (c,)).movedim(-1, 1)
        )  # scale of x must not matter
        q = q.flatten(2).transpose(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.keys(tokens).chunk(2, dim=-1)  # (B, N, width)
        k, v = (a.unflatten(2, (self.heads, -1)).transpose(1, 2) for a in (k, v))
        seen = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype))
        return x + self.out(seen.transpose(1, 2).flatten(2).transpose(1, 2).view(b, c, h, w))


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Let a layer start as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def embed_time(t: Tensor, waves: float) -> Tensor:
    """Sines and cosines of the timestep; (B,) in [0, 1000) -> (B, 64), smooth in t.

    From 0 to 1000 the slowest passes a quarter of a wave, the fastest `waves` quarters.
    """
    rates = torch.exp(torch.linspace(0.0, math.log(waves), 32, device=t.device))
    angles = t.float().view(-1, 1) / 1000 * rates * math.pi / 2
    return torch.cat([angles.sin(), angles.cos()], dim=1)
