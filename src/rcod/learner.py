"""How do weights follow a gradient?

AdamW with a warm-up, a plateau and a straight fall, clipped gradients, and a running average
of the weights, which is what a run keeps.
"""

import torch
from torch import Tensor, nn

from rcod.recipe import OptimSettings


class Learner:
    """Parameters under AdamW, with their running average."""

    def __init__(self, network: nn.Module, settings: OptimSettings, steps: int) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.settings, self.steps = settings, steps
        self.optimizer = torch.optim.AdamW(
            self.parameters, settings.lr, (0.9, 0.99), weight_decay=settings.weight_decay
        )

    def update(self, loss: Tensor, step: int) -> float:
        """One step down the gradient; returns its norm. A non-finite one is passed over."""
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if not norm.isfinite():
            return float("nan")
        self.optimizer.param_groups[0]["lr"] = self.settings.lr * self.rate(step)
        self.optimizer.step()
        decay = min(self.settings.ema, (step + 1) / (step + 10))
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        return float(norm)

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
        weights = [p.detach() for p in self.parameters]
        return {"optimizer": self.optimizer.state_dict(), "ema": self.average, "weights": weights}

    def restore(self, state: dict) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        for mine, saved in zip(self.average, state["ema"], strict=True):
            mine.copy_(saved)
        for parameter, saved in zip(self.parameters, state["weights"], strict=True):
            parameter.data.copy_(saved)
