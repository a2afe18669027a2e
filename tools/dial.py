"""How fast does the page answer a turn of the dial?

    python tools/dial.py

Drives the real page in headless Chromium, with a square photo for each result size, and prints
medians in milliseconds: until a turn shows on the screen, and until the picture that stays does;
and how many of the turns the server told from other places instead of running the network.
Chromium draws in software here, on the same cores as the server. Then prints how far the blends
and what is told are from the exact pictures, in 8-bit steps, for every example, beside the whole
way from fidelity to realism.
"""

import argparse
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from rcod.pixels.images import read
from rcod.using.interpolation import NODES
from rcod.using.open_photo import OpenPhoto, Setting
from rcod.using.restore import Restorer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Chrome, chromium, wait_for  # noqa: E402
from running import start  # noqa: E402

SIZES = (512, 2048)  # pixels a side of the result
TURNS = [0.03 + 0.09 * i for i in range(11)]  # none of them a node
TURN = "const d = document.getElementById('dial'); d.value = arguments[0];" \
       "d.dispatchEvent(new Event('input'));"  # fmt: skip
TIMES = "return performance.getEntriesByName(arguments[0]).map(entry => entry.duration);"


def main() -> None:
    """Measure every size and print one JSON object a line."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    server = start()
    try:
        with tempfile.TemporaryDirectory() as folder, chromium(1280, 800, Path(folder)) as page:
            for size in SIZES:
                print(json.dumps(measure(page, server.url, Path(folder), size)))
    finally:
        server.end()
    for example in sorted((ROOT / "examples").glob("*.jpg")):
        print(json.dumps(compare(example)))


def measure(page: Chrome, url: str, folder: Path, size: int) -> dict[str, float | int]:
    """Open a photo, let the levels come, and turn the dial."""
    with Image.open(ROOT / "examples" / "otter.jpg") as otter:
        otter.resize((size // 4, size // 4)).save(folder / f"{size}.png")
    page.get(url)
    page.find_element("id", "pick").send_keys(str(folder / f"{size}.png"))
    wait_for(page, "document.body.dataset.ahead === 'true'", 120)
    page.execute_script("performance.clearMeasures()")
    told = 0
    for turn in TURNS:
        page.execute_script(TURN, str(turn))
        wait_for(page, "document.body.dataset.state === 'exact'", 60)
        told += "grey levels" in page.find_element("id", "status").text
    shown, exact = (page.execute_script(TIMES, f"rcod {kind}") for kind in ("blend", "exact"))
    return {
        "result": size,
        "turns": len(TURNS),
        "answered_ms": round(median(shown), 1),
        "settled_ms": round(median(exact), 1),
        "told": told,
    }


def compare(example: Path) -> dict[str, float | str | bool]:
    """Blend levels as the page does, tell places as the server does, and look how far both are."""
    photo = read(example)
    held = OpenPhoto(Restorer.load("tiny"), photo)

    def pixels(place: float) -> torch.Tensor:
        return 255 * held.result(Setting(place)).photo.pixels

    nodes = {node: pixels(node) for node in NODES}
    told = {turn: held.view(Setting(turn)) for turn in TURNS}
    errors: dict[str, list[torch.Tensor]] = {"blend": [], "told": []}
    for turn in TURNS:
        own = pixels(turn)
        below, above = next(pair for pair in pairwise(NODES) if turn < pair[1])
        blend = torch.lerp(nodes[below], nodes[above], (turn - below) / (above - below))
        errors["blend"].append((blend - own).abs())
        errors["told"].append((255 * told[turn].result.photo.pixels - own).abs())
    found: dict[str, float | str | bool] = {
        "example": example.stem, "told": all(view.interpolated for view in told.values())
    }  # fmt: skip
    for name, ones in errors.items():
        found |= {
            f"{name}_mean": round(max(float(one.mean()) for one in ones), 3),
            f"{name}_largest": round(max(float(one.max()) for one in ones), 2),
            f"{name}_further_than_1": max(float((one > 1).float().mean()) for one in ones),
        }
    whole = float((nodes[1.0] - nodes[0.0]).abs().mean())
    return found | {"fidelity_to_realism_mean": round(whole, 3)}


if __name__ == "__main__":
    main()
