"""Latent domain grouping: which timestep should restore this image?

Training measures how far the degraded latent lies from the clean one. Inference
cannot, so there the user says how much realism to spend, or an estimator guesses the
measure. All end in a timestep.

    z_up, z_hr -> latent_metric -> metric --.
                       estimator -> metric --+-> timestep -> UNet
    realism (0 keeps, 1 invents) ------------'
"""

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rcod.errors import RcodError

LEVELS = {"fidelity": 0.0, "neutral": 0.5, "realism": 1.0}

Distill = Literal["paper", "released", "off"]
LatentMetric = Literal["cosine", "l1", "mse"]
MetricSize = Literal["enlarged", "reduced"]


class GroupSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the latent metric becomes a timestep (RCOD, Eq. 5; defaults as released)."""

    edges: tuple[float, ...] = (0.5, 0.7)  # metric where the next group starts, rising
    timesteps: tuple[int, ...] = (749, 499, 249)  # one per group, worst damage first
    by: LatentMetric = "cosine"  # whose values the edges are
    at: MetricSize = "enlarged"  # what is measured: the enlarged photo, or the true picture reduced

    @model_validator(mode="after")
    def one_timestep_per_group(self) -> Self:
        """Refuse groups that leave a metric without a timestep."""
        if len(self.timesteps) != len(self.edges) + 1:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) + 1} groups, "
                f"got {len(self.timesteps)} timesteps; give one timestep per group"
            )
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must rise, got {self.edges}; sort them")
        if not all(0 <= t < 1000 for t in self.timesteps):
            raise ValueError(f"timesteps must lie in [0, 1000), got {self.timesteps}")
        if list(self.timesteps) != sorted(set(self.timesteps), reverse=True):
            raise ValueError(f"timesteps must fall from the worst damage on, got {self.timesteps}")
        return self

    @model_validator(mode="after")
    def edges_are_of_the_metric(self) -> Self:
        """Refuse groups that the metric can't tell apart."""
        if self.by != "cosine" and max(self.edges, default=-1.0) >= 0:
            raise ValueError(
                f"{self.by} is a distance with its sign turned, so edges must lie below 0, got "
                f"{self.edges}; set groups.edges"
            )
        return self


def paper_groups(lowest: float, highest: float, n: int = 3, k: int = 250) -> GroupSettings:
    """The paper's equal groups between the training set's extremes of the metric (Eq. 5).

    t = k (n - floor(n (M - Mmin) / (Mmax - Mmin))); M = Mmax belongs to the best group, where the
    formula alone would give t = 0. Timesteps are capped at 999.
    """
    if not lowest < highest:
        raise RcodError(f"the metric's extremes must differ, got {lowest} and {highest}")
    if not 2 <= n <= 4:
        raise RcodError(f"the number of groups must be 2, 3 or 4, got {n}")
    edges = tuple(lowest + (highest - lowest) * i / n for i in range(1, n))
    return GroupSettings(edges=edges, timesteps=tuple(min(k * (n - i), 999) for i in range(n)))


def equal_groups(metrics: Tensor, n: int = 3) -> GroupSettings:
    """Groups of equally many of the samples that were measured, (K,)."""
    places = torch.arange(1, n, device=metrics.device) / n
    edges = tuple(torch.quantile(metrics.float(), places).tolist())
    if len(set(edges)) < len(edges):
        raise RcodError(
            f"the data's metric must differ from sample to sample, and {n} groups would all "
            f"begin at {edges[0]:.3f}; give more photos, or take group_by=edges"
        )
    return GroupSettings(edges=edges, timesteps=paper_groups(0, 1, n).timesteps)


def latent_metric(z_up: Tensor, z_hr: Tensor, kind: LatentMetric = "cosine") -> Tensor:
    """How close the degraded latent is to the true one (RCOD, Eq. 6).

    Args:
        z_up: latent of the degraded image, (B, C, h, w).
        z_hr: latent of the true image, (B, C, h, w).
        kind: the paper's cosine, or one of the distances it was chosen over, with its sign turned.

    Returns:
        Cosine of the flattened latents, (B,) float32 in [-1, 1]; 1 is undamaged. Of distances 0 is.
    """
    z_up, z_hr = z_up.flatten(1).float(), z_hr.flatten(1).float()
    if kind == "cosine":
        return cosine_similarity(z_up, z_hr, dim=1)
    gap = z_up - z_hr
    return -(gap.abs() if kind == "l1" else gap.square()).mean(dim=1)


def timestep_of_metric(metric: Tensor, groups: GroupSettings) -> Tensor:
    """The group's timestep for each sample; edges belong to the better group.

    Args:
        metric: latent metric, (B,) float32; must not be NaN.
        groups: edges and timesteps.

    Returns:
        Timesteps, (B,) int64.
    """
    if metric.isnan().any():
        raise RcodError("the latent metric must be a number, got NaN; is a latent all zero or NaN?")
    edges = torch.tensor(groups.edges, dtype=torch.float32, device=metric.device)
    timesteps = torch.tensor(groups.timesteps, device=metric.device)
    return timesteps[torch.bucketize(metric.float(), edges, right=True)]


def timestep_of_realism(realism: float, groups: GroupSettings) -> int:
    """The timestep of a dial position, piecewise linear through the groups' timesteps.

    Args:
        realism: 0 keeps the input (least timestep), 1 invents detail (largest timestep).
        groups: the timesteps between which the dial moves.
    """
    if not 0 <= realism <= 1:
        raise RcodError(
            f"realism must lie in [0, 1], got {realism}; 0 keeps the input, 1 invents detail"
        )
    stops = groups.timesteps[::-1]
    place = realism * (len(stops) - 1)
    i = min(math.floor(place), len(stops) - 2)
    return round(stops[i] + (stops[i + 1] - stops[i]) * (place - i))


def realism_of_timestep(t: int, groups: GroupSettings) -> float:
    """The dial position of a timestep: the inverse of `timestep_of_realism` at the groups."""
    stops = groups.timesteps[::-1]
    if len(stops) == 1:
        return 0.0  # there is nowhere to turn to
    i = next((i for i in range(len(stops) - 2) if t <= stops[i + 1]), len(stops) - 2)
    return (i + (t - stops[i]) / (stops[i + 1] - stops[i])) / (len(stops) - 1)


def distill_range(t: Tensor, way: Distill, k: int = 250) -> tuple[Tensor, Tensor]:
    """Degradation-aware sampling: where the distillation timestep may fall (RCOD, Eq. 7).

    Args:
        t: the student's timestep, (B,) int64.
        way: `paper` is [max(20, t - k), min(980, t + k)); `released` is [20, 980), from t = 749 on
            [200, 980); `off` is [20, 980), OSEDiff's.
        k: half the width of the paper's range.

    Returns:
        First and one past the last timestep, (B,) int64 each.
    """
    low, high = torch.full_like(t, 20), torch.full_like(t, 980)
    if way == "paper":
        return torch.maximum(low, t - k), torch.minimum(high, t + k)
    if way == "released":
        return torch.where(t >= 749, 200, low), high
    return low, high
