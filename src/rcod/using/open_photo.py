"""How does one photo stay open while the dial turns?

An open photo looks at a photo once and keeps what it saw, and the results of the places that
were asked for, so that a turn of the dial costs one UNet call and a place visited before
costs nothing. Every result is the same, byte for byte, as the restorer's own. What is shown
while the dial turns is told from the results of five places, once those are kept.

    photo -> look (once) -> Seen --.
                                    >-> result(place) -> kept by timestep -> view(place)
    the dial ----------------------'        '-> invention: where it departs from fidelity
"""

import io
import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rcod.diffusion.grouping import LEVELS, realism_of_timestep, timestep_of_realism
from rcod.errors import RcodError
from rcod.pixels.color import ColorFix, check_color, match_wavelet
from rcod.pixels.decode import Refuse
from rcod.pixels.images import Photo, check_writable, read, write
from rcod.pixels.resample import Scale, check_scale, resize
from rcod.using.interpolation import NODES, interpolate, is_smooth, shares_of
from rcod.using.passes import Seen, Watch, finished
from rcod.using.restore import Realism, Restorer, Result, check_realism, target_size
from rcod.using.sheet import ALL, Centre, lay_out

KEEP = 512_000_000  # bytes of results that an open photo keeps; the latest is kept in any case
LEAST = 20_000  # bytes of an open photo that holds next to nothing
LUMA = (0.299, 0.587, 0.114)  # BT.601
NEAR = 9  # pixels a side of the window over which the map averages
FULL = 8 / 255  # mean departure within the window that the overlay shows at full strength
SHOWN = 1024  # pixels a side of the overlay at most; the map is smooth
FAINT, STRONG = (255, 176, 32), (255, 32, 110)  # the overlay's colours


Key = tuple[float | None, Scale, ColorFix]


class View(NamedTuple):
    """What is shown of a place."""

    result: Result
    interpolated: (
        bool  # from the results of other places, at most two grey levels away from the network's
    )


class Invention(NamedTuple):
    """How far a result departs from the fidelity result of the same photo."""

    share: float  # of the fine structure on show, the part that fidelity does not have; 0 to 1
    mean: float  # absolute departure of luma in the mean, in 8-bit steps
    where: Tensor  # (H, W) local mean of the departure, 0 to 1


@dataclass(frozen=True)
class Setting:
    """What is asked of an open photo."""

    realism: Realism = "auto"
    scale: Scale = 4.0  # or the result's height and width
    color: ColorFix = "auto"

    def __post_init__(self) -> None:
        check_realism(self.realism)
        check_scale(self.scale)
        check_color(self.color)


