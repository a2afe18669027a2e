"""Losses and training forwards of the original programs, number by number."""

import numpy as np
import pytest
import torch
from conftest import SHARED, golden
from safetensors.torch import load_file
from test_golden_systems import GOLDEN, loaded
from torch import Tensor

from rcod.diffusion.grouping import GroupSettings, latent_metric, timestep_of_metric
from rcod.diffusion.schedule import add_noise, alphas, predict_clean
from rcod.networks.lora import Factors, attach_factors
from rcod.networks.stable import StableBackbone, empty_network, fill_network, read_config
from rcod.training.vsd import critic_loss, distill

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")

LOSSES = sorted(path.name for path in (GOLDEN / "losses").glob("*.npz")) or ["none.npz"]
GUIDANCE = 7.5
FOUR = GroupSettings(edges=(0.3, 0.5, 0.7), timesteps=(999, 749, 499, 249))


def tensors(numbers: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """What of a golden file is numbers."""
    return {
        name: torch.from_numpy(array)
        for name, array in numbers.items()
        if array.dtype.kind in "fiu" and array.ndim
    }


def network(critic: bool, all_adapters: bool) -> StableBackbone:
    """The frozen base, or the base with the critic's adapters put onto it."""
    base = SHARED / "golden/bases/sd21base-tiny"
    unet = fill_network(
        empty_network(read_config(base, "unet"), "unet"), base / "unet", torch.float32
    )
    if critic:
        state = load_file(SHARED / "golden/checkpoints/vsd_reg_lora.safetensors")
        factors: dict[str, Factors] = {}
        for name, down in state.items():
            layer, found, adapter = name.partition(".lora_A.")
            if found and (all_adapters or adapter.startswith("default_others")):
                factors[layer] = Factors(down, state[name.replace("lora_A", "lora_B")])
        attach_factors(unet, factors)
    return StableBackbone([unet], loaded("osediff", (("prompt", ""),)).backbone.vae)  # pyright: ignore[reportArgumentType]


def guided(teacher: StableBackbone, text: Tensor, negative: Tensor):
    """The teacher's guided answer; its tokens are what `distill` hands over."""

    def predict(z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        away, towards = teacher.predict(z, t, negative), teacher.predict(z, t, text)
        return away + GUIDANCE * (towards - away)

    return predict


@pytest.mark.parametrize("name", [name for name in LOSSES if "vsd" in name or "csd" in name])
def test_distillation_has_the_original_gradient(name: str):
    """Ours is half the original's sum of squares, so that its gradient is the difference itself;
    the original's mean over all pixels makes its gradient twice ours."""
    x = tensors(golden(f"losses/{name}"))
    teacher = network(critic=False, all_adapters=False)
    critic = network(critic=True, all_adapters="all_adapters" in name)
    text, negative, t = x["prompt_embeds"], x["neg_embeds"], x["timesteps"]

    def student(z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        return critic.predict(z, t, tokens) if "vsd" in name else teacher.predict(z, t, negative)

    z_t = add_noise(x["latents"], x["noise"], t, alphas())
    if "x0_real" in x:
        torch.testing.assert_close(z_t, x["noisy"], rtol=1e-5, atol=1e-5)
        for net, key in ((guided(teacher, text, negative), "x0_real"), (student, "x0_fake")):
            clean = predict_clean(z_t, net(z_t, t, text), t, alphas())
            limit = 2e-3 * float(x[key].abs().max())
            gap = float((clean - x[key]).abs().max())
            print(f"\n{name} {key}: largest difference {gap:.1e} of {limit / 2e-3:.0f}")
            assert gap <= limit
    latents = x["latents"].clone().requires_grad_()
    nets = (guided(teacher, text, negative), student)
    each = distill(latents, text, t, nets, x["noise"], alphas())
    wanted = float(golden(f"losses/{name}")["loss"])
    assert 2 * float(each.detach().mean()) == pytest.approx(wanted, rel=2e-3)
    (2 * each.mean()).backward()
    assert latents.grad is not None
    limit = 2e-3 * float(x["grad_latents"].abs().max())
    assert float((latents.grad - x["grad_latents"]).abs().max()) <= limit


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if "diff" in name and "osediff_d" in name]
)
def test_critic_has_the_original_loss_and_gradients(name: str):
    numbers = golden(f"losses/{name}")
    x = tensors(numbers)
    critic = network(critic=True, all_adapters="all_adapters" in name)
    lora = {
        key: parameter.requires_grad_()
        for key, parameter in critic.unets[0].named_parameters()
        if key.endswith(("down.weight", "up.weight"))
    }
    loss = critic_loss(
        x["latents"], x["prompt_embeds"], x["timesteps"], critic.predict, x["noise"], alphas()
    )
    assert float(loss.detach()) == pytest.approx(float(numbers["loss"]), rel=1e-4)
    loss.backward()
    got = [key for key, parameter in lora.items() if parameter.grad is not None]
    assert len(got) == len(numbers["lora_params_with_grad"])
    for key in (key for key in numbers if key.startswith("grad::")):
        layer, _, rest = key.removeprefix("grad::").partition(".lora_")
        grad = lora[f"{layer}.{'down' if rest[0] == 'A' else 'up'}.weight"].grad
        assert grad is not None
        wanted = torch.from_numpy(numbers[key])
        assert float((grad - wanted).abs().max()) <= 2e-3 * float(wanted.abs().max())


def test_training_forward_of_rcod_o_groups_and_restores():
    x = tensors(golden("rcod_o/train_forward.npz"))
    onestep = loaded("rcod_o", (("merge", False),))
    with torch.inference_mode():
        up, hr = x["c_t_uint8"] / 255, x["gt_uint8"] / 255
        z_up, z_hr = onestep.encode(up), onestep.encode(hr.expand_as(up))
        torch.testing.assert_close(z_up, x["z_L"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(z_hr, x["z_HR"].expand_as(z_hr), rtol=1e-4, atol=1e-4)
        metric = latent_metric(z_up, z_hr)
        torch.testing.assert_close(metric, x["cos"], rtol=1e-5, atol=1e-5)
        tokens = onestep.prompt(up)
        torch.testing.assert_close(tokens, x["cond"], rtol=1e-4, atol=1e-4)
        for n, groups in ((3, GroupSettings()), (4, FOUR)):
            t = timestep_of_metric(metric, groups)
            assert torch.equal(t, x[f"timesteps_n{n}"])
            eps = onestep.noise(z_up, t, tokens)
            # this network multiplies the tower's last bit, 2e-6 of a token, several hundredfold
            torch.testing.assert_close(eps, x[f"eps_n{n}"], rtol=2e-3, atol=2e-3)
            z_sr = onestep.clean(z_up, t, tokens)
            torch.testing.assert_close(z_sr, x[f"z_H_n{n}"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("fold", [False, True])
def test_training_forward_of_rcod_s_and_s3diff_keep_each_samples_scores(fold: bool):
    x = tensors(golden("rcod_s/train_forward.npz"))
    y = tensors(golden("s3diff/train_class_batch2.npz"))
    limit = 1e-3 if fold else 2e-4
    with torch.inference_mode():
        for name, numbers in (("rcod_s", x), ("s3diff", y)):
            onestep = loaded(name, (("fold", fold),))
            up, scores = numbers["c_t"] / 2 + 0.5, numbers["deg_score"]
            t = numbers.get("timesteps", torch.full((len(up),), 999))
            tokens = onestep.prompt(up) if name == "rcod_s" else numbers["cond"]
            rows = [slice(i, i + 1) for i in range(len(up))] if fold else [slice(None)]
            for row in rows:
                tuned = onestep.backbone.tuned(scores[row])
                z_up = tuned.encode(up[row])
                torch.testing.assert_close(z_up, numbers["z_L"][row], rtol=limit, atol=limit)
                eps = tuned.predict(z_up, t[row], tokens[row])
                gap = float((eps - numbers["eps"][row]).abs().max())
                print(f"\n{name} fold {fold}: largest difference of eps {gap:.1e}")
                assert gap <= 2 * limit


def test_groups_and_metric_heads_decide_as_the_original():
    x = tensors(golden("rcod_s/mem_head.npz"))
    head = loaded("rcod_s").estimator
    assert head is not None
    with torch.inference_mode():
        for end in ("", "_signed"):
            found = head.metric(x[f"deg_feat{end}"].flatten(2))
            torch.testing.assert_close(found, x[f"mem_out{end}"].squeeze(1), rtol=1e-5, atol=1e-6)
        metric = x["mem_out"].squeeze(1)
        assert torch.equal(timestep_of_metric(metric, GroupSettings()), x["timesteps_n3"])
        assert torch.equal(timestep_of_metric(metric, FOUR), x["timesteps_n4"])
    y = tensors(golden("s3diff/de_net_batch.npz"))
    with torch.inference_mode():
        features = head.features(y["x"])
        torch.testing.assert_close(features, y["features"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(head.scores(features), y["scores"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    sorted(path.stem for path in (GOLDEN / "tiling").glob("*_latent_*.npz")) or ["none"],
)
def test_tiles_of_the_latent_are_predicted_as_the_original_does(name: str):
    """Noise tile by tile; weights and order of the original blend them to its clean latent."""
    numbers = golden(f"tiling/{name}.npz")
    system = name.split("_latent_")[0].replace("pisa", "pisa_sr")
    x = tensors(numbers)
    asked: tuple[tuple[str, object], ...] = (("merge", False),)
    if system == "osediff":
        asked += (("prompt", str(numbers["prompt"])),)
    if system == "pisa_sr":
        asked = ()
    onestep = loaded(system, asked)
    side = int(numbers["tile_size"])
    with torch.inference_mode():
        backbone = onestep.backbone
        tokens = x["cond"] if system == "rcod_o" else onestep.prompt(torch.zeros(1, 3, 8, 8))
        if system == "s3diff":
            backbone = backbone.tuned(x["deg_score"])
        t = torch.tensor([{"pisa_sr": 1, "rcod_o": 499}.get(system, 999)])
        for i, (top, left) in enumerate(x["tile_offsets_yx"].tolist()):
            cut = x["z_L"][..., top : top + side, left : left + side]
            for key, heard in (("tile_eps", 0), ("tile_eps_pos", 0), ("tile_eps_neg", 1)):
                if key in x:
                    eps = backbone.predict(cut, t, tokens[heard : heard + 1])[0]
                    gap = float((eps - x[key][i]).abs().max())
                    assert gap <= 3e-4, (key, i, gap)
