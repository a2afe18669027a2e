"""Five published systems against the numbers of their original programs."""

import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from conftest import SHARED, golden
from test_golden_every import home
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.grouping import timestep_of_metric
from rcod.diffusion.schedule import alphas
from rcod.networks.assembly import Parts
from rcod.networks.checkpoint import convert, load
from rcod.networks.framing import Frame, frame
from rcod.networks.guide import embed_scores
from rcod.networks.onestep import OneStep
from rcod.networks.prompts import SIDE, TextTower, VisualPrompt, tagged
from rcod.networks.stable import StableBackbone
from rcod.networks.systems import SYSTEMS, System
from rcod.pixels.resample import resize
from rcod.using.published_pass import keep_colors

pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")

GOLDEN = SHARED / "golden"
FILES = {
    "osediff": ["osediff.pkl"],
    "rcod_o": ["rcod_o.pkl"],
    "pisa_sr": ["pisa_sr.pkl"],
    "s3diff": ["s3diff.pkl", "de_net.pth"],
    "rcod_s": ["rcod_s.pkl", "de_net.pth", "rcod_s_mem.pkl"],
}
BASES = {"sd21-base": "sd21base-tiny", "sd-turbo": "sdturbo-tiny"}
EVERY = "test_every_number_of_the_original_comes_out"
TENSOR, CLEAN, BYTES, RESIZED = (
    "tensor",
    "clean",
    "bytes",
    "resized",
)  # tolerances of the golden README


def cases() -> list[tuple[str, str]]:
    """Every system with every picture that there are numbers for."""
    found = [
        (name, path.stem) for name in FILES for path in sorted((GOLDEN / name).glob("*_*x*.npz"))
    ]
    return found or [(name, "none") for name in FILES]


@cache
def converted(name: str) -> Path:
    """A golden checkpoint in this package's format."""
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    out = Path(mkdtemp()) / f"{name}.safetensors"
    convert([GOLDEN / "checkpoints" / file for file in FILES[name]], name, out)
    return out


def parts(name: str, **asked: object) -> Parts:
    """Where the golden bases lie."""
    system = SYSTEMS[name]
    told: dict[str, object] = {"base": str(GOLDEN / "bases" / BASES[str(system.base)]), **asked}
    if system.condition == "visual":
        told["vision"] = str(GOLDEN / "bases/clip-vision-tiny")
    return Parts.model_validate(told)


@cache
def loaded(name: str, asked: tuple[tuple[str, object], ...] = ()) -> OneStep[StableBackbone]:
    """A golden system's networks, its adapters as `asked`."""
    return load(converted(name), parts(name, **dict(asked)))[1]


class Ledger:
    """Compares, and remembers the largest differences."""

    def __init__(self, numbers: dict[str, np.ndarray]) -> None:
        self.numbers = numbers
        self.seen: dict[str, float] = {}

    def has(self, name: str) -> bool:
        return name in self.numbers or f"{name}__s3" in self.numbers

    def check(self, name: str, mine: Tensor, kind: str = TENSOR, loose: float = 1) -> None:
        """Compare if there is a number of that name; `mine` may be subsampled."""
        if not self.has(name):
            return
        if name not in self.numbers:
            axes = (0, 1) if kind in (BYTES, RESIZED) else (-2, -1)
            for axis in axes:
                every = torch.arange(0, mine.shape[axis], 3)
                mine = mine.index_select(axis, every)
            name = f"{name}__s3"
        theirs = torch.from_numpy(np.asarray(self.numbers[name])).double()
        mine = mine.detach().double().reshape(theirs.shape)
        gap = (mine - theirs).abs()
        self.seen[name] = float(gap.max())
        if kind == BYTES:
            other = float((gap > 0).double().mean())  # rounding down sits on a knife's edge, and
            assert other < 0.01, (name, other)  # a colour fix multiplies the step it takes
        elif kind == RESIZED:  # by float sums here, by Pillow's whole numbers there
            assert float((gap > 1).double().mean()) < 0.01, (name, float(gap.max()))
        elif kind == CLEAN:
            assert float(gap.max()) <= 2e-3 * float(theirs.abs().max()), (name, float(gap.max()))
        else:
            excess = float((gap - loose * (1e-4 + 1e-4 * theirs.abs())).max())
            assert excess <= 0, (name, float(gap.max()), excess)

    def say(self, title: str) -> None:
        worst = sorted(self.seen.items(), key=lambda item: -item[1])
        print(f"\n{title}:", ", ".join(f"{name} {gap:.1e}" for name, gap in worst))


