"""Which pictures belong together, and may they be compared?

The field's sets are known by name in StableSR's layout; any two folders with pictures of the same
names are a set as well, and so is a folder of photos without true pictures. Nothing is
skipped in silence: whatever keeps pictures apart is told, all of it at once.

    name or folder -> Dataset (lr, hr) -> check -> exact pixels
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.images import find

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

SCALE = 4  # LR to HR in every set here
NAME = re.compile(r"[\w .+-]+")  # what folders can be called everywhere
ROLE = re.compile(r"_(LR|HR|SR)\d*$|_x\d$", re.IGNORECASE)  # what follows a picture's name
LOWS, HIGHS = ("LR", "test_LR", "lq", "lr"), ("HR", "test_HR", "gt", "hr")  # folders of a set
KNOWN = {  # name -> number of pictures, folders it is published in
    "realsr": (100, ("realsr", "RealSR", "RealSRVal_crop128")),
    "drealsr": (93, ("drealsr", "DRealSR", "DrealSRVal_crop128")),
    "div2k-val": (3000, ("div2k-val", "DIV2K_V2_val", "DIV2K-Val")),
}
SPELLED = 12  # troubles that one error spells out
MODES = {"L": "grey", "1": "black and white", "LA": "grey with an alpha channel", "P": "a palette",
         "RGBA": "an alpha channel", "CMYK": "inks (CMYK)", "I;16": "16-bit grey",
         "I": "grey of 16 bits or more", "F": "floating point"}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One picture of a set."""

    name: str  # without what its file says about its role
    lr: Path
    hr: Path | None


@dataclass(frozen=True)
class Dataset:
    """A set of pictures to judge on."""

    name: str
    pairs: tuple[Pair, ...]


def open_dataset(text: str, root: Path) -> Dataset:
    """Open a set: `realsr` and the like below `root`, NAME=FOLDER, or a folder.

    A folder holds LR and HR (also test_LR and test_HR, or lq and gt), or photos alone.
    """
    name, equals, path = text.partition("=")
    if Path(text).is_dir() and text not in KNOWN:  # whose path may have that sign
        return _open_folder(Path(text).resolve().name, Path(text))
    if equals and name in KNOWN:
        raise RcodError(f"{name} names a known set, beside which papers' rows stand; give {path} "
                        "another name")  # fmt: skip
    if equals:
        return _open_folder(name, Path(path))
    if text not in KNOWN:
        return _open_folder(Path(text).resolve().name, Path(text))
    count, folders = KNOWN[text]
    places = [root / folder for folder in folders]
    place = next((place for place in places if place.is_dir()), root)
    dataset = _open_folder(text, place)
    if len(dataset.pairs) != count or dataset.pairs[0].hr is None:
        raise RcodError(
            f"{text} has {count} pairs, and {place} holds {len(dataset.pairs)} pictures; to "
            f"evaluate those, give them another name: NAME={place}"
        )
    return dataset


def checked(name: str, whose: str, way: str) -> str:
    """A name that a folder of results can have."""
    if not NAME.fullmatch(name) or name.strip(". ") != name:
        shown = name.encode(errors="backslashreplace").decode()
        raise RcodError(f"{whose} name must be letters, digits, '.', '+' and '-', got {shown!r}; "
                        f"give another by {way}")  # fmt: skip
    return name


def _open_folder(name: str, folder: Path) -> Dataset:
    """Open a folder with pairs, or with photos alone."""
    checked(name, "a set's", "NAME=FOLDER")
    low = next((folder / low for low in LOWS if (folder / low).is_dir()), None)
    high = next((folder / high for high in HIGHS if (folder / high).is_dir()), None)
    if low is None and high is not None:
        raise RcodError(f"{folder} holds {high.name}/ and no LR/ beside it; give a set with both")
    if low is None or high is None:
        photos = by_picture(find([low or folder]))
        return Dataset(name, tuple(Pair(key, lr, None) for key, lr in photos.items()))
    pairs = tuple(Pair(stem(lr), lr, hr) for lr, hr in match(low, high))
    check([(pair.lr, pair.hr) for pair in pairs if pair.hr is not None], SCALE)
    return Dataset(name, pairs)


