"""Which measures can run here, and what do they say of a picture?

A measure that can't run is left blank, with its reason; none is ever guessed. The protocol
tells everything a score depends on, and its fingerprint is one word for all of that.

    aids, weights, extras -> Judge -> values of each result
                               '----> missing (measure -> why), protocol, fingerprint
"""

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from math import inf, isfinite
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from rcod import __version__
from rcod.errors import RcodError
from rcod.judging.inception import FILES, Inception
from rcod.pixels.aids import aid, digest, find_published
from rcod.pixels.likeness import HEADS, TRUNKS, Dists, Lpips
from rcod.pixels.metrics import METRICS, eight_bit
from rcod.pixels.naturalness import Niqe
from rcod.pixels.perceptual import HED, LpipsHed


class Measure(NamedTuple):
    """How a measure is named and read."""

    label: str
    higher: bool | None  # whether higher is better; None: neither
    digits: int
    least: int = 1  # pixels a side that it needs
    paired: bool = True  # whether it needs the true picture


MEASURES = {
    "psnr": Measure("PSNR", True, 2),
    "ssim": Measure("SSIM", True, 4, 11),
    "lpips": Measure("LPIPS", False, 4, 63),
    "lpips-vgg": Measure("LPIPS-VGG", False, 4, 16),
    "lpips-hed": Measure("LPIPS-HED", False, 4, 16),
    "dists": Measure("DISTS", False, 4, 16),
    "fid": Measure("FID", False, 2),
    "niqe": Measure("NIQE", False, 3, 192, False),
    "musiq": Measure("MUSIQ", True, 2, 1, False),
    "maniqa": Measure("MANIQA", True, 4, 1, False),
    "clipiqa": Measure("CLIPIQA", True, 4, 1, False),
    "detail": Measure("detail", None, 2, 3, False),
}
PYIQA = {"musiq": "musiq", "maniqa": "maniqa-pipal", "clipiqa": "clipiqa"}
RULES = {
    "pixels": "8-bit RGB as the file holds it; results rounded to 8 bits; profiles not applied",
    "colour space": "PSNR and SSIM on Y of YCbCr (BT.601), NIQE on its Y; the others on RGB",
    "crop": "none, no border cut",
    "resize": "none for scoring; bicubic peer: a = -0.75, corners not aligned; "
    "FID: Pillow bicubic to 299 x 299 in floating point",
}  # fmt: skip
PACKAGES = ("numpy", "pillow", "pyiqa", "torch")

PairMeasure = Callable[[Tensor, Tensor], Tensor]  # (B, 3, H, W) twice -> (B,)
SoloMeasure = Callable[[Tensor], Tensor]  # (B, 3, H, W) -> (B,)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Judge:
    """Everything that can score a picture here."""

    lpips_hed: LpipsHed | None = None
    niqe: Niqe | None = None
    pairs: dict[str, PairMeasure] = field(default_factory=dict)  # further measures
    singles: dict[str, SoloMeasure] = field(default_factory=dict)
    inception: Inception | None = None
    missing: dict[str, str] = field(default_factory=dict)  # measure -> why it can't run
    weights: dict[str, str] = field(default_factory=dict)  # file -> SHA-256
    wanted: tuple[str, ...] = tuple(MEASURES)

    @classmethod
    def load(
        cls,
        where: Path | None = None,
        dtype: torch.dtype = torch.float32,
        wanted: Sequence[str] | None = None,
    ) -> Self:
        """Load every measure that can run.

        Args:
            where: folder of the aids; default the one RCOD_AIDS names.
            dtype: what `lpips-hed` computes in; bfloat16 takes half the time, 0.3 % off.
            wanted: names of measures; default all. The others are neither run nor missed.
        """
        check_wanted(wanted)
        missing: dict[str, str] = {}

        def attempt(name: str, load: Callable[[], Loaded]) -> Loaded | None:
            if wanted is not None and name not in wanted:
                return None
            try:
                return load()
            except RcodError as error:
                missing[name] = str(error)
                return None

        pairs: dict[str, PairMeasure | None] = {
            "lpips": attempt("lpips", lambda: Lpips.load("alex", where)),
            "lpips-vgg": attempt("lpips-vgg", lambda: Lpips.load("vgg", where)),
            "dists": attempt("dists", lambda: Dists.load(where)),
        }
        singles = {name: attempt(name, partial(load_pyiqa, name)) for name in PYIQA}
        hed = attempt("lpips-hed", lambda: LpipsHed.load(where).to(dtype))
        niqe = attempt("niqe", lambda: Niqe.load(where))
        inception = attempt("fid", lambda: Inception.load(where))
        return cls(
            lpips_hed=hed,
            niqe=niqe,
            pairs={name: one for name, one in pairs.items() if one is not None},
            singles={name: one for name, one in singles.items() if one is not None},
            inception=inception,
            missing={name: missing[name] for name in MEASURES if name in missing},
            weights=_hashes(where, missing),
            wanted=tuple(MEASURES if wanted is None else wanted),
        )

    @property
    def able(self) -> tuple[str, ...]:
        """The measures that are wanted and can run on a picture."""
        loaded = {*METRICS, *self.pairs, *self.singles}
        loaded |= {"lpips-hed"} if self.lpips_hed else set()
        loaded |= {"niqe"} if self.niqe else set()
        return tuple(name for name in MEASURES if name in loaded and name in self.wanted)

    @torch.inference_mode()
    def values(self, results: Sequence[Tensor], hr: Tensor | None) -> list[dict[str, float]]:
        """Measure several results (3, H, W) of one true picture (3, H, W), or of none."""
        layout = torch.channels_last  # the faster one for the trunk
        truth = None if hr is None else eight_bit(hr)[None].contiguous(memory_format=layout)
        taps: list[Tensor] = []
        if self.lpips_hed and truth is not None and _fits("lpips-hed", truth):
            taps = self.lpips_hed.trunk.features(truth)
        found: list[dict[str, float]] = []
        for result in results:
            sr = eight_bit(result)[None].contiguous(memory_format=layout)  # (1, 3, H, W)
            if truth is not None and sr.shape != truth.shape:
                raise RcodError(
                    f"a result must be as large as its true picture, {_size(truth)}, "
                    f"got {_size(sr)}; compare pictures of the same benchmark"
                )
            values: dict[str, float] = {}
            for name, measure in (METRICS | self.pairs).items():
                if _fits(name, sr) and (truth is not None or not MEASURES[name].paired):
                    values[name] = float(measure(sr, sr if truth is None else truth))
            if self.lpips_hed and taps:
                trunk = self.lpips_hed.trunk
                values["lpips-hed"] = float(self.lpips_hed.between(trunk.features(sr), taps))
            singles = ({"niqe": self.niqe} if self.niqe else {}) | self.singles
            values |= {k: float(one(sr)) for k, one in singles.items() if _fits(k, sr)}
            found.append({k: values[k] for k in self.able if isfinite(values.get(k, inf))})
        return found

    @torch.inference_mode()
    def look(self, image: Tensor) -> Tensor | None:
        """What FID needs to know of an image (3, H, W): (2048,), where it can run."""
        return None if self.inception is None else self.inception(image)

    def protocol(self) -> dict[str, object]:
        """Everything that the scores depend on besides the pictures."""
        dtype = str(next(self.lpips_hed.parameters()).dtype) if self.lpips_hed else "float32"
        return {
            "rcod": f"{__version__}, {code('pixels', 'judging')}",
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            "threads": torch.get_num_threads(),
            "precision": dtype.removeprefix("torch."),
            **RULES,
            "measures": ", ".join(self.able),
            "weights": self.weights,
            "missing": self.missing,
        }


