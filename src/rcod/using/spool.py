"""How can a result wait until the whole of it is known?

AdaIN wants the mean and spread of whole pictures. Pieces of a result too large for memory lie in
a temporary file until all have come; then each is brought to the photo's colours.

    pieces -> tallied, in 16 bits -> temporary file -> matched -> pieces
"""

import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.color import Tally, match_stats

MOST = 65_535  # of 16 bits
LEAST, RANGE = -0.25, 1.5  # what they stand for: a resize leaves [0, 1] beside strong edges


def levelled(
    pieces: Iterator[tuple[Tensor, int, int]], own: Tally, wanted: Tally
) -> Iterator[tuple[Tensor, int, int]]:
    """The same pieces, once all have come, with the mean and spread that are wanted.

    Args:
        pieces: (3, h, w) about [0, 1], with top and left.
        own: of the result; complete when the last piece has come.
        wanted: of the photo; the same.
    """
    places: list[tuple[tuple[int, ...], int, int]] = []
    with tempfile.TemporaryFile(prefix="rcod-") as file:
        for piece, top, left in pieces:
            steps = ((piece - LEAST) / RANGE * MOST).round_().clamp_(0, MOST)
            values = steps.to(torch.int32).numpy().astype(np.uint16)
            places.append((values.shape, top, left))
            try:
                file.write(values.tobytes())
                file.flush()
            except OSError as error:
                raise RcodError(
                    "a result in tiles needs room for temporary files when its colours are kept by "
                    f"adain, got: {error.strerror}; set TMPDIR to another folder, or use wavelet"
                ) from None
        file.seek(0)
        before, after = own.stats(), wanted.stats()
        for shape, top, left in places:
            values = np.frombuffer(file.read(2 * int(np.prod(shape))), np.uint16).reshape(shape)
            piece = torch.from_numpy(values.astype(np.float32)) / MOST * RANGE + LEAST
            yield match_stats(piece[None], before, after)[0], top, left
