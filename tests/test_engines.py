"""Every engine gives PyTorch's picture, and what is exported needs no PyTorch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from rcod.diffusion.grouping import GroupSettings, timestep_of_realism
from rcod.errors import RcodError
from rcod.judging import fullsize
from rcod.networks.backbone import TinySettings
from rcod.networks.checkpoint import save
from rcod.networks.engines import precision, use_engine
from rcod.networks.exporting import _example, export, open_graph
from rcod.networks.framing import frame
from rcod.networks.graphs import Enlarge, sharp
from rcod.networks.systems import SYSTEMS, TINY, build
from rcod.pixels.images import read
from rcod.pixels.resample import taps
from rcod.using.restore import Restorer

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
has = {kind: find_spec(name) is not None and find_spec("onnxscript") is not None
       for kind, name in RUNTIMES.items()}  # fmt: skip
graphs = pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=pytest.mark.skipif(
        not there, reason=f"not checked here: pip install 'rcod[{kind}]'"))
    for kind, there in has.items()
])  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tiny model that changes every picture, differently at every level."""
    torch.manual_seed(0)
    shape = TinySettings(latent=12, lap=-15.0, widths=(8, 16), blocks=(1, 2, 1), touch=6)
    system = TINY.model_copy(update={"model": shape})
    onestep, metric = build(system)
    body = onestep.backbone
    body.basis.copy_(torch.linalg.qr(torch.randn(48, 48))[0][:12].view(12, 3, 4, 4))
    body.std.copy_(torch.linspace(1, 0.05, 12))
    for name, parameter in body.unet.named_parameters():
        torch.nn.init.normal_(parameter, std=0.02 if "time" in name else 0.1)
    assert body.touch is not None
    torch.nn.init.normal_(body.touch.last.weight, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, system, onestep, metric, torch.float32)
    return path


