"""How do weights take half the bytes while sums lose nothing?

A layer may keep its weights in bfloat16 and multiply them in the dtype of what comes in. On a
processor that adds float32 nearly as fast, this halves the memory of a large network and
rounds its weights once, where computing in bfloat16 would round every sum after every layer.

    network in bfloat16 -> widen -> the same network; float32 in, float32 out

Where a processor multiplies bfloat16 much faster, `hasten` lets the layers of `BRISK`, nine tenths
of a UNet's products, round what comes in and what goes out; what is added up between them stays
float32. Rounding attention's projections too would cost 1 to 2 dB.
"""

import re
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rcod.networks.lora import Network

BRISK = re.compile(
    r"(^|\.)(conv|conv1|conv2|conv_in|conv_out|conv_shortcut|ff\.net\.\d+(\.proj)?|mlp\.fc\d)"
    r"(\.base)*$"
)  # convolutions and feed-forward layers of a UNet or a tower, under adapters or not
NARROW = 2  # columns; strided convolutions of so few give whatever memory held, in bfloat16


class WideLinear(nn.Linear):
    """Multiplies in the dtype of its input, or in its own where it is brisk."""

    brisk = False

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the input's dtype."""
        if self.brisk:
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias).to(input.dtype)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class WideConv(nn.Conv2d):
    """Convolves in the dtype of its input, or in its own where it is brisk."""

    brisk = False

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w'), in the input's dtype."""
        if self.brisk and (max(self.stride) == 1 or input.shape[-1] > NARROW):
            found = self._conv_forward(input.to(self.weight.dtype), self.weight, self.bias)
            return found.to(input.dtype)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return self._conv_forward(input, self.weight.to(input.dtype), bias)


def widen(network: Network) -> Network:
    """Let every linear layer and convolution multiply in its input's dtype, in place.

    Everything else, the norms above all, is small and becomes float32.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear or type(child) is nn.Conv2d:
                setattr(parent, name, _wide(child))
            elif not list(child.children()) and not isinstance(child, WideLinear | WideConv):
                child.float()
    return network


def hasten(network: nn.Module) -> None:
    """Let the widened layers of `BRISK` multiply in their own precision, in place."""
    for name, module in network.named_modules():
        if isinstance(module, WideLinear | WideConv) and BRISK.search(name):
            module.brisk = True


def _wide(layer: nn.Linear | nn.Conv2d) -> WideLinear | WideConv:
    """The same weights in a layer that follows its input."""
    has_bias = layer.bias is not None
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            wide = WideLinear(layer.in_features, layer.out_features, has_bias)
        else:
            wide = WideConv(
                layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,  # pyright: ignore[reportArgumentType]
                layer.padding, layer.dilation, layer.groups, has_bias,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
    wide.weight = layer.weight
    if has_bias:
        wide.register_parameter("bias", cast("nn.Parameter", layer.bias))
    return wide.train(layer.training)
