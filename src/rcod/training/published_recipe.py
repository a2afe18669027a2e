"""What decides how a published system is trained? One frozen, validated value.

A frozen Stable Diffusion learns to restore through its adapters. `PUBLISHED` names the recipes
of the papers and of the released programs; where they differ there are two.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from rcod.diffusion.grouping import Distill, GroupSettings, LatentMetric
from rcod.diffusion.schedule import STEPS, CleanLatent
from rcod.networks.systems import SYSTEMS, System
from rcod.training.adversary import Game
from rcod.training.course import Course, OptimSettings
from rcod.training.presets import Degradation

NEGATIVE = (
    "painting, oil painting, illustration, drawing, art, sketch, cartoon, CG Style, 3D render, "
    "unreal engine, blurring, dirty, messy, worst quality, low quality, "
    "frames, watermark, signature, jpeg artifacts, deformed, lowres, over-smooth"
)  # what OSEDiff's teacher is led away from
Name = Literal["osediff", "rcod_o", "s3diff", "rcod_s", "pisa_sr"]


class PublishedRecipe(Course, frozen=True, extra="forbid"):
    """Everything that decides what a run of a published system computes."""

    system: Name
    goal: Literal["restore", "metric"] = "restore"
    window: int = Field(default=512, ge=64, multiple_of=8)
    batch: int = Field(default=1, ge=1)
    optim: OptimSettings = OptimSettings(
        lr=5e-5, beta2=0.999, warmup=0, decay=0, weight_decay=1e-2, clip=1.0, ema=0
    )
    degradation: Degradation = "osediff"  # a name of `presets.SETTINGS`, or a YAML file's settings
    workers: int = Field(default=2, ge=0)  # processes that make pairs; the result is the same
    damage: Literal["workers", "device"] = "workers"  # who degrades: they, or the GPU
    overfit: bool = False  # the first batch again and again: can it learn at all?
    checkpointing: bool = True  # compute activations twice instead of keeping them
    unet_rank: int = Field(default=4, ge=1)
    vae_rank: int = Field(default=4, ge=1)
    # latent domain grouping
    groups: GroupSettings = GroupSettings()
    group_by: Literal["edges", "paper", "quantiles"] = "edges"  # as given, Eq. 5, equal shares
    group_count: int = Field(default=3, ge=2, le=4)  # of `paper` and `quantiles`
    group_metric: LatentMetric = "cosine"
    group_encoder: Literal["adapted", "frozen"] = "adapted"  # whose latents are measured
    formula: CleanLatent | None = None  # of the clean latent; nothing is the system's own
    # what the student pays
    mse: float = Field(default=1.0, ge=0)  # of pictures in [-1, 1]
    lpips: float = Field(default=2.0, ge=0)
    trunk: Literal["vgg", "hed"] = "vgg"  # of LPIPS: torchvision's file, or the aids' own
    distill: Literal["vsd", "csd", "off"] = "off"
    distill_weight: float = Field(default=1.0, gt=0)
    distill_range: tuple[int, int] = (20, 980)  # timesteps, where DAS is off
    das: Distill = "off"  # degradation-aware sampling
    guidance: float = Field(default=7.5, ge=1)  # of the teacher
    text: Literal["captions", "fixed", "none"] = "fixed"  # that the teacher hears
    phrase: str = ""  # of `fixed`
    caption_share: float = Field(default=0.0, ge=0, le=1)  # samples whose student hears `captions`
    negative: str = NEGATIVE
    critic: Literal["all_adapters", "released"] = "all_adapters"  # released: its middle alone
    critic_rank: int = Field(default=4, ge=1)
    critic_lr: float = Field(default=5e-5, gt=0)
    adversary: float = Field(default=0.0, ge=0)  # weight; with DINO of its own loss, too
    judge: Literal["dino", "patch"] = "dino"  # what the adversary sees with
    adversary_lr: float = Field(default=2e-5, gt=0)
    negative_share: float = Field(default=0.0, ge=0, lt=1)  # samples shown the damage as a goal
    pixel_steps: int = Field(default=0, ge=0)  # PiSA-SR's first stage, MSE on its pixel adapter

    @property
    def row(self) -> System:
        """The system's row, as this recipe changes it."""
        row = SYSTEMS[self.system]
        formula = row.formula if self.formula is None else self.formula
        return row.model_copy(update={"groups": self.groups, "formula": formula})

    @property
    def hears_captions(self) -> bool:
        """Whether the student hears captions, and not the teacher and the critic alone."""
        return self.text == "captions" and self.caption_share > 0

    @property
    def game(self) -> Game:
        """What the adversary plays for: with DINO as S3Diff's program has it, plainly else."""
        if self.judge == "patch":
            return Game()
        return Game(real=0.8, weight=self.adversary, augment=True)

    @model_validator(mode="after")
    def captions_have_a_listener(self) -> Self:
        """Refuse captions for a student whose text is none of the photo."""
        if self.caption_share and len(SYSTEMS[self.system].texts) != 1:
            raise ValueError(f"{self.system} hears no caption of a photo; set caption_share=0")
        return self

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        """Refuse what no run could mean."""
        row = SYSTEMS[self.system]
        dial = row.timestep is None
        unit = 64 if row.framing == "padded" else 8
        for wrong, words in (
            (self.window % unit, f"window must be a multiple of {unit} for {self.system}, "
             f"got {self.window}"),
            (not dial and self.group_by != "edges", f"{self.system} has one timestep and no groups;"
             " leave group_by out"),
            (not dial and self.das != "off", f"{self.system} has one timestep, so das has nothing "
             "to follow; leave it out"),
            (not dial and "/" in self.best, f"{self.system} has one timestep and no levels, got "
             f"best={self.best}; leave the level out"),
            (self.group_metric != "cosine" and self.group_by == "edges", "edges of .5 and .7 are "
             f"cosines; with group_metric={self.group_metric} take group_by=quantiles"),
            (self.groups != GroupSettings() and (self.group_by != "edges" or not dial),
             "groups are of group_by=edges and of systems with a dial; leave them out"),
            (self.groups.at != "enlarged", f"{self.system} is grouped by the enlarged photo; leave "
             "groups.at out"),
            (self.groups.by != "cosine", f"{self.system} is grouped by group_metric; leave "
             f"groups.by={self.groups.by} out, and set that"),
            (self.group_by == "edges" and self.group_count != 3, "group_count is of group_by=paper "
             "and quantiles; with edges set groups.edges and groups.timesteps"),
            (self.das != "off" and self.distill_range != (20, 980), "das places the timesteps of "
             "vsd itself; leave distill_range out, or set das=off"),
            (self.das != "off" and self.distill != "vsd", "das places the timesteps of vsd; "
             "set distill=vsd or das=off"),
            (self.system == "pisa_sr" and self.distill == "vsd", "pisa_sr has no critic; "
             "set distill=csd"),
            (self.distill == "csd" and self.text == "none", "csd leads from the negative text to "
             "the one that is heard, and text=none has neither; set text=fixed or text=captions"),
            (self.distill == "vsd" and row.adapters == "guided", f"{self.system} has no critic; "
             "set distill=off and adversary=0.5"),
            (self.negative_share and len(row.texts) < 2, f"{self.system} hears no negative text; "
             "set negative_share=0"),
            (self.pixel_steps and row.adapters != "pair", f"{self.system} has one adapter; "
             "set pixel_steps=0"),
            (self.goal == "metric" and not row.metric, f"{self.system} has no metric estimator"),
            (self.goal == "metric" and (self.formula or self.group_by != "edges" or self.groups
             != GroupSettings()), f"{self.name} leaves step and dial as --start has them; leave "
             "formula, groups and group_by out"),
            (not 0 <= self.distill_range[0] < self.distill_range[1] <= STEPS, "distill_range must "
             f"rise within 0 and {STEPS}, got {self.distill_range}"),
            (not (self.mse or self.lpips) and self.goal == "restore", "mse and lpips are both 0, "
             "so nothing ties the result to the photo"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(words)
        return self


def _like(recipe: PublishedRecipe, **changes: object) -> PublishedRecipe:
    """A recipe with some settings of its own."""
    return recipe.model_copy(update=changes)


OSEDIFF = PublishedRecipe(
    name="osediff",
    summary="OSEDiff as released: MSE, LPIPS and VSD against the frozen base",
    system="osediff",
    steps=30000,
    batch=2,
    seed=123,
    distill="vsd",
    caption_share=1.0,
)
RCOD_O = _like(
    OSEDIFF,
    name="rcod_o",
    summary="RCOD on OSEDiff as released: visual prompts, fixed groups, DAS",
    system="rcod_o",
    das="released",
    caption_share=0.0,
)
S3DIFF = PublishedRecipe(
    name="s3diff",
    summary="S3Diff: adapters that follow the damage, an adversary, negative prompting",
    system="s3diff",
    steps=50000,
    batch=4,
    accumulate=4,
    seed=123,
    optim=OSEDIFF.optim.model_copy(update={"lr": 2e-5}),
    degradation="s3diff",
    unet_rank=32,
    vae_rank=16,
    mse=2.0,
    lpips=5.0,
    adversary=0.5,
    negative_share=0.05,
)
RCOD_S = _like(
    S3DIFF,
    name="rcod_s",
    summary="RCOD on S3Diff as released: visual prompts and fixed groups",
    system="rcod_s",
    negative_share=0.0,
)
PUBLISHED = (
    OSEDIFF,
    RCOD_O,
    _like(
        RCOD_O,
        name="rcod_o-paper",
        summary="RCOD on OSEDiff as in the paper: Eq. 4, Eq. 5, Eq. 7",
        batch=4,
        optim=OSEDIFF.optim.model_copy(update={"lr": 2e-5}),
        critic_lr=2e-5,
        formula="general",
        group_by="paper",
        das="paper",
    ),
    S3DIFF,
    RCOD_S,
    _like(
        RCOD_S,
        name="mem",
        summary="metric estimation for a trained rcod_s (--start): its dial picks itself",
        goal="metric",
        steps=10000,
        accumulate=1,
        optim=OSEDIFF.optim.model_copy(update={"lr": 1e-4}),
    ),
    PublishedRecipe(
        name="pisa_sr",
        summary="PiSA-SR: the pixel adapter by MSE, then the semantic one by LPIPS and CSD",
        system="pisa_sr",
        steps=12500,
        pixel_steps=4000,
        batch=4,
        accumulate=4,
        seed=123,
        degradation="seesr",
        distill="csd",
        distill_range=(20, 500),
        caption_share=0.5,
    ),
)
