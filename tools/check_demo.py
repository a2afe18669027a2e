"""Check that the demo wrote every picture it promises, four times as large, and that each opens.

python tools/check_demo.py examples demo
"""

import sys
from pathlib import Path

from PIL import Image

LEVELS = ("fidelity", "neutral", "realism", "auto")


def check(photo: Path, folder: Path) -> int:
    """Open one photo's results and its contact sheet; return how many pictures that were."""
    with Image.open(photo) as before:
        wanted = (before.width * 4, before.height * 4)
    for level in (*LEVELS, "levels"):
        matches = sorted(folder.glob(f"{photo.stem}-{level}.*"))
        if len(matches) != 1:
            raise SystemExit(
                f"expected one {photo.stem}-{level}.* in {folder}, found {len(matches)}"
            )
        with Image.open(matches[0]) as after:
            after.load()
            if level != "levels" and after.size != wanted:
                raise SystemExit(f"{matches[0]} is {after.size}, expected {wanted}")
    return len(LEVELS) + 1


def main() -> None:
    """Check every example against the demo's folder."""
    examples, folder = Path(sys.argv[1]), Path(sys.argv[2])
    count = sum(check(photo, folder) for photo in sorted(examples.glob("*.jpg")))
    if not count:
        raise SystemExit(f"no example photos in {examples}")
    print(f"{count} pictures in {folder} open and have the right size")


if __name__ == "__main__":
    main()
