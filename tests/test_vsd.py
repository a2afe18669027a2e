"""Laws of distillation, on networks whose answer is known."""

import torch
from torch import Tensor

from rcod.diffusion.schedule import alphas
from rcod.training.vsd import critic_loss, distill, draw_timesteps


def pulls_to(goal: Tensor):
    """A denoiser that always answers with the clean latent `goal`."""

    def predict(z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        alpha = alphas()[t].view(-1, 1, 1, 1)
        return (z_t - alpha.sqrt() * goal) / (1 - alpha).sqrt()

    return predict


def latents() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    a, b, noise = torch.randn(3, 2, 4, 8, 8, generator=rng)
    return a, b, noise


def test_the_gradient_leads_from_the_critic_to_the_teacher():
    goal, mine, noise = latents()
    z_sr = mine.clone().requires_grad_()
    t = torch.tensor([300, 600])
    loss = distill(z_sr, torch.zeros(2, 1, 4), t, (pulls_to(goal), pulls_to(mine)), noise, alphas())
    (grad,) = torch.autograd.grad(loss.sum(), z_sr)
    size = (mine - goal).abs().flatten(1).mean(dim=1).view(-1, 1, 1, 1)
    want = (mine - goal) / size / grad[0].numel()
    torch.testing.assert_close(grad, want, rtol=1e-3, atol=1e-5)


def test_no_pull_where_critic_and_teacher_agree():
    goal, mine, noise = latents()
    z_sr = mine.clone().requires_grad_()
    both = (pulls_to(goal), pulls_to(goal))
    loss = distill(z_sr, torch.zeros(2, 1, 4), torch.tensor([300, 600]), both, noise, alphas())
    assert float(loss.detach().max()) == 0


def test_the_critic_is_right_about_its_own_results_and_teaches_the_student_nothing():
    _, mine, noise = latents()
    z_sr = mine.clone().requires_grad_()
    loss = critic_loss(
        z_sr, torch.zeros(2, 1, 4), torch.tensor([300, 600]), pulls_to(mine), noise, alphas()
    )
    assert float(loss.detach()) < 1e-6
    assert not loss.requires_grad


def test_timesteps_stay_in_their_range():
    rng = torch.Generator().manual_seed(0)
    low, high = torch.full((500,), 20), torch.full((500,), 23)
    assert set(draw_timesteps(low, high, rng).tolist()) == {20, 21, 22}
