"""Check that the demo wrote every picture it promises, four times as large, and that each opens.

python tools/check_demo.py examples demo
"""

import argparse
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("examples", type=Path, help="folder of the photos")
    parser.add_argument("demo", type=Path, help="folder of the results")
    options = parser.parse_args()
    photos = sorted(options.examples.glob("*.jpg"))
    count = sum(check(photo, options.demo) for photo in photos)
    if not count:
        raise SystemExit(f"no example photos in {options.examples}")
    print(f"{count} pictures in {options.demo} open and have the right size")


if __name__ == "__main__":
    main()
