"""Published checkpoints: strictly read, never run, and the same from the command line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import golden
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from PIL import Image
from test_golden_systems import FILES, GOLDEN, converted, parts
from typer.testing import CliRunner

from rcod.doors.cli import app
from rcod.errors import RcodError
from rcod.judging.contenders import parse
from rcod.judging.peers import perform
from rcod.networks import checkpoint
from rcod.networks.assembly import Parts
from rcod.networks.bases import MIRRORS, find_base
from rcod.networks.checkpoint import convert, load
from rcod.networks.stable import StableBackbone
from rcod.networks.systems import SYSTEMS
from rcod.pickles import read_pickle, tensors_of
from rcod.pixels.images import Photo
from rcod.using.forecast import keep_to
from rcod.using.restore import Restorer

PICTURE = "astronaut_64x64"


class Malicious:
    """What a pickle can make its reader do."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, way: str):
    proof, file = tmp_path / "it-ran", tmp_path / "osediff.pkl"
    content = {"state_dict_unet": {}, "rank_unet": Malicious(proof)}
    if way == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    ran = CliRunner().invoke(
        app, ["convert", str(file), "--system", "osediff", "-o", str(tmp_path / "o.safetensors")]
    )
    assert ran.exit_code == 2
    assert "was refused" in ran.output and "Traceback" not in ran.output
    assert not proof.exists()
    assert not (tmp_path / "o.safetensors").exists()


def test_a_pickle_that_was_cut_anywhere_is_refused_in_a_sentence(tmp_path: Path):
    file = tmp_path / "osediff.pkl"
    torch.save({"a": torch.zeros(3)}, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(RcodError):
            read_pickle(file)


def test_a_tensor_holds_what_its_shape_says(tmp_path: Path):
    file = tmp_path / "osediff.pkl"
    torch.save({"a": torch.zeros(1).expand(4, 10**13)}, file)  # 160 TB in two kilobytes
    with pytest.raises(
        RcodError, match="a of it must hold 160000000000000 bytes by its shape, got 4"
    ):
        tensors_of(read_pickle(file), "it")


def spoiled(tmp_path: Path, name: str, change: str) -> list[Path]:
    """A golden checkpoint with one thing wrong."""
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    files = [GOLDEN / "checkpoints" / file for file in FILES[name]]
    content = torch.load(files[0], weights_only=True)
    state = content["state_dict_unet"]
    key = next(key for key in state if "lora_B" in key and "mid_block" in key)
    if change == "missing":
        del state[key]
    elif change == "extra":
        state["mid_block.somewhere.weight"] = torch.zeros(2)
    elif change == "shape":
        state[key] = torch.zeros(3, 3)
    elif change == "part":
        del content["rank_unet"]
    elif change == "surplus":
        content["optimizer"] = {}
    elif change == "nan":
        state[key] = state[key] * float("nan")
    torch.save(content, tmp_path / files[0].name)
    return [tmp_path / files[0].name, *files[1:]]


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("missing", "lacks mid_block.*lora_B"),
        ("extra", "mid_block.somewhere.weight"),
        ("shape", "mid_block.*must be of rank"),
        ("part", "must hold .*rank_unet"),
        ("surplus", "optimizer"),
        ("nan", "finite"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named(
    tmp_path: Path, name: str, change: str, complaint: str
):
    if name == "pisa_sr" and change == "part":
        pytest.skip("not checked here: pisa_sr names its ranks otherwise")
    with pytest.raises(RcodError, match=complaint):
        convert(spoiled(tmp_path, name, change), SYSTEMS[name].name, tmp_path / "o.safetensors")


def test_a_part_that_is_named_twice_is_refused(tmp_path: Path):
    files = spoiled(tmp_path, "osediff", "nothing")
    with pytest.raises(RcodError, match="another part of osediff, and two of these are the same"):
        convert([*files, GOLDEN / "checkpoints" / FILES["osediff"][0]], "osediff",
                tmp_path / "o.safetensors")  # fmt: skip


@pytest.mark.parametrize(("name", "host"), [("rcod_o", "osediff"), ("rcod_s", "s3diff")])
def test_a_system_that_sees_needs_no_text_tower_and_lays_channels_last_in_haste(
    tmp_path: Path, name: str, host: str
):
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    where = parts(name)
    for part in ("unet", "vae", "scheduler"):
        (tmp_path / part).symlink_to(Path(str(where.base)) / part)
    without = where.model_copy(update={"base": str(tmp_path)})
    for dtype in ("float32", "bfloat16"):
        restorer = Restorer.load(str(converted(name)), "cpu", dtype, without)
        body = restorer.onestep.backbone
        assert isinstance(body, StableBackbone)
        for network in (*body.unets, body.vae):
            convs = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d)]
            (*_, conv) = (one for one in convs if one.kernel_size == (3, 3))
            last = conv.weight.is_contiguous(memory_format=torch.channels_last)
            assert last == (dtype == "bfloat16")
    lr = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert restorer(lr).picture.size == (128, 128)
    with pytest.raises(RcodError, match="needs the folders tokenizer and text_encoder"):
        Restorer.load(str(converted(host)), parts=Parts(base=str(tmp_path)))


