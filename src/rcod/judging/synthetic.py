"""What would a bad camera leave of good photos? A set to judge on, from a seed.

photos -> crops (hr) -> degrade (seed) -> out/HR, out/LR, out/degrade.json, out/sheet.png
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rcod.device import seeded
from rcod.errors import RcodError
from rcod.judging.datasets import SCALE
from rcod.pixels.images import Photo, read, write
from rcod.pixels.placing import ensure_folder
from rcod.training.degradation import degrade
from rcod.training.presets import settings_named
from rcod.using.sheet import draw_rows

SHOWN = 4  # pairs on the sheet


def make_synthetic(
    photos: Sequence[Path], out: Path, settings: str, seed: int, side: int, crops: int
) -> int:
    """Damage photos into a set: `out/HR`, `out/LR`, a sheet and what it was made with.

    Args:
        photos: good photos.
        out: a new or empty folder.
        settings: a name of `presets.SETTINGS`, or a YAML file.
        seed: of chance; picture i depends on the seed and on i alone.
        side: of a true picture, pixels.
        crops: places cut from each photo; the first is the centre.

    Returns:
        The number of pairs.
    """
    damage = settings_named(settings)
    if side < 32 or side % SCALE:
        raise RcodError(f"the side must be a multiple of {SCALE}, 32 or more, got {side}")
    ensure_folder(out)
    if any(out.iterdir()):
        raise RcodError(f"{out} must be a new or empty folder; name another")
    count, shown = 0, dict[str, list[Tensor]]()
    for path in photos:
        image = read(path).pixels
        height, width = image.shape[1:]
        if min(height, width) < side:
            raise RcodError(f"{path} must be {side} pixels a side, got {width} x {height}")
        for role in ("HR", "LR"):
            (out / role).mkdir(exist_ok=True)
        for number in range(crops):
            rng = seeded(seed * 1_000_003 + count)
            drawn = torch.rand(2, generator=rng).tolist() if number else (0.5, 0.5)
            top, left = (int(place * (full - side))
                         for place, full in zip(drawn, (height, width), strict=True))  # fmt: skip
            hr = image[:, top : top + side, left : left + side]
            name = f"{count:05d}_{path.stem}.png"
            write(out / "HR" / name, Photo(hr))
            lr = degrade(hr, damage, rng)
            write(out / "LR" / name, Photo(lr))
            if len(shown) < SHOWN:  # lr's own pixels, each as a square
                big = lr.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
                shown[Path(name).stem] = [big, hr]
            count += 1
    sheet = draw_rows(list(shown.values()), ["damaged", "true"], list(shown))
    sheet.save(out / "sheet.png")
    facts = {"settings": settings, "seed": seed, "side": side, "crops": crops,
             "degradation": damage.model_dump(mode="json")}  # fmt: skip
    (out / "degrade.json").write_text(json.dumps(facts, indent=1) + "\n")
    return count
