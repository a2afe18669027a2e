"""What would a run compute, and in how much memory?

The step itself is run, on tensors that have a shape and no memory; what an allocator would have
been asked for is added up as it comes and goes. So the estimate knows of checkpoints, adapters and
precisions whatever the code knows, and nothing has to be kept up to date beside it. The tiny
model's step is run in earnest.

    recipe -> hollow networks -> losses, backwards -> bytes alive: now, at most
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rcod.device import DTYPES, seeded
from rcod.diffusion.schedule import alphas
from rcod.networks.assembly import factors_of
from rcod.networks.estimators import DegradationEstimator
from rcod.networks.guide import UNET_BLOCKS, VAE_BLOCKS, Guide
from rcod.networks.lora import attach_factors
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import FixedPrompt, VisualPrompt
from rcod.networks.shapes import WIDTH, WORDS, hollow, hollow_tower, lay
from rcod.networks.stable import Guided, Part, StableBackbone
from rcod.networks.storage import widen
from rcod.networks.systems import System
from rcod.pixels.perceptual import LpipsHed
from rcod.training import published_losses as losses
from rcod.training import tiny_task
from rcod.training.data import Batch
from rcod.training.learner import Learner
from rcod.training.photos import photos_in
from rcod.training.projected import hollow_judge
from rcod.training.published_losses import Heard, Roles
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.published_student import TARGETS, enrol, fresh
from rcod.training.published_task import cast_to, learners_of
from rcod.training.recipe import Recipe
from rcod.training.stream import Dice, Lot
from rcod.training.task import Sources
from rcod.training.tensor_memory import MB, Meter, Need, on_processor
from rcod.training.tiny_losses import Networks, cost

SEEN = 16  # samples of a batch that are run at the most; the rest is in proportion


def foresee(recipe: Recipe | PublishedRecipe, sources: Sources) -> list[str]:
    """The resolved recipe, its parameters, its memory and its epochs, as lines."""
    if isinstance(recipe, Recipe):
        tiny_task.check_sources(recipe, sources)
    lines = recipe.model_dump_json(indent=1).splitlines()
    if isinstance(recipe, PublishedRecipe) and sources.photos:
        photos, seen = len(photos_in(sources.photos, sources.cache)), recipe.batch
        steps = photos / (seen * recipe.accumulate)
        lines.append(f"{photos} photos, {_few(steps)} steps an epoch in one process")
    elif isinstance(recipe, Recipe) and recipe.goal != "autoencoder":
        steps = recipe.data.crops / (recipe.batch * recipe.accumulate)
        lines.append(f"{recipe.data.crops} crops, {_few(steps)} steps an epoch")
    need = weigh_tiny(recipe, sources.start) if isinstance(recipe, Recipe) else weigh(recipe)
    for name in need.frozen:
        learning, frozen = need.learning.get(name, 0), need.frozen[name]
        lines.append(f"{name:22} {_many(learning)} learn {_many(frozen)} frozen")
    for name, size in need.megabytes.items():
        lines.append(f"{name:22} {size / 1000:9.2f} GB")
    most = max(need.megabytes.values())
    here = on_processor(most) / 1000
    lines.append(f"peak {most / 1000:.1f} GB on a card, {here:.1f} GB on a processor")
    return lines


def _few(steps: float) -> str:
    """Steps of an epoch, which may be less than one."""
    return f"{steps:.0f}" if steps >= 10 else f"{steps:.2g}"


def _many(numbers: int) -> str:
    """A count of parameters, 11 characters; in millions where it is no small one."""
    return f"{numbers:11}" if numbers < 10_000 else f"{numbers / 1e6:9.3f} M"


def weigh(recipe: PublishedRecipe) -> Need:
    """Run one step of a recipe on tensors without memory."""
    megabytes: dict[str, float] = {}
    hollow_one = invent(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        roles = settle(hollow_one, recipe)
        for network in (roles.student.onestep, roles.perceive, roles.judge):
            if isinstance(network, nn.Module):
                meter.see_all(network)
        for parameter in roles.student.critic:
            meter.see(parameter)
        learners = learners_of(recipe, roles)
        with meter.stage("at rest", megabytes):
            pass
        for name, backward in steps(roles, recipe, lambda who, loss: learners[who].add(loss)):
            with meter.stage(name, megabytes):
                backward()
    learning, frozen = count(roles)
    moments = moments_of(learners.values())
    return Need(learning, frozen, {name: size + moments for name, size in megabytes.items()})


def moments_of(learners: Iterable[Learner]) -> float:
    """MB of AdamW's two numbers for each number it moves."""
    return sum(8 * p.numel() for x in learners for p in x.optimizer.param_groups[0]["params"]) / MB


