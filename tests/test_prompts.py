"""Laws of visual prompt injection."""

import torch

from rcod.networks.prompts import TinyTower, VisualPrompt


def test_any_size_gives_the_same_number_of_tokens():
    torch.manual_seed(0)
    prompt = VisualPrompt(TinyTower(16), 16, 24)
    for size in ((64, 64), (300, 1000), (1, 1)):
        assert prompt(torch.rand(1, 3, *size)).shape == (1, 49, 24)


def test_tokens_are_of_each_picture_alone():
    torch.manual_seed(0)
    prompt = VisualPrompt(TinyTower(16), 16, 24)
    pictures = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(prompt(pictures)[1:], prompt(pictures[1:]), rtol=1e-4, atol=1e-5)
