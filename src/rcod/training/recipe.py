"""What decides how the tiny model is trained? One frozen, validated value.

`TINY` names the runs that make the model inside; each continues from the model file of the one
before:

    tiny-autoencoder -> tiny-prior -> tiny-rcod -> tiny-detail -> tiny-fidelity -> tiny-metric
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from rcod.diffusion.grouping import Distill, GroupSettings
from rcod.diffusion.schedule import CleanLatent
from rcod.networks.backbone import TinySettings
from rcod.training.course import Course, OptimSettings
from rcod.training.data import DataSettings
from rcod.training.gating import REACH, End
from rcod.training.losses import LossSettings


class Recipe(Course, frozen=True, extra="forbid"):
    """Everything that decides what a run of the tiny model computes."""

    goal: Literal["autoencoder", "prior", "restore", "metric"]
    data: DataSettings = DataSettings()
    model: TinySettings = TinySettings()
    formula: CleanLatent = "residual"
    groups: GroupSettings = GroupSettings()
    explore: float = Field(
        default=0.5, ge=0, le=1
    )  # samples placed anywhere on the dial, not by group
    blind: float = Field(default=0.1, ge=0, le=1)  # samples whose image tokens are left out
    losses: LossSettings = LossSettings()
    rank: int = Field(default=0, ge=0)  # LoRA rank of the student; 0 trains its full weights
    end: tuple[()] | End = ()  # of the dial, which learns alone; see `gating`
    distill_way: Distill = "released"  # degradation-aware sampling
    guides: int = Field(default=0, ge=0)  # crops that a larger restorer has restored, too
    own_guide: bool = False  # what the run began with guides every sample in its place
    perceive_from: int = Field(default=0, ge=0)  # first step with the perceptual term
    adversary_from: int = Field(default=0, ge=0)  # first step with the adversary
    adversary_lr: float = Field(default=4e-4, gt=0)
    distill_from: int = Field(default=0, ge=0)  # first step with distillation
    critic_rank: int = Field(default=16, ge=1)  # LoRA rank of the critic
    critic_lr: float = Field(default=5e-4, gt=0)

    @model_validator(mode="after")
    def processors_know_the_precision(self) -> Self:
        """Refuse what would be computed in float32 after all."""
        if self.precision == "float16":
            raise ValueError("processors can't train in float16; set precision=bfloat16 or float32")
        return self

    @model_validator(mode="after")
    def an_estimator_learns_the_cosine(self) -> Self:
        """Refuse another metric, which its answers don't range over, and a dial of its own."""
        if self.goal == "metric" and self.groups.by != "cosine":
            raise ValueError("an estimator learns the cosine; leave groups.by out")
        own = self.groups != GroupSettings() or self.formula != "residual"
        if self.goal == "metric" and own:
            raise ValueError(
                "an estimator leaves step and dial as --start has them; leave formula and groups "
                "out"
            )
        return self

    @model_validator(mode="after")
    def crops_hold_windows_and_guides(self) -> Self:
        """Refuse a window or guides that the cached crops can't give."""
        if self.window > self.data.crop:
            raise ValueError(
                f"window must be {self.data.crop} at most, the side of a crop, got {self.window}; "
                "set data.crop too"
            )
        if self.groups.at == "reduced" and self.window % 16:
            raise ValueError(
                f"window must be a multiple of 16 with groups.at=reduced, got {self.window}"
            )
        if not self.own_guide and self.guides > self.data.crops:
            raise ValueError(
                f"guides must be {self.data.crops} at most, since that many crops there are, got "
                f"{self.guides}; set guides or data.crops"
            )
        return self

    @model_validator(mode="after")
    def an_end_is_two_places(self) -> Self:
        """Refuse an end of the dial with nothing between it and what stays."""
        if self.end and (self.goal != "restore" or self.rank):
            raise ValueError("end is of a restorer whose rank is 0; leave it empty, or set rank=0")
        if self.end and (
            abs(self.end[0] - self.end[1]) < 50
            or not all(REACH[0] <= t < REACH[1] for t in self.end)
            or not min(self.groups.timesteps) <= self.end[0] <= max(self.groups.timesteps)
        ):
            raise ValueError(
                f"end must be two timesteps from {REACH[0]} to {REACH[1] - 1}, at least 50 apart, "
                f"the first among those of the groups, got {self.end[0]},{self.end[1]}"
            )
        return self


TINY = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="tiny-autoencoder",
            goal="autoencoder",
            summary="fit the linear autoencoder to the crops, in closed form",
            steps=1,
            model=TinySettings(lap=-15.0, waves=4.0, touch=32),
        ),
        Recipe(
            name="tiny-prior",
            goal="prior",
            summary="an ordinary diffusion prior over clean latents, with image tokens",
            steps=800,
            optim=OptimSettings(lr=1e-3, muon=0.01, clip=0.5, warmup=50, decay=0.5),
        ),
        Recipe(
            name="tiny-rcod",
            goal="restore",
            summary="the one-step restorer: grouping, image tokens, guides at the realism end",
            steps=4000,
            optim=OptimSettings(lr=4e-4, clip=0.2, warmup=50, decay=0.5),
            losses=LossSettings(
                pixel=(1.0, 0.0),
                guide=(0.0, 1.0),
                outline=(0.0, 0.2),
                perceptual=(0.5, 0.5),
                distill=(0.0, 0.0),
                adversary=(0.0, 0.0),
                share=0.1875,
            ),
            guides=1472,
        ),
        Recipe(
            name="tiny-detail",
            goal="restore",
            summary="the restorer grows and goes on: an adversary, goals as soft as the dial says",
            steps=10000,
            model=TinySettings(widths=(96, 128)),
            optim=OptimSettings(lr=3e-4, clip=0.3, warmup=100, decay=0.5, ema=0.9985),
            explore=0.75,
            groups=GroupSettings(edges=(0.42, 0.67)),
            losses=LossSettings(
                pixel=(0.3, 0.35),
                guide=(0.0, 0.0),
                latent=(0.0, 0.0),
                outline=(0.0, 0.0),
                perceptual=(2.8, 1.2),
                distill=(0.0, 0.0),
                adversary=(0.0, 0.06),
                sharpen=(-0.7, 0.15),
            ),
        ),
        Recipe(
            name="tiny-fidelity",
            goal="restore",
            summary="the dial's fidelity end alone goes on, on photos no worse than a camera's",
            steps=260,
            data=DataSettings(mix={"camera": 1.0}),
            optim=OptimSettings(lr=3e-3, clip=0.3, warmup=10, decay=0.6, ema=0.985),
            explore=1.0,
            groups=GroupSettings(edges=(0.42, 0.67), timesteps=(664, 499, 349)),
            end=(349, 600),
            losses=LossSettings(
                pixel=(0.3, 0.3),
                guide=(0.0, 0.0),
                latent=(0.0, 0.0),
                outline=(0.0, 0.0),
                perceptual=(2.8, 2.8),
                distill=(0.0, 0.0),
                adversary=(0.0, 0.0),
                share=0.5,
                sharpen=(-0.25, -0.25),
            ),
        ),
        Recipe(
            name="tiny-metric",
            goal="metric",
            summary="metric estimation: guess the latent metric from the photo alone",
            steps=900,
            batch=32,
        ),
    )
}