def to_bytes(image: Tensor) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) as a picture holds it."""
    return (255 * image[0]).round().clamp(0, 255).movedim(0, -1)


def photo_of(numbers: dict[str, np.ndarray]) -> Tensor:
    return torch.from_numpy(numbers["lr_uint8"]).movedim(-1, 0)[None] / 255  # (1, 3, h, w)


def released(system: System, lr: Tensor) -> Frame:
    """The photo as the original program frames it, squeezed sides included."""
    way = "shrunk" if system.framing == "pillow" else system.framing
    return frame(lr, way, system.scale, system.least)


def check_steps(ledger: Ledger, name: str, onestep: OneStep, framed: Frame) -> dict[str, Tensor]:
    """Latent, tokens, noise and clean latents; the results by their name's ending."""
    numbers, system = ledger.numbers, SYSTEMS[name]
    # in random guided networks, other processors' order of sums moves the noise by up to 7e-4
    loose = 10 if system.adapters == "guided" else 1
    z = onestep.encode(framed.up)
    ledger.check("z_L", z)
    ledger.check("vae_mean", z / 0.18215)
    if ledger.has("vae_logvar"):
        posterior = onestep.backbone.vae.encode(2 * framed.up - 1).latent_dist
        ledger.check("vae_logvar", posterior.logvar)
    tokens = onestep.prompt(framed.up)
    if "eps_pos" in numbers:  # of a guided system, both halves of its one call
        for text, heard in zip(("pos", "neg"), tokens.split(1), strict=True):
            ledger.check(f"{text}_embeds", heard)
            t = torch.tensor([system.timestep])
            ledger.check(f"eps_{text}", onestep.backbone.predict(z, t, heard), loose=loose)
    ledger.check("cond", tokens)
    ledger.check("prompt_embeds", tokens)
    ends = {f"_t{t}": t for t in (249, 499, 749, 999) if f"eps_t{t}" in numbers}
    pictures: dict[str, Tensor] = {}
    for end, t in (ends or {"": system.timestep, "_default": system.timestep}).items():
        timestep = torch.tensor([t])
        ledger.check(f"eps{end}", onestep.noise(z, timestep, tokens), loose=loose)
        z_sr = onestep.clean(z, timestep, tokens)
        ledger.check(f"z_H{end}", z_sr, CLEAN)
        ledger.check(f"decoder_in{end}", z_sr / 0.18215, CLEAN)
        if any(ledger.has(f"{kind}{end}") for kind in ("image_raw", "final_uint8")):
            sr = onestep.backbone.decode(z_sr)
            ledger.check(f"image_raw{end}", 2 * sr - 1, loose=loose)
            pictures[end] = sr
    return pictures


