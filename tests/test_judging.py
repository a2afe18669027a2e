"""The commands that judge, end to end."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from rcod.judging.datasets import Pair
from rcod.judging.judge import Judge
from rcod.judging.studies import blend
from rcod.networks.checkpoint import find_weights
from rcod.using.restore import Restorer

Run = Callable[..., subprocess.CompletedProcess[str]]
needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the bundled model's weights are not there yet"
)


@pytest.fixture
def pairs(tmp_path: Path, here: Run) -> Path:
    """A synthetic set of two pairs, 64 pixels a side."""
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(photo)
    made = here("degrade", photo, "-o", tmp_path / "set", "--side", 64, "--crops", 2, "--seed", 3)
    assert made.returncode == 0 and "2 pairs, osediff, seed 3" in made.stdout
    return tmp_path / "set"


def test_score_prints_means_and_writes_json(pairs: Path, tmp_path: Path, here: Run):
    out = tmp_path / "scores.json"
    done = here("score", pairs / "HR", pairs / "HR", "--json", out, "--metrics", "psnr,niqe")
    assert done.returncode == 0, done.stderr
    assert "PSNR       80.0000" in done.stdout and "protocol " in done.stdout
    assert "NIQE       blank: " in done.stdout  # no model, or pictures too small
    found = json.loads(out.read_text())
    assert found["mean"] == {"psnr": pytest.approx(80)}
    assert list(found["images"]) == ["00000_photo.png", "00001_photo.png"]


def test_score_refuses_in_one_sentence(pairs: Path, here: Run):
    done = here("score", pairs / "LR", pairs / "HR")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "00000_photo.png is 16 x 16" in line
    assert here("score", pairs / "nowhere", pairs / "HR").returncode == 2


def test_evaluate_ends_in_a_report_and_goes_on(pairs: Path, tmp_path: Path, here: Run):
    out = tmp_path / "out"
    arguments = ["evaluate", f"mine={pairs}", "-o", out, "--system", "bicubic", "--metrics", "psnr"]
    first = here(*arguments)
    assert first.returncode == 0, first.stderr
    assert "mine: bicubic makes 2 pictures" in first.stderr
    table = (out / "scores.csv").read_bytes()
    again = here(*arguments)
    assert again.stderr == "" and again.stdout == first.stdout
    assert (out / "scores.csv").read_bytes() == table
    assert (out / "report.html").is_file() and (out / "report.json").is_file()


@needs_tiny
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ldg", "true detail"),
        ("mem", "true group"),
        ("dial", "PSNR falls"),
        ("blend", "latent 0.25"),
    ],
)
def test_study_tells_what_it_found(name: str, words: str, pairs: Path, tmp_path: Path, here: Run):
    out = tmp_path / "study.json"
    done = here("study", name, pairs, "--metrics", "psnr,ssim,detail", "--json", out,
                "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert json.loads(out.read_text())


@needs_tiny
def test_blend_leaves_out_what_some_results_lack(tmp_path: Path):
    class Blind(Judge):
        """One that finds no detail in what is dark."""

        def values(
            self, results: Sequence[torch.Tensor], hr: torch.Tensor | None
        ) -> list[dict[str, float]]:
            found = super().values(results, hr)
            dark = hr is not None and float(hr.mean()) < 0.5
            return [{k: v for k, v in one.items() if k == "psnr" or not dark} for one in found]

    def pair(folder: Path, light: int) -> Pair:
        for role, side in (("LR", 16), ("HR", 64)):
            Image.new("RGB", (side, side), 3 * (light,)).save(folder / f"{role}{light}.png")
        return Pair(str(light), folder / f"LR{light}.png", folder / f"HR{light}.png")

    pairs = [pair(tmp_path, light) for light in (200, 20)]
    found = blend(Restorer.load("tiny", "cpu", "float32"), pairs, Blind())
    assert found.lines[0].split() == ["PSNR"]
    assert "SSIM is blank: not every result has it" in found.lines
