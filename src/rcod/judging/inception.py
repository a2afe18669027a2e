"""FID: how far does a folder of pictures lie from another one, as a whole?

The Inception of the original FID, in the weights that PyTorch programs share
(pt_inception-2015-12-05); pictures are brought to 299 x 299 by Pillow's bicubic in floating
point, as IQA-PyTorch's `clean` mode does.

    pictures -> 299 x 299 -> Inception -> 2048 numbers each -.
    true pictures -> ... -> 2048 numbers each ----------------+-> mean, covariance -> distance
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.pixels.aids import find_published, read_published
from rcod.pixels.metrics import eight_bit

FILES = ("pt_inception-2015-12-05-6726825d.pth",)
SIDE = 299  # pixels


@dataclass(frozen=True)
class Inception:
    """The network behind FID, by its layers' published names."""

    weights: dict[str, Tensor]

    @classmethod
    def load(cls, where: Path | None = None) -> "Inception":
        """Load the weights, from the folder of the aids (default: see `aids`)."""
        path = find_published(FILES, where)
        if path is None:
            raise RcodError(
                f"needs the Inception weights {FILES[0]} in the folder of the aids or in "
                "PyTorch's cache"
            )
        return cls(read_published(path))

    def __call__(self, image: Tensor) -> Tensor:
        """Look at one image (3, H, W) in [0, 1] -> (2048,) float64."""
        planes = (eight_bit(image) * 255).cpu().numpy()
        small = [Image.fromarray(plane).resize((SIDE, SIDE), 3) for plane in planes]
        x = torch.from_numpy(np.stack([np.asarray(plane) for plane in small]))[None]
        return self.features((x.float().clamp(0, 255) - 128) / 128)[0].double()

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, 299, 299) in [-1, 1] -> (B, 2048)."""
        x = self._conv("Conv2d_1a_3x3", x, 2, 0)  # (B, 32, 149, 149)
        x = self._conv("Conv2d_2b_3x3", self._conv("Conv2d_2a_3x3", x, 1, 0))
        x = self._conv("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2))  # (B, 80, 73, 73)
        x = F.max_pool2d(self._conv("Conv2d_4a_3x3", x, 1, 0), 3, 2)  # (B, 192, 35, 35)
        for name in ("5b", "5c", "5d"):
            x = self._fives(f"Mixed_{name}.", x)  # (B, 288, 35, 35)
        deep = self._row("Mixed_6a.branch3x3dbl_", x, ("1", "2"))
        x = torch.cat([self._conv("Mixed_6a.branch3x3", x, 2, 0),
                       self._conv("Mixed_6a.branch3x3dbl_3", deep, 2, 0),
                       F.max_pool2d(x, 3, 2)], 1)  # (B, 768, 17, 17)  # fmt: skip
        for name in ("6b", "6c", "6d", "6e"):
            x = self._sevens(f"Mixed_{name}.", x)
        wide = self._conv("Mixed_7a.branch3x3_1", x)
        deep = self._row("Mixed_7a.branch7x7x3_", x, ("1", "2", "3"))
        x = torch.cat([self._conv("Mixed_7a.branch3x3_2", wide, 2, 0),
                       self._conv("Mixed_7a.branch7x7x3_4", deep, 2, 0),
                       F.max_pool2d(x, 3, 2)], 1)  # (B, 1280, 8, 8)  # fmt: skip
        x = self._wide("Mixed_7b.", x, _mean(x))
        x = self._wide("Mixed_7c.", x, F.max_pool2d(x, 3, 1, 1))  # the original's, kept by all
        return x.mean((2, 3))

    def _conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """Convolution, normalisation, ReLU; `padding` keeps the size unless told."""
        kernel = self.weights[f"{name}.conv.weight"]
        around = (kernel.shape[2] // 2, kernel.shape[3] // 2) if padding is None else padding
        x = F.conv2d(x, kernel, None, stride, around)
        norm = [self.weights[f"{name}.bn.{part}"]
                for part in ("running_mean", "running_var", "weight", "bias")]  # fmt: skip
        return F.relu(F.batch_norm(x, norm[0], norm[1], norm[2], norm[3], eps=0.001))

    def _row(self, prefix: str, x: Tensor, parts: tuple[str, ...]) -> Tensor:
        """Several convolutions, one after another."""
        for part in parts:
            x = self._conv(prefix + part, x)
        return x

    def _fives(self, at: str, x: Tensor) -> Tensor:
        """The block at 35 x 35."""
        return torch.cat([self._conv(f"{at}branch1x1", x),
                          self._row(f"{at}branch5x5_", x, ("1", "2")),
                          self._row(f"{at}branch3x3dbl_", x, ("1", "2", "3")),
                          self._conv(f"{at}branch_pool", _mean(x))], 1)  # fmt: skip

    def _sevens(self, at: str, x: Tensor) -> Tensor:
        """The block at 17 x 17."""
        return torch.cat([self._conv(f"{at}branch1x1", x),
                          self._row(f"{at}branch7x7_", x, ("1", "2", "3")),
                          self._row(f"{at}branch7x7dbl_", x, ("1", "2", "3", "4", "5")),
                          self._conv(f"{at}branch_pool", _mean(x))], 1)  # fmt: skip

    def _wide(self, at: str, x: Tensor, pooled: Tensor) -> Tensor:
        """The block at 8 x 8, whose branches fork once more."""
        near = self._conv(f"{at}branch3x3_1", x)
        far = self._row(f"{at}branch3x3dbl_", x, ("1", "2"))
        return torch.cat([self._conv(f"{at}branch1x1", x),
                          self._conv(f"{at}branch3x3_2a", near),
                          self._conv(f"{at}branch3x3_2b", near),
                          self._conv(f"{at}branch3x3dbl_3a", far),
                          self._conv(f"{at}branch3x3dbl_3b", far),
                          self._conv(f"{at}branch_pool", pooled)], 1)  # fmt: skip


def frechet(a: Tensor, b: Tensor) -> float:
    """Distance of two clouds of features (N, D) and (M, D), seen as Gaussians.

    With S = A A^T and T = B B^T, the trace of the root of S T is the sum of the singular values
    of A^T B: small matrices, and no root of a singular one.
    """
    if min(len(a), len(b)) < 2:
        raise RcodError("FID compares clouds: it needs two pictures or more on each side")
    left, right = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    shared = torch.linalg.svdvals(left @ right.T).sum()
    spread = left.square().sum() + right.square().sum() - 2 * shared
    return float((a.mean(0) - b.mean(0)).square().sum() + spread)


def _mean(x: Tensor) -> Tensor:
    """Average pooling 3 x 3 that leaves the border out of its count."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
