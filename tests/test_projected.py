"""Laws of an adversary that sees with a frozen transformer."""

from pathlib import Path

import pytest
import torch

from rcod.errors import RcodError
from rcod.training.projected import load_dino

pytest.importorskip("transformers", reason="not checked here: pip install 'rcod[sd]'")
CPU = torch.device("cpu")


def test_heads_learn_and_what_sees_does_not(tmp_path: Path):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    config = ViTConfig(**sizes, num_hidden_layers=4, patch_size=56, image_size=224)  # pyright: ignore
    torch.manual_seed(0)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "dino")
    heads = load_dino(tmp_path / "dino", CPU)
    picture = torch.rand(2, 3, 64, 64, requires_grad=True)
    logits = heads(picture)
    assert logits.shape == (2, 4 * 16)  # four layers of 4 x 4 places
    logits.sum().backward()
    assert picture.grad is not None and float(picture.grad.abs().sum()) > 0
    names = {name.split(".")[0] for name, _ in heads.named_parameters()}
    assert names == {"heads"}


def test_missing_weights_are_named(tmp_path: Path):
    (tmp_path / "dino").mkdir()
    with pytest.raises(RcodError, match=r"sees with DINO, which is neither in .*set judge=patch"):
        load_dino(tmp_path / "dino", CPU)
