"""What do the levels of one photo look like, side by side?

The contact sheet: the enlarged input and every level, each labelled with its timestep. Rows
of pictures serve whoever watches a run or makes pairs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rcod.pixels.images import Photo, to_pil
from rcod.using.passes import Flow, part_of
from rcod.using.restore import Result

ALL: tuple[Literal["fidelity", "neutral", "realism", "auto"], ...] = (
    "fidelity", "neutral", "realism", "auto",
)  # fmt: skip
PANEL, LABEL, MARGIN, COLUMNS = 768, 40, 12, 3  # of the contact sheet; pixels, and panels a row
TITLE = 22  # over a column of rows, pixels
DARK, LIGHT, DIM = (22, 22, 26), (240, 240, 240), (160, 160, 168)


class Centre:
    """The middle of a result, kept while its pieces pass by: all that a panel shows."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.rows, self.columns = (_middle(side) for side in size)
        self._planes = torch.zeros(0)

    def take(self, piece: Photo, top: int, left: int) -> None:
        """Keep what of a piece lies in the middle."""
        planes = piece.pixels if piece.alpha is None else torch.cat((piece.pixels, piece.alpha))
        if not self._planes.numel():
            shape = (r[1] - r[0] for r in (self.rows, self.columns))
            self._planes = torch.zeros(len(planes), *shape)
        height, width = planes.shape[-2:]
        y, x = ((max(0, first - at), max(0, at - first)) for first, at in
                ((self.rows[0], top), (self.columns[0], left)))  # fmt: skip
        cut = planes[:, y[0] : max(self.rows[1] - top, 0), x[0] : max(self.columns[1] - left, 0)]
        cut = cut[:, :height, :width]
        self._planes[:, y[1] : y[1] + cut.shape[-2], x[1] : x[1] + cut.shape[-1]] = cut

    @property
    def photo(self) -> Photo:
        """The middle."""
        alpha = self._planes[3:] if len(self._planes) == 4 else None
        return Photo(self._planes[:3], alpha)


def lay_out(
    photo: Photo, results: Sequence[Result | Flow], centres: Sequence[Centre], name: str
) -> Image.Image:
    """Lay the enlarged input and its results side by side, each with its level and timestep.

    Panels show pixels at full size; of a large picture they show the centre.
    """
    height, width = centres[0].size
    rows, columns = centres[0].rows, centres[0].columns
    size = height, width
    pixels = part_of(photo.pixels, size, rows, columns).clamp(0, 1)
    alpha = None
    if photo.alpha is not None:
        alpha = part_of(photo.alpha, size, rows, columns).clamp(0, 1)
    up = Photo(pixels, alpha)
    panels = [("input", "bicubic", up)]
    for result, asked, centre in zip(results, ALL, centres, strict=True):
        title = f"auto: {result.level}" if asked == "auto" else result.level
        panels.append((title, f"timestep {result.timestep}", centre.photo))
    shown = columns[1] - columns[0], rows[1] - rows[0]
    old = f"{photo.pixels.shape[2]} x {photo.pixels.shape[1]}"
    name = name.encode(errors="replace").decode()  # names need not be valid text
    lines = [name if len(name) < 30 else f"{name[:13]}...{name[-13:]}"]
    lines += [f"{old} to {width} x {height} pixels"]
    lines += [f"estimated metric {r.metric:.2f}" for r in results if r.metric is not None]
    lines += ["centre, at full size"] if shown != (width, height) else []
    return _draw(panels, shown, lines)


def _draw(
    panels: Sequence[tuple[str, str, Photo]], shown: tuple[int, int], lines: Sequence[str]
) -> Image.Image:
    """Panels of one size in rows, the lines in the place of the last one."""
    cell = max(shown[0], 288) + MARGIN, max(shown[1], 96) + LABEL + MARGIN
    rows = math.ceil((len(panels) + 1) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + MARGIN, rows * cell[1] + MARGIN), DARK)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(22), ImageFont.load_default(17)
    for number, (title, note, photo) in enumerate(panels):
        x, y = (MARGIN + number % COLUMNS * cell[0], MARGIN + number // COLUMNS * cell[1])
        draw.text((x + 2, y + 27), title, LIGHT, font, anchor="ls")
        draw.text((x + cell[0] - MARGIN - 2, y + 27), note, DIM, small, anchor="rs")
        sheet.paste(_panel(photo), (x, y + LABEL))
    x, y = MARGIN + (COLUMNS - 1) * cell[0] + 2, MARGIN + (rows - 1) * cell[1] + LABEL
    draw.multiline_text((x, y), "\n".join(lines), DIM, small, spacing=8)
    return sheet


def draw_rows(
    rows: Sequence[Sequence[Tensor]], titles: Sequence[str], names: Sequence[str] = ()
) -> Image.Image:
    """Pictures (3, S, S) in rows, a title over each column, a name in each row's first picture."""
    side = max(rows[0][0].shape[-1], 96)
    sheet = Image.new("RGB", (len(titles) * side, TITLE + len(rows) * side), DARK)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for x, title in enumerate(titles):
        pen.text((x * side + 4, TITLE - 5), title, LIGHT, font, anchor="ls")
        for y, row in enumerate(rows):
            sheet.paste(to_pil(Photo(row[x].clamp(0, 1).cpu())), (x * side, TITLE + y * side))
    for y, name in enumerate(names):
        place = (6, TITLE + (y + 1) * side - 8)
        label = name.encode(errors="replace").decode()  # names need not be valid text
        pen.text(place, label, LIGHT, font, anchor="ls", stroke_width=2, stroke_fill=DARK)
    return sheet


def _middle(side: int) -> tuple[int, int]:
    """First and one past the last pixel of a panel."""
    shown = min(side, PANEL)
    first = (side - shown) // 2
    return first, first + shown


def _panel(photo: Photo) -> Image.Image:
    """A picture on grey where it is see-through."""
    cut = to_pil(photo).convert("RGBA")
    ground = Image.new("RGBA", cut.size, (128, 128, 128, 255))
    return Image.alpha_composite(ground, cut).convert("RGB")