def test_a_lost_layer_and_a_wrong_base_are_named(tmp_path: Path):
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    other = parts("s3diff").base
    with pytest.raises(RcodError, match=r"another base|which .* lacks|no unet.plain adapter"):
        load(converted("osediff"), Parts(base=other))
    with pytest.raises(RcodError, match=r"must be a folder in diffusers' layout"):
        load(converted("osediff"), Parts(base=str(tmp_path)))
    with pytest.raises(RcodError, match="no use for --pixel"):
        load(converted("osediff"), parts("osediff", pixel=0.5))
    with pytest.raises(RcodError, match="neither; offline, put the diffusers folders unet/"):
        load(converted("osediff"), Parts(base=str(tmp_path / "nowhere" / "at" / "all")))
    for name, key in (("s3diff", "vae.guided"), ("pisa_sr", "unet.pixel")):
        row, tensors = checkpoint.read_tensors(converted(name))
        kept = {one: targets for one, targets in row.targets.items() if one != key}
        checkpoint.write_tensors(tmp_path / "lost.safetensors",
                                 row.model_copy(update={"targets": kept}), tensors)  # fmt: skip
        with pytest.raises(RcodError, match=f"file must hold {key} adapters"):
            load(tmp_path / "lost.safetensors", parts(name))


def pictures() -> list[tuple[str, str, str, list[str]]]:
    """System, golden picture, its final array, and what the command line is told for it."""
    found: list[tuple[str, str, str, list[str]]] = []
    for name in FILES:
        for path in sorted((GOLDEN / name).glob("*_*x*.npz")):
            numbers = np.load(path)
            lr = numbers["lr_uint8"].shape if "lr_uint8" in numbers else (0, 0)
            for key in numbers.files:
                if not key.startswith("final_uint8"):
                    continue
                step = 3 if key.endswith("__s3") else 1
                whole = tuple(-(-4 * side // step) for side in lr[:2])
                words = key.removesuffix("__s3").removeprefix("final_uint8").strip("_").split("_")
                if numbers[key].shape[:2] == whole and (told := asked(words)) is not None:
                    found.append((name, path.stem, key, told))
    return found or [("osediff", "none", "none", [])]


def asked(words: list[str]) -> list[str] | None:
    """The options that an array's name stands for."""
    told: list[str] = []
    for word in filter(None, words):
        if word in ("adain", "wavelet"):
            told += ["--color", word]
        elif word[0] == "t" and word[1:] in ("249", "499", "749"):
            level = {"249": "fidelity", "499": "neutral", "749": "realism"}[word[1:]]
            told += ["--realism", level]
        elif word[0] in "ps" and word[1:].replace(".", "").isdigit():
            told += ["--pixel" if word[0] == "p" else "--semantic", word[1:]]
        elif word not in ("default", "adaptive"):
            return None
    return told


@pytest.mark.parametrize(("name", "picture", "key", "told"), pictures())
def test_the_command_line_gives_the_original_picture(
    tmp_path: Path, name: str, picture: str, key: str, told: list[str]
):
    numbers = golden(f"{name}/{picture}.npz")
    source = tmp_path / "in" / f"{picture}.png"
    source.parent.mkdir()
    Image.fromarray(numbers["lr_uint8"]).save(source)
    told = [*told, "--model", str(converted(name)), "--dtype", "float32", "--device", "cpu"]
    where = parts(name)
    told += ["--base", str(where.base)]
    told += ["--vision", where.vision] if where.vision is not None else []
    told += ["--prompt", str(numbers["prompt"])] if name == "osediff" else []
    ran = CliRunner().invoke(app, ["upscale", str(source), "-o", str(tmp_path / "out"), *told])
    assert ran.exit_code == 0, ran.output
    (result,) = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".png"]
    mine = np.asarray(Image.open(result).convert("RGB")).astype(int)
    mine = mine[::3, ::3] if key.endswith("__s3") else mine
    gap = np.abs(mine - numbers[key].astype(int)).max(axis=2)
    share = float((gap <= 1).mean())
    print(f"\n{name} {picture} {key}: {share:.4%} of pixels within one level, worst {gap.max()}")
    assert share >= 0.99


@pytest.mark.parametrize("brisk", [True, False])
@pytest.mark.parametrize("name", list(FILES))
def test_bfloat16_stays_close_to_float32(name: str, brisk: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "bfloat16_pays", lambda: brisk)
    for path in sorted((GOLDEN / name).glob("*_*x*.npz")) or [Path("none")]:
        numbers = golden(f"{name}/{path.stem}.npz")
        lr = torch.from_numpy(numbers["lr_uint8"]).movedim(-1, 0) / 255
        told = parts(name, prompt=str(numbers["prompt"])) if name == "osediff" else parts(name)
        both = [
            Restorer.load(str(converted(name)), "cpu", dtype, told)(lr)
            for dtype in ("float32", "bfloat16")
        ]
        error = (both[0].photo.pixels - both[1].photo.pixels).square().mean().item()
        decibels = -10 * np.log10(max(error, 1e-12))
        print(f"\n{name} {path.stem}: {decibels:.1f} dB")
        assert decibels >= 38


def test_bases_are_sought_in_order_and_the_error_says_what_to_put(monkeypatch: pytest.MonkeyPatch):
    asked_for: list[tuple[str, bool]] = []

    class ProxyError(Exception):
        """As HTTP clients have them, whose kind follows the release of the hub's."""

    def nothing(name: str, allow_patterns: object, local_files_only: bool) -> str:
        asked_for.append((name, local_files_only))
        raise OSError("no network") if local_files_only else ProxyError("403 Forbidden")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    with pytest.raises(RcodError, match=r"put the diffusers folders unet/.* name it with --base"):
        find_base("sd21-base", None)
    names = list(MIRRORS["sd21-base"])
    assert asked_for == [(name, offline) for offline in (True, False) for name in names]
    with pytest.raises(RcodError, match=r"tried someone/else.*--vision"):
        find_base("clip-l", "someone/else")


def test_plan_and_serve_stand_on_a_base_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    numbers = golden("rcod_s/coffee_64x96.npz")
    source = tmp_path / "in.png"
    Image.fromarray(numbers["lr_uint8"]).save(source)
    where, told = parts("rcod_s"), ["--model", str(converted("rcod_s"))]
    told += ["--base", str(where.base), "--vision", str(where.vision)]
    ran = CliRunner().invoke(app, ["plan", str(source), *told])
    assert ran.exit_code == 0, ran.output
    assert "96 x 64 to 384 x 256, 1 tile of at most 536 x 536, 1 pass, " in ran.output
    begun: list[Restorer] = []
    monkeypatch.setattr("rcod.doors.web.listen_and_serve", lambda load, *rest: begun.append(load()))
    ran = CliRunner().invoke(app, ["serve", *told])
    assert ran.exit_code == 0, ran.output
    assert begun[0].system.name == "rcod_s"


def test_a_published_system_competes_with_and_without_a_dial(tmp_path: Path):
    numbers = golden("osediff/astronaut_64x64.npz")
    Image.fromarray(numbers["lr_uint8"][:16, :16]).save(tmp_path / "lr.png")
    where = parts("rcod_o")
    both = [
        parse(f"{name}={converted(name)}", where.base, where.vision)
        for name in ("osediff", "rcod_o")
    ]
    assert both[0].labels == ("osediff",)
    assert both[1].labels == ("rcod_o@fidelity", "rcod_o@neutral", "rcod_o@realism")
    with pytest.raises(RcodError, match="osediff has one setting and no dial; leave auto out"):
        parse(f"{converted('osediff')}@auto", where.base)
    out = tmp_path / "out.png"
    (work,) = perform(
        both[0], [("a", str(tmp_path / "lr.png"), {"osediff": str(out)})], "cpu", "float32"
    )
    assert work["label"] == "osediff" and work["timestep"] == 999
    with Image.open(out) as made:
        assert made.size == (64, 64)


@pytest.mark.skipif(
    not Path("/proc/meminfo").exists(), reason="not checked here: nobody says what is free"
)
def test_a_published_system_takes_no_more_than_is_free(monkeypatch: pytest.MonkeyPatch):
    onestep = load(converted("osediff"), parts("osediff"))[1]
    osediff, photo = Restorer(SYSTEMS["osediff"], onestep, None), Photo(torch.zeros(3, 500, 500))
    assert keep_to(None, osediff, photo, (2000, 2000), ".png") is osediff
    monkeypatch.setattr("rcod.using.forecast.free_memory", lambda: 10**8)
    words = r"memory must be at least \d+\.\d\d GB a process for this photo"
    with pytest.raises(RcodError, match=words):
        keep_to(None, osediff, photo, (2000, 2000), ".png")
    assert keep_to(10**11, osediff, photo, (2000, 2000), ".png") is osediff


def test_a_sixth_system_is_a_row():
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    text = (Path(__file__).parents[1] / "docs/method.md").read_text(encoding="utf-8")
    names: dict[str, Callable[[Restorer], tuple[Restorer, Restorer]]] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    onestep = load(converted("osediff"), parts("osediff"))[1]
    osediff = Restorer(SYSTEMS["osediff"], onestep, None)
    early, turned = names["sixth"](osediff)
    lr = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = [osediff(lr), early(lr), turned(lr, "fidelity"), turned(lr, 1.0)]
    assert [one.timestep for one in results] == [999, 499, 249, 749]
    assert not torch.equal(results[0].photo.pixels, results[1].photo.pixels)


def distilled(folder: Path, latent: int = 4) -> AutoencoderTiny:
    """A small distilled autoencoder with random weights, in diffusers' layout."""
    torch.manual_seed(0)
    widths = (8, 8, 8, 8)
    network = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        latent_channels=latent,
    )
    network.save_pretrained(folder)
    return network.eval()


