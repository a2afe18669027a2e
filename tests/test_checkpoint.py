"""Laws of weights on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rcod.diffusion.grouping import GroupSettings
from rcod.errors import RcodError
from rcod.networks import checkpoint
from rcod.networks.backbone import TinySettings
from rcod.networks.checkpoint import find_weights, load, save
from rcod.networks.systems import SYSTEMS, System, build
from rcod.pixels.images import Photo
from rcod.using.open_photo import OpenPhoto, Setting
from rcod.using.restore import Restorer

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


def test_auto_is_neutral_where_nothing_estimates_the_metric_of_the_groups(tmp_path: Path):
    groups = GroupSettings(edges=(-0.9, -0.4), by="l1")
    system = SMALL.model_copy(update={"groups": groups})
    save(tmp_path / "a.safetensors", system, *build(system), torch.float32)
    restorer, photo = Restorer.load(str(tmp_path / "a.safetensors"), "cpu"), torch.rand(3, 16, 16)
    found, named = restorer(photo), restorer(photo, "neutral")
    assert found.level == "neutral" and torch.equal(found.photo.pixels, named.photo.pixels)
    with pytest.raises(RcodError, match="came without a metric estimator, so auto-local can't"):
        restorer(photo, "auto-local")
    assert OpenPhoto(restorer, Photo(photo)).result(Setting(realism=0.4)).realism == pytest.approx(
        0.4
    )


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


def lying(path: Path, **model: object) -> Path:
    """A file of a few bytes whose header says something else of the model."""
    row = json.loads(SMALL.model_dump_json())
    row["model"] |= model
    save_file({"onestep.gain": torch.zeros(1)}, path, metadata={"rcod": json.dumps(row)})
    return path


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"widths": [-1, 4]}, "model.widths.0: Input should be greater than or equal to 1, got -1"),
        ({"widths": [8, 10**9]}, "model.widths.1: .* less than or equal to 4096"),
        ({"blocks": [1, 10**9, 1]}, "model.blocks.1: .* less than or equal to 64"),
        ({"tokens": 10**9}, "model.tokens: .* less than or equal to 4096"),
        ({"touch": 10**9}, "model.touch: .* less than or equal to 4096"),
        ({"heads": 3}, "model: heads must divide the 16 channels at half resolution, got 3"),
        ({"lap": float("inf")}, "model.lap: .* less than or equal to 90"),
        ({"lap": float("nan")}, "model.lap: .* less than or equal to 90"),
        ({"waves": float("inf")}, "model.waves: .* less than or equal to 1000"),
    ],
)
def test_settings_no_model_has_are_refused(tmp_path: Path, model: dict[str, object], words: str):
    with pytest.raises(RcodError, match=f"must be safetensors written by rcod, got: {words}"):
        load(lying(tmp_path / "lies.safetensors", **model))


def test_a_header_is_held_against_its_tensors_before_it_gets_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = lying(tmp_path / "lies.safetensors", widths=[4096, 4096], blocks=[64, 64, 64])

    def build(system: System) -> None:
        pytest.fail("a quarter of a terabyte was asked for")

    monkeypatch.setattr(checkpoint, "build", build)
    with pytest.raises(RcodError, match="doesn't fit its own settings"):
        load(path)


COLD = """import sys
from pathlib import Path
from rcod.networks.checkpoint import load
load(Path(sys.argv[1]))
assert "sympy" not in sys.modules, "a second was lost on what some sizes without memory need"
"""


def test_loading_starts_nothing_slow(tmp_path: Path):
    save(tmp_path / "a.safetensors", SMALL, *build(SMALL), torch.float32)
    subprocess.run([sys.executable, "-c", COLD, str(tmp_path / "a.safetensors")], check=True)


def test_loading_throws_as_many_dice_as_building(tmp_path: Path):
    """A run of training draws on after it has loaded its beginning."""
    torch.manual_seed(0)
    save(tmp_path / "a.safetensors", SMALL, *build(SMALL), torch.float32)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    load(tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), after)
