"""Laws of the noise schedule."""

import torch

from rcod.diffusion.schedule import STEPS, add_noise, alphas, predict_clean, restore_clean


def test_alphas_are_those_of_stable_diffusion():
    table = alphas()
    assert table.shape == (STEPS,)
    assert bool((table.diff() < 0).all())
    # the constants that the method's description names
    assert abs(float(table[999]) - 0.00466) < 1e-5
    assert abs(float(table[200]) - 0.7537) < 1e-4
    assert abs(float(table[249]) - 0.6754) < 1e-4


def test_predict_clean_undoes_add_noise():
    z, eps = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 500, 999])  # early, middle, late
    z_t = add_noise(z, eps, t, alphas())
    torch.testing.assert_close(predict_clean(z_t, eps, t, alphas()), z, rtol=1e-3, atol=1e-3)


def test_formulas_of_the_clean_latent():
    z, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t, table = torch.tensor([249, 749]), alphas()
    general = restore_clean(z, eps, t, table, "general")
    torch.testing.assert_close(general, predict_clean(z, eps, t, table))
    constant = restore_clean(z, eps, t, table, "constant", step=249)
    torch.testing.assert_close(constant[0], general[0])  # its t is the constant step
    assert not torch.allclose(constant[1], general[1])
    torch.testing.assert_close(restore_clean(z, eps, t, table, "residual"), z - eps)
