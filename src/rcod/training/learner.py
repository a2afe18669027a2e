"""How do weights follow a gradient?

Matrices and kernels move along their orthogonalised momentum (Muon, Jordan et al., 2024), all
else by AdamW; a warm-up, a plateau and a straight fall; clipped gradients; and a running average
of the weights, which is what a run keeps.

    loss, loss, ... -> add -> gradients -> weigh: mean of all processes, finite? -> move, or refuse
                                                                            '-> running average
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from rcod.training.course import OptimSettings
from rcod.training.team import Team

MOMENTUM = 0.95
ROUNDS = ((3.4445, -4.7750, 2.0315),) * 5  # quintic iterations that pull singular values towards 1
FIRST_SCALE = 2.0**16  # factor of the loss, for float16
SCALE_DOUBLES_AFTER = 2000  # steps without an overflow


class Learner:
    """Parameters, their optimizers, and their running average."""

    def __init__(
        self,
        parameters: nn.Module | Iterable[nn.Parameter],
        settings: OptimSettings,
        steps: int,
        half: bool = False,
    ) -> None:
        self.buffers: list[Tensor] = []  # what a network changes by itself, as spectral norms do
        if isinstance(parameters, nn.Module):
            self.buffers = list(parameters.buffers())
            parameters = parameters.parameters()
        self.parameters = [p for p in parameters if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.settings, self.steps = settings, steps
        turned = [p for p in self.parameters if settings.muon and p.ndim in (2, 4)]
        self.momenta = [torch.zeros_like(p) for p in turned]
        self.turned = turned
        plain = {id(p) for p in turned}
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p in self.parameters if id(p) not in plain]}],  # perhaps none
            settings.lr,
            (settings.beta, settings.beta2),
            weight_decay=settings.weight_decay,
        )
        self.slow = 1.0  # factor of every rate, less than 1 after a retreat
        self.loud, self.good = (FIRST_SCALE if half else 0.0), 0  # float16 alone scales its losses
        self._heard = torch.zeros(())  # the sum of losses since the last step

    def add(self, loss: Tensor, share: float = 1.0) -> None:
        """Put `share` of a loss's gradient onto what is there already; others' stay untouched."""
        scaled = loss * share * (self.loud or 1.0)
        torch.autograd.backward(scaled, inputs=self.parameters)
        self._heard = self._heard.to(loss.device) + share * loss.detach()

    def weigh(self, team: Team) -> float:
        """The mean gradient of all processes, clipped; its norm, or NaN where it isn't finite."""
        heard, self._heard = self._heard, torch.zeros(())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        *grads, heard = team.mean([*grads, heard])
        if self.loud:
            grads = [grad / self.loud for grad in grads]
        norm = torch.stack([torch.linalg.vector_norm(grad) for grad in grads]).norm()
        if not (norm + heard).isfinite():
            return math.nan
        factor = (self.settings.clip / (norm + 1e-6)).clamp(max=1.0)
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad * factor
        return float(norm)

    def move(self, step: int) -> None:
        """One step down the weighed gradient."""
        rate = self.rate(step) * self.slow
        self.optimizer.param_groups[0]["lr"] = self.settings.lr * rate
        self.optimizer.step()
        self._turn(self.settings.muon * rate)
        decay = min(self.settings.ema, (step + 1) / (step + 10))
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
            parameter.grad = None
        self.good += 1
        if self.loud and self.good % SCALE_DOUBLES_AFTER == 0:
            self.loud *= 2

    def refuse(self, norm: float) -> bool:
        """Leave the weights alone, since some learner's gradient isn't finite.

        Args:
            norm: what `weigh` found here.

        Returns:
            Whether that is a failure; that float16 tries a smaller scale is none.
        """
        for parameter in self.parameters:
            parameter.grad = None
        if math.isfinite(norm):
            return False
        self.good = 0
        failed = self.loud <= 1
        self.loud = max(1.0, self.loud / 2) if self.loud else 0.0
        return failed

    @torch.no_grad()
    def _turn(self, rate: float) -> None:
        """Move matrices and kernels by steps whose singular values are all alike."""
        ahead: dict[tuple[int, int], list[Tensor]] = {}  # like shapes are turned together
        for parameter, momentum in zip(self.turned, self.momenta, strict=True):
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            momentum.mul_(MOMENTUM).add_(grad)
            matrix = (grad + MOMENTUM * momentum).flatten(1)  # (out, in)
            ahead.setdefault((matrix.shape[0], matrix.shape[1]), []).append(matrix)
        steps = {shape: iter(orthogonal(torch.stack(same))) for shape, same in ahead.items()}
        for parameter in self.turned:
            tall, wide = parameter.shape[0], parameter[0].numel()
            step = next(steps[tall, wide]).view_as(parameter)
            parameter.add_(step, alpha=-rate * max(1.0, tall / wide) ** 0.5)

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
            "buffers": self.buffers,
            "scale": [self.slow, self.loud, self.good],
        }

    def restore(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(cast(dict, state["optimizer"]))
        live = [p.data for p in self.parameters]
        for name, mine in (
            ("momenta", self.momenta),
            ("ema", self.average),
            ("weights", live),
            ("buffers", self.buffers),
        ):
            for tensor, saved in zip(mine, cast(list[Tensor], state[name]), strict=True):
                tensor.copy_(saved)
        self.slow, self.loud, self.good = cast(tuple[float, float, int], state["scale"])


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with equal singular values, roughly: they end in [0.7, 1.2].

    Newton-Schulz iterations in bfloat16; (K, m, n) -> (K, m, n) in the dtype of `matrices`.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for a, b, c in ROUNDS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
