"""Sets open by name and by folder; synthetic ones come from a seed alone."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from rcod.errors import RcodError
from rcod.judging.datasets import open_dataset, pixels, stem, thin_out


def picture(path: Path, side: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(path)
    return path


def layout(root: Path, low: str, high: str, count: int = 3) -> Path:
    for i in range(count):
        picture(root / low / f"a_{i}_LR4.png", 8)
        picture(root / high / f"a_{i}_HR.png", 32)
    return root


@pytest.mark.parametrize(("low", "high"), [("LR", "HR"), ("test_LR", "test_HR"), ("lq", "gt")])
def test_folder_with_pairs_opens(tmp_path: Path, low: str, high: str):
    found = open_dataset(f"mine={layout(tmp_path, low, high)}", tmp_path)
    assert found.name == "mine"
    assert [pair.name for pair in found.pairs] == ["a_0", "a_1", "a_2"]
    assert [pair.name for pair in thin_out(found, 2).pairs] == ["a_0", "a_1"]


def test_known_set_opens_in_its_published_folder_when_complete(tmp_path: Path):
    layout(tmp_path / "DrealSRVal_crop128", "test_LR", "test_HR", 93)
    assert len(open_dataset("drealsr", tmp_path).pairs) == 93
    (tmp_path / "DrealSRVal_crop128" / "test_LR" / "a_7_LR4.png").unlink()
    (tmp_path / "DrealSRVal_crop128" / "test_HR" / "a_7_HR.png").unlink()
    with pytest.raises(RcodError, match=r"drealsr has 93 pairs, and .* holds 92"):
        open_dataset("drealsr", tmp_path)


def test_folder_of_photos_alone_has_no_truths(tmp_path: Path):
    picture(tmp_path / "one.png", 8)
    (pair,) = open_dataset(str(tmp_path), Path()).pairs
    assert pair.hr is None and pair.name == "one"


def test_pairs_of_the_wrong_size_are_named(tmp_path: Path):
    layout(tmp_path, "LR", "HR")
    picture(tmp_path / "HR" / "a_1_HR.png", 30)
    words = r"a_1_LR4\.png is 8 x 8 and its true picture 30 x 30, which should be 4 times as large"
    with pytest.raises(RcodError, match=words):
        open_dataset(str(tmp_path), Path())


def test_truths_alone_are_refused(tmp_path: Path):
    picture(tmp_path / "HR" / "a.png", 32)
    with pytest.raises(RcodError, match="holds HR/ and no LR/ beside it"):
        open_dataset(str(tmp_path), Path())


def test_names_lose_their_role():
    names = ["Canon_001_LR4.png", "Canon_001_HR.png", "Canon_001.png", "Canon_001_x4.png"]
    assert {stem(Path(name)) for name in names} == {"Canon_001"}


def test_torn_file_is_named(tmp_path: Path):
    path = picture(tmp_path / "a.png", 64)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RcodError, match=r"a\.png must be a whole picture"):
        pixels(path)


def test_names_of_sets_are_those_of_folders(tmp_path: Path):
    folder = tmp_path / "x@y" / "lr=1" / "mine"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    assert open_dataset(str(folder), tmp_path).name == "mine"
    assert open_dataset(f"theirs={folder}", tmp_path).name == "theirs"
    Image.new("RGB", (8, 8)).save(folder.parent / "a.png")
    assert open_dataset(f"theirs={folder.parent}", tmp_path).name == "theirs"
    for name in ("../esc", "", "..", "a/b"):
        with pytest.raises(RcodError, match=r"a set's name must be letters, .*; give another by"):
            open_dataset(f"{name}={folder}", tmp_path)
    with pytest.raises(RcodError, match="got 'lr=1'; give another by NAME=FOLDER"):
        open_dataset(str(folder.parent), tmp_path)


@pytest.mark.skipif(
    sys.platform != "linux", reason="not checked here: other systems' names are all text"
)
def test_names_that_are_no_text_are_refused_before_any_work(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(RcodError, match=r"name must be UTF-8, got 'caf\\udce9\.png'; rename it"):
        open_dataset(f"mine={tmp_path}", tmp_path)
    (folder := tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(RcodError, match="a set's name must be letters") as told:
        open_dataset(str(folder), tmp_path)
    str(told.value).encode()  # can be printed
