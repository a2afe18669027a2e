"""What several tests share: the numbers of the original programs, and a tiny network."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of one golden file; skips, aloud, where the golden data isn't there."""
    path = SHARED / "golden" / name
    if not path.is_file():
        pytest.skip(f"not checked here: {path.relative_to(SHARED.parent)} isn't there")
    return dict(np.load(path))


@pytest.fixture(autouse=True)
def two_threads() -> None:
    """Sums depend on the number of threads; keep it the same everywhere."""
    torch.set_num_threads(2)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in this process, where PyTorch has started already."""
    from rcod.doors.cli import app

    def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as left:
            app([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return subprocess.CompletedProcess([], left.value.code, shown.out, shown.err)

    return run_here
