"""Laws of the weights along the dial."""

import torch

from rcod.training.losses import BLOCK, TIMES, draw_share, pixel, sharpened, weave, weight_of


def test_weights_run_straight_between_the_ends():
    realism = torch.tensor([0.0, 0.5, 1.0])
    assert weight_of((0.2, 1.0), realism).tolist() == torch.tensor([0.2, 0.6, 1.0]).tolist()


def test_pixel_is_nearly_l1_and_apart_for_each_sample():
    a = torch.zeros(2, 3, 4, 4)
    b = a.clone()
    b[1] += 0.5
    distance = pixel(a, b)
    assert float(distance[0]) < 2e-3
    assert abs(float(distance[1]) - 0.5) < 1e-3


def test_a_weave_is_what_every_block_of_pixels_repeats():
    side = BLOCK * TIMES
    hr = torch.rand(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(0))
    places = torch.arange(side)[:, None] + torch.arange(2 * side)
    sr = hr + 0.1  # a colour is none
    sr[1] += 0.02 * (-1.0) ** places
    torch.testing.assert_close(weave(sr, hr), torch.tensor([0.0, 0.02]), rtol=1e-4, atol=1e-6)
    sr[1] = hr[1] + 0.02 * (-1.0) ** (places // BLOCK)  # now above, now below nothing
    torch.testing.assert_close(weave(sr, hr), torch.zeros(2), rtol=0, atol=1e-6)


def test_sharpening_adds_what_a_blur_takes_and_leaves_flat_pictures_and_no_amount_alone():
    hr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    none, half, whole = (sharpened(hr, torch.tensor([0.0, k]))[1] for k in (0.0, 0.1, 0.2))
    torch.testing.assert_close(none, hr[1])
    torch.testing.assert_close(whole - none, 2 * (half - none), rtol=1e-4, atol=1e-5)
    assert float((whole - whole.mean()).square().mean()) > float(hr[1].var(correction=0))
    blurred, mean = (sharpened(hr, torch.full((2,), -k)) for k in (1.0, 0.5))
    torch.testing.assert_close(mean, (hr + blurred) / 2)  # less than nothing softens
    assert float(blurred.diff().square().mean()) < 0.1 * float(hr.diff().square().mean())
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(sharpened(flat, torch.ones(1)), flat)


def test_a_share_estimates_the_whole_without_bias():
    rng = torch.Generator().manual_seed(0)
    weights, loss = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([9.0, 1.0, 3.0, 2.0])
    total = 0.0
    for _ in range(4000):
        some, factor = draw_share(weights, 0.5, rng)
        assert 0 not in some.tolist()  # nothing weighs nothing
        total += float(factor * loss[some].mean())
    assert abs(total / 4000 - float((weights * loss).mean())) < 0.05
