"""Competitors that run here do what their files say."""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rcod.errors import RcodError
from rcod.judging.contenders import Contender, parse
from rcod.judging.datasets import pixels
from rcod.judging.peers import bicubic, maker, perform
from rcod.pixels.images import Photo, write

NEAREST = """7767517
2 2
Input data 0 1 data
Interp up 1 1 data output 0=1 1={scale} 2={scale}
"""


@pytest.fixture
def lr(tmp_path: Path) -> Path:
    rng = torch.Generator().manual_seed(0)
    write(tmp_path / "lr.png", Photo(torch.rand(3, 5, 6, generator=rng)))
    return tmp_path / "lr.png"


def net(folder: Path, text: str) -> Contender:
    (folder / "net.param").write_text(text)
    (folder / "net.bin").write_bytes(b"")
    return parse(f"Net={folder / 'net.param'}")


def test_ncnn_network_makes_its_picture(lr: Path, tmp_path: Path):
    pytest.importorskip("ncnn", reason="not checked here: ncnn isn't installed")
    contender, out = net(tmp_path, NEAREST.format(scale="4.0")), tmp_path / "out" / "a.png"
    (work,) = perform(contender, [("a", str(lr), {"Net": str(out)})], "cpu", "float32")
    expected = pixels(lr).repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(pixels(out), expected)
    assert work["label"] == "Net" and work["seconds"] > 0 and work["peak_mb"] > 50


def test_network_of_another_scale_is_refused(lr: Path, tmp_path: Path):
    pytest.importorskip("ncnn", reason="not checked here: ncnn isn't installed")
    contender = net(tmp_path, NEAREST.format(scale="2.0"))
    with pytest.raises(RcodError, match="must enlarge pictures 4 times, got 12 x 10 from 6 x 5"):
        list(perform(contender, [("a", str(lr), {"Net": str(tmp_path / "a.png")})], "cpu", "auto"))


def test_bicubic_keeps_flat_pictures_and_enlarges_four_times():
    flat = torch.full((3, 5, 6), 0.4)
    torch.testing.assert_close(bicubic(flat), torch.full((3, 20, 24), 0.4))
    assert maker(Contender("bicubic", "bicubic"))(flat).shape == (3, 20, 24)


def test_identity_follows_the_files(tmp_path: Path):
    one = net(tmp_path, NEAREST.format(scale="4.0"))
    before = one.identity()
    assert set(one.weights()) == {"net.param", "net.bin"}
    (tmp_path / "net.bin").write_bytes(b"other")
    assert one.identity() != before


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """spandrel itself; two of its networks, none of them here, want torchvision's resizes."""
    if find_spec("spandrel") is None:
        pytest.skip("not checked here: spandrel isn't installed")
    if find_spec("torchvision") is None:
        resizes = ModuleType("torchvision.transforms.functional")
        for name in ("InterpolationMode", "rotate", "normalize"):
            setattr(resizes, name, None)
        for name in ("torchvision", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "torchvision.transforms.functional", resizes)
    before = set(sys.modules)
    yield import_module("spandrel")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "spandrel":
            del sys.modules[name]


@pytest.mark.parametrize("scale", [4, 2])
def test_network_that_spandrel_reads_makes_its_picture(
    lr: Path, tmp_path: Path, spandrel: ModuleType, scale: int
):
    torch.manual_seed(0)
    network = import_module("spandrel.architectures.ESRGAN").ESRGAN(
        num_filters=8, num_blocks=1, scale=scale
    )
    torch.save(network.state_dict(), tmp_path / "net.pth")
    contender, out = parse(f"Net={tmp_path / 'net.pth'}"), tmp_path / "out" / "a.png"
    jobs = [("a", str(lr), {"Net": str(out)})]
    if scale != 4:
        with pytest.raises(RcodError, match="must enlarge pictures 4 times, it doesn't"):
            list(perform(contender, jobs, "cpu", "float32"))
        return
    (work,) = perform(contender, jobs, "cpu", "float32")
    with torch.inference_mode():
        expected = network.eval()(pixels(lr)[None])[0].clamp(0, 1)
    torch.testing.assert_close(pixels(out), expected, rtol=0, atol=0.51 / 255)
    assert work["label"] == "Net" and work["seconds"] > 0


def test_file_that_spandrel_does_not_know_is_named(tmp_path: Path, spandrel: ModuleType):
    torch.save({"a": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(RcodError, match=r"net\.pth must be a network spandrel knows, got"):
        maker(parse(str(tmp_path / "net.pth")))


def test_missing_spandrel_says_what_to_install(tmp_path: Path):
    try:
        import_module("spandrel")
    except (ImportError, RuntimeError):
        (tmp_path / "a.pth").write_bytes(b"")
        with pytest.raises(RcodError, match=r"needs spandrel and torchvision: pip install 'rcod"):
            maker(parse(str(tmp_path / "a.pth")))
    else:
        pytest.skip("spandrel is installed")
