"""The tools tell what they do, and begin nothing when they are called wrongly."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ENVIRONMENT

from rcod.judging.datasets import Dataset, Pair
from rcod.judging.evaluate import place
from rcod.pixels.images import Photo, write

TOOLS = Path(__file__).parents[1] / "tools"
WRONG = {
    "endure": ("fuz",), "check_image": ("now",), "dial": ("now",), "check_demo": (),
    "large": ("none.png",), "seams": ("none.png",), "make_examples": ("none.txt",),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_help_and_mistakes_begin_nothing(name: str, tmp_path: Path):
    for given, code in ((("--help",), 0), (WRONG[name], 2), (("--nothing",), 2)):
        command = [sys.executable, str(TOOLS / f"{name}.py"), *given]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=60
        )
        if "ModuleNotFoundError" in done.stderr:
            pytest.skip(f"not checked here: {done.stderr.splitlines()[-1]}")
        assert done.returncode == code, done.stderr
        assert "usage: " in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_small_pictures_are_laid_out_whole(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("review", TOOLS / "review.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(review := importlib.util.module_from_spec(spec))
    rng = torch.Generator().manual_seed(0)
    pair = Pair("a", tmp_path / "lr.png", tmp_path / "hr.png")
    dataset = Dataset("set", (pair,))
    labels = ["bicubic", "tiny@realism"]
    for file in (pair.hr, *(place(tmp_path, dataset, label, "a") for label in labels)):
        assert file is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, Photo(0.5 + torch.rand(3, 120, 100, generator=rng) / 2))
    sheet = review.sheet(tmp_path, dataset, [pair], labels, 256)
    assert sheet.size == (300, 122)
    least = sheet.crop((0, 22, 300, 122)).convert("L").reduce(10).getextrema()[0]
    assert least > 100  # light everywhere, since no part is empty
