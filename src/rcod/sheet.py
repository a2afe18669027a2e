"""What do the levels of one photo look like, side by side?

The contact sheet: the enlarged input and every level, each labelled with its timestep.
"""

import math
from collections.abc import Sequence
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from rcod.images import Photo, to_pil
from rcod.restore import Result

ALL: tuple[Literal["fidelity", "neutral", "realism", "auto"], ...] = (
    "fidelity", "neutral", "realism", "auto",
)  # fmt: skip
PANEL, LABEL, MARGIN, COLUMNS = 768, 40, 12, 3  # of the contact sheet; pixels, and panels a row
DARK, LIGHT, DIM = (22, 22, 26), (240, 240, 240), (160, 160, 168)


def draw_sheet(photo: Photo, results: Sequence[Result], name: str) -> Image.Image:
    """Lay the enlarged input and its results side by side, each with its level and timestep.

    Panels show pixels at full size; of a large picture they show the centre.
    """
    height, width = results[0].photo.pixels.shape[-2:]
    up = to_pil(photo).resize((width, height), Image.Resampling.BICUBIC)
    panels = [("input", "bicubic", up)]
    for result, asked in zip(results, ALL, strict=True):
        title = f"auto: {result.level}" if asked == "auto" else result.level
        panels.append((title, f"timestep {result.timestep}", result.picture))
    shown = min(width, PANEL), min(height, PANEL)
    cell = max(shown[0], 288) + MARGIN, max(shown[1], 96) + LABEL + MARGIN
    rows = math.ceil((len(panels) + 1) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + MARGIN, rows * cell[1] + MARGIN), DARK)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(22), ImageFont.load_default(17)
    for number, (title, note, picture) in enumerate(panels):
        x, y = (MARGIN + number % COLUMNS * cell[0], MARGIN + number // COLUMNS * cell[1])
        draw.text((x + 2, y + 27), title, LIGHT, font, anchor="ls")
        draw.text((x + cell[0] - MARGIN - 2, y + 27), note, DIM, small, anchor="rs")
        sheet.paste(_panel(picture, shown), (x, y + LABEL))
    old = f"{photo.pixels.shape[2]} x {photo.pixels.shape[1]}"
    name = name.encode(errors="replace").decode()  # names need not be valid text
    lines = [name if len(name) < 30 else f"{name[:13]}...{name[-13:]}"]
    lines += [f"{old} to {width} x {height} pixels"]
    lines += [f"estimated metric {r.metric:.2f}" for r in results if r.metric is not None]
    lines += ["centre, at full size"] if shown != (width, height) else []
    x, y = MARGIN + (COLUMNS - 1) * cell[0] + 2, MARGIN + (rows - 1) * cell[1] + LABEL
    draw.multiline_text((x, y), "\n".join(lines), DIM, small, spacing=8)
    return sheet


def _panel(picture: Image.Image, shown: tuple[int, int]) -> Image.Image:
    """The centre of a picture, on grey where it is see-through."""
    left, top = ((full - part) // 2 for full, part in zip(picture.size, shown, strict=True))
    cut = picture.crop((left, top, left + shown[0], top + shown[1])).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown, (128, 128, 128, 255)), cut).convert("RGB")
