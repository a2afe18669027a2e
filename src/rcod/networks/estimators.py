"""How damaged is this image? S3Diff's degradation estimator and RCOD's metric estimation.

The estimator looks at the LR photo through two small residual branches, which S3Diff trained
to see blur and noise. RCOD's metric estimation (MEM) reads their pooled features
and guesses the latent metric, so that at inference the timestep picks itself.

    lr -> two branches -> features (B, 2, D) -> scores (B, 2)      DegradationEstimator (S3Diff)
                               '--> Linear, ReLU -> metric (B,)    MetricEstimator (RCOD's MEM)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 16  # pixels a side: bfloat16's strided convolutions of one or two columns may give NaN


class Branch(nn.Module):
    """Residual stages over the LR photo, pooled to one vector."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            before = widths[max(i - 1, 0)]
            if i and (stride > 1 or before != width):
                layers.append(nn.Conv2d(before, width, 3, stride, padding=1))
            layers += [PlainBlock(width), PlainBlock(width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, widths[-1])."""
        return self.layers(lr).float().mean(dim=(2, 3))


class PlainBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, width, h, w)."""
        return x + self.second(F.relu(self.first(x)))


class MetricEstimator(nn.Module):
    """RCOD's MEM on two branches of a degradation estimator, in the tiny model's size.

    The branches may be of another precision; what they see is pooled and weighed in float32.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 24, 48, 64)) -> None:
        super().__init__()
        strides = (1, 2, 2, 2)[: len(widths)]
        self.branches = nn.ModuleList(Branch(widths, strides) for _ in range(2))
        self.head = nn.Linear(2 * widths[-1], 1)

    def forward(self, lr: Tensor) -> Tensor:
        """The latent metric this photo would have against its true picture.

        Args:
            lr: the photo before enlarging, (B, 3, h, w) in [0, 1].

        Returns:
            Estimated cosine, (B,), 0 or more.
        """
        height, width = lr.shape[-2:]
        if min(height, width) < LEAST:
            more = (0, max(LEAST - width, 0), 0, max(LEAST - height, 0))
            lr = F.pad(lr, more, mode="replicate")
        x = (2 * lr - 1).to(next(self.branches.parameters()).dtype)
        features = torch.cat([branch(x) for branch in self.branches], dim=1)
        return F.relu(self.head(features)).squeeze(1)


class DegradationEstimator(nn.Module):
    """S3Diff's estimator in its published size, with RCOD_S's metric head where there is one."""

    def __init__(self, with_metric: bool = False) -> None:
        super().__init__()
        widths, strides = (64, 64, 64, 128), (1, 1, 1, 2)
        self.branches = nn.ModuleList(Branch(widths, strides) for _ in range(2))
        self.degrees = nn.ModuleList(
            nn.Sequential(nn.Linear(widths[-1], 512), nn.ReLU(), nn.Linear(512, 1), nn.Sigmoid())
            for _ in range(2)
        )
        self.head = nn.Linear(2 * widths[-1], 1) if with_metric else None

    def features(self, lr: Tensor) -> Tensor:
        """The photo before enlarging, (B, 3, h, w) in [0, 1] -> (B, 2, 128)."""
        return torch.stack([branch(lr) for branch in self.branches], dim=1)

    def scores(self, features: Tensor) -> Tensor:
        """How blurred and how noisy: (B, 2, 128) -> (B, 2) in [0, 1]."""
        both = [degree(features[:, i]) for i, degree in enumerate(self.degrees)]
        return torch.cat(both, dim=1)

    def forward(self, lr: Tensor) -> Tensor:
        """The estimated latent metric of photos, (B, 3, h, w) -> (B,); needs a metric head."""
        found = self.metric(self.features(lr))
        assert found is not None
        return found

    def metric(self, features: Tensor) -> Tensor | None:
        """The estimated latent metric, (B, 2, 128) -> (B,); nothing without a metric head."""
        return None if self.head is None else F.relu(self.head(features.flatten(1))).squeeze(1)
