"""Losses and training forwards of the original programs, number by number."""

import math
import re

import numpy as np
import pytest
import torch
from conftest import SHARED, golden
from safetensors.torch import load_file
from test_golden_systems import (
    BYTES,
    GOLDEN,
    Ledger,
    check_words,
    loaded,
    released,
    to_bytes,
)
from torch import Tensor

from rcod.diffusion.grouping import (
    GroupSettings,
    distill_range,
    latent_metric,
    timestep_of_metric,
)
from rcod.diffusion.schedule import add_noise, alphas, predict_clean, restore_clean
from rcod.networks.framing import Frame
from rcod.networks.lora import Factors, attach_factors
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import VisualPrompt
from rcod.networks.stable import StableBackbone, empty_network, fill_network, read_config
from rcod.networks.systems import SYSTEMS
from rcod.pixels.images import read
from rcod.training.published_recipe import PUBLISHED
from rcod.training.vsd import critic_loss, distill
from rcod.using.published_pass import keep_colors

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")

LOSSES = sorted(path.name for path in (GOLDEN / "losses").glob("*.npz")) or ["none.npz"]
GUIDANCE = 7.5
RECIPES = {recipe.name: recipe for recipe in PUBLISHED}
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
    for key, net, heard in (
        ("eps_fake", critic, text), ("eps_real_uncond", teacher, negative),
        ("eps_real_text", teacher, text), ("eps_uncond", teacher, negative),
        ("eps_text", teacher, text),
    ):  # fmt: skip
        if key in x:
            eps = net.predict(z_t, t, heard).detach()
            torch.testing.assert_close(eps, x[key], rtol=2e-4, atol=2e-4)
    if "x0_real" in x:
        torch.testing.assert_close(z_t, x["noisy"], rtol=1e-5, atol=1e-5)
        for net, key in ((guided(teacher, text, negative), "x0_real"), (student, "x0_fake")):
            clean = predict_clean(z_t, net(z_t, t, text), t, alphas())
            limit = 2e-3 * float(x[key].abs().max())
            gap = float((clean - x[key]).abs().max())
            print(f"\n{name} {key}: largest difference {gap:.1e} of {limit / 2e-3:.0f}")
            assert gap <= limit
    low, high = (torch.full_like(t, end) for end in RECIPES["pisa_sr"].distill_range)
    if "vsd" in name:
        low, high = distill_range(x.get("model_gen_timesteps", t.new_zeros(len(t))), "released")
    assert bool(((low <= t) & (t < high)).all())
    assert float(golden(f"losses/{name}").get("cfg", GUIDANCE)) == RECIPES["pisa_sr"].guidance
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
    z_t = add_noise(x["latents"], x["noise"], x["timesteps"], alphas())
    torch.testing.assert_close(z_t, x["noisy"], rtol=1e-5, atol=1e-5)
    eps = critic.predict(z_t, x["timesteps"], x["prompt_embeds"]).detach()
    torch.testing.assert_close(eps, x["eps_pred"], rtol=2e-4, atol=2e-4)
    loss.backward()
    if "all_adapters" in name:
        assert len(lora) == int(numbers["lora_param_count"])
    sizes = dict(zip(numbers["lora_params_with_grad"], x["lora_grad_l2_per_param"], strict=True))
    got = [key for key, parameter in lora.items() if parameter.grad is not None]
    assert len(got) == len(numbers["lora_params_with_grad"])

    def gradient(name: str) -> Tensor:
        layer, _, rest = name.partition(".lora_")
        found = lora[f"{layer}.{'down' if rest[0] == 'A' else 'up'}.weight"].grad
        assert found is not None
        return found

    for name_, size in sizes.items():
        assert float(gradient(name_).norm()) == pytest.approx(float(size), rel=5e-3, abs=1e-5)
    for key in (key for key in numbers if key.startswith("grad::")):
        grad = gradient(key.removeprefix("grad::"))
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
            if n == 3:
                image = (2 * onestep.backbone.decode(z_sr) - 1).clamp(-1, 1)[..., ::3, ::3]
                gap = (image - x["image_n3__s3"]).abs()
                print(f"\nrcod_o train_forward: largest difference of the image {gap.max():.1e}")
                assert float(gap.mean()) <= 2e-3


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
                z_sr = replace(onestep, tuned).clean(z_up, t[row], tokens[row])
                clean = numbers["z_H"] if "z_H" in numbers else 0.18215 * numbers["decoder_in"]
                limits = 2e-3 * float(clean.abs().max())
                assert float((z_sr - clean[row]).abs().max()) <= limits
                if name == "s3diff" or row.start in (None, 0):  # of rcod_s the first is stored
                    wanted = numbers["image__s3"][row] if name == "s3diff" else x["image0__s3"]
                    image = 2 * tuned.decode(z_sr[: len(wanted)]) - 1
                    off = (image.clamp(-1, 1)[..., ::3, ::3] - wanted).abs()
                    print(f"{name} fold {fold}: largest difference of the image {off.max():.1e}")
                    assert float(off.mean()) <= 2e-3


def replace(onestep: OneStep[StableBackbone], tuned: StableBackbone) -> OneStep[StableBackbone]:
    """The step on another backbone."""
    return OneStep(tuned, onestep.prompt, onestep.formula, 4, onestep.step, onestep.guidance)


