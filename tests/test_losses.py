"""Laws of the weights along the dial."""

import torch

from rcod.training.losses import draw_share, pixel, weight_of


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


def test_a_share_estimates_the_whole_without_bias():
    rng = torch.Generator().manual_seed(0)
    weights, loss = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([9.0, 1.0, 3.0, 2.0])
    total = 0.0
    for _ in range(4000):
        some, factor = draw_share(weights, 0.5, rng)
        assert 0 not in some.tolist()  # nothing weighs nothing
        total += float(factor * loss[some].mean())
    assert abs(total / 4000 - float((weights * loss).mean())) < 0.05
