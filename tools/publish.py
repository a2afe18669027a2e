"""Put a run's model into the package, as float16.

    python tools/publish.py RUN/model.safetensors
    python tools/publish.py EARLY.safetensors LATE.safetensors --timesteps 649,499,349

Several models of one run are averaged, weight by weight: what an adversary made them draw in turn
fades. The system, its dial and the metric estimator are the last one's.
"""

import argparse
import sys
from pathlib import Path

import torch

from rcod.diffusion.grouping import GroupSettings
from rcod.networks.checkpoint import load, save
from rcod.networks.estimators import MetricEstimator
from rcod.networks.onestep import OneStep
from rcod.networks.systems import SYSTEMS


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", help="a run's model, or several")
    parser.add_argument("--edges", type=numbers, help="of the groups, rising")
    parser.add_argument("--timesteps", type=numbers, help="of the groups, worst damage first")
    return parser.parse_args()


def numbers(text: str) -> list[float]:
    """Numbers parted by commas."""
    return [float(part) for part in text.split(",")]


def average(models: list[OneStep]) -> OneStep:
    """The last model, with the mean of all weights."""
    states = [model.state_dict() for model in models]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(last.dtype)
        for name, last in states[-1].items()
    }
    models[-1].load_state_dict(mean)
    return models[-1]


def main() -> None:
    """Read the models and write what they are together under their system's name."""
    options = parse()
    loaded = [load(path) for path in options.models]
    system, _, metric = loaded[-1]
    onestep = average([one for _, one, _ in loaded])
    if not isinstance(metric, MetricEstimator):
        sys.exit(f"{options.models[-1]} must be a run's model with its metric estimator")
    given = {"edges": options.edges, "timesteps": options.timesteps}
    groups = GroupSettings.model_validate(
        system.groups.model_dump() | {name: value for name, value in given.items() if value}
    )
    system = system.model_copy(update={"groups": groups})
    folder = Path(__file__).resolve().parents[1] / "src" / "rcod" / "weights"
    target = folder / str(SYSTEMS[system.name].weights)
    folder.mkdir(exist_ok=True)
    save(target, system, onestep, metric, torch.float16)
    parts = {"backbone": onestep.backbone, "prompt": onestep.prompt, "metric": metric}
    for name, part in parts.items():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
    print(f"{target.relative_to(folder.parents[2])}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
