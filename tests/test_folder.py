"""A folder is measured on one core and on all."""

import json
from pathlib import Path

import pytest
import torch

from rcod.doors.measuring import _folder
from rcod.errors import RcodError
from rcod.judging.folder import measure_folder
from rcod.pixels.images import Photo, write

NETWORKS = "tiny", "cpu", "float32", "auto"


def test_all_cores_are_held_against_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(2):
        write(tmp_path / f"{number}.png", Photo(torch.rand(3, 8, 8)))
    _folder(tmp_path, NETWORKS, 1, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    one, every, share = (found[name]["median"] for name in ("one", "all", "share"))
    assert found["photos"] == 2
    assert share == pytest.approx(one / (found["cores"] * every))
    assert f"{share:.2f} (" in capsys.readouterr().out.splitlines()[-1]


def test_a_folder_without_photos_is_named(tmp_path: Path):
    with pytest.raises(RcodError, match="--folder must name a folder of photos, got"):
        measure_folder(tmp_path, NETWORKS)