@pytest.fixture(autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCOD_CACHE", str(tmp_path_factory.getbasetemp() / "graphs"))


CLEAN = """import importlib.util, runpy, sys
sys.path.append(sys.argv[1])
sys.argv = sys.argv[2:]
there = {name: bool(importlib.util.find_spec(name)) for name in ("torch", "rcod")}
print(", ".join(f"{name} {'yes' if found else 'no'}" for name, found in there.items()))
runpy.run_path(sys.argv[0])
"""


def lay_environment(folder: Path, *packages: str) -> None:
    """A folder of links to packages and to what they need; nothing else is installed there."""
    folder.mkdir()
    waiting, known = list(packages), set[str]()
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        found = distribution(name)
        needs = [Requirement(text) for text in found.requires or ()]
        waiting += [one.name for one in needs if one.marker is None or one.marker.evaluate()]
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            place = folder / top
            if not place.exists():
                place.symlink_to(Path(str(found.locate_file(top))).resolve())


def difference(weights: Path, engine: str, dtype: str = "float32") -> float:
    """The greatest at any pixel of three photos at all levels, odd sides included, in 255ths."""
    plain, other = (
        Restorer.load(str(weights), "cpu", dtype, engine=one) for one in ("torch", engine)
    )
    found = 0.0
    for size in ((33, 20), (24, 41), (16, 16)):
        photo = torch.rand(3, *size, generator=torch.Generator().manual_seed(size[0]))
        for level in ("fidelity", "neutral", "realism", 0.3):
            one, two = (r(photo, level).photo.pixels for r in (plain, other))
            found = max(found, 255 * float((one - two).abs().max()))
    return found


@graphs
def test_engines_give_pytorchs_picture(kind, weights):
    assert difference(weights, kind) < 0.1


@graphs
def test_threads_may_share_a_restorer(kind, weights):
    restorer = Restorer.load(str(weights), "cpu", "float32", engine=kind)
    photos = [torch.rand(3, side, 40 - side) for side in (16, 20, 24)]
    alone = [restorer(photo, 0.5).photo.pixels for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(8):
            found = list(pool.map(lambda photo: restorer(photo, 0.5).photo.pixels, photos))
            assert all(map(torch.equal, found, alone))


def test_the_dial_moves_the_small_models_picture(weights):
    restorer = Restorer.load(str(weights), "cpu", "float32")
    photo = torch.rand(3, 16, 16)
    ends = [restorer(photo, level).photo.pixels for level in ("fidelity", "realism")]
    assert (ends[0] - ends[1]).abs().max() > 1 / 255


@graphs
def test_what_is_exported_runs_without_pytorch(kind, weights, tmp_path):
    restorer = Restorer.load(str(weights), "cpu", "float32")
    plain = Restorer.load(str(weights), "cpu", "float32", engine="torch")
    _, onestep, _ = load_plain(weights)
    told = export(restorer.system, onestep, kind, tmp_path / "out")
    assert max(told["difference"].values()) < 0.1
    assert set(told["graphs"]) == {"enlarge", "prompt", "encode", "clean", "decode", "color"}
    lying = Image.Exif()
    lying[0x0112] = 6
    photo = Image.radial_gradient("L").convert("RGB").resize((45, 30))
    photo.save(tmp_path / "photo.png", exif=lying)
    lay_environment(tmp_path / "packages", "numpy", "pillow", RUNTIMES[kind])
    given = [tmp_path / "packages", tmp_path / "out" / "example.py", tmp_path / "out",
             tmp_path / "photo.png", "0.25", tmp_path / "result.png"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CLEAN, *map(str, given)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch no, rcod no\n"
    expected = plain(tmp_path / "photo.png", 0.25).photo.pixels
    found = read(tmp_path / "result.png").pixels
    assert found.shape == expected.shape == (3, 180, 120)
    assert 255 * (found - expected).abs().max() <= 1


@pytest.mark.parametrize(
    "stops", [(664, 499, 349), (749, 499, 249), (900, 620, 75, 20), (401, 100), (300,)]
)
def test_the_examples_dial_is_ours(stops):
    groups = GroupSettings(edges=tuple(map(float, range(1, len(stops)))), timesteps=stops)
    example = _example("onnx", TINY.model_copy(update={"groups": groups}), False)
    (line,) = [line for line in example.splitlines() if line.startswith("t = ")]
    for place in (0, 0.1, 0.25, 1 / 3, 0.5, 0.57, 0.75, 0.9, 1):
        found: dict[str, object] = {"np": np, "realism": str(place)}
        exec(line, found)
        assert found["t"] == timestep_of_realism(place, groups)
    fixed = _example("onnx", SYSTEMS["osediff"], False)
    assert "t = 999  #" in fixed


@pytest.mark.skipif(not has["onnx"], reason="not checked here: pip install 'rcod[onnx]'")
def test_a_system_whose_adapters_follow_the_photo_is_exported(tmp_path, monkeypatch):
    pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")
    small = {"norm_num_groups": 8, "layers_per_block": 1}
    body = {"block_out_channels": [16, 32], "attention_head_dim": 2}
    kinds = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
             "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip
    monkeypatch.setattr(fullsize, "UNET", fullsize.UNET | small | body | kinds)
    monkeypatch.setattr(fullsize, "VAE", fullsize.VAE | small | {"block_out_channels": [8] * 4})
    torch.manual_seed(0)
    system = SYSTEMS["s3diff"]
    told = export(system, fullsize.invent(system, torch.float32), "onnx", tmp_path)
    assert told["graphs"]["clean"] == ["z", "t", "tokens", "scores"]
    assert told["timesteps"]["realism"] == 999
    assert "scores" in (tmp_path / "example.py").read_text()
    run = {name: open_graph(tmp_path / f"{name}.onnx", 2) for name in ("scores", "encode")}
    photo = np.random.default_rng(0).random((1, 3, 48, 32), np.float32)
    assert run["scores"]([photo]).shape == (1, 2)
    up = photo.repeat(4, 2).repeat(4, 3)
    one, two = (run["encode"]([up, np.full((1, 2), s, np.float32)]) for s in (0.1, 0.9))
    assert np.abs(one - two).max() > 1e-3  # other scores, another latent


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # PyTorch of itself
@pytest.mark.parametrize("name", ["osediff", "s3diff"])
def test_the_compiler_takes_one_region_or_says_why_not(name):
    pytest.importorskip("diffusers", reason="not checked here: pip install 'rcod[sd]'")
    with torch.device("meta"):
        onestep = fullsize.invent(SYSTEMS[name], torch.float32)
    if name == "s3diff":
        with pytest.raises(RcodError, match="whose adapters follow the photo"):
            use_engine(onestep, "compile")
        return
    use_engine(onestep, "compile")
    (unet,) = onestep.backbone.unets
    assert unet._compiled_call_impl is not None
    assert onestep.backbone.vae._compiled_call_impl is None


@pytest.mark.parametrize(("name", "most"), [("osediff", 1.001), ("s3diff", 1e-3), ("tiny", 1e-3)])
def test_exported_enlarging_is_the_systems_own(name, most):
    system = SYSTEMS[name]
    photo = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    step = (
        255
        * (
            Enlarge(system.framing)(photo) - frame(photo, system.framing, 4, 1).up[..., :192, :128]
        ).abs()
    )
    assert step.max() <= most and (step > 0.5).float().mean() < 0.01


def test_traced_enlarging_has_the_weights_of_taps():
    place, weight = taps(36, 9, (0, 36))
    dense = torch.zeros(36, 9).scatter_add_(1, place, weight)
    torch.testing.assert_close(sharp(9, torch.zeros(())), dense, rtol=0, atol=1e-6)


def load_plain(weights: Path):
    from rcod.networks.checkpoint import load_onto

    return load_onto(str(weights), torch.device("cpu"), torch.float32)


def test_wrong_engines_are_named():
    cpu = torch.device("cpu")
    with pytest.raises(RcodError, match="engine must be one of auto, torch, compile"):
        precision("tensorflow", "auto", cpu)
    with pytest.raises(RcodError, match="openvino computes in float32 here, got bfloat16"):
        precision("openvino", "bfloat16", cpu)
    with pytest.raises(RcodError, match="openvino runs on the processor here, got meta"):
        precision("openvino", "float32", torch.device("meta"))
    assert precision("openvino", "auto", cpu) == torch.float32


def test_a_missing_runtime_is_named(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RcodError, match=r"onnx needs onnxruntime, got: .*rcod\[onnx\]"):
        Restorer.load(str(weights), "cpu", engine="onnx")


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # PyTorch of itself
@pytest.mark.skipif(
    not any(Path(p, "c++").exists() for p in ("/usr/bin",)),
    reason="not checked here: no C++ compiler",
)
def test_the_compiler_gives_pytorchs_picture_in_bfloat16_too(weights):
    assert difference(weights, "compile", "bfloat16") < 0.1