@pytest.mark.parametrize("name", ["osediff", "rcod_s"])
def test_a_distilled_decoder_takes_the_place_of_the_large_one(name: str, tmp_path: Path):
    network = distilled(tmp_path / "small")
    plain = load(converted(name), parts(name))[1]
    other = load(converted(name), parts(name, vae=str(tmp_path / "small")))[1]
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    z = plain.encode(photo)
    assert torch.equal(z, other.encode(photo))  # the encoder stays the system's own
    bodies = [other.backbone, other.backbone.steadied(lambda body: body.decode(z))]
    bodies += [other.backbone.tuned(torch.rand(1, 2))] if name == "rcod_s" else []
    with torch.inference_mode():
        expected = network.decode(z, return_dict=False)[0] / 2 + 0.5
        for body in bodies:
            torch.testing.assert_close(body.decode(z), expected)
    assert not torch.allclose(plain.backbone.decode(z), expected)


def test_the_command_line_takes_a_distilled_decoder(tmp_path: Path):
    distilled(tmp_path / "small")
    distilled(tmp_path / "wide", latent=16)
    Image.effect_noise((16, 16), 50).convert("RGB").save(tmp_path / "a.png")
    told = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--model"]
    hosted = [*told, str(converted("osediff")), "--base", str(parts("osediff").base), "--vae"]
    ran = CliRunner().invoke(app, [*hosted, str(tmp_path / "small")])
    assert ran.exit_code == 0, ran.output
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert made.size == (64, 64)
    for given, words in (
        ([*hosted, str(tmp_path / "wide"), "--overwrite"], "with latent_channels 4"),
        ([*hosted, "no-such-folder"], "--vae must be a folder or a hub id"),
        ([*told, "tiny", "--vae", "tiny"], "tiny has no use for --vae"),
    ):
        ran = CliRunner().invoke(app, given)
        assert ran.exit_code == 2 and words in ran.output, ran.output
