"""Facts about how good photos become bad ones."""

import json

import numpy as np
import pytest
import torch
from conftest import golden
from pydantic import ValidationError
from torch import Tensor

from rcod.errors import RcodError
from rcod.training.degradation import (
    DegradeSettings,
    Mode,
    Round,
    _draw_scale,
    degrade,
    gaussian_noise,
    jpeg,
    poisson_noise,
    resize,
)
from rcod.training.kernels import KernelSettings, _draw_beta, blur
from rcod.training.presets import SETTINGS

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo(height: int = 64, width: int = 96) -> Tensor:
    """A smooth picture with one hard edge."""
    y = torch.linspace(0, 3, height)[:, None]
    x = torch.linspace(0, 5, width)[None, :]
    planes = [(torch.sin(x * k + y) + 1) / 2 for k in (1, 2, 3)]
    picture = torch.stack(planes)
    picture[:, height // 3 :, width // 2 :] *= 0.5
    return picture


def quiet(**changes: object) -> DegradeSettings:
    """One round with every stage off but those changed."""
    off = {"blur": 0, "resize": (0, 0, 1), "modes": ("area",), "noise": 0, "jpeg": 0}
    first = Round.model_validate(off | changes)
    return DegradeSettings(first=first, second=None, final_sinc=0)


def test_jpeg_equals_the_original():
    known = golden("degradation/ops.npz")
    x, wide = torch.from_numpy(known["x"]), torch.from_numpy(known["x_80x96"])
    quality = torch.from_numpy(known["jpeg_quality"])
    np.testing.assert_allclose(jpeg(x, quality), known["jpeg"], atol=1e-5)
    np.testing.assert_allclose(jpeg(x, torch.full((3,), 50.0)), known["jpeg_q50"], atol=1e-5)
    np.testing.assert_allclose(jpeg(wide, torch.tensor([75.0])), known["jpeg_q75_80x96"], atol=1e-5)


def test_jpegs_steps_follow_the_quality_as_the_originals():
    known = golden("degradation/ops.npz")
    gray = torch.arange(0.3719, 255)  # flat pictures: the first coefficient alone, steps of 16
    flat = (gray / 255).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    both = zip(known["quality_to_factor_q"], known["quality_to_factor"], strict=True)
    for quality, factor in both:
        step = 2 * max(float(factor), 1e-6)
        wanted = (((gray - 128) / step).round() * step + 128).clamp(0, 255)
        found = 255 * jpeg(flat, torch.full((len(flat),), float(quality)))[:, 0, 0, 0]
        np.testing.assert_allclose(found, wanted, atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_resize_equals_the_original(mode: Mode):
    known = golden("degradation/ops.npz")
    x = torch.from_numpy(known["x"])[0]
    np.testing.assert_allclose(resize(x, 0.63, mode), known[f"resize_{mode}_0.63"][0], atol=1e-6)
    by_size = known[f"resize_{mode}_size_33x71"][0]
    np.testing.assert_allclose(resize(x, (33, 71), mode), by_size, atol=1e-6)


def test_gaussian_noise_equals_the_original():
    known = golden("degradation/noise.npz")
    x, sigma = torch.from_numpy(known["x"]), known["gauss_sigma"]
    first = gaussian_noise(x[0], 255, True, seeded(int(known["torch_seed_gauss"])))
    np.testing.assert_array_equal(first[0], known["torch_randn_first"])
    rng = seeded(int(known["torch_seed_gauss"]))
    gray = gaussian_noise(x[1], sigma[1], True, rng)  # drawn first, and for the whole batch
    colour = [gaussian_noise(image, s, False, rng) for image, s in zip(x, sigma, strict=True)]
    for i, ours in enumerate((colour[0], gray.expand(3, -1, -1), colour[2])):
        np.testing.assert_allclose(ours, known["gauss_noise"][i], atol=1e-7)
        noised = (x[i] + ours).clamp(0, 1)
        np.testing.assert_allclose(noised, known["gauss_noised"][i], atol=1e-6)


def test_gaussian_noise_of_drawn_strength_equals_the_original():
    known = golden("degradation/noise.npz")
    x, sigma = torch.from_numpy(known["x"]), known["random_gauss_sigma_draw"]
    first = int(known["torch_seed_gauss"])  # this seed is not stored; it is one of the next
    dice = [seeded(seed) for seed in range(first, first + 9)]
    drawn = [1 + 29 * torch.rand(3, generator=rng) for rng in dice]
    rng = dice[[np.allclose(one, sigma, rtol=1e-6) for one in drawn].index(True)]
    torch.rand(3, generator=rng)  # which are gray
    plain = gaussian_noise(x[0], 255, True, rng)
    for i, gray in enumerate(known["random_gauss_gray_draw"]):
        colour = gaussian_noise(x[i], sigma[i], False, rng)
        noised = x[i] + (plain * sigma[i] / 255 if gray else colour)
        np.testing.assert_allclose(noised.clamp(0, 1), known["random_gauss_noised"][i], atol=1e-6)


def test_poisson_noise_equals_the_original():
    known = golden("degradation/noise.npz")
    x, scales = torch.from_numpy(known["x"]), known["poisson_scale"]
    rng = seeded(int(known["torch_seed_poisson"]))
    both = [
        [poisson_noise(image, s, gray, rng) for image, s in zip(x, scales, strict=True)]
        for gray in (True, False)  # the original draws both for the whole batch, gray first
    ]
    for i, ours in enumerate((both[1][0], both[0][1].expand(3, -1, -1), both[1][2])):
        np.testing.assert_allclose(ours, known["poisson_noise"][i], atol=1e-6)
        noised = (x[i] + ours).clamp(0, 1)
        np.testing.assert_allclose(noised, known["poisson_noised"][i], atol=2e-6)


@pytest.mark.parametrize("run", [1, 2, 3, 4])
def test_every_stage_of_a_run_equals_the_original(run: int):
    known = golden(f"degradation/pipeline_{run}.npz")
    x, hr = torch.from_numpy(known["hr_augmented"])[0], torch.from_numpy(known["hr_uint8"])
    plain = hr.movedim(-1, 0) / 255
    assert any(torch.allclose(x, one) for one in (plain, plain.flip(-1)))
    for i, (name, given) in enumerate(json.loads(str(known["stages"]))):
        arrays = {
            key: torch.from_numpy(known[value.removeprefix("array ")])
            for key, value in given.items()
            if str(value).startswith("array ")
        }
        if name == "filter2D":
            ours = blur(x, arrays["kernel"])
        elif name == "interpolate":
            size = given.get("size")
            ours = resize(x, tuple(size) if size else given["scale_factor"], given["mode"])
        elif name == "jpeg":
            factor = arrays["quality"]  # the original stores what it made of the quality
            quality = torch.where(factor > 1, 50 / factor, 100 - 50 * factor)
            ours = jpeg(x[None], quality)[0]
        else:
            ours = (x + arrays["noise"][0]).clamp(0, 1)
        x = torch.from_numpy(known[f"out{i:02d}"])[0]  # the next stage starts from the original
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-5, msg=f"stage {i}, {name}")
    lq = (255 * x).round().clamp(0, 255) / 255  # what the network is given
    np.testing.assert_allclose(lq, known["lq"].reshape(lq.shape), atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_same_seed_same_bytes_on_the_8_bit_grid(name: str):
    hr = photo()
    before = hr.clone()
    lrs = [degrade(hr, SETTINGS[name], seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(lrs[0], lrs[1]) and not torch.equal(lrs[0], lrs[2])
    assert torch.equal(hr, before)  # the argument is never written to
    for lr in lrs:
        assert lr.shape == (3, 16, 24) and lr.dtype == torch.float32
        assert lr.isfinite().all() and lr.min() >= 0 and lr.max() <= 1
        torch.testing.assert_close((lr * 255).round() / 255, lr, rtol=0, atol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_draw_survives_the_smallest_photo(name: str):
    for seed in range(25):
        lr = degrade(photo(32, 32), SETTINGS[name], seeded(seed))
        assert lr.shape == (3, 8, 8) and lr.isfinite().all()


@pytest.mark.parametrize("name", SETTINGS)
def test_presets_are_valid_and_survive_saving(name: str):
    settings = SETTINGS[name]
    assert DegradeSettings.model_validate_json(settings.model_dump_json()) == settings


def test_with_everything_off_only_the_size_changes():
    hr = photo()
    lr = degrade(hr, quiet(), seeded(0))
    means = hr.unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))  # (3, H / 4, W / 4)
    torch.testing.assert_close(lr, means, rtol=0, atol=0.5 / 255 + 1e-6)


def test_each_stage_alone_changes_the_result():
    clean = degrade(photo(), quiet(), seeded(0))
    for change in ({"blur": 1}, {"noise": 1}, {"unsharp": 1}, {"jpeg": 1}, {"resize": (0, 1, 0)}):
        assert not torch.equal(degrade(photo(), quiet(**change), seeded(0)), clean), change


def test_sharpening_leaves_flat_places_and_means_and_steepens_edges():
    sharp = quiet(unsharp=1, amount=(1, 1))
    flat = torch.full((3, 64, 64), 0.5)
    assert torch.equal(degrade(flat, sharp, seeded(0)), degrade(flat, quiet(), seeded(0)))
    edge = flat.clone()
    edge[..., :32] = 0.25
    plain, sharpened = (degrade(edge, settings, seeded(0)) for settings in (quiet(), sharp))
    assert sharpened.amax() > plain.amax() + 0.03 and sharpened.amin() < plain.amin() - 0.03
    assert abs(float(sharpened.mean() - plain.mean())) < 0.5 / 255


def test_heavy_damages_more_than_mild_and_mild_more_than_a_camera():
    hr = photo()
    clean = degrade(hr, quiet(), seeded(0))
    damage = {
        name: sum(
            float((degrade(hr, settings, seeded(seed)) - clean).square().mean())
            for seed in range(20)
        )
        for name, settings in SETTINGS.items()
    }
    assert damage["osediff"] > damage["seesr"] > damage["camera"]


def test_noise_has_the_strength_and_the_channels_asked_for():
    gray = torch.full((3, 64, 64), 0.5)
    colour = gaussian_noise(gray, 10, False, seeded(0))
    assert colour.shape == (3, 64, 64) and abs(float(colour.std()) * 255 - 10) < 0.3
    assert gaussian_noise(gray, 10, True, seeded(0)).shape == (1, 64, 64)
    assert poisson_noise(gray, 1, True, seeded(0)).shape == (1, 64, 64)


def test_poisson_noise_counts_less_light_in_a_picture_of_fewer_levels():
    flat = torch.full((3, 64, 64), 0.5)
    full = flat.clone()
    full[0] = torch.linspace(0, 1, 4096).view(64, 64)  # all 256 levels
    few, many = (poisson_noise(x, 1, False, seeded(0))[1:] for x in (flat, full))
    assert abs(float(few.var()) - 128 / 255) < 0.05  # one level, so light counts to 1
    assert abs(float(many.var()) - 128 / 255 / 256) < 0.0002


def test_jpeg_loses_less_at_higher_quality_and_nearly_nothing_of_gray():
    x = photo()[None]
    losses = [float((jpeg(x, torch.tensor([q])) - x).abs().mean()) for q in (10.0, 50.0, 95.0)]
    assert losses[0] > losses[1] > losses[2]
    gray = torch.full((1, 3, 20, 20), 0.5)
    best = jpeg(gray, torch.tensor([100.0]))
    torch.testing.assert_close(best[..., :16, :16], gray[..., :16, :16], rtol=0, atol=1e-4)


def test_no_stage_computes_elsewhere_than_its_image_lies():
    x = torch.empty(3, 64, 96, device="meta")  # beside which a tensor of the processor is an error
    stages = [
        jpeg(x[None], x.new_tensor([50.0]))[0],
        blur(x, torch.full((7, 7), 1 / 49)),
        resize(x, (64, 96), "bicubic"),
    ]
    assert [(y.device.type, y.shape) for y in stages] == [("meta", x.shape)] * 3


def test_jpeg_treats_each_image_by_its_own_quality():
    x = torch.stack([photo(), photo().flip(-1)])
    both = jpeg(x, torch.tensor([30.0, 90.0]))
    alone = jpeg(x[1:], torch.tensor([90.0]))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 66, 64), (3, 28, 64), (1, 64, 64), (1, 3, 64, 64), (64,)])
