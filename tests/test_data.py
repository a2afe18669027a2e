"""Laws of crops and pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.training.data import DataSettings, Pairs, _cut, build_crops, build_pairs
from rcod.training.photos import Source, photos_in

SETTINGS = DataSettings(crop=64, crops=6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(folder / f"{i}.png")
    return photos_in(folder)


def test_any_number_of_workers_writes_the_same_bytes(photos: list[Source], tmp_path: Path):
    crops = [build_crops(photos, tmp_path / str(n), SETTINGS, workers=n) for n in (1, 2)]
    assert crops[0].read_bytes() == crops[1].read_bytes()
    pairs = [build_pairs(c, SETTINGS, workers=n + 1) for n, c in enumerate(crops)]
    assert pairs[0].read_bytes() == pairs[1].read_bytes()
    other = SETTINGS.model_copy(update={"mix": {"seesr": 1.0}})
    assert build_pairs(crops[0], other) != pairs[0]  # no stale cache is taken
    assert np.load(crops[0]).shape == (6, 3, 64, 64)
    assert np.load(pairs[0]).shape == (6, 3, 16, 16)


def test_windows_of_hr_and_lr_show_the_same_place(tmp_path: Path):
    hr = np.random.default_rng(0).integers(0, 255, (3, 3, 64, 64), np.uint8)
    hr = np.kron(hr[..., ::4, ::4], np.ones((4, 4), np.uint8))  # flat 4 x 4 blocks
    np.save(tmp_path / "crops.npy", hr)
    np.save(tmp_path / "pairs.npy", hr[..., ::4, ::4])
    data = Pairs(tmp_path / "crops.npy", tmp_path / "pairs.npy")
    batches = data.batches(16, 32, torch.Generator().manual_seed(0))
    for _ in range(3):  # every flip and turn comes by
        batch = next(batches)
        torch.testing.assert_close(batch.hr[..., ::4, ::4], batch.lr)
        assert batch.context.shape == (16, 3, 16, 16)
    np.save(tmp_path / "guides.npy", hr[[2, 0]])  # row 0 shows crop 2
    data.add_guides(tmp_path / "guides.npy", torch.tensor([2, 0]))
    batch = next(data.batches(16, 32, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(batch.guide, batch.hr)
    assert 12 <= batch.guided.sum() <= 16  # three quarters and whoever has one by chance
    clean = next(Pairs(tmp_path / "crops.npy", None).batches(2, 32, torch.Generator()))
    torch.testing.assert_close(clean.hr[..., ::4, ::4], clean.lr, rtol=0, atol=1 / 255)


def test_errors_say_what_came(tmp_path: Path):
    Image.new("RGB", (90, 63)).save(tmp_path / "small.png")
    with pytest.raises(RcodError, match=r"small\.png: must be 64 pixels a side at least, got 90 x"):
        _cut((tmp_path / "small.png", 1, SETTINGS, 0))
    assert len(_cut((tmp_path / "small.png", 0, SETTINGS, 0))) == 0  # nothing is asked of it
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(RcodError, match="must name a file, got an empty"):
        photos_in(tmp_path / "empty.txt")
