from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rcod.pixels.color import FLOOR, match_adain, match_wavelet

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "color" / "color_fix.npz"


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    if not GOLDEN.exists():
        pytest.skip("the original programs' colour fixes (../shared/golden/color) are not here")
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def picture(array: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("way", "match"), [("wavelet", match_wavelet), ("adain", match_adain)])
def test_equals_the_original_programs(golden, way, match):
    cases = [name.removeprefix("content_uint8_") for name in golden if "content_uint8" in name]
    assert len(cases) >= 3
    for case in cases:
        sr, up = picture(golden[f"content_uint8_{case}"]), picture(golden[f"style_uint8_{case}"])
        matched = match(sr, up)
        expected = torch.from_numpy(golden[f"{way}_float_{case}"]).clamp(0, 1)
        torch.testing.assert_close(matched, expected, rtol=0, atol=2e-5)
        cut = (matched[0].permute(1, 2, 0) * 255).byte().numpy()  # truncated, as upstream
        off = np.abs(cut.astype(int) - golden[f"{way}_uint8_{case}"])
        assert off.max() <= 1 and (off > 0).mean() < 0.001


def test_flat_pictures_and_statistics_equal_the_original_programs(golden):
    for case in ("0", "1", "2"):
        up = picture(golden[f"style_uint8_{case}"])
        mean, std = torch.from_numpy(golden[f"style_mean_{case}"]), golden[f"style_std_{case}"]
        spread = (up.var((2, 3), keepdim=True) + FLOOR).sqrt()
        torch.testing.assert_close(up.mean((2, 3), keepdim=True), mean, rtol=0, atol=2e-6)
        torch.testing.assert_close(spread, torch.from_numpy(std), rtol=0, atol=2e-6)
        low = match_wavelet(torch.full_like(up, 0.5), up)  # what is flat takes all low halves
        wanted = torch.from_numpy(golden[f"style_low_{case}"])
        torch.testing.assert_close(low, wanted.clamp(0, 1), rtol=0, atol=2e-5)
        high = torch.from_numpy(golden[f"style_high_{case}"])
        torch.testing.assert_close(up - low, high, rtol=0, atol=2e-5)
    content, style = (picture(golden[f"{role}_uint8_2"]) for role in ("content", "style"))
    flat = match_adain(torch.full((1, 3, 8, 8), 0.3), style)
    wanted = torch.from_numpy(golden["adain_flat_content"])
    torch.testing.assert_close(flat, wanted, rtol=0, atol=2e-5)
    onto = match_adain(content, torch.full_like(content, 0.4))
    wanted = torch.from_numpy(golden["adain_flat_style"])
    torch.testing.assert_close(onto, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("match", [match_wavelet, match_adain])
def test_a_picture_matched_to_itself_stays_and_arguments_are_kept(match):
    x = torch.rand(2, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    torch.testing.assert_close(match(x, x), x, rtol=0, atol=1e-6)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("match", [match_wavelet, match_adain])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_a_constant_shift_is_undone_at_any_size(match, size):
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    torch.testing.assert_close(match(x + 0.1, x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("match", [match_wavelet, match_adain])
def test_the_result_lies_in_zero_to_one(match):
    rng = torch.Generator().manual_seed(0)
    sr, up = (torch.rand(2, 1, 3, 40, 40, generator=rng) > 0.5).float()
    matched = match(sr, up * 0.2)
    assert matched.min() >= 0 and matched.max() <= 1
