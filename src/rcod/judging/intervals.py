"""How sure is a mean, and does one system truly differ from another?

Bootstrap over the pictures, seeded, the same draws for every system: so that differences
are those of the same pictures.

    values (systems, N) -> 4000 draws of N pictures -> mean, 95 % interval; the same of differences
    x, y -> ranks -> Spearman
"""

from collections.abc import Sequence

import numpy as np

DRAWS = 4000
EDGES = (2.5, 97.5)  # percent

Interval = tuple[float, float, float]  # mean, low, high


def draw_weights(count: int, seed: int = 0) -> np.ndarray:
    """How often each of `count` pictures is drawn, as shares: (DRAWS, count)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count


def interval(values: Sequence[float], weights: np.ndarray) -> Interval:
    """Mean of values (N,) and its 95 % bootstrap interval."""
    drawn = weights @ np.asarray(values)
    low, high = np.percentile(drawn, EDGES)
    return float(np.mean(values)), float(low), float(high)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation, ties at their mean rank; 0 where one side doesn't vary."""
    a, b = _ranks(np.asarray(x)), _ranks(np.asarray(y))
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / length) if length else 0.0


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count + 1) / 2)[place]
