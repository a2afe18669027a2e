"""What is asked of a call, and what is told of it?

`Networks` enlarge; `Options` are how every picture is enlarged, and what can't be asked is refused
when they are made. An `Outcome` is what became of one picture, a `BatchReport` what became of all.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from rcod.diffusion.dial import Dial, check_dial
from rcod.errors import RcodError
from rcod.networks.assembly import Parts
from rcod.pixels.accept import check_quality
from rcod.pixels.images import Photo, read
from rcod.pixels.metadata import Strip
from rcod.pixels.resample import fitted
from rcod.using.restore import ColorFix, check_scale
from rcod.using.sheet import ALL

FORMATS = ("same", "png", "jpg", "jpeg", "webp", "tif", "tiff", "avif")


class Networks(NamedTuple):
    """What `Restorer.load` takes, to be said in another process."""

    name: str = "tiny"
    device: str = "auto"
    dtype: str = "auto"
    parts: Parts = Parts()
    engine: str = "auto"


@dataclass(frozen=True)
class Options:
    """How every picture of a call is enlarged."""

    realism: Dial | Literal["all"] = "auto"
    scale: float = 4.0
    color: str = "auto"  # the system's own, or wavelet, adain or none
    format: str = "same"  # as the photo, or the ending of another
    overwrite: bool = False  # replace files that rcod did not write, too
    width: int | None = None  # of the result, pixels
    height: int | None = None
    max_side: int | None = None  # no side of the result is longer
    quality: int | None = None  # 1 to 100, of JPEG, WebP and AVIF
    strip: Strip = "nothing"  # tags that don't travel on: nothing, gps or all
    realism_map: Path | None = None  # a grey picture: black is fidelity, white realism
    skip_existing: bool = True  # where there is a report that knows the result
    memory: int | None = None  # bytes to keep to
    name: str | None = field(default=None, kw_only=True)  # and format, of one photo's result
    identity: str = field(default="", kw_only=True)  # of the networks, for `skip_existing`

    def __post_init__(self) -> None:
        if self.realism != "all":
            check_dial(self.realism)
        check_scale(self.scale)
        for name, value, allowed in (
            ("color", self.color, get_args(ColorFix)),
            ("format", self.format, FORMATS),
            ("strip", self.strip, get_args(Strip)),
        ):
            if value not in allowed:
                raise RcodError(f"{name} must be one of {', '.join(allowed)}, got '{value}'")
        check_quality(self.quality)
        for name in ("width", "height", "max_side"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RcodError(f"{name.replace('_', '-')} must be at least 1 pixel, got {value}")
        if self.name is not None and self.format != "same":
            raise RcodError(
                f"the name {self.name} tells the format already, got format {self.format}, too; "
                "leave it out"
            )
        if self.realism_map is not None and self.realism == "all":
            raise RcodError("a realism map is one result; leave out --realism all")

    @property
    def parts(self) -> list[str]:
        """What is added to a picture's name, one result each."""
        return [f"-{part}" for part in (*ALL, "levels")] if self.realism == "all" else [""]

    def settings(self) -> str:
        """All that a result depends on besides its photo."""
        kept = asdict(self)
        for name in ("overwrite", "skip_existing", "name"):
            kept.pop(name)
        if self.realism_map is not None:
            try:
                now = self.realism_map.stat()
            except OSError as error:
                why = f"must be a readable picture, got: {error.strerror}"
                raise RcodError(f"{self.realism_map}: {why}; check the name") from None
            kept["realism_map"] = [str(self.realism_map), now.st_size, now.st_mtime_ns]
        return json.dumps(kept, sort_keys=True, default=str)

    def size(self, photo: Photo) -> tuple[int, int]:
        """Height and width of a result."""
        sides = photo.pixels.shape[-2], photo.pixels.shape[-1]
        return fitted(sides, self.scale, self.width, self.height, self.max_side)

    def mask(self) -> Tensor | None:
        """The user's map of realism, (h, w) in [0, 1]; what nothing was painted on is black."""
        if self.realism_map is None:
            return None
        painted = read(self.realism_map)
        grey = painted.pixels.mean(0)
        return grey if painted.alpha is None else grey * painted.alpha[0]

    def stripped(self, photo: Photo) -> Photo:
        """A photo without the tags that shall not travel on."""
        kept = photo.tags.without(self.strip)
        return replace(photo, exif=kept.exif, xmp=kept.xmp, dpi=kept.dpi)


@dataclass(frozen=True)
class Written:
    """One file that was written."""

    path: Path
    level: str  # fidelity, neutral, realism, map, auto-local, a number, or sheet
    auto: bool  # whether the metric chose the level
    timestep: int | None
    metric: float | None
    size: tuple[int, int]  # width, height
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: files, or the sentence that says why not."""

    source: Path
    written: tuple[Written, ...] = ()
    error: str | None = None
    skipped: bool = False  # its results are there already
    notes: tuple[str, ...] = ()  # what of it could not be kept


@dataclass(frozen=True)
class BatchReport:
    """What became of all pictures, in the order they were finished."""

    outcomes: tuple[Outcome, ...]
    stopped: bool = False  # before all were done

    @property
    def errors(self) -> list[str]:
        """One sentence for every picture that was not done."""
        return [outcome.error for outcome in self.outcomes if outcome.error is not None]

    @property
    def summary(self) -> dict[str, float]:
        """Pictures done, skipped and failed; megapixels and seconds of the results."""
        written = [w for outcome in self.outcomes for w in outcome.written]
        failed, skipped = len(self.errors), sum(outcome.skipped for outcome in self.outcomes)
        pixels = sum(w.size[0] * w.size[1] for w in written)
        return {
            "done": len(self.outcomes) - failed - skipped, "skipped": skipped, "failed": failed,
            "megapixels": round(pixels / 1e6, 3),
            "seconds": round(sum(w.seconds for w in written), 3),
        }  # fmt: skip
