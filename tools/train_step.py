"""Take one training step at Stable Diffusion's true size, and hold `--dry-run`'s estimate to it.

    python tools/train_step.py rcod_o [key=value ...]

Networks have the true shapes and random weights, since memory does not depend on what they say.
Prints seconds and the most memory (the kernel's own count) of every part, as JSON. Linux only.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from rcod.device import trim_memory
from rcod.training.budget import invent, settle, steps, weigh
from rcod.training.catalog import recipe_named
from rcod.training.published_losses import Roles
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.published_task import learners_of
from rcod.training.team import Team
from rcod.training.tensor_memory import on_processor

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(key: str) -> float:
    """VmRSS or VmHWM of this process, MB."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def fill(roles: Roles) -> None:
    """Small random weights; one stretch of noise, repeated."""
    noise = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for parameter in roles.student.onestep.parameters():
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(noise)):
            part = flat[start : start + len(noise)]
            part.copy_(noise[: len(part)])


def main() -> None:
    """Measure one step of the recipe named on the command line."""
    name, *changes = sys.argv[1:]
    given = {key: value for key, _, value in (change.partition("=") for change in changes)}
    recipe = recipe_named(name, {"batch": "1"} | given)
    assert isinstance(recipe, PublishedRecipe), "a published system's recipe"
    need = weigh(recipe)
    roles = settle(invent(recipe), recipe)
    fill(roles)
    learners = learners_of(recipe, roles)
    rest = {"mb": memory("VmRSS"), "estimate": on_processor(need.megabytes["at rest"])}
    found: dict[str, dict[str, float]] = {"at rest": rest}
    torch.manual_seed(0)

    def learn(who: str, loss: Tensor) -> None:
        learners[who].add(loss)

    for part, backward in steps(roles, recipe, learn):
        trim_memory()  # what the part before has freed is not this one's
        CLEAR.write_text("5")  # forget the most so far
        started = time.perf_counter()
        backward()
        estimate = on_processor(need.megabytes[part])
        most = memory("VmHWM")
        found[part] = {
            "seconds": time.perf_counter() - started, "mb": most, "estimate": estimate,
            "off": estimate / most - 1,
        }  # fmt: skip
        print(json.dumps({part: found[part]}), file=sys.stderr, flush=True)
    norms = {who: learner.weigh(Team(torch.device("cpu"))) for who, learner in learners.items()}
    for learner in learners.values():
        learner.move(0)
    print(json.dumps({"recipe": name, "norms": norms, **found}, indent=1))


if __name__ == "__main__":
    main()
