"""Scores equal the published ones; what can't be compared is named."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rcod.errors import RcodError
from rcod.judging.datasets import pixels
from rcod.judging.inception import Inception, frechet
from rcod.judging.judge import Judge, fingerprint
from rcod.judging.scoring import score_folder
from rcod.pixels.aids import aid
from rcod.pixels.images import Photo, write
from rcod.pixels.likeness import Dists, Lpips, alex_taps, vgg_taps

BENCH = Path(__file__).parents[2] / "shared" / "benchmarks" / "realsr"
WITHIN = {"psnr": 1e-3, "ssim": 1e-3, "niqe": 0.02, "lpips": 1e-3, "dists": 1e-3}
needs_bench = pytest.mark.skipif(
    not BENCH.is_dir(), reason="not checked here: the RealSR benchmark is not beside the repository"
)


def published() -> list[dict[str, str]]:
    with (BENCH / "osediff_published.csv").open() as file:
        return list(csv.DictReader(file))


@needs_bench
def test_psnr_and_ssim_equal_the_published_ones_on_every_picture():
    judge, found = Judge(), []
    for row in published():
        sr, hr = (pixels(BENCH / folder / row["name"]) for folder in ("osediff", "HR"))
        (values,) = judge.values([sr], hr)
        assert values["psnr"] == pytest.approx(float(row["psnr"]), abs=1e-5)
        assert values["ssim"] == pytest.approx(float(row["ssim"]), abs=1e-5)
        found.append(values["psnr"])
    assert sum(found) / len(found) == pytest.approx(25.1511, abs=5e-5)


@needs_bench
@pytest.mark.parametrize("measure", ["niqe", "lpips", "dists"])
def test_measure_with_weights_equals_the_published_one(measure: str):
    judge = Judge.load(wanted=[measure])
    if measure in judge.missing:
        pytest.skip(f"not checked here: {measure} {judge.missing[measure]}")
    flat = [row for row in published() if row["name"] in ("Nikon_003_LR4.png", "Nikon_035_LR4.png")]
    for row in published()[::20] + flat:  # white places decide by round-off on those two
        (values,) = judge.values(
            [pixels(BENCH / "osediff" / row["name"])], pixels(BENCH / "HR" / row["name"])
        )
        assert values[measure] == pytest.approx(float(row[measure]), abs=WITHIN[measure])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for role, flip in (("SR", False), ("HR", True)):
        (tmp_path / role).mkdir()
        for i in range(3):
            picture = Image.radial_gradient("L").resize((40 + i, 32)).convert("RGB")
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture
            picture.save(tmp_path / role / f"a_{i}.png")
    return tmp_path / "SR", tmp_path / "HR"


def test_sheet_is_json_with_means_images_and_reasons(folders: tuple[Path, Path], tmp_path: Path):
    found = score_folder(*folders, Judge.load(tmp_path))
    sheet = json.loads(json.dumps(found.model(), allow_nan=False))
    assert list(sheet["images"]) == ["a_0.png", "a_1.png", "a_2.png"]
    assert set(sheet["mean"]) == {"psnr", "ssim", "detail"}
    assert sheet["mean"]["psnr"] == pytest.approx(
        sum(one["psnr"] for one in sheet["images"].values()) / 3
    )
    assert "fetch_aids.py" in sheet["missing"]["niqe"]
    assert "alexnet-owt-7be5be79.pth" in sheet["missing"]["lpips"]
    assert sheet["fingerprint"] == fingerprint(sheet["protocol"])


def test_measure_not_asked_for_is_not_missed(folders: tuple[Path, Path]):
    assert score_folder(*folders, Judge.load(wanted=["psnr"])).missing == {}
    with pytest.raises(RcodError, match=r"a measure must be one of psnr, .*, got pnsr"):
        Judge.load(wanted=["pnsr"])


def test_names_without_partner_are_all_named(folders: tuple[Path, Path]):
    (folders[0] / "a_0.png").rename(folders[0] / "b_0.png")
    words = r"SR \(3 pictures\).*b_0\.png has no true picture; a_0\.png of HR has no result"
    with pytest.raises(RcodError, match=words):
        score_folder(*folders, Judge())


def test_fewer_results_than_truths_are_not_passed_over(folders: tuple[Path, Path]):
    (folders[0] / "a_1.png").unlink()
    with pytest.raises(RcodError, match=r"a_1\.png of HR has no result"):
        score_folder(*folders, Judge())


def test_two_files_of_one_picture_are_refused(folders: tuple[Path, Path]):
    (folders[0] / "a_1_x4.png").write_bytes((folders[0] / "a_1.png").read_bytes())
    with pytest.raises(RcodError, match=r"two files of one picture, a_1\.png and a_1_x4\.png"):
        score_folder(*folders, Judge())


def test_unfit_pictures_are_all_named(folders: tuple[Path, Path]):
    Image.new("L", (40, 32)).save(folders[0] / "a_0.png")
    Image.new("RGBA", (41, 32)).save(folders[1] / "a_1.png")
    Image.new("RGB", (7, 9)).save(folders[0] / "a_2.png")
    with pytest.raises(RcodError) as told:
        score_folder(*folders, Judge())
    words = str(told.value)
    assert "SR/a_0.png has grey" in words and "HR/a_1.png has an alpha channel" in words
    assert "a_2.png is 7 x 9 and its true picture 42 x 32" in words and "3 can't be" in words


def test_16_bits_are_named(folders: tuple[Path, Path]):
    Image.new("I;16", (40, 32)).save(folders[0] / "a_0.png")
    with pytest.raises(RcodError, match=r"SR/a_0\.png has 16-bit grey"):
        score_folder(*folders, Judge())


def test_16_bits_a_channel_are_named(folders: tuple[Path, Path]):
    wide = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0))
    for folder, suffix in zip(folders, (".png", ".tif"), strict=True):
        (folder / "a_0.png").unlink()
        write(folder / f"a_0{suffix}", Photo(wide, bits=16))
    with pytest.raises(RcodError) as told:
        score_folder(*folders, Judge())
    words = str(told.value)
    assert "SR/a_0.png has 16 bits a channel" in words and "HR/a_0.tif has" in words


def weights(shapes: dict[int, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {}
    for layer, shape in shapes.items():
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        found[f"features.{layer}.weight"] = torch.randn(shape, generator=rng) * scale
        found[f"features.{layer}.bias"] = torch.zeros(shape[0])
    return found


ALEX = weights({0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3),
                10: (256, 256, 3, 3)})  # fmt: skip


def vgg_weights() -> dict[str, torch.Tensor]:
    layers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    return weights({layer: (widths[i + 1], widths[i], 3, 3) for i, layer in enumerate(layers)})


def test_trunks_have_the_published_shapes():
    x = torch.rand(1, 3, 64, 64)
    sizes = [tuple(tap.shape[1:]) for tap in alex_taps(x, ALEX)]
    assert sizes == [(64, 15, 15), (192, 7, 7), (384, 3, 3), (256, 3, 3), (256, 3, 3)]
    sizes = [tuple(tap.shape[1:]) for tap in vgg_taps(x, vgg_weights())]
    assert sizes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]


def test_lpips_and_dists_rise_with_damage_from_zero():
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, 64, 64, generator=rng)
    noise = torch.randn(x.shape, generator=rng)
    heads = tuple(torch.ones(width) for width in (64, 192, 384, 256, 256))
    for measure in (
        Lpips("alex", ALEX, heads),
        Dists(vgg_weights(), torch.ones(1475), torch.ones(1475)),
    ):
        values = [float(measure((x + s * noise).clamp(0, 1), x)) for s in (0, 0.05, 0.2)]
        assert values[0] == pytest.approx(0, abs=1e-5)
        assert values == sorted(values)


def test_frechet_distance_equals_its_formula():
    rng = torch.Generator().manual_seed(2)
    a = torch.randn(50, 4, generator=rng, dtype=torch.float64)
    b = 2 * torch.randn(60, 4, generator=rng, dtype=torch.float64) + 1
    product = a.T.cov() @ b.T.cov()
    root = torch.linalg.eigvals(product).sqrt().real.sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace()
    assert frechet(a, b) == pytest.approx(float(expected - 2 * root))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_aids_are_looked_for_where_told(tmp_path: Path):
    assert aid("x.safetensors", tmp_path) == tmp_path / "x.safetensors"


def test_aids_that_are_no_weights_leave_a_blank_with_its_reason(tmp_path: Path):
    page = b"<!DOCTYPE html><html>Not Found</html>"
    for name in ("alexnet-owt-7be5be79.pth", aid("hed_vgg16.safetensors", tmp_path).name):
        (tmp_path / name).write_bytes(page)
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"\x80\x02cos\nsystem\n.")
    judge = Judge.load(tmp_path, wanted=["psnr", "lpips", "lpips-vgg", "lpips-hed"])
    assert judge.able == ("psnr",)
    for name in ("lpips", "lpips-vgg"):
        assert "must be a plain state dict, and is no such file or asks" in judge.missing[name]
    assert "hed_vgg16.safetensors must be whole safetensors, got" in judge.missing["lpips-hed"]


def test_the_inception_sees_bytes_about_128_and_none_that_a_resize_throws_beyond(
    monkeypatch: pytest.MonkeyPatch,
):
    seen: list[torch.Tensor] = []

    def keep(self: Inception, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(1, 2048)

    monkeypatch.setattr(Inception, "features", keep)
    checks = ((torch.arange(40).view(1, -1) // 8 + torch.arange(40).view(-1, 1) // 8) % 2).float()
    Inception({})(checks.expand(3, 40, 40))
    assert (float(seen[0].min()), float(seen[0].max())) == (-1, 127 / 128)


def test_fid_of_one_pair_is_blank_with_its_reason(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    for folder in folders:
        for i in (1, 2):
            (folder / f"a_{i}.png").unlink()
    monkeypatch.setattr(Inception, "features", lambda self, x: torch.zeros(1, 2048))
    found = score_folder(*folders, Judge(inception=Inception({})))
    assert found.missing["fid"] == "it needs two pictures" and "fid" not in found.mean
