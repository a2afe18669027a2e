"""The page of RCOD's claims says what the measured rows say, for it or against it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rcod.judging.promises import BICUBIC, LEVELS, Score, report
from rcod.training.recipe import TINY

TOOL = Path(__file__).parents[1] / "tools" / "claims.py"


def lay(row: Path, psnr: float, steps: int = 200) -> None:
    """A row that was measured on four pictures, its fidelity so good."""
    scores = [
        Score(picture=str(i), level=level, values={
            "psnr": psnr + i, "lpips-hed": 0.2, "niqe": 6.0 + i % 2, "detail": 4.0})
        for i in range(4) for level in (BICUBIC, *LEVELS)
    ]  # fmt: skip
    row.mkdir(parents=True)
    recipe = TINY["tiny-rcod"].model_copy(update={"steps": steps})
    (row / "recipe.json").write_text(recipe.model_dump_json())
    (row / "report.json").write_text(report(scores, [1.0] * 4, {}).model_dump_json())


def tell(rows: Path) -> subprocess.CompletedProcess[str]:
    for study in ("ldg", "mem"):
        (rows / f"{study}.txt").write_text(f"what {study} says")
    command = [sys.executable, TOOL, "tell", rows, "--where", "here"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [(27.0, 28.0, "**supported**"), (25.0, 24.0, "**refuted**"), (28.0, 25.5, "undecided")],
)
def test_claims_are_told_as_every_seed_has_them(
    tmp_path: Path, first: float, second: float, word: str
):
    for seed, ours in enumerate((first, second)):
        lay(tmp_path / "tiny-osediff" / str(seed), 26.0)
        lay(tmp_path / "tiny-rcod_o" / str(seed), ours)
    lay(tmp_path / "tiny-rcod_o" / "2", 40.0)  # a seed that the host was not trained with
    page = tell(tmp_path).stdout
    assert "RealSR pictures: here." in page and page.endswith("```\nwhat mem says\n```\n")
    lines = page.splitlines()
    gain = (first + second) / 2 - 26
    (line,) = (line for line in lines if line.startswith("| tiny-rcod_o | tiny-osediff |"))
    cells = line.split(" | ")
    assert cells[2] == f"{gain:+.3f} ({gain:+.3f} to {gain:+.3f}) {word}"
    assert cells[4].endswith("undecided")


def test_rows_of_unlike_budgets_are_not_compared(tmp_path: Path):
    lay(tmp_path / "tiny-osediff" / "0", 26.0)
    lay(tmp_path / "tiny-rcod_o" / "0", 26.0, steps=800)
    assert "must be of one budget" in tell(tmp_path).stderr


def test_nothing_measured_is_said(tmp_path: Path):
    done = tell(tmp_path)
    assert done.returncode == 1 and "holds no measured row" in done.stderr
