"""Laws of weights on disk."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rcod.errors import RcodError
from rcod.networks.backbone import TinySettings
from rcod.networks.checkpoint import find_weights, load, save
from rcod.networks.systems import SYSTEMS, build

SMALL = SYSTEMS["tiny"].model_copy(
    update={"model": TinySettings(latent=12, widths=(8, 16), blocks=(1, 1, 1), tokens=8, heads=2)}
)


def test_what_is_saved_comes_back(tmp_path: Path):
    torch.manual_seed(0)
    onestep, metric = build(SMALL)
    save(tmp_path / "a.safetensors", SMALL, onestep, metric, torch.float32)
    system, again, metric_again = load(tmp_path / "a.safetensors")
    assert system == SMALL
    assert metric_again is not None
    for mine, theirs in ((onestep, again), (metric, metric_again)):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key])
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_errors_say_what_to_do(tmp_path: Path):
    with pytest.raises(RcodError, match="model must be one of tiny or a"):
        find_weights("huge")
    with pytest.raises(RcodError, match="no weights at"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(RcodError, match="must be safetensors written by rcod"):
        load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RcodError, match="settings in its header and has none"):
        load(tmp_path / "other.safetensors")
    header = {"rcod": SMALL.model_dump_json()}
    save_file({"onestep.x": torch.zeros(1)}, tmp_path / "bare.safetensors", metadata=header)
    with pytest.raises(RcodError, match="doesn't fit its own settings"):
        load(tmp_path / "bare.safetensors")