def test_a_photo_that_does_not_fit_is_refused(shape: tuple[int, ...]):
    with pytest.raises(RcodError, match=r"hr must be \(3, H, W\).*multiples of 4, got.*crop it"):
        degrade(torch.zeros(shape), SETTINGS["camera"], seeded(0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"quality": (95, 30)}, "goes from low to high, got 95.0 to 30.0; swap the two"),
        ({"quality": (0, 30)}, "greater than or equal to 1"),
        ({"scale": (0, 1)}, "greater than or equal to 0.05"),
        ({"noise": 2}, "less than or equal to 1"),
        ({"modes": ("lanczos",)}, "'area', 'bilinear' or 'bicubic'"),
        ({"modes": ()}, "at least 1 item"),
        ({"sigma": (1, float("inf"))}, "finite number"),
        ({"sharpen": 1}, "Extra inputs are not permitted"),
        ({"kernel": {"sizes": (4, 8)}}, "kernel sizes must be odd"),
    ],
)
def test_wrong_settings_say_what_must_hold(wrong: dict[str, object], words: str):
    with pytest.raises(ValidationError) as error:
        Round.model_validate(wrong)
    assert words in str(error.value)


def test_presets_hold_the_published_numbers():
    heavy, mild, narrow = (SETTINGS[name] for name in ("osediff", "seesr", "s3diff"))
    assert heavy.second and mild.second and narrow.second
    assert (heavy.first.scale, mild.first.scale) == ((0.15, 1.5), (0.3, 1.5))
    assert (heavy.second.quality, mild.second.quality) == ((30, 95), (60, 100))
    assert narrow.first == mild.first.model_copy(update={"kernel": narrow.first.kernel})
    assert narrow.second.kernel == KernelSettings(
        sigma=(0.2, 1.0), generalized_beta=(0.5, 2), plateau_beta=(1, 1.5)
    )
    assert SETTINGS["camera"].second is None


def test_draws_stay_in_a_range_that_has_no_1():
    rng = torch.Generator().manual_seed(0)
    smaller, larger = Round(scale=(0.25, 0.5)), Round(scale=(2, 3))
    assert all(0.25 <= _draw_scale(smaller, rng) <= 0.5 for _ in range(200))
    assert all(2 <= _draw_scale(larger, rng) <= 3 for _ in range(200))
    assert all(2 <= _draw_beta((2, 4), rng) <= 4 for _ in range(200))
