"""Put a run's model into the package, as float16.

python tools/publish.py RUN/model.safetensors
"""

import sys
from pathlib import Path

import torch

from rcod.networks.checkpoint import load, save
from rcod.networks.estimators import MetricEstimator
from rcod.networks.systems import SYSTEMS


def main() -> None:
    """Read the run's model and write it under its system's name."""
    source = Path(sys.argv[1])
    system, onestep, metric = load(source)
    if not isinstance(metric, MetricEstimator):
        sys.exit(f"{source} must be a run's model with its metric estimator, got {system.name}")
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
