"""The page of RCOD's claims says what the measured rows say, for it or against it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rcod.judging.promises import BICUBIC, LEVELS, Score, report
from rcod.training.recipe import TINY

TOOL = Path(__file__).parents[1] / "tools" / "claims.py"


def lay(row: Path, psnr: float) -> None:
    """A row that was measured on four pictures, its fidelity so good."""
    scores = [
        Score(picture=str(i), level=level, values={
            "psnr": psnr + i, "lpips-hed": 0.2, "niqe": 6.0 + i % 2, "detail": 4.0})
        for i in range(4) for level in (BICUBIC, *LEVELS)
    ]  # fmt: skip
    row.mkdir(parents=True)
    (row / "recipe.json").write_text(TINY["tiny-rcod"].model_dump_json())
    (row / "report.json").write_text(report(scores, [1.0] * 4, {}).model_dump_json())


@pytest.mark.parametrize(("ours", "verdict"), [(27.0, "supported"), (25.0, "refuted")])
def test_claims_are_told_as_they_were_measured(tmp_path: Path, ours: float, verdict: str):
    lay(tmp_path / "tiny-osediff" / "0", 26.0)
    lay(tmp_path / "tiny-rcod_o" / "0", ours)
    lay(tmp_path / "tiny-rcod_o" / "1", ours + 1)
    command = [sys.executable, str(TOOL), "tell", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"| {ours + 2:.2f} ± 0.71 |" in done.stdout
    assert f"better than tiny-osediff in psnr: **{verdict}**" in done.stdout
    assert "better than tiny-osediff in niqe: **undecided**" in done.stdout


def test_nothing_measured_is_said(tmp_path: Path):
    command = [sys.executable, str(TOOL), "tell", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "holds no measured row" in done.stderr