def test_training_of_rcod_s_measures_the_metric_and_falls_back_to_999():
    x = tensors(golden("rcod_s/train_forward.npz"))
    onestep = loaded("rcod_s", (("fold", False),))
    with torch.inference_mode():
        tuned = onestep.backbone.tuned(x["deg_score"])
        up, hr = x["c_t"] / 2 + 0.5, x["gt"] / 2 + 0.5
        z_up, z_hr = tuned.encode(up), tuned.encode(hr.expand_as(up))
        wanted = x["z_HR"].expand_as(z_hr) if len(x["z_HR"]) == 1 else x["z_HR"]
        torch.testing.assert_close(z_hr, wanted, rtol=2e-4, atol=2e-4)
        metric = latent_metric(z_up, z_hr)
        torch.testing.assert_close(metric, x["cos"], rtol=1e-4, atol=1e-4)
        assert torch.equal(timestep_of_metric(metric, GroupSettings()), x["timesteps"])
        assert x["timesteps_without_gt"].tolist() == [999]
        one = onestep.backbone.tuned(x["deg_score"][:1])
        eps = one.predict(z_up[:1], x["timesteps_without_gt"], onestep.prompt(up[:1]))
        gap = float((eps - x["eps_without_gt"]).abs().max())
        print(f"\nrcod_s without a true picture: largest difference of eps {gap:.1e}")
        assert gap <= 4e-4


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


def check_blend(
    numbers: dict[str, np.ndarray], system: str, onestep: OneStep[StableBackbone], framed: Frame
) -> None:
    """The original's weights, half a pixel off centre in y but for PiSA-SR, to its picture."""
    x, row = tensors(numbers), SYSTEMS[system]
    side, share = int(numbers["tile_size"]), 2 * 0.01 * int(numbers["tile_size"]) ** 2
    centres = ((side - 1) / 2 if system == "pisa_sr" else side / 2, (side - 1) / 2)
    lines = [torch.exp(-((torch.arange(side).double() - c) ** 2) / share) for c in centres]
    weights = torch.outer(*lines) / (2 * math.pi * 0.01)
    if "weights" in x:
        torch.testing.assert_close(weights, x["weights"], rtol=1e-6, atol=1e-12)
    eps = x.get("tile_eps")
    if eps is None:
        positive, negative = x["tile_eps_pos"], x["tile_eps_neg"]
        eps = negative + row.guidance * (positive - negative)
    total, blended = torch.zeros_like(x["z_L"][:1, :1]), torch.zeros_like(x["z_L"])
    for i, (top, left) in enumerate(x["tile_offsets_yx"].tolist()):
        place = (..., slice(top, top + side), slice(left, left + side))
        total[place] += weights.float()
        blended[place] += eps[i] * weights.float()
    blended = blended / total
    if "eps_blended" in x:
        torch.testing.assert_close(blended, x["eps_blended"], rtol=1e-4, atol=1e-4)
    t = torch.tensor([499 if row.timestep is None else row.timestep])
    z_sr = restore_clean(x["z_L"], blended, t, alphas(), row.formula, row.step)
    wanted = x["z_H"] if "z_H" in x else 0.18215 * x["decoder_in"]
    assert float((z_sr - wanted).abs().max()) <= 2e-3 * float(wanted.abs().max())
    if "final_uint8__s3" not in x:
        return
    height, width = framed.look.shape[-2:]
    sr = onestep.backbone.decode(wanted)[..., :height, :width].clamp(0, 1)
    final = to_bytes(keep_colors(sr, framed.look, row.color, True))[::3, ::3]
    gap = (final - x["final_uint8__s3"].double()).abs()
    assert float((gap > 1).double().mean()) < 0.01, float(gap.max())


def check_start(
    numbers: dict[str, np.ndarray], system: str, onestep: OneStep[StableBackbone], name: str
) -> Frame:
    """What the tiles are cut from, and what is heard."""
    ledger, stem = Ledger(numbers), re.sub(r".*_latent_|_t\d+_o\d+$", "", name)
    lr = read(GOLDEN / f"inputs/{stem}.png").pixels[None]
    framed = released(SYSTEMS[system], lr)
    ledger.check("cond_uint8", to_bytes(framed.look), BYTES)
    ledger.check("z_L", onestep.encode(framed.up))
    check_words(ledger, system)
    if "deg_score" in numbers:
        estimator = loaded(system).estimator
        assert estimator is not None
        ledger.check("deg_score", estimator.scores(estimator.features(lr)))
    if isinstance(onestep.prompt, VisualPrompt):
        ledger.check("cond", onestep.prompt(framed.up))
    return framed


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
        framed = check_start(numbers, system, replace(onestep, backbone), name)
        t = torch.tensor([{"pisa_sr": 1, "rcod_o": 499}.get(system, 999)])
        assert x.get("timestep", t).tolist() == t.tolist()
        for i, (top, left) in enumerate(x["tile_offsets_yx"].tolist()):
            cut = x["z_L"][..., top : top + side, left : left + side]
            for key, heard in (("tile_eps", 0), ("tile_eps_pos", 0), ("tile_eps_neg", 1)):
                if key in x:
                    eps = backbone.predict(cut, t, tokens[heard : heard + 1])[0]
                    gap = float((eps - x[key][i]).abs().max())
                    assert gap <= 3e-4, (key, i, gap)
        check_blend(numbers, system, replace(onestep, backbone), framed)
        if "eps_untiled" in x:
            gap = float((backbone.predict(x["z_L"], t, tokens) - x["eps_untiled"]).abs().max())
            assert gap <= 3e-4