class OpenPhoto:
    """One photo, kept open. One thread at a time."""

    def __init__(self, restorer: Restorer, photo: Photo, keep: int = KEEP) -> None:
        self.photo = photo
        self._restorer = restorer
        self._keep = keep
        self._seen: Seen | None = None
        self._auto: float | None = None  # the place that auto chose
        self._smooth: bool | None = None  # whether places tell of those between them
        self._results: OrderedDict[Key, Result] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of memory held, at the least what an empty one takes."""
        tags = filter(None, (self.photo.icc, self.photo.exif, self.photo.xmp))
        held = LEAST + sum(map(len, tags)) + bytes_of(self.photo) + self._held()
        if self._seen is not None:
            held += sum(part.nbytes for part in (self._seen.up, self._seen.z_up, self._seen.tokens))
        return held

    @torch.inference_mode()
    def result(self, place: Setting, watch: Watch = lambda done: None) -> Result:
        """The restored photo at one place of the dial, as `Restorer.__call__` gives it."""
        if self._seen is None:
            self._seen = self._restorer.look(self.photo, True)
        result = self._results.get(self._key(place))
        if result is None:
            self._make_room(place.scale)
            result = self._restorer.finish(
                self.photo, self._seen, place.realism, place.scale, place.color, watch
            )
            if place.realism == "auto":
                self._auto = result.realism
            self._results[self._key(place)] = result
        self._results.move_to_end(self._key(place))
        auto = place.realism == "auto" and self._seen.metric is not None
        return replace(result, auto=auto, metric=self._seen.metric if auto else None)

    @torch.inference_mode()
    def view(self, place: Setting, watch: Watch = lambda done: None) -> View:
        """What to show of a place: its result, or what five others tell of it."""
        number, nodes = self._key(place)[0], self._nodes(place)
        if number is None or self.has(place) or len(nodes) < len(NODES) or not self._is_smooth():
            result = self.result(place, watch)
            if len(self._nodes(place)) == len(NODES):
                self._is_smooth()  # before a turn of the dial waits for it
            return View(result, False)
        started = time.perf_counter()
        for node in NODES:
            self._results.move_to_end((node, place.scale, place.color))
        groups = self._restorer.system.groups
        t = timestep_of_realism(number, groups)
        pixels = interpolate([node.photo.pixels for node in nodes], shares_of(number, groups))
        dial = realism_of_timestep(t, groups)
        return View(
            replace(
                nodes[0], photo=replace(nodes[0].photo, pixels=pixels), level=f"{dial:.3g}",
                realism=dial, timestep=t, metric=None, auto=False,
                seconds={"told": time.perf_counter() - started},
            ),
            True,
        )  # fmt: skip

    def _nodes(self, place: Setting) -> list[Result]:
        """The results of the nodes that are kept, at this size and in these colours."""
        kept = [self._results.get((node, place.scale, place.color)) for node in NODES]
        return [result for result in kept if result is not None]

    def _is_smooth(self) -> bool:
        """Whether the network's results change so smoothly that some tell of others; asked once."""
        if self._smooth is None and self._seen is not None:
            self._smooth = is_smooth(self._restorer, self.photo, self._seen)
        return bool(self._smooth)

    def has(self, place: Setting) -> bool:
        """Whether this place costs no UNet call."""
        return self._key(place) in self._results

    @torch.inference_mode()
    def invention(self, place: Setting, watch: Watch = lambda done: None) -> Invention:
        """Where and how much a place departs from fidelity."""
        kept = self.result(replace(place, realism="fidelity"), watch).photo.pixels
        return measure_invention(self.view(place, watch).result.photo.pixels, kept)

    def sheet(
        self,
        name: str,
        scale: Scale = 4.0,
        color: ColorFix = "auto",
        watch: Watch = lambda done: None,
        each: Callable[[str, Result], None] = lambda level, result: None,
    ) -> Image.Image:
        """The contact sheet of all levels; `each` is shown every result before it is let go."""
        middles: list[Result] = []
        centres = [Centre(target_size(self.photo, scale)) for _ in ALL]
        for number, (level, centre) in enumerate(zip(ALL, centres, strict=True)):

            def step(done: float, number: int = number) -> None:
                watch((number + done) / len(ALL))

            step(0)
            result = self.result(Setting(level, scale, color), step)
            each(level, result)
            centre.take(result.photo, 0, 0)
            middles.append(replace(result, photo=centre.photo))
            del result  # or it would be held while the next one is made
        return lay_out(self.photo, middles, centres, name)

    @torch.inference_mode()
    def before(self, scale: float) -> Photo:
        """The photo itself at the result's size: bicubic, no model."""
        size = target_size(self.photo, scale)
        return finished(self.photo, resize(self.photo.pixels, size).clamp(0, 1), size)

    def _key(self, place: Setting) -> Key:
        """One key for a level, its number, and auto once it has chosen."""
        realism = self._auto if place.realism == "auto" else place.realism
        number = LEVELS[realism] if isinstance(realism, str) else realism
        return number, place.scale, place.color

    def _held(self) -> int:
        """Bytes of the results; asked while another thread adds some."""
        return sum(bytes_of(result.photo) for result in tuple(self._results.values()))

    def _make_room(self, scale: Scale) -> None:
        """Let the oldest results go, until one more may be kept."""
        height, width = target_size(self.photo, scale)
        more = bytes_of(self.photo) * height * width / self.photo.pixels[0].numel()
        while self._results and self._held() + more > self._keep:
            self._results.popitem(last=False)


