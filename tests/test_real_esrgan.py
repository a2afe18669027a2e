"""Guides are made once, for the same crops, and survive being broken off."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from rcod.errors import RcodError
from rcod.training import real_esrgan


def pairs_in(folder: Path) -> Path:
    folder.mkdir()
    np.save(folder / "pairs.npy", np.random.default_rng(0).integers(0, 255, (8, 3, 4, 4), np.uint8))
    return folder / "pairs.npy"


def test_a_broken_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    save_file(real_esrgan.Elder().state_dict(), tmp_path / real_esrgan.FILE)
    chance, forward, calls = torch.ones(8, dtype=torch.float64), real_esrgan.Elder.forward, []

    def break_off(self: real_esrgan.Elder, x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(self, x)

    great = real_esrgan.Elder.load(tmp_path)
    whole = real_esrgan.build_guides(pairs_in(tmp_path / "whole"), chance, 8, lambda: great)
    pairs = pairs_in(tmp_path / "broken")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(real_esrgan.Elder, "forward", break_off)
        real_esrgan.build_guides(pairs, chance, 8, lambda: great)
    broken = real_esrgan.build_guides(pairs, chance, 8, lambda: great)
    assert whole.read_bytes() == broken.read_bytes()
    assert np.load(whole).shape == (8, 3, 16, 16)
    assert {*pairs.parent.iterdir()} == {pairs, broken}


def test_two_runs_that_share_a_cache_make_the_same_guides(tmp_path: Path):
    chance, pairs = torch.ones(8, dtype=torch.float64), pairs_in(tmp_path / "shared")

    class Quick(real_esrgan.Elder):
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            if waiting:  # another run does all its work meanwhile
                waiting.pop()()
            return F.interpolate(lr, scale_factor=4)

    quick = Quick()
    waiting = [lambda: real_esrgan.build_guides(pairs, chance, 8, lambda: quick)]
    guides = real_esrgan.build_guides(pairs, chance, 8, lambda: quick)
    alone = real_esrgan.build_guides(pairs_in(tmp_path / "alone"), chance, 8, lambda: quick)
    assert guides.read_bytes() == alone.read_bytes()
    assert {*pairs.parent.iterdir()} == {pairs, guides}


def test_fewer_guides_are_the_first_of_more():
    chance = torch.linspace(1, 4, 100, dtype=torch.float64)
    few, many = real_esrgan.chosen(chance, 10), real_esrgan.chosen(chance, 60)
    assert few.tolist() == many[:10].tolist()
    assert len(set(many.tolist())) == 60


def test_missing_and_damaged_weights_are_named(tmp_path: Path):
    with pytest.raises(RcodError, match=r"the aid realesrgan_x4plus.* must be a file"):
        real_esrgan.Elder.load(tmp_path)
    (tmp_path / real_esrgan.FILE).write_bytes(b"cut")
    with pytest.raises(RcodError, match=r"realesrgan_x4plus.* must be whole safetensors"):
        real_esrgan.Elder.load(tmp_path)
