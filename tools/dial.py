"""How fast does the page answer a turn of the dial?

    python tools/dial.py

Drives the real page in headless Chromium, with a square photo for each result size, and prints
medians in milliseconds: until a turn shows on the screen, and until the exact picture does.
Chromium draws in software here, on the same cores as the server. Then prints how far the blends
are from the exact pictures, in 8-bit steps, beside the whole way from fidelity to realism.
"""

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from rcod.pixels.images import read
from rcod.using.restore import Restorer
from rcod.using.sitting import Place, Sitting

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Chrome, chromium, wait_for  # noqa: E402
from running import start  # noqa: E402

SIZES = (512, 2048)  # pixels a side of the result
TURNS = [0.03 + 0.09 * i for i in range(11)]  # none of them a level
TURN = "const d = document.getElementById('dial'); d.value = arguments[0];" \
       "d.dispatchEvent(new Event('input'));"  # fmt: skip
TIMES = "return performance.getEntriesByName(arguments[0]).map(entry => entry.duration);"


def main() -> None:
    """Measure every size and print one JSON object a line."""
    server = start()
    try:
        with tempfile.TemporaryDirectory() as folder, chromium(1280, 800, Path(folder)) as page:
            for size in SIZES:
                print(json.dumps(measure(page, server.url, Path(folder), size)))
    finally:
        server.end()
    print(json.dumps(compare()))


def measure(page: Chrome, url: str, folder: Path, size: int) -> dict[str, float | int]:
    """Open a photo, let the levels come, and turn the dial."""
    with Image.open(ROOT / "examples" / "otter.jpg") as otter:
        otter.resize((size // 4, size // 4)).save(folder / f"{size}.png")
    page.get(url)
    page.find_element("id", "pick").send_keys(str(folder / f"{size}.png"))
    wait_for(page, "document.body.dataset.ahead === 'true'", 120)
    page.execute_script("performance.clearMeasures()")
    for turn in TURNS:
        page.execute_script(TURN, str(turn))
        wait_for(page, "document.body.dataset.state === 'exact'", 60)
    shown, exact = (page.execute_script(TIMES, f"rcod {kind}") for kind in ("blend", "exact"))
    return {
        "result": size,
        "turns": len(TURNS),
        "answered_ms": round(median(shown), 1),
        "exact_ms": round(median(exact), 1),
    }


def compare() -> dict[str, float]:
    """Blend two levels as the page does, and look how far that is from the exact picture."""
    sitting = Sitting(Restorer.load("tiny"), read(ROOT / "examples" / "otter.jpg"))

    def pixels(place: float) -> torch.Tensor:
        return 255 * sitting.result(Place(place)).photo.pixels

    means: list[float] = []
    largest = 0.0
    for turn in TURNS:
        below = 0.5 * (turn // 0.5)
        blend = torch.lerp(pixels(below), pixels(below + 0.5), (turn - below) / 0.5)
        error = (blend - pixels(turn)).abs()
        means.append(float(error.mean()))
        largest = max(largest, float(error.max()))
    return {
        "blend_error_mean": round(median(means), 3),
        "blend_error_largest": round(largest, 1),
        "fidelity_to_realism_mean": round(float((pixels(1.0) - pixels(0.0)).abs().mean()), 3),
    }


if __name__ == "__main__":
    main()
