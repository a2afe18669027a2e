"""How does an upsampling convolve without making the larger picture?

Stable Diffusion's decoder repeats every value in 2 x 2 and convolves the result with 3 x 3 taps.
Each of the four phases of what comes out sees 2 x 2 different values, so the taps that meet one
value are added up beforehand: 16 products in place of 36, and the same answer but for the last
bits.

    y[2i + a, 2j + b] = sum over p, q in {0, 1} of taps_ab[p, q] x[i + a + p - 1, j + b + q - 1]
"""

import torch
from torch import Tensor, nn

PHASES = (0, 0), (0, 1), (1, 0), (1, 1)  # (a, b), rows and columns of the result
# which of three taps meet the first and which the second value: (phase, value, tap)
MEET = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


class Subpixel(nn.Module):
    """Twice the sides, then a 3 x 3 convolution, as a convolution with 2 x 2 taps for each phase.

    Args:
        base: repeats and convolves; stays for graphs, whose sizes are open.
        conv: its convolution, with zeros beyond the borders; frozen.
    """

    def __init__(self, base: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        self.base = base
        self.channels = conv.out_channels
        self.phases = nn.ModuleList(_phase(conv, a, b) for a, b in PHASES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K, 2h, 2w)."""
        if torch.compiler.is_exporting():
            return self.base(x)
        batch, _, height, width = x.shape
        last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        out = torch.empty(
            (batch, self.channels, 2 * height, 2 * width),
            dtype=x.dtype, device=x.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        )  # fmt: skip
        for (a, b), phase in zip(PHASES, self.phases, strict=True):
            found = phase(x)  # (B, K, h + 1, w + 1), of which each phase needs other borders
            out[..., a::2, b::2] = found[..., a : a + height, b : b + width]
        return out


def by_phases(network: nn.Module) -> None:
    """Let a frozen autoencoder of diffusers upsample by phases, in place.

    Layers of a UNet may be asked for odd sizes, and have little to gain.
    """
    from diffusers.models.upsampling import Upsample2D

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Upsample2D) and isinstance(child.conv, nn.Conv2d):
                setattr(parent, name, Subpixel(child, child.conv))


def _phase(conv: nn.Conv2d, a: int, b: int) -> nn.Conv2d:
    """The convolution of one phase."""
    taps = torch.einsum("pk,oikl,ql->oipq", MEET[a], conv.weight.float(), MEET[b])
    with torch.device("meta"):
        phase = nn.Conv2d(conv.in_channels, conv.out_channels, 2, padding=1)
    phase.weight = nn.Parameter(taps.to(conv.weight.dtype))
    phase.bias = conv.bias
    return phase.requires_grad_(False)
