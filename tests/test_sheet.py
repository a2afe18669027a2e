"""The sheet of all levels shows the middle of each, however the result came."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image

from rcod.pixels.images import Photo
from rcod.using.restore import Result
from rcod.using.sheet import ALL, Centre, draw_rows, lay_out


def whole_sheet(photo: Photo, results: Sequence[Result], name: str) -> Image:
    """The sheet of results that came in one piece."""
    centres: list[Centre] = []
    for made in results:
        centre = Centre((made.photo.pixels.shape[-2], made.photo.pixels.shape[-1]))
        centre.take(made.photo, 0, 0)
        centres.append(centre)
    return lay_out(photo, results, centres, name)


def result(height: int, width: int, shade: float) -> Result:
    photo = Photo(torch.full((3, height, width), shade))
    return Result(photo, "neutral", 0.5, 499, 0.6, False, {})


def test_pieces_make_the_sheet_that_whole_results_make():
    photo = Photo(torch.rand(3, 300, 250, generator=torch.Generator().manual_seed(0)))
    pixels = torch.rand(3, 1200, 1000, generator=torch.Generator().manual_seed(1))
    results = [Result(Photo(pixels), "neutral", 0.5, 499, 0.6, False, {}) for _ in ALL]
    whole = whole_sheet(photo, results, "heron.jpg")
    centres = [Centre((1200, 1000)) for _ in ALL]
    for centre in centres:
        for top in range(0, 1200, 500):
            for left in range(0, 1000, 300):
                part = Photo(pixels[:, top : top + 500, left : left + 300])
                centre.take(part, top, left)
    assert np.array_equal(np.array(lay_out(photo, results, centres, "heron.jpg")), np.array(whole))


def test_panels_show_what_is_see_through_on_grey():
    photo = Photo(torch.zeros(3, 20, 20), torch.zeros(1, 20, 20))
    clear = result(80, 80, 1.0)
    clear = Result(Photo(clear.photo.pixels, torch.zeros(1, 80, 80)), "neutral", 0.5, 499, None,
                   False, {})  # fmt: skip
    sheet = whole_sheet(photo, [clear] * len(ALL), "a" * 60)
    assert sheet.getpixel((40, 80)) == (128, 128, 128)


def test_rows_show_what_they_are_given_and_how_it_is_called():
    grey = torch.full((3, 96, 96), 0.5)
    sheet = np.asarray(draw_rows([[grey, grey]] * 2, ["input", "truth"]))
    assert sheet.shape == (22 + 192, 192, 3)
    assert (sheet[22:] == 128).all()
    named = np.asarray(draw_rows([[grey, grey]] * 2, ["input", "truth"], ["", "heron"]))
    other = (named != sheet).any(axis=-1)
    assert other[22 + 96 :, :96].any() and not other[: 22 + 96].any() and not other[:, 96:].any()