def bytes_of(photo: Photo) -> int:
    """What the planes of a picture take."""
    planes = (photo.pixels, photo.alpha, photo.beyond)
    return sum(plane.nbytes for plane in planes if plane is not None)


def measure_invention(sr: Tensor, kept: Tensor) -> Invention:
    """Compare a result with the fidelity result.

    The share is the departure against all fine structure on show: D / (D + K), where D sums
    |Y(sr) - Y(kept)| and K sums what of Y(kept) is finer than the colour fix's blur.

    Args:
        sr: the result, (3, H, W) in [0, 1].
        kept: the fidelity result, (3, H, W) in [0, 1].
    """
    weights = torch.tensor(LUMA, device=sr.device).view(3, 1, 1)
    luma, base = (sr * weights).sum(0), (kept * weights).sum(0)  # (H, W) each
    departure = (luma - base).abs()
    low = match_wavelet(torch.zeros_like(base)[None, None], base[None, None])[0, 0]
    fine = (base - low).abs().sum()
    total = departure.sum()
    share = float(total / (total + fine)) if float(total) > 0 else 0.0
    where = F.avg_pool2d(
        departure[None, None], NEAR, 1, NEAR // 2, count_include_pad=False
    )  # (1, 1, H, W)
    return Invention(share, float(departure.mean()) * 255, where[0, 0])


def draw_invention(where: Tensor) -> Image.Image:
    """The map as a see-through picture to stretch over the result; nothing shows at 0.

    Colours stand for fixed departures, so that maps of different photos and levels compare.
    """
    step = math.ceil(max(where.shape) / SHOWN)
    small = F.avg_pool2d(where[None, None], step, ceil_mode=True, count_include_pad=False)[0, 0]
    strength = (small / FULL).clamp(0, 1).cpu()  # (H / step, W / step)
    faint, strong = (torch.tensor(c, dtype=torch.float32).view(3, 1, 1) for c in (FAINT, STRONG))
    colours = faint + (strong - faint) * strength  # (3, H, W)
    rgba = torch.cat((colours, 235 * strength[None])).round().byte()  # (4, H, W)
    return Image.fromarray(rgba.permute(1, 2, 0).contiguous().numpy())


def take(content: bytes, refuse: Refuse = lambda size: None) -> Photo:
    """Read a picture from a file's bytes, as `images.read` does; errors name no file."""
    try:
        return read(content, "picture", refuse)
    except RcodError as error:
        raise type(error)(str(error).removeprefix("picture: ")) from None


def encode(photo: Photo, format: str, quality: int | None = None) -> bytes:
    """The bytes of the file that `images.write` writes; errors name no file."""
    with tempfile.TemporaryDirectory(prefix="rcod-") as folder:
        path = Path(folder) / f"picture.{format}"
        try:
            write(path, photo, quality)
        except RcodError as error:
            raise RcodError(_unnamed(error, path)) from None
        return path.read_bytes()


def check_format(photo: Photo, scale: Scale, format: str) -> None:
    """Refuse, before the work, a result that the format cannot hold."""
    path = Path(f"picture.{format}")
    try:
        check_writable(path, *target_size(photo, scale), alpha=photo.alpha)
    except RcodError as error:
        raise RcodError(_unnamed(error, path)) from None


def encode_png(image: Image.Image) -> bytes:
    """A drawing as PNG, fast rather than small."""
    image.save(encoded := io.BytesIO(), "PNG", compress_level=1)
    return encoded.getvalue()


def _unnamed(error: RcodError, path: Path) -> str:
    """An error's sentence without the name of a file that nobody gave."""
    sentence = str(error).removeprefix(f"{path}: ")
    return sentence.replace(str(path), "the picture").replace(str(path.parent), "")
