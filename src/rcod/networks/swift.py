"""How does the tiny model spend its time on products alone?

A trained backbone is arranged anew, with the same answers but for the last bits. What the lapped
autoencoder does in eight steps is one convolution each way. Time and dial are folded into the
convolutions' own weights, once for a timestep. Every block runs over bands of rows that stay in the
processor's cache, from one buffer into another, so that memory is hardly waited for. And a wide
latent is filled up with columns of zeros, which a convolution sees beyond a border anyhow: units
that multiply matrices fall to a third of their rate at some other widths.

    image -> mirrored borders -> one 8 x 8 convolution -> z
    z, t -> folded weights, band after band -> eps
    z -> one 3 x 3 convolution -> 4 x 4 pixels each -> borders folded back -> last touch -> image
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.networks.backbone import LOUDNESS, LastTouch, ResidualBlock, TinyBackbone, embed_time

BAND = 2**22  # bytes of a band; twice as many no longer stay in the caches (measured)
WIDE = 256  # latents; up to here every width is as fast as the next (measured)
UNIT = 32  # of wider ones, so that half of it fills the rows of a processor's matrix unit
KEPT = 8  # timesteps whose weights are kept: a dial asks for the same few again and again
ROWS = 32  # of latents, in a band of pixels
REACH = 2  # latents around that the last touch may look at: three convolutions, two by two pixels
LAST = torch.channels_last


class Folded(NamedTuple):
    """A convolution's weight and bias."""

    weight: Tensor
    bias: Tensor


Block = tuple[Folded, Folded]


class Timed(NamedTuple):
    """The UNet's weights at one timestep."""

    blocks: tuple[Block, ...]  # before, middle and after
    leave: Folded