def check_sight(ledger: Ledger, prompt: VisualPrompt, up: Tensor) -> None:
    """What the image tower sees, and what it says."""
    small = F.interpolate(up, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    ledger.check("vision_in", 2 * small - 1)
    ledger.check("vision_last_hidden", prompt.tower(2 * small - 1))


def check_guides(ledger: Ledger, onestep: OneStep[StableBackbone], scores: Tensor) -> None:
    """Every stage of the modulation."""
    for part, guided in onestep.backbone.guided.items():
        guide = guided.guide
        waves = embed_scores(scores, guide.rates)
        ledger.check("fourier", waves)
        ledger.check(f"{part}_de_c", F.relu(guide.degree(waves)))
        ledger.check(f"{part}_mod", guide(scores))


@cache
def text_tower(name: str) -> TextTower:
    return TextTower(Path(str(parts(name).base)))


def check_words(ledger: Ledger, name: str) -> None:
    """Texts and the numbers of their tokens."""
    numbers, texts = ledger.numbers, SYSTEMS[name].texts
    if "tags" in numbers:
        tags, prompt = str(numbers["tags"]), str(numbers["prompt"])
        assert tagged(tags, prompt.removeprefix(f"{tags}, ").removesuffix(",")) == prompt
    for key, text, own in (("token_ids", "prompt", None), ("pos_ids", "pos_prompt", 0),
                           ("neg_ids", "neg_prompt", 1)):  # fmt: skip
        if key in numbers:
            assert own is None or str(numbers[text]) == texts[own]
            ids = text_tower(name).ids([str(numbers[text])])
            ledger.check(key, ids)
            assert float(ledger.seen[key]) == 0
            ledger.seen |= {text: 0, "tags": 0}


def check_merged(ledger: Ledger, name: str, asked: dict[str, object], up: Tensor) -> None:
    """The original's numbers with its adapters folded in, which moved them as far as ours do."""
    if not ledger.has("merged_z_L"):
        return
    onestep = loaded(name, tuple((asked | {"merge": True}).items()))
    z, tokens = onestep.encode(up), onestep.prompt(up)
    ledger.check("merged_z_L", z)
    end, t = ("", 999) if "merged_eps" in ledger.numbers else ("_t499", 499)
    timestep = torch.tensor([t])
    ledger.check(f"merged_eps{end}", onestep.noise(z, timestep, tokens), TENSOR, 3)
    z_sr = onestep.clean(z, timestep, tokens)
    ledger.check(f"merged_z_H{end}", z_sr, CLEAN)
    ledger.check(f"merged_decoder_in{end}", z_sr / 0.18215, CLEAN)
    if ledger.has("merged_image_raw"):
        ledger.check("merged_image_raw", 2 * onestep.backbone.decode(z_sr) - 1, CLEAN)


def check_settings(ledger: Ledger, system: System) -> None:
    """Timestep and alphas, exactly as stored."""
    numbers = ledger.numbers
    ledger.seen |= dict.fromkeys(
        ("timestep", "alpha_cumprod_t", "alpha_bar_const", "guidance_scale"), 0.0
    )
    if "timestep" in numbers:
        assert numbers["timestep"].reshape(-1).tolist() == [system.timestep]
    if "alpha_cumprod_t" in numbers:
        assert float(alphas()[999]) == pytest.approx(numbers["alpha_cumprod_t"].item(), abs=1e-7)
    if "alpha_bar_const" in numbers:  # the original wrote it with four digits
        assert float(alphas()[system.step]) == pytest.approx(
            float(numbers["alpha_bar_const"]), abs=1e-4
        )
    if "guidance_scale" in numbers:
        assert float(numbers["guidance_scale"]) == pytest.approx(system.guidance)


def check_pictures(
    ledger: Ledger, name: str, framed: Frame, pictures: dict[str, Tensor], lr: Tensor
) -> None:
    """Final pictures with every colour fix there is."""
    system = SYSTEMS[name]
    height, width = framed.look.shape[-2:]
    size = (4 * lr.shape[-2], 4 * lr.shape[-1])
    for end, sr in pictures.items():
        sr = sr[..., :height, :width].clamp(0, 1)
        if end == "":
            ledger.check("image_uint8_nofix", to_bytes(keep_colors(sr, sr, "none", True)), BYTES)
        for fix in ("adain", "wavelet"):
            fixed = keep_colors(sr, framed.look, fix, True)
            kind = BYTES
            if name == "rcod_o" and min(lr.shape[-2:]) < system.least:
                fixed, kind = resize(fixed, size), RESIZED
            ending = f"final_uint8{end}" if fix == system.color else f"final_uint8{end}_{fix}"
            ledger.check(ending, to_bytes(fixed), kind)


@pytest.mark.parametrize(("name", "picture"), cases())
def test_every_number_of_the_original_comes_out(name: str, picture: str):
    numbers = golden(f"{name}/{picture}.npz")
    ledger, system, lr = Ledger(numbers), SYSTEMS[name], photo_of(numbers)
    asked: dict[str, object] = {"merge": name == "pisa_sr"}
    if name == "osediff":
        asked["prompt"] = str(numbers["prompt"])
    framed = released(system, lr)
    ledger.check("cond_uint8", to_bytes(framed.look), BYTES)
    ledger.check("cond_padded", 2 * framed.up - 1)
    ledger.check("lq", 2 * framed.look - 1)
    with torch.inference_mode():
        onestep = loaded(name, tuple(asked.items()))
        if onestep.estimator is not None:
            features = onestep.estimator.features(lr)
            scores = onestep.estimator.scores(features)
            ledger.check("deg_feat", features)
            ledger.check("deg_score", scores)
            check_guides(ledger, onestep, scores)
            if (metric := onestep.estimator.metric(features)) is not None:
                ledger.check("mem_out", metric)
                t = timestep_of_metric(metric, system.groups)
                ledger.check("adaptive_timestep", t)
                assert ledger.seen["adaptive_timestep"] == 0
            onestep = onestep.tuned(features)
        if isinstance(onestep.prompt, VisualPrompt):
            check_sight(ledger, onestep.prompt, framed.up)
        check_words(ledger, name)
        check_settings(ledger, system)
        check_merged(ledger, name, asked, framed.up)
        pictures = check_steps(ledger, name, onestep, framed)
        check_pictures(ledger, name, framed, pictures, lr)
    ledger.say(f"{name} {picture}")
    mine = [key for key in numbers if home(f"{name}/{picture}", key) == EVERY]
    assert [key for key in mine if key not in ledger.seen] == []


@pytest.mark.parametrize(
    "picture", [path.stem for path in sorted((GOLDEN / "pisa_sr").glob("*_*x*.npz"))] or ["none"]
)
def test_every_scale_of_the_two_adapters_comes_out(picture: str):
    numbers = golden(f"pisa_sr/{picture}.npz")
    ledger, system = Ledger(numbers), SYSTEMS["pisa_sr"]
    framed, t = released(system, photo_of(numbers)), torch.tensor([1])
    with torch.inference_mode():
        scales = [re.fullmatch(r"decoder_in_p([\d.]+)_s([\d.]+)", key) for key in numbers]
        for pixel, semantic in (found.groups() for found in scales if found):
            eps = {("1", "1"): "eps_full", ("1", "0"): "eps_pix"}.get((pixel, semantic), "")
            asked = (("pixel", float(pixel)), ("semantic", float(semantic)))
            onestep = loaded("pisa_sr", asked)
            z, tokens = onestep.encode(framed.up), onestep.prompt(framed.up)
            ledger.check(eps, onestep.noise(z, t, tokens), TENSOR, 3)  # folded here, not there
            z_sr = onestep.clean(z, t, tokens)
            ledger.check(f"decoder_in_p{pixel}_s{semantic}", z_sr / 0.18215, CLEAN)
    ledger.say(f"pisa_sr {picture}")
    assert len(ledger.seen) == 5