@torch.enable_grad()
def weigh_tiny(recipe: Recipe, start: Path | None) -> Need:
    """Run one step of the tiny model, in earnest, since it is small; of a batch perhaps a part."""
    batch = tiny_task.FITTED if recipe.goal == "autoencoder" else recipe.batch
    seen, megabytes = min(batch, SEEN), dict[str, float]()
    torch.manual_seed(recipe.seed)
    with Meter() as meter:
        _, onestep, metric = tiny_task.begun(recipe, start) if start else tiny_task.blank(recipe)
        look = LpipsHed() if recipe.goal == "restore" else None
        nets = tiny_task.enlist(recipe, onestep, metric, look)
        learners = tiny_task.learners_of(nets, recipe)
        parts = {
            "UNet": onestep.backbone.unet, "last touch": onestep.backbone.touch,
            "prompt": onestep.prompt, "metric": metric, "start": nets.start,
            "critic": nets.critic, "adversary": nets.adversary, "LPIPS": look,
        }  # fmt: skip
        for network in (onestep, *nets[1:]):
            if network is not None:
                meter.see_all(network)
        with meter.stage("at rest", megabytes):
            pass
        with meter.stage("step", megabytes):
            paid = _tiny_step(recipe, nets, seen)
            for name, loss in paid.items():
                learners[name].add(loss)
    taking = [learners[name] for name in paid]
    learning = {id(p) for learner in taking for p in learner.parameters}
    rest = megabytes["at rest"] + moments_of(learners.values())
    step = rest + (megabytes["step"] - megabytes["at rest"]) * batch / seen
    own = {name: [] if part is None else list(part.parameters()) for name, part in parts.items()}
    return Need(*tally(own, learning), {"at rest": rest, "step": step})


