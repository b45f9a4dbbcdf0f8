"""Counters that were exported as they stand, instead of what they grew by. Pure.

In: one stream on its grid. Out: whether it is a running total, and its increments with resets
handled as Prometheus' `increase` does. Never: takes a rising demand for a counter: only one that
rises most of the time, never falls but to near zero, rarely and not at even intervals, is one.
"""

import numpy as np
from numpy.typing import NDArray

from prewarm.series import Floats

RISES_MIN = 48
_RISING = 0.3
"""The share of steps that must rise: a level that shifts now and then is no counter."""
_FAR = 20
"""A total is so many times what a bin adds to it, half of the time at least."""
_RESET_TO = 0.1
"""A reset falls to at most this share of what stood there."""
_RUN_MIN = 24
"""Steps between two resets, on average: what falls more often is a saw, not a counter."""
_UNEVEN = 0.1
"""Resets come when processes end: their intervals spread at least so much around their mean."""


def is_running_total(values: Floats) -> bool:
    """Conservative: without a single reset a rising stream is taken as it is."""
    seen = values[~np.isnan(values)]
    steps = np.diff(seen)
    rises, falls = steps > 0, np.flatnonzero(steps < 0)
    count = np.count_nonzero(rises)
    if not len(falls) or count < max(RISES_MIN, _RISING * len(steps)):
        return False
    if len(steps) < _RUN_MIN * (len(falls) + 1) or _evenly(falls):
        return False
    to_near_zero = seen[falls + 1] <= _RESET_TO * seen[falls]
    far = np.median(seen) >= _FAR * np.median(steps[rises])
    return bool(to_near_zero.all() and far)


def _evenly(falls: NDArray[np.intp]) -> bool:
    """Demand that climbs and drops every day does so at the same hour."""
    runs = np.diff(falls)
    return len(runs) >= 2 and float(np.std(runs)) < _UNEVEN * float(np.mean(runs))


def increments(totals: Floats) -> tuple[Floats, int]:
    """What each bin added, and how many resets there were. After a reset the total itself is what
    was added since. The first bin, and the one after a hole, added nobody knows what: holes."""
    added = np.full(len(totals), np.nan)
    steps = np.diff(totals)
    with np.errstate(invalid="ignore"):
        added[1:] = np.where(steps < 0, totals[1:], steps)
    seen = totals[~np.isnan(totals)]
    return added, int(np.count_nonzero(np.diff(seen) < 0))
