"""Laws of latent domain grouping and degradation-aware sampling."""

import itertools

import pytest
import torch
from conftest import golden

from rcod.device import seeded
from rcod.diffusion.dial import realism_of_metric
from rcod.diffusion.grouping import (
    GroupSettings,
    LatentMetric,
    MetricSize,
    distill_range,
    equal_groups,
    latent_metric,
    paper_groups,
    realism_of_timestep,
    timestep_of_metric,
    timestep_of_realism,
)
from rcod.errors import RcodError
from rcod.judging.intervals import spearman
from rcod.networks.checkpoint import find_weights, load
from rcod.networks.onestep import compared
from rcod.pixels.resample import resize
from rcod.training.published_recipe import RCOD_O

RELEASED = GroupSettings()


def test_metric_is_one_for_the_same_latent_and_falls_with_damage():
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(1, 4, 8, 8, generator=rng)
    noise = torch.randn(1, 4, 8, 8, generator=rng)
    values = [float(latent_metric(z + s * noise, z)) for s in (0.0, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)


def test_edges_belong_to_the_better_group():
    metric = torch.tensor([-1.0, 0.4999, 0.5, 0.6999, 0.7, 1.0])
    assert timestep_of_metric(metric, RELEASED).tolist() == [749, 749, 499, 499, 249, 249]


def test_groups_agree_with_the_released_program():
    data = golden("ldg/div_step_and_cosine.npz")
    cos = torch.from_numpy(data["cos"])
    four = GroupSettings(edges=(0.3, 0.5, 0.7), timesteps=(999, 749, 499, 249))
    for name, groups in (("timestep_n3", RELEASED), ("timestep_n4", four)):
        assert timestep_of_metric(cos, groups).tolist() == data[name].tolist()
    measured = latent_metric(torch.from_numpy(data["x1"]), torch.from_numpy(data["x2"]))
    torch.testing.assert_close(measured, torch.from_numpy(data["cosine"]), rtol=1e-5, atol=1e-6)


def test_distill_range_holds_what_the_released_program_drew():
    data = golden("losses/rcod_o_time_step_group.npz")
    low, high = distill_range(torch.tensor([249, 499, 749, 999]), "released")
    assert (torch.from_numpy(data["observed_min"]) - low).abs().max() <= 1
    assert (high - 1 - torch.from_numpy(data["observed_max"])).abs().max() <= 2
    asked = torch.from_numpy(data["model_gen_timesteps"])
    spans = torch.stack(distill_range(asked, "released"), dim=1).tolist()
    rng = torch.Generator().manual_seed(int(data["torch_seed"]))
    drawn = [int(torch.randint(a, b, (1,), generator=rng)) for a, b in spans]
    assert drawn == data["timesteps"].tolist()
    assert set(data["cfg"].tolist()) == {RCOD_O.guidance}


def test_paper_groups_are_equation_5():
    groups = paper_groups(0.2, 0.8)
    for m in (0.2, 0.3, 0.41, 0.55, 0.61, 0.79):
        want = 250 * (3 - int(3 * (m - 0.2) / 0.6))
        assert int(timestep_of_metric(torch.tensor([m]), groups)) == want
    assert int(timestep_of_metric(torch.tensor([0.8]), groups)) == 250  # M = Mmax
    assert paper_groups(0, 1, n=4).timesteps == (999, 750, 500, 250)


def test_the_dial_moves_the_timestep_continuously():
    assert [timestep_of_realism(r, RELEASED) for r in (0, 0.5, 1)] == [249, 499, 749]
    steps = [timestep_of_realism(i / 100, RELEASED) for i in range(101)]
    assert steps == sorted(steps)
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 5
    for t in steps:
        assert timestep_of_realism(realism_of_timestep(t, RELEASED), RELEASED) == t


def test_distill_ranges():
    t = torch.tensor([249, 499, 748, 749, 999])
    low, high = distill_range(t, "paper")
    assert low.tolist() == [20, 249, 498, 499, 749]
    assert high.tolist() == [499, 749, 980, 980, 980]
    low, high = distill_range(t, "released")
    assert low.tolist() == [20, 20, 20, 200, 200]
    assert set(high.tolist()) == {980}
    assert {tuple(x.tolist()) for x in distill_range(t, "off")} == {(20,) * 5, (980,) * 5}


def test_errors_say_what_to_do():
    with pytest.raises(RcodError, match="realism must lie in \\[0, 1\\], got nan"):
        timestep_of_realism(float("nan"), RELEASED)
    with pytest.raises(RcodError, match="got NaN"):
        timestep_of_metric(torch.tensor([float("nan")]), RELEASED)
    with pytest.raises(ValueError, match="give one timestep per group"):
        GroupSettings(edges=(0.5,), timesteps=(1, 2, 3))
    with pytest.raises(ValueError, match="edges must rise"):
        GroupSettings(edges=(0.7, 0.5))
    with pytest.raises(ValueError, match="timesteps must fall"):
        GroupSettings(timesteps=(499, 499, 249))


def test_a_single_timestep_is_a_dial_that_does_not_turn():
    groups = GroupSettings(edges=(), timesteps=(999,))
    assert {timestep_of_realism(place, groups) for place in (0.0, 0.3, 1.0)} == {999}
    assert realism_of_timestep(999, groups) == 0
    assert timestep_of_metric(torch.tensor([0.1, 0.9]), groups).tolist() == [999, 999]
    assert realism_of_metric(torch.tensor([[0.1, 0.9]]), groups).tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", ["cosine", "l1", "mse"])
def test_every_latent_metric_falls_with_damage_and_parts_it_evenly(kind: LatentMetric):
    z = torch.randn(60, 4, 8, 8, generator=seeded(0))
    damage = torch.linspace(0.1, 3, 60).view(-1, 1, 1, 1)
    metric = latent_metric(z + damage * torch.randn(z.shape, generator=seeded(1)), z, kind)
    assert spearman(metric.tolist(), damage.flatten().tolist()) < -0.95
    timesteps = timestep_of_metric(metric, equal_groups(metric, 4)).tolist()
    assert [timesteps.count(t) for t in (999, 750, 500, 250)] == [15, 15, 15, 15]


def test_reduced_photos_differ_by_damage_alone():
    """A clean small photo is no worse for what its truth had besides; enlarged, it looks so."""
    encode = load(find_weights("tiny"))[1].backbone.encode
    coarse = torch.rand(4, 3, 16, 16, generator=seeded(0))
    hr = resize(coarse, (128, 128)).clamp(0, 1)
    hr = (hr + 0.1 * torch.randn(hr.shape, generator=seeded(1))).clamp(0, 1)  # all that is lost
    lr = resize(hr, (32, 32)).clamp(0, 1)
    damaged = (lr + 0.05 * torch.randn(lr.shape, generator=seeded(2))).clamp(0, 1)

    def measured(lr: torch.Tensor, at: MetricSize) -> torch.Tensor:
        with torch.no_grad():
            return latent_metric(*compared(encode, lr, hr, at))

    torch.testing.assert_close(measured(lr, "reduced"), torch.ones(4))
    assert bool((measured(lr, "enlarged") < 0.7).all())
    for at in ("reduced", "enlarged"):
        assert bool((measured(damaged, at) < measured(lr, at)).all())
