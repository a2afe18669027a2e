"""The page of RCOD's claims says what the measured rows say, for it or against it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rcod.judging.promises import BICUBIC, LEVELS, Score, report

TOOL = Path(__file__).parents[1] / "tools" / "claims.py"


def lay(row: Path, seed: int, psnr: float, pictures: int = 4) -> None:
    """A row that was measured on some pictures, its fidelity so good."""
    scores = [
        Score(picture=str(i), level=level, values={
            "psnr": psnr + i, "lpips-hed": 0.2, "niqe": 6.0 + i % 2, "detail": 4.0})
        for i in range(pictures) for level in (BICUBIC, *LEVELS)
    ]  # fmt: skip
    row.mkdir(parents=True, exist_ok=True)
    found = report(scores, [1.0] * pictures, {})
    (row / f"{seed}.json").write_text(found.model_dump_json())
    (row.parent / "where.txt").write_text("here\n")


def tell(kept: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, "tell", kept], capture_output=True, text=True)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where what was studied lies, and no row yet."""
    for study in ("ldg", "mem"):
        (tmp_path / f"{study}.txt").write_text(f"what {study} says\n")
    return tmp_path


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [(27.0, 28.0, "**supported**"), (25.0, 24.0, "**refuted**"), (28.0, 25.5, "undecided")],
)
def test_claims_are_told_as_every_seed_has_them(kept: Path, first: float, second: float, word: str):
    rows = kept / "200"
    for seed, ours in enumerate((first, second)):
        lay(rows / "tiny-osediff", seed, 26.0)
        lay(rows / "tiny-rcod_o", seed, ours)
    lay(rows / "tiny-rcod_o", 2, 40.0)  # a seed that the host was not trained with
    page = tell(kept).stdout
    assert "RealSR pictures: here." in page and page.endswith("```\nwhat mem says\n```\n")
    lines = page.splitlines()
    gain = (first + second) / 2 - 26
    (line,) = (line for line in lines if line.startswith("| tiny-rcod_o | tiny-osediff |"))
    cells = line.split(" | ")
    assert cells[2] == f"{gain:+.3f} ({gain:+.3f} to {gain:+.3f}) {word}"
    assert cells[4].endswith("undecided")


def test_every_budget_has_its_own_table(kept: Path):
    lay(kept / "200" / "tiny-osediff", 0, 26.0)
    lay(kept / "800" / "tiny-rcod_o", 0, 27.0)
    lay(kept / "800" / "tiny-osediff", 0, 26.0)
    page = tell(kept).stdout
    assert page.index("## After 800 steps") < page.index("## After 200 steps")
    assert page.count("| tiny-rcod_o | tiny-osediff |") == 1


def test_rows_of_other_pictures_are_not_compared(kept: Path):
    lay(kept / "200" / "tiny-osediff", 0, 26.0)
    lay(kept / "200" / "tiny-rcod_o", 0, 26.0, pictures=3)
    done = tell(kept)
    assert done.returncode == 1 and "measured on the same pictures" in done.stderr


def test_nothing_measured_is_said(kept: Path):
    done = tell(kept)
    assert done.returncode == 1 and "holds no measured row" in done.stderr


def test_the_page_is_what_was_measured():
    docs = TOOL.parents[1] / "docs"
    done = tell(docs / "claims")
    page = (docs / "results.md").read_text(encoding="utf-8")
    assert done.returncode == 0 and page == done.stdout