class SwiftBackbone(nn.Module):
    """A trained `TinyBackbone`, arranged for a processor; frozen."""

    factor = 4

    def __init__(self, tiny: TinyBackbone) -> None:
        super().__init__()
        self.unet, self.touch = tiny.unet, tiny.touch
        self.mean = nn.Buffer(tiny.mean)  # colour, (3,)
        self.analysis, self.synthesis = (nn.Buffer(one) for one in _basis(tiny))
        self.offset = nn.Buffer(-(self.analysis * tiny.mean.view(1, 3, 1, 1)).sum((1, 2, 3)))
        if tiny.touch is not None:
            self.first = nn.Buffer(_strided(tiny.touch.first.weight))
        self._timed: OrderedDict[int, Timed] = OrderedDict()

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> whitened coefficients, (B, C, H/4, W/4)."""
        batch, _, height, width = image.shape
        size = batch, len(self.offset), height // 4, width // 4
        z = torch.empty(size, device=image.device, memory_format=LAST)
        for first, last in _bands(height // 4, ROWS):
            band = image[..., max(4 * first - 2, 0) : 4 * last + 2, :]
            ends = 2 * (first == 0), 2 * (4 * last == height)
            band = mirrored(band, ends)
            z[:, :, first:last] = F.conv2d(band, self.analysis, self.offset, stride=4)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 4h, 4w)."""
        batch, _, height, width = z.shape
        image = z.new_empty(batch, 3, 4 * height, 4 * width)
        reach = 0 if self.touch is None else REACH
        for first, last in _bands(height, ROWS):
            top = max(first - reach, 0)
            band = self._assembled(z, top, min(last + reach, height))
            if self.touch is not None:
                self._retouch(band, self.touch)
            image[..., 4 * first : 4 * last, :] = band[..., 4 * (first - top) : 4 * (last - top), :]
        return image

    def _assembled(self, z: Tensor, first: int, last: int) -> Tensor:
        """The blocks of some rows of latents, (B, C, h, w) -> (B, 3, 4 (last - first), 4w)."""
        ends = first == 0, last == z.shape[2]
        band = F.pad(z[:, :, max(first - 1, 0) : last + 1], (2, 2, 2 * ends[0], 2 * ends[1]))
        blocks = F.conv2d(band, self.synthesis)  # (B, 48, rows, w + 2)
        return returned(F.pixel_shuffle(blocks, 4), ends).add_(self.mean.view(1, 3, 1, 1))

    def _retouch(self, image: Tensor, touch: LastTouch) -> None:
        """The last touch, in place: (B, 3, H, W)."""
        x = (image - 0.5).to(self.first.dtype)
        x = F.conv2d(x, self.first, touch.first.bias, stride=2, padding=2)
        x = touch.second(F.silu(x, inplace=True))
        found = touch.last(F.silu(x, inplace=True))  # (B, 12, H/2, W/2)
        pairs = image.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, 3, H/2, 2, W/2, 2)
        pairs += found.unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 5, 3)

    def predict(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, h, w), (B,), (B, N, D) -> eps (B, C, h, w); h and w may be odd."""
        h, w = z.shape[-2:]
        dtype = self.unet.enter.weight.dtype
        even = z.to(dtype)
        if h % 2 or w % 2:
            even = F.pad(even, (0, w % 2, 0, h % 2), mode="replicate")
        found = [  # one by one: each has weights of its own, and bands of one are not copied
            self._one(even[i : i + 1], self._at(t[i : i + 1]), tokens[i : i + 1].to(dtype))
            for i in range(len(z))
        ]
        return torch.cat(found)[..., :h, :w].to(z.dtype)

    def _one(self, z: Tensor, timed: Timed, tokens: Tensor) -> Tensor:
        """(1, C, h, w) with even sides -> (1, C, h, w)."""
        unet = self.unet
        early, late = len(unet.before), len(unet.before) + len(unet.middle)
        width = z.shape[3]
        if room := self.room(width):
            z = F.pad(z, (0, room))
        x = _cleared(unet.enter(z.contiguous(memory_format=LAST)), width)  # (1, wide, h, w + room)
        x, spare = self.through(x, torch.empty_like(x), timed.blocks[:early], width)
        y = _cleared(unet.down(x), width // 2)  # (1, half, h/2, (w + room)/2)
        other = torch.empty_like(y)
        for i in range(early, late):
            if (look := unet.attention_before(i - early)) is not None:
                for first, last in _bands(y.shape[2], _rows(y)):
                    other[:, :, first:last] = look(y[:, :, first:last], tokens)
                y, other = _cleared(other, width // 2), y
            y, other = self.through(y, other, timed.blocks[i : i + 1], width // 2)
        for first, last in _bands(y.shape[2], _rows(y)):
            x[:, :, 2 * first : 2 * last] += unet.up(y[:, :, first:last])
        x, spare = self.through(_cleared(x, width), spare, timed.blocks[late:], width)
        return F.conv2d(x, *timed.leave, padding=1)[..., :width]

    def room(self, width: int) -> int:
        """How many columns of zeros go behind a latent of an even width."""
        return -width % UNIT if width > WIDE else 0

    def through(
        self, x: Tensor, spare: Tensor, blocks: tuple[Block, ...], width: int
    ) -> tuple[Tensor, Tensor]:
        """Residual blocks one after another, to and fro between two buffers (1, C, h, w).

        A band of a block's result needs two more rows of its input above and below. At the
        picture's borders zeros take their place, before each convolution, as whole ones have them,
        and columns from `width` on stay zeros.
        """
        height = x.shape[2]
        for first_layer, second_layer in blocks:
            for first, last in _bands(height, _rows(x)):
                ends = first == 0, last == height
                hidden = _convolved(x[:, :, max(first - 2, 0) : last + 2], first_layer, ends)
                hidden = _cleared(F.silu(hidden, inplace=True), width)
                found = _convolved(hidden, second_layer, ends)
                torch.add(x[:, :, first:last], found, out=spare[:, :, first:last])
            x, spare = _cleared(spare, width), x
        return x, spare

    def _at(self, t: Tensor) -> Timed:
        """The weights at a timestep (1,), made once."""
        key = int(t)
        timed = self._timed.get(key)
        if timed is None:
            timed = self._timed[key] = self._fold(t)
            if len(self._timed) > KEPT:
                self._timed.popitem(last=False)
        return timed

    def _fold(self, t: Tensor) -> Timed:
        """Put time and dial into the weights."""
        unet = self.unet
        dtype = unet.enter.weight.dtype
        emb = LOUDNESS * unet.time(embed_time(t, unet.waves).to(dtype))  # (1, 256)
        pairs: list[Block] = []
        for module in (*unet.before, *unet.middle, *unet.after):
            block = cast("ResidualBlock", module)
            turn = block.modulate
            turned = F.linear(emb.float(), turn.weight.float(), turn.bias.float())[0]
            scale, shift = turned.chunk(2)  # (width,) each
            weight, bias = block.first.weight.float(), _bias(block.first).float()
            weight, bias = weight * (1 + scale).view(-1, 1, 1, 1), bias * (1 + scale) + shift
            pairs.append((_folded(weight, bias, dtype),
                          Folded(block.second.weight, _bias(block.second))))  # fmt: skip
        share = float((t - 250) / 500)  # 0 at fidelity, 1 at realism
        weight = unet.leave.weight.float() + share * unet.lean.weight.float()
        bias = _bias(unet.leave).float() + share * _bias(unet.lean).float()
        return Timed(tuple(pairs), _folded(weight, bias, dtype))


def _bands(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """First and one past the last row of every band; none but an only one is lower than two."""
    count = max(height // max(rows, 2), 1)
    for i in range(count):
        yield height * i // count, height * (i + 1) // count


def _rows(x: Tensor) -> int:
    """Rows of a band that caches hold."""
    return BAND // (x.shape[1] * x.shape[3] * x.element_size())


def _cleared(x: Tensor, width: int) -> Tensor:
    """Zeros in place of the columns from `width` on."""
    x[..., width:] = 0
    return x


def _convolved(x: Tensor, layer: Folded, ends: tuple[bool, bool]) -> Tensor:
    """A band's convolution, beyond the picture's upper and lower end with rows of zeros.

    Args:
        x: (1, C, h, w).
        layer: 3 x 3.
        ends: whether the band begins, and whether it ends, where the picture does; elsewhere the
            result has a row less.
    """
    if not any(ends):
        return F.conv2d(x, *layer, padding=(0, 1))
    rows = F.conv2d(x, *layer, padding=1)  # cheaper than a copy of `x` with rows of zeros
    return rows[:, :, not ends[0] : rows.shape[2] - (not ends[1])]


def mirrored(x: Tensor, ends: tuple[int, int] = (2, 2)) -> Tensor:
    """Mirror two columns at the left and the right border, edge included, and some rows.

    There the lapping does nothing: differences of mirrored pixels are none.

    Args:
        x: (B, 3, H, W).
        ends: rows above and below, 2 at the picture's borders.
    """
    top, bottom = ends
    if top or bottom:
        x = torch.cat([x[..., :top, :].flip(-2), x, x[..., x.shape[-2] - bottom :, :].flip(-2)], -2)
    return torch.cat([x[..., :2].flip(-1), x, x[..., -2:].flip(-1)], -1)


def returned(x: Tensor, ends: tuple[bool, bool] = (True, True)) -> Tensor:
    """Fold what lies beyond a picture's borders back; the transposed of `mirrored`.

    Args:
        x: (B, 3, H, W), 4 columns of it beyond the left and the right border, and 4 rows beyond
            each of the ends; written into.
        ends: whether the band ends at the picture's upper and lower border.

    Returns:
        The part of `x` inside the borders.
    """
    x = _folded_back(x, -1, (True, True))
    return _folded_back(x, -2, ends)


def _folded_back(x: Tensor, axis: int, ends: tuple[bool, bool]) -> Tensor:
    """One axis of `returned`."""
    size = x.shape[axis]
    if ends[0]:
        x.narrow(axis, 4, 2).add_(x.narrow(axis, 2, 2).flip(axis))
    if ends[1]:
        x.narrow(axis, size - 6, 2).add_(x.narrow(axis, size - 4, 2).flip(axis))
    return x.narrow(axis, 4 * ends[0], size - 4 * ends[0] - 4 * ends[1])


def _basis(tiny: TinyBackbone) -> tuple[Tensor, Tensor]:
    """The autoencoder's two convolutions, learned from its answers to single pixels and latents.

    Returns:
        Weights of the analysis, (C, 3, 8, 8), and of the synthesis, (48, C, 3, 3).
    """
    grey = tiny.mean.view(1, 3, 1, 1)
    pulses = torch.eye(192, device=grey.device).view(192, 3, 8, 8)
    answers = tiny.encode(F.pad(pulses, (2, 2, 2, 2)) + grey)[:, :, 1, 1]  # (192, C)
    channels = tiny.settings.latent
    latents = torch.zeros(channels, channels, 3, 3, device=grey.device)
    latents[range(channels), range(channels), 1, 1] = 1
    spots = tiny.assemble(latents) - grey  # (C, 3, 12, 12), around the middle block
    taps = F.pixel_unshuffle(spots, 4).flip(2, 3)  # (C, 48, 3, 3)
    return answers.T.reshape(-1, 3, 8, 8), taps.transpose(0, 1).contiguous()


def _strided(weight: Tensor) -> Tensor:
    """A convolution (width, 12, 3, 3) of pixels two by two, as (width, 3, 6, 6) of every other."""
    taps = weight.detach().unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 5, 3)
    return taps.reshape(len(weight), 3, 6, 6).contiguous(memory_format=LAST)


def _folded(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Folded:
    return Folded(weight.to(dtype).contiguous(memory_format=LAST), bias.to(dtype))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
