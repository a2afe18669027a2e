"""Facts about blur kernels."""

import random
import re
from math import pi

import numpy as np
import pytest
import torch
from conftest import golden
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from rcod.training.kernels import (
    KernelSettings,
    blur,
    choose,
    draw,
    draw_size,
    gaussian,
    generalized,
    plateau,
    sinc,
    uniform,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slide(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter by definition: slide the kernel over a reflected image."""
    reach = kernel.shape[-1] // 2
    return F.conv2d(F.pad(x[:, None], (reach,) * 4, mode="reflect"), kernel[None, None])[:, 0]


def test_bells_equal_the_original():
    known = golden("degradation/kernels.npz")
    for i, kind in enumerate(known["kind"]):
        size = int(known["size"][i])
        x, y, theta, beta = (known[n][i] for n in ("sigma_x", "sigma_y", "theta", "beta"))
        if kind == "gaussian":
            ours = gaussian(size, x, y, theta)
        elif kind == "generalized":
            ours = generalized(size, x, y, theta, beta)
        else:
            ours = plateau(size, x, y, theta, beta)
        np.testing.assert_allclose(ours, known[f"k{i:03d}"], atol=1e-7)


def test_drawn_kernels_equal_the_original_when_drawn_as_it_draws():
    """Its draws in its order, our kernels: kind, size along x, along y, turn, and form."""
    known = golden("degradation/random_mixed_kernels.npz")
    for seed, size, kind in zip(known["seeds"], known["sizes"], known["kinds"], strict=True):
        chance, numbers = random.Random(int(seed)), np.random.RandomState(int(seed))
        names, shares = known["kernel_list"].tolist(), known["kernel_prob"].tolist()
        assert chance.choices(names, shares)[0] == kind
        x = numbers.uniform(0.2, 3)
        is_round = kind == "iso" or kind.endswith("_iso")
        y, theta = (x, 0.0) if is_round else (numbers.uniform(0.2, 3), numbers.uniform(-pi, pi))
        if kind in ("iso", "aniso"):
            ours = gaussian(int(size), x, y, theta)
        else:
            low, high = (0.5, 4) if kind.startswith("generalized") else (1, 2)
            beta = numbers.uniform(low, 1) if numbers.uniform() < 0.5 else numbers.uniform(1, high)
            shape = generalized if kind.startswith("generalized") else plateau
            ours = shape(int(size), x, y, theta, beta)
        np.testing.assert_allclose(ours, known[f"mixed_seed{seed}"], atol=1e-7)


def test_sinc_equals_the_original():
    known = golden("degradation/kernels.npz")
    for i, omega in enumerate(known["sinc_omega"]):
        size, full = int(known["sinc_size"][i]), known[f"sinc{i:02d}"]
        margin = (len(full) - size) // 2  # some are padded with zeros
        np.testing.assert_allclose(np.pad(sinc(size, omega), margin), full, atol=5e-7)


def test_blur_equals_the_original():
    known = golden("degradation/ops.npz")
    x, kernels = torch.from_numpy(known["x"]), torch.from_numpy(known["kernels"])
    for i in range(len(x)):
        np.testing.assert_allclose(
            blur(x[i], kernels[i]), known["filter2D_per_sample"][i], atol=2e-6
        )
        np.testing.assert_allclose(blur(x[i], kernels[0]), known["filter2D_shared"][i], atol=2e-6)
    rings = golden("degradation/kernels.npz")  # the low-pass is one of these, which is not stored
    low = [torch.from_numpy(rings[key]).float() for key in rings if re.fullmatch(r"sinc\d+", key)]
    wanted = torch.from_numpy(known["filter2D_sinc"])[0]
    assert min(float((blur(x[0], one) - wanted).abs().max()) for one in low) < 2e-6


@pytest.mark.parametrize("size", [1, 7, 21])
def test_blur_is_a_sliding_kernel(size: int):
    x = torch.rand(3, 31, 44, generator=seeded(0))
    kernel = torch.rand(size, size, generator=seeded(1))  # no symmetry
    torch.testing.assert_close(
        blur(x, kernel / kernel.sum()), slide(x, kernel / kernel.sum()), rtol=0, atol=2e-6
    )


def test_blur_keeps_a_flat_image_however_small():
    for side in (1, 4, 40):
        x = torch.full((3, side, side), 0.25)
        torch.testing.assert_close(blur(x, plateau(21, 2, 1, 0.3, 1.5)), x)


def test_generalized_with_beta_one_is_gaussian():
    torch.testing.assert_close(generalized(15, 2, 1, 0.7, beta=1), gaussian(15, 2, 1, 0.7))


def test_turning_by_a_quarter_swaps_the_axes():
    torch.testing.assert_close(gaussian(15, 2, 1, pi / 2), gaussian(15, 1, 2, 0))


def test_drawn_kernels_sum_to_one_within_the_sizes():
    rng, settings = seeded(3), KernelSettings(sinc=0.3)
    kernels = [draw(settings, rng) for _ in range(200)]
    assert {len(kernel) for kernel in kernels} == {7, 9, 11, 13, 15, 17, 19, 21}
    for kernel in kernels:
        assert kernel.dtype == torch.float32 and kernel.shape == (len(kernel), len(kernel))
        torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
    assert 30 < sum(bool((kernel < 0).any()) for kernel in kernels) < 90  # sinc has negative rings


def test_the_share_decides_the_kind():
    only_iso = KernelSettings(shares={"iso": 1}, sinc=0)
    for seed in range(20):
        kernel = draw(only_iso, seeded(seed))
        torch.testing.assert_close(kernel, kernel.T)
        torch.testing.assert_close(kernel, kernel.flip(0))


def test_same_seed_same_kernel():
    ours, again = (draw(KernelSettings(), seeded(5)) for _ in range(2))
    assert torch.equal(ours, again)
    assert not torch.equal(uniform_pair(5), uniform_pair(6))


def uniform_pair(seed: int) -> Tensor:
    rng = seeded(seed)
    return torch.tensor([uniform((0, 1), rng) for _ in range(2)])


def test_choose_follows_the_weights():
    rng = seeded(7)
    drawn = [choose([0.0, 3.0, 1.0], rng) for _ in range(400)]
    assert 0 not in drawn and 260 < drawn.count(1) < 340


def test_draw_size_can_be_a_single_one():
    assert draw_size((21, 21), seeded(0)) == 21


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sizes": (7, 20)}, "must be odd and rise from 1, got 7 to 20"),
        ({"sizes": (9, 7)}, "got 9 to 7; give for example 7 to 21"),
        ({"sigma": (3, 1)}, "goes from low to high, got 3.0 to 1.0; swap the two"),
        ({"sigma": (0, 1)}, "sigma must be positive, got 0.0; start at 0.2 or above"),
        ({"sigma": (1, float("inf"))}, "finite number"),
        ({"shares": {}}, "not be negative nor all zero, got {}"),
        ({"shares": {"iso": -1}}, "not be negative nor all zero"),
        ({"sinc": 1.5}, "less than or equal to 1"),
        ({"beta": (1, 2)}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_say_what_must_hold(wrong: dict[str, object], words: str):
    with pytest.raises(ValidationError) as error:
        KernelSettings.model_validate(wrong)
    assert words in str(error.value)
