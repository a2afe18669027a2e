"""What would a run compute, and in how much memory?

The step itself is run, on tensors that have a shape and no memory; what an allocator would have
been asked for is added up as it comes and goes. So the estimate knows of checkpoints, adapters
and precisions whatever the code knows, and nothing has to be kept up to date beside it.

    recipe -> hollow networks -> losses, backwards -> bytes alive: now, at most
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rcod.device import DTYPES
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
from rcod.networks.systems import System, build
from rcod.pixels.perceptual import LpipsHed
from rcod.training import lessons
from rcod.training.adaptation import Adaptation
from rcod.training.adapting import cast_to, learners_of
from rcod.training.adversary import Discriminator
from rcod.training.lessons import Class, Heard
from rcod.training.photos import photos_in
from rcod.training.recipe import Recipe
from rcod.training.stream import Dice, Lot
from rcod.training.student import TARGETS, enrol, fresh
from rcod.training.task import Sources

MB = 1e6
PROGRAM = 450.0  # MB: Python and PyTorch themselves, on a processor
KEPT = 1.1  # what a process holds for each byte alive: the C library keeps some of what was freed


class Need(NamedTuple):
    """What a run takes."""

    learning: dict[str, int]  # parameters that learn, by part
    frozen: dict[str, int]  # and that don't
    megabytes: dict[str, float]  # at rest, and at most in each part of a step


class Meter(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.most = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return found

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is gone."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self.alive += size
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.alive -= size

    @contextmanager
    def stage(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Write down the most that is alive within."""
        self.most = self.alive
        yield
        into[name] = self.most / MB


def foresee(recipe: Recipe | Adaptation, sources: Sources) -> list[str]:
    """The resolved recipe, its parameters, its memory and its epochs, as lines."""
    lines = recipe.model_dump_json(indent=1).splitlines()
    if sources.photos:
        photos, seen = len(photos_in(sources.photos, sources.cache)), recipe.batch
        steps = photos / (seen * recipe.accumulate)
        lines.append(f"{photos} photos, {steps:.0f} steps an epoch in one process")
    if isinstance(recipe, Recipe):
        onestep, metric = build(System(name="tiny", summary="", licence="", model=recipe.model))
        for name, network in (("student", onestep), ("metric", metric)):
            count = sum(parameter.numel() for parameter in network.parameters())
            lines.append(f"{name:22} {count / 1e6:9.3f} M parameters")
        return lines
    need = weigh(recipe)
    for name in need.frozen:
        learning, frozen = need.learning.get(name, 0), need.frozen[name]
        lines.append(f"{name:22} {learning / 1e6:9.3f} M learn {frozen / 1e6:9.3f} M frozen")
    for name, size in need.megabytes.items():
        lines.append(f"{name:22} {size / 1000:9.2f} GB")
    most = max(need.megabytes.values())
    here = on_processor(most) / 1000
    lines.append(f"peak {most / 1000:.1f} GB on a card, {here:.1f} GB on a processor")
    return lines


def on_processor(megabytes: float) -> float:
    """What a process holds on a processor while so many MB are alive in tensors."""
    return PROGRAM + KEPT * megabytes


