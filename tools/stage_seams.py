"""How far do tiles of Stable Diffusion's networks lie from a whole pass, stage by stage?

    python tools/stage_seams.py BASE [--photo FILE] [--side 512] [--tile 32]
    python tools/stage_seams.py sd ...      true shapes, random weights

On a flat grey, a gradient, and a photo if one is given: how far tiles lie from a whole pass in the
mean, and how far two neighbours disagree in the middle of what both see, before they are
blended. Of the encoder and the decoder with each tile's own norms and with joint ones, and of the
UNet. Latents and noise in hundredths of their own spread, pictures in 8-bit steps.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rcod.judging.fullsize import fill
from rcod.networks.shapes import UNET, VAE
from rcod.networks.stable import StableBackbone, empty_network, fill_network, read_config
from rcod.networks.steady import probes
from rcod.pixels.images import read
from rcod.pixels.tiling import tiled
from rcod.using.published_pass import lap


def stand(base: str) -> StableBackbone:
    """The networks of a folder, or random ones of the true shapes."""
    if base == "sd":
        unet, vae = (
            fill(empty_network(UNET, "unet"), torch.float32),
            fill(empty_network(VAE, "vae"), torch.float32),
        )
    else:
        unet, vae = (
            fill_network(empty_network(read_config(Path(base), part), part), Path(base) / part,
                         torch.float32)
            for part in ("unet", "vae")
        )  # fmt: skip
    body = StableBackbone([unet], vae)  # pyright: ignore[reportArgumentType]
    return body.eval().requires_grad_(False)


def apart(
    function: Callable[[Tensor], Tensor], x: Tensor, tile: int, share: int, scale: float
) -> float:
    """How far two neighbouring tiles disagree in the middle of what both of them see."""
    left, right = (function(x[..., :tile, start : start + tile]) for start in (0, tile - share))
    width, half = round(share * scale), round(share * scale / 4)
    a, b = left[..., -width:][..., half : width - half], right[..., half : width - half]
    return float((a - b).abs().mean())


@torch.inference_mode()
def compare(body: StableBackbone, image: Tensor, side: int) -> list[str]:
    """What tiles of `side` latent pixels change, stage by stage."""
    width = int(body.unets[0].config["cross_attention_dim"])  # pyright: ignore
    tokens, t = torch.zeros(1, 77, width), torch.tensor([499])
    z = body.encode(image)
    eps, whole = body.predict(z, t, tokens), body.decode(z)
    pixels, share = side * body.factor, lap(side) * body.factor
    inward, outward = 1 / body.factor, body.factor
    percent, noise, step = float(z.std()) / 100, float(eps.std()) / 100, 1 / 255
    lines: list[str] = []

    def tell(stage: str, gap: Tensor, beside: float, unit: float) -> None:
        far = float(gap.abs().mean())
        lines.append(f"{stage:20} {far / unit:8.2f} from the whole, {beside / unit:8.2f} apart")

    joint = body.steadied(lambda one: one.encode(probes(image, pixels, body.factor)))
    for name, one in (("encode, own norms", body), ("encode", joint)):
        found = tiled(one.encode, image, pixels, share, scale=inward)
        tell(name, found - z, apart(one.encode, image, pixels, share, inward), percent)

    def predict(cut: Tensor) -> Tensor:
        return body.predict(cut, t, tokens)

    found = tiled(predict, z, side, side // 3)
    tell("predict", found - eps, apart(predict, z, side, side // 3, 1), noise)
    joint = body.steadied(lambda one: one.decode(probes(z, side)))
    for name, one in (("decode, own norms", body), ("decode", joint)):
        found = tiled(one.decode, z, side, lap(side), scale=outward)
        tell(name, found - whole, apart(one.decode, z, side, lap(side), outward), step)
    return lines


def main() -> None:
    """Print one line a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--tile", type=int, default=32, help="latent pixels")
    parser.add_argument("--only", default="grey,gradient,photo")
    given = parser.parse_args()
    body, side = stand(given.base), given.side
    ramp = torch.linspace(0, 1, side).expand(1, 3, side, side)
    pictures = {"grey": torch.full_like(ramp, 0.5), "gradient": ramp}
    if given.photo is not None:
        pictures["photo"] = read(given.photo).pixels[None, :, :side, :side]
        if pictures["photo"].shape[-2:] != (side, side):
            parser.error(f"--photo must be at least {side} x {side}; lower --side")
    for name in given.only.split(","):
        if name in pictures:
            started = time.perf_counter()
            found = compare(body, pictures[name].contiguous(), given.tile)
            print(f"{name}, {side} x {side}, tiles of {given.tile} latent pixels, "
                  f"{time.perf_counter() - started:.1f} s", flush=True)  # fmt: skip
            print("\n".join(f"  {line}" for line in found), flush=True)


if __name__ == "__main__":
    main()
