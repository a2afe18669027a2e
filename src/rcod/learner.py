"""How do weights follow a gradient?

Matrices and kernels move along their orthogonalised momentum (Muon, Jordan et al., 2024), all
else by AdamW; a warm-up, a plateau and a straight fall; clipped gradients; and a running average
of the weights, which is what a run keeps.
"""

from typing import cast

import torch
from torch import Tensor, nn

from rcod.recipe import OptimSettings

MOMENTUM = 0.95
ROUNDS = ((3.4445, -4.7750, 2.0315),) * 5  # quintic iterations that pull singular values towards 1


class Learner:
    """Parameters, their optimizers, and their running average."""

    def __init__(self, network: nn.Module, settings: OptimSettings, steps: int) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.settings, self.steps = settings, steps
        turned = [p for p in self.parameters if settings.muon and p.ndim in (2, 4)]
        self.momenta = [torch.zeros_like(p) for p in turned]
        self.turned = turned
        plain = {id(p) for p in turned}
        self.optimizer = torch.optim.AdamW(
            [p for p in self.parameters if id(p) not in plain],
            settings.lr,
            (settings.beta, 0.99),
            weight_decay=settings.weight_decay,
        )

    def update(self, loss: Tensor, step: int) -> float:
        """One step down the gradient; returns its norm. A non-finite one is passed over."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if not norm.isfinite():
            return float("nan")
        self.optimizer.param_groups[0]["lr"] = self.settings.lr * self.rate(step)
        self.optimizer.step()
        self._turn(self.settings.muon * self.rate(step))
        decay = min(self.settings.ema, (step + 1) / (step + 10))
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        return float(norm)

    @torch.no_grad()
    def _turn(self, rate: float) -> None:
        """Move matrices and kernels by steps whose singular values are all alike."""
        for parameter, momentum in zip(self.turned, self.momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            ahead = (parameter.grad + MOMENTUM * momentum).flatten(1)  # (out, in)
            tall = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
            parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-rate * tall)

    def rate(self, step: int) -> float:
        """Warm-up, plateau, straight fall; a factor of the learning rate."""
        left = (self.steps - step) / max(1.0, self.settings.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.settings.warmup), left)

    def swap(self) -> None:
        """Exchange the weights and their average."""
        for parameter, mean in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(mean)
            mean.copy_(kept)

    def state(self) -> dict[str, object]:
        """What `restore` needs."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "momenta": self.momenta,
            "ema": self.average,
            "weights": [p.detach() for p in self.parameters],
        }

    def restore(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(cast(dict, state["optimizer"]))
        live = [p.data for p in self.parameters]
        for name, mine in (("momenta", self.momenta), ("ema", self.average), ("weights", live)):
            for tensor, saved in zip(mine, cast(list[Tensor], state[name]), strict=True):
                tensor.copy_(saved)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with equal singular values, roughly: they end in [0.7, 1.2].

    Newton-Schulz iterations in bfloat16; (m, n) -> (m, n) in the dtype of `matrix`.
    """
    x = matrix.to(torch.bfloat16)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / (wide.norm() + 1e-7)
    for a, b, c in ROUNDS:
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide if x.shape[0] <= x.shape[1] else wide.T).to(matrix.dtype)
