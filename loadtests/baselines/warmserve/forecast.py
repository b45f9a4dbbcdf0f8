"""What a model will be asked for in the next window: seasonal mean, corrected by late errors (4.1).

In: what was seen in past windows of this run, and in the same windows of past days. Out: a
`Forecast`. Never: looks more than one window ahead, adds a margin, reads a clock.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prewarm.forecasters.warmserve import DEPTH, correction

AVERAGE_MIN = 0.01


class Seen(NamedTuple):
    """One model in one window: concurrency, held requests included."""

    average: float
    """Weighted by time."""
    peak: float
    """The largest found by an arrival, itself counted."""


class Forecast(NamedTuple):
    average: float
    peak: float


NOTHING = Seen(0.0, 0.0)


def forecast(seen: Sequence[Seen], usual: Sequence[Seen]) -> Forecast:
    """The window after those `seen`. The average never reaches 0 (4.2 divides by it), and the peak
    is no less than the average."""
    average = _corrected([s.average for s in seen], [u.average for u in usual])
    peak = _corrected([s.peak for s in seen], [u.peak for u in usual])
    average = max(average, AVERAGE_MIN)
    return Forecast(average, max(peak, average))


def _corrected(seen: Sequence[float], usual: Sequence[float]) -> float:
    newest_first = range(len(seen) - 1, max(len(seen) - 1 - DEPTH, -1), -1)
    off = np.array([seen[window] - _at(usual, window) for window in newest_first])
    return _at(usual, len(seen)) + float(correction(off))


def _at(usual: Sequence[float], window: int) -> float:
    """Beyond the last window of the day's slice its value stands; without past days there is 0."""
    return usual[min(window, len(usual) - 1)] if usual else 0.0
