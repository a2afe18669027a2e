"""Laws of LPIPS."""

import torch

from rcod.pixels.likeness import ALEX, Lpips

SIDES, WIDTHS = (11, 5, 3, 3, 3), (3, 64, 192, 384, 256, 256)


def test_a_loss_in_training_is_the_measure_of_the_result():
    """Under autocast as without it."""
    rng, trunk = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    for (layer, *_), side, width, before in zip(ALEX, SIDES, WIDTHS[1:], WIDTHS, strict=False):
        weight = torch.randn(width, before, side, side, generator=rng)
        trunk[f"features.{layer}.weight"] = weight / (before * side**2) ** 0.5
        trunk[f"features.{layer}.bias"] = torch.zeros(width)
    measure = Lpips("alex", trunk, tuple(torch.ones(width) for width in WIDTHS[1:]))
    sr, hr = torch.rand(2, 1, 3, 64, 64, generator=rng)
    wanted = measure(sr, hr)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(measure(sr, hr), wanted)
