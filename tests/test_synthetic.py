"""A synthetic set is the same bytes for the same seed, and is a set like any other."""

from pathlib import Path

import pytest
from PIL import Image

from rcod.errors import RcodError
from rcod.judging.datasets import open_dataset
from rcod.judging.synthetic import make_synthetic


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "p.png")
    return tmp_path / "p.png"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path, photo: Path):
    made = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(made, (7, 7, 8), strict=True):
        assert make_synthetic([photo], folder, "s3diff", seed, 64, 2) == 2
    assert contents(made[0]) == contents(made[1]) != contents(made[2])
    pairs = open_dataset(str(made[0]), Path()).pairs
    assert [pair.name for pair in pairs] == ["00000_p", "00001_p"]


def test_wrong_wishes_are_named(tmp_path: Path, photo: Path):
    with pytest.raises(RcodError, match="degradation must be one of osediff"):
        make_synthetic([photo], tmp_path / "x", "heavy", 0, 64, 1)
    with pytest.raises(RcodError, match="multiple of 4, 32 or more, got 30"):
        make_synthetic([photo], tmp_path / "x", "osediff", 0, 30, 1)
    with pytest.raises(RcodError, match=r"p\.png must be 512 pixels a side, got 96 x 80"):
        make_synthetic([photo], tmp_path / "x", "osediff", 0, 512, 1)
    with pytest.raises(RcodError, match="must be a new or empty folder"):
        make_synthetic([photo], tmp_path, "osediff", 0, 64, 1)
    for file in (photo, photo / "below"):
        with pytest.raises(RcodError, match="must be a folder to write to, got: "):
            make_synthetic([photo], file, "osediff", 0, 64, 1)