def _tiny_step(recipe: Recipe, nets: Networks, batch: int) -> dict[str, Tensor]:
    """What is paid once every term has begun, for noise in place of photos."""
    side, crop = recipe.window, recipe.data.crop
    hr, lr = (torch.rand(batch, 3, n, n) for n in (side, side // 4))
    context = torch.rand(batch, 3, crop // 4, crop // 4)
    if recipe.goal == "autoencoder":
        tiny_task.fit_autoencoder(nets.onestep, hr)
        return {}
    n = max(recipe.perceive_from, recipe.adversary_from, recipe.distill_from)
    return cost(nets, Batch(hr, lr, context, hr, torch.zeros(batch)), recipe, n, seeded(0)).losses


def steps(
    roles: Roles, recipe: PublishedRecipe, learn: Callable[[str, Tensor], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of a step, each to be run when its turn has come.

    Args:
        roles: who takes part, on any device.
        recipe: what they pay; timesteps are the middle group's.
        learn: takes a learner's name and its loss.
    """
    batch, side, device = recipe.batch, recipe.window, roles.student.onestep.alphas.device
    lot = Lot(
        tuple(range(batch)), torch.rand(batch, 3, side, side, device=device),
        torch.rand(batch, 3, side // 4, side // 4, device=device), (0,) * batch, (),
    )  # fmt: skip
    dice, heard = Dice(recipe.seed, lot.numbers, device), None
    if recipe.distill != "off":
        texts = torch.rand(batch, WORDS, WIDTH, device=device)
        heard = Heard(texts, texts[:1] if recipe.text != "none" else None)
    kept: list[losses.StudentOutput] = []

    def student() -> Tensor:
        if recipe.goal == "metric":
            return losses.metric_loss(roles.student, lot, recipe)[0]
        shown = show(roles, lot, recipe, dice)
        kept.append(shown._replace(sr=shown.sr.detach(), z_sr=shown.z_sr.detach()))
        return losses.student_loss(roles, shown, heard, recipe, dice, pixel=False)[0]

    def critic() -> Tensor:
        assert heard is not None
        return losses.critic_loss(roles.student, kept[0], heard, dice)

    def adversary() -> Tensor:
        return losses.discriminator_loss(roles, kept[0], dice)

    def part(name: str, loss: Callable[[], Tensor]) -> tuple[str, Callable[[], None]]:
        def run() -> None:
            with cast_to(recipe.precision, device):
                paid = loss()
            learn(name, paid)

        return name, run

    yield part("student", student)
    if recipe.distill == "vsd" and recipe.goal == "restore":
        yield part("critic", critic)
    if roles.judge is not None:
        yield part("adversary", adversary)


def show(roles: Roles, lot: Lot, recipe: PublishedRecipe, dice: Dice) -> losses.StudentOutput:
    """The student's forward pass at the middle group's timestep."""
    student = roles.student
    onestep, up = losses.tuned(student, lot), losses.up_of(lot, recipe)
    metric = losses.measure(student, onestep, up, lot.hr, recipe)
    timesteps = student.system.groups.timesteps
    only = student.system.timestep
    middle = timesteps[len(timesteps) // 2] if only is None else only
    t = torch.full((len(up),), middle, device=up.device)
    return losses.make(student, onestep, up, lot.hr, (metric, t), recipe, dice)


class Hollow(NamedTuple):
    """A system of the true shapes, without memory."""

    system: System
    onestep: OneStep[StableBackbone]
    tensors: dict[str, Tensor]


def invent(recipe: PublishedRecipe) -> Hollow:
    """The system of a recipe in the true shapes."""
    system = recipe.row.model_copy(update={"targets": TARGETS[recipe.row.adapters]})
    dtype = DTYPES[recipe.precision]
    networks: dict[Part, nn.Module] = {"unet": hollow("unet", dtype), "vae": hollow("vae", dtype)}
    tensors = {name: tensor.to("meta") for name, tensor in fresh(system, networks, recipe).items()}
    with_core = system.adapters == "guided"
    guided: dict[Part, Guided] = {}
    with torch.device("meta"):
        for key in system.targets:
            part: Part = "unet" if key.startswith("unet.") else "vae"
            factors = factors_of(tensors, key)
            attach_factors(networks[part], factors, with_core)
            if with_core:
                rank = recipe.unet_rank if part == "unet" else recipe.vae_rank
                blocks = UNET_BLOCKS if part == "unet" else VAE_BLOCKS
                guided[part] = Guided(Guide(rank, blocks), factors, fold=False)
        tower = hollow_tower().to(dtype)
        if dtype != torch.float32:
            for network in (*networks.values(), tower):
                widen(network)
        words = torch.empty(len(system.texts), WORDS, WIDTH)
        prompt: VisualPrompt | FixedPrompt = FixedPrompt(words)
        if system.condition == "visual":
            prompt = VisualPrompt(tower, WIDTH, WIDTH)
        estimator = DegradationEstimator(system.metric) if with_core else None
        backbone = StableBackbone(
            [networks["unet"]], networks["vae"], guided=guided  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        onestep = OneStep(
            backbone, prompt, system.formula, 4, system.step, system.guidance, estimator
        )
    return Hollow(system, onestep.eval(), tensors)


def settle(hollow_one: Hollow, recipe: PublishedRecipe) -> Roles:
    """Everybody who takes part, with memory of whatever kind is at hand."""
    lay(hollow_one.onestep)
    hollow_one.onestep.alphas.copy_(alphas())
    hollow_one.onestep.gain.fill_(1)
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in hollow_one.tensors.items()}
    student = enrol(hollow_one.system, hollow_one.onestep, tensors, recipe)
    far = LpipsHed() if recipe.lpips and recipe.goal == "restore" else None
    judge = hollow_judge(recipe.judge) if recipe.adversary and recipe.goal == "restore" else None
    return Roles(student, far, judge, recipe.game)


def count(roles: Roles) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters that learn and that don't, by part."""
    onestep, critic = roles.student.onestep, roles.student.critic
    networks: dict[str, nn.Module | None] = {
        "UNet": onestep.backbone.unets,
        "autoencoder": onestep.backbone.vae,
        "modulation": onestep.backbone.guides,
        "prompt": onestep.prompt,
        "estimator": onestep.estimator,
        "LPIPS": roles.perceive if isinstance(roles.perceive, nn.Module) else None,
        "adversary": roles.judge,
    }
    parts = {name: list(network.parameters()) for name, network in networks.items() if network}
    apart = {id(parameter) for parameter in critic}
    parts = {name: [p for p in own if id(p) not in apart] for name, own in parts.items()}
    everybody = [p for own in (critic, *parts.values()) for p in own]
    return tally({"critic": critic} | parts, {id(p) for p in everybody if p.requires_grad})


def tally(
    parts: Mapping[str, list[nn.Parameter]], learning: Container[int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers that learn and that don't of every part that has any, by who learns (ids)."""
    own = {name: sum(p.numel() for p in part if id(p) in learning) for name, part in parts.items()}
    rest = {name: sum(p.numel() for p in part) - own[name] for name, part in parts.items()}
    return own, {name: number for name, number in rest.items() if number or own[name]}