def weigh(recipe: Adaptation) -> Need:
    """Run one step of a recipe on tensors without memory."""
    megabytes: dict[str, float] = {}
    hollow_one = invent(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        class_ = settle(hollow_one, recipe)
        for tensor in _tensors_of(class_):
            meter.see(tensor)
        learners = learners_of(recipe, class_)
        own = [p for learner in learners.values() for p in learner.parameters]
        moments = 8 * sum(p.numel() for p in own) / MB  # AdamW's two
        with meter.stage("at rest", megabytes):
            pass
        for name, backward in steps(class_, recipe, lambda who, loss: learners[who].add(loss)):
            with meter.stage(name, megabytes):
                backward()
    learning, frozen = count(class_)
    return Need(learning, frozen, {name: size + moments for name, size in megabytes.items()})


def steps(
    class_: Class, recipe: Adaptation, learn: Callable[[str, Tensor], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of a step, each to be run when its turn has come.

    Args:
        class_: who takes part, on any device.
        recipe: what they pay; timesteps are the middle group's.
        learn: takes a learner's name and its loss.
    """
    batch, side, device = recipe.batch, recipe.window, class_.student.onestep.alphas.device
    lot = Lot(
        tuple(range(batch)), torch.rand(batch, 3, side, side, device=device),
        torch.rand(batch, 3, side // 4, side // 4, device=device), (0,) * batch, (),
    )  # fmt: skip
    dice, heard = Dice(recipe.seed, lot.numbers, device), None
    if recipe.distill != "off":
        texts = torch.rand(batch, WORDS, WIDTH, device=device)
        heard = Heard(texts, texts[:1] if recipe.text != "none" else None)
    kept: list[lessons.Shown] = []

    def student() -> Tensor:
        if recipe.goal == "metric":
            return lessons.metric_loss(class_.student, lot, recipe)[0]
        shown = show(class_, lot, recipe, dice)
        kept.append(shown._replace(sr=shown.sr.detach(), z_sr=shown.z_sr.detach()))
        return lessons.pay(class_, shown, heard, recipe, dice, pixel=False)[0]

    def critic() -> Tensor:
        assert heard is not None
        return lessons.critic_loss(class_.student, kept[0], heard, dice)

    def adversary() -> Tensor:
        return lessons.judge_loss(class_, kept[0])

    def part(name: str, loss: Callable[[], Tensor]) -> tuple[str, Callable[[], None]]:
        def run() -> None:
            with cast_to(recipe.precision, device):
                paid = loss()
            learn(name, paid)

        return name, run

    yield part("student", student)
    if recipe.distill == "vsd" and recipe.goal == "restore":
        yield part("critic", critic)
    if class_.judge is not None:
        yield part("adversary", adversary)


def show(class_: Class, lot: Lot, recipe: Adaptation, dice: Dice) -> lessons.Shown:
    """The student's forward pass at the middle group's timestep."""
    student = class_.student
    onestep, up = lessons.tuned(student, lot), lessons.up_of(lot, student.system.framing)
    metric = lessons.measure(student, onestep, up, lot.hr, recipe)
    middle = student.system.timestep or student.system.groups.timesteps[1]
    t = torch.full((len(up),), middle, device=up.device)
    return lessons.make(student, onestep, up, lot.hr, (metric, t), recipe, dice)


class Hollow(NamedTuple):
    """A system of the true shapes, without memory."""

    system: System
    onestep: OneStep[StableBackbone]
    tensors: dict[str, Tensor]


def invent(recipe: Adaptation) -> Hollow:
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
        if dtype != torch.float32:
            for network in networks.values():
                widen(network)
        words = torch.empty(len(system.texts), WORDS, WIDTH)
        prompt: VisualPrompt | FixedPrompt = FixedPrompt(words)
        if system.condition == "visual":
            prompt = VisualPrompt(hollow_tower(), WIDTH, WIDTH)
        estimator = DegradationEstimator(system.metric) if with_core else None
        backbone = StableBackbone(
            [networks["unet"]], networks["vae"], guided=guided  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        onestep = OneStep(
            backbone, prompt, system.formula, 4, system.step, system.guidance, estimator
        )
    return Hollow(system, onestep.eval(), tensors)


def settle(hollow_one: Hollow, recipe: Adaptation) -> Class:
    """Everybody who takes part, with memory of whatever kind is at hand."""
    lay(hollow_one.onestep)
    hollow_one.onestep.alphas.copy_(alphas())
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in hollow_one.tensors.items()}
    student = enrol(hollow_one.system, hollow_one.onestep, tensors, recipe)
    far = LpipsHed() if recipe.lpips and recipe.goal == "restore" else None
    judge = Discriminator() if recipe.adversary and recipe.goal == "restore" else None
    return Class(student, far, judge)


def count(class_: Class) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters that learn and that don't, by part."""
    onestep = class_.student.onestep
    critic = {id(parameter) for parameter in class_.student.critic}
    parts: dict[str, nn.Module | None] = {
        "UNet": onestep.backbone.unets,
        "autoencoder": onestep.backbone.vae,
        "modulation": onestep.backbone.guides,
        "prompt": onestep.prompt,
        "estimator": onestep.estimator,
        "LPIPS": class_.perceive if isinstance(class_.perceive, nn.Module) else None,
        "adversary": class_.judge,
    }
    learning = {"critic": sum(p.numel() for p in class_.student.critic)}
    frozen = {"critic": 0}
    for name, network in parts.items():
        if network is None or not (own := list(network.parameters())):
            continue
        own = [p for p in own if id(p) not in critic]
        learning[name] = sum(p.numel() for p in own if p.requires_grad)
        frozen[name] = sum(p.numel() for p in own) - learning[name]
    return learning, frozen


def _tensors_of(class_: Class) -> Iterator[Tensor]:
    for network in (class_.student.onestep, class_.perceive, class_.judge):
        if isinstance(network, nn.Module):
            yield from (*network.parameters(), *network.buffers())
    yield from cast(list[Tensor], class_.student.critic)