@cache
def code(*folders: str) -> str:
    """SHA-256 of this package's modules in some folders: what they compute may follow any line."""
    package = Path(str(files("rcod")))
    found = hashlib.sha256()
    for path in sorted(path for name in folders for path in (package / name).glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def fingerprint(protocol: object) -> str:
    """One word for a whole protocol: the start of its SHA-256."""
    text = json.dumps(protocol, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_wanted(names: Sequence[str] | None) -> None:
    """Refuse a measure that doesn't exist."""
    if wrong := [name for name in names or () if name not in MEASURES]:
        raise RcodError(f"a measure must be one of {', '.join(MEASURES)}, got {wrong[0]}")


def blanks(
    values: dict[str, float], size: tuple[int, int], paired: bool, able: Sequence[str]
) -> dict[str, str]:
    """Why measures are blank for one picture: measure -> reason.

    Args:
        values: what was measured.
        size: height and width.
        paired: whether there is a true picture.
        able: measures that could run.
    """
    found: dict[str, str] = {}
    for name in able:
        least = MEASURES[name].least
        if name in values:
            continue
        if MEASURES[name].paired and not paired:
            found[name] = "there is no true picture to compare with"
        elif min(size) < least:
            found[name] = f"a picture must be at least {least} pixels a side"
        else:
            found[name] = "it gave no finite number, as on pictures that are flat nearly everywhere"
    return found


def load_pyiqa(name: str) -> SoloMeasure:
    """One of IQA-PyTorch's own measures, through its extra (non-commercial licence)."""
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # torchvision and torch may not fit each other
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RcodError(
            f"needs pyiqa: pip install 'rcod[iqa]' (non-commercial licence); here: {reason}"
        ) from None
    try:
        metric = pyiqa.create_metric(PYIQA[name], device="cpu")
    except (OSError, RuntimeError, ValueError) as error:
        raise RcodError(f"pyiqa could not load its weights: {str(error).splitlines()[0]}") from None
    return lambda x: metric(x).flatten()


def _fits(name: str, x: Tensor) -> bool:
    """Whether an image (1, 3, H, W) is large enough for a measure."""
    return min(x.shape[2:]) >= MEASURES[name].least


def _hashes(where: Path | None, missing: dict[str, str]) -> dict[str, str]:
    """SHA-256 of every file of weights that is at hand."""
    names = ((HED, "lpips-hed"), (Niqe.FILE, "niqe"), (HEADS, "lpips"))
    files = [aid(name, where) for name, measure in names if measure not in missing]
    files += [path for published in (*TRUNKS.values(), FILES)
              if (path := find_published(published, where)) is not None]  # fmt: skip
    return {path.name: digest(path) for path in files if path.is_file()}


def _version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _size(image: Tensor) -> str:
    """Width x height of (..., H, W)."""
    return f"{image.shape[-1]} x {image.shape[-2]}"
