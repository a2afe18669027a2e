"""Does the server keep its word when too many come?

    python tools/load.py --clients 50 --seconds 120

Starts `rcod serve` with a queue of 8 and lets clients ask for pictures of a small photo without
pause, each at a random place of the dial. Every answer must be the right picture, or a 503 that
says when to come back. Prints counts, the 50th and 95th percentile of accepted requests, and the
server's memory after a minute (or half of the time, if that is less) and at the end.
"""

import argparse
import hashlib
import io
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from running import Running, start  # noqa: E402

PLACES = [step / 10 for step in range(11)]
QUEUE = 8


def main() -> None:
    """Run the load and fail on a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--side", type=int, default=64, help="pixels a side of the photo")
    given = parser.parse_args()
    server = start("--queue", str(QUEUE))
    try:
        report = load(server, given.clients, given.seconds, photo(given.side))
    finally:
        code, errors = server.end()
    print(json.dumps({**report, "exit_code": code, "errors": errors}, indent=2))
    if report["wrong"] or code or errors:
        sys.exit(1)


def load(
    server: Running, clients: int, seconds: float, content: bytes
) -> dict[str, float | int | dict[int, int]]:
    """Let clients ask until the time is over, and count what came back."""
    with httpx.Client(base_url=server.url, timeout=120) as alone:
        right = {place: ask(alone, content, place).content for place in PLACES}
    marks = {place: hashlib.sha256(picture).digest() for place, picture in right.items()}
    counts: Counter[int] = Counter()
    wrong: list[str] = []
    accepted: list[float] = []
    begin = time.monotonic()
    end = begin + seconds

    def client(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=server.url, timeout=120) as connection:
            while time.monotonic() < end:
                try:
                    visit(connection, rng)
                except httpx.HTTPError as error:
                    wrong.append(repr(error))

    def visit(connection: httpx.Client, rng: random.Random) -> None:
        place, asked = rng.choice(PLACES), time.perf_counter()
        answer = ask(connection, content, place)
        counts[answer.status_code] += 1
        if answer.status_code == 200:
            accepted.append(time.perf_counter() - asked)
            if hashlib.sha256(answer.content).digest() != marks[place]:
                wrong.append(f"another picture at {place}")
        elif answer.status_code == 503:
            time.sleep(int(answer.headers["retry-after"]) * rng.uniform(0.1, 0.5))  # impatient
        else:
            wrong.append(f"{answer.status_code}: {answer.text[:200]}")

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(min(60, seconds / 2))
    early = memory(server)
    for thread in threads:
        thread.join()
    accepted.sort()
    return {
        "clients": clients,
        "seconds": round(time.monotonic() - begin, 1),
        "answers": dict(counts),
        "wrong": len(wrong),
        **{f"p{part}_s": round(accepted[len(accepted) * part // 100], 3) for part in (50, 95)},
        "memory_early_mb": round(early / 1e6, 1),
        "memory_end_mb": round(memory(server) / 1e6, 1),
    }


def ask(connection: httpx.Client, content: bytes, place: float) -> httpx.Response:
    """One request."""
    files, data = {"image": ("photo.png", content)}, {"realism": str(place)}
    return connection.post("/v1/upscale", files=files, data=data)


def memory(server: Running) -> float:
    """The server's resident memory, bytes, by its own account."""
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return float(next(line for line in lines if line.startswith("rcod_memory_bytes")).split()[1])


def photo(side: int) -> bytes:
    """A piece of an example as PNG."""
    with Image.open(ROOT / "examples" / "otter.jpg") as image:
        image.crop((20, 20, 20 + side, 20 + side)).save(content := io.BytesIO(), "PNG")
    return content.getvalue()


if __name__ == "__main__":
    main()