def thin_out(dataset: Dataset, limit: int | None) -> Dataset:
    """The same set, or `limit` pictures evenly spread over it."""
    count = min(limit or len(dataset.pairs), len(dataset.pairs))
    chosen = tuple(dataset.pairs[i * len(dataset.pairs) // count] for i in range(count))
    return Dataset(dataset.name, chosen)


def stem(path: Path) -> str:
    """Name the picture a file shows: its name without suffix and without _LR4, _HR and the like."""
    return ROLE.sub("", path.stem)


def truth_of(pair: Pair) -> Path:
    """The true picture, which a study needs."""
    if pair.hr is None:
        raise RcodError(f"this needs true pictures, and {pair.name} has none; give a paired set")
    return pair.hr


def match(folder: Path, hr_dir: Path) -> list[tuple[Path, Path]]:
    """Pair each picture of a folder with the true one of the same name, sorted by name.

    What a file name says about its role does not count: Canon_001_LR4.png meets Canon_001_HR.png.
    Pictures without a partner, on either side, are an error that names them.
    """
    mine, truths = by_picture(find([folder])), by_picture(find([hr_dir]))
    troubles = [f"{path.name} has no true picture" for key, path in mine.items()
                if key not in truths]  # fmt: skip
    troubles += [f"{path.name} of {hr_dir.name} has no result" for key, path in truths.items()
                 if key not in mine]  # fmt: skip
    if troubles:
        raise RcodError(
            f"{folder} ({len(mine)} pictures) and {hr_dir} ({len(truths)}) must hold pictures of "
            f"the same names: {_spell_out(troubles)}; give matching folders"
        )
    return [(path, truths[key]) for key, path in mine.items()]


def check(pairs: Sequence[tuple[Path, Path]], factor: int = 1) -> None:
    """Refuse pictures that can't be compared exactly, naming each of them and why.

    Args:
        pairs: files and their true pictures.
        factor: how many times larger the true pictures are.
    """
    troubles: list[str] = []
    for path, truth in pairs:
        mine, size = _size(path, troubles), _size(truth, troubles)
        if mine is None or size is None:
            continue
        width, height = mine
        if (width * factor, height * factor) != size:
            times = f"{factor} times " if factor > 1 else ""
            troubles.append(
                f"{path.name} is {width} x {height} and its true picture {size[0]} x {size[1]}, "
                f"which should be {times}as large"
            )
    if troubles:
        raise RcodError(
            f"pictures must be 8-bit RGB of fitting sizes to be compared, and "
            f"{len(troubles)} can't be: {_spell_out(troubles)}; convert or replace them"
        )


def _size(path: Path, troubles: list[str]) -> tuple[int, int] | None:
    """Width and height from a file's head; what makes it unfit is added to the troubles."""
    try:
        with Image.open(path) as image:
            if found := _unfit(image):
                troubles.append(f"{path.parent.name}/{path.name} has {found}")
                return None
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        troubles.append(f"{path.parent.name}/{path.name} can't be read ({type(error).__name__})")
        return None


def _unfit(image: Image.Image) -> str | None:
    """What keeps a picture from being plain 8-bit RGB."""
    if any(";16" in str(tile[3]) for tile in cast("ImageFile", image).tile):
        return MODES.get(image.mode, "16 bits") if image.mode != "RGB" else "16 bits a channel"
    if image.mode != "RGB":
        return MODES.get(image.mode, f"mode {image.mode}")
    return "an alpha channel" if "transparency" in image.info else None


def pixels(path: Path) -> Tensor:
    """The bytes of an 8-bit RGB file as the field reads them: (3, H, W) in [0, 1]."""
    try:
        with Image.open(path) as image:
            if found := _unfit(image):
                raise RcodError(f"{path} must be 8-bit RGB to be scored, and has {found}")
            values = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise RcodError(f"{path} must be a whole picture, got: {error}") from None
    return torch.tensor(values).permute(2, 0, 1).float() / 255


def by_picture(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the picture they show, sorted by name; two of one name are refused."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if any("\ud800" <= sign <= "\udfff" for sign in path.name):
            raise RcodError(f"a picture's name must be UTF-8, got {path.name!a}; rename it")
        if (other := found.setdefault(stem(path), path)) != path:
            raise RcodError(
                f"{path.parent} holds two files of one picture, {other.name} and {path.name}; "
                "keep one"
            )
    return found


def _spell_out(troubles: Sequence[str]) -> str:
    """Spell out the first troubles and count the others."""
    more = f", and {len(troubles) - SPELLED} more" if len(troubles) > SPELLED else ""
    return "; ".join(troubles[:SPELLED]) + more
