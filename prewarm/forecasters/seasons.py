"""What stood at the same local time of earlier days, for all horizons at once. Pure.

In: the past. Out: rows of it, by day and horizon; NaN for holes, for times before the first bin,
and for those that the horizon leaps over. Never: fills a hole, takes a day for 24 hours.
"""

from functools import lru_cache

import numpy as np

from prewarm.calendars import Calendar
from prewarm.past import Past
from prewarm.series import Floats


class SameTimes:
    """The local times of the bins to come, so many days earlier: one look-up for them all."""

    def __init__(self, horizons: tuple[int, ...], days: tuple[int, ...]) -> None:
        self._horizons = horizons
        self._days = days

    def rows(self, past: Past) -> Floats:
        """Shape days x horizons x streams."""
        seen = past.last(past.now + 1)
        if not len(seen):
            return np.full((len(self._days), len(self._horizons), past.streams), np.nan)
        bins = [_bins_to(past.calendar, past.now + ahead, self._days) for ahead in self._horizons]
        place = len(seen) - 1 - np.array(bins).T + np.array(self._horizons)
        there = (place >= 0) & (place < len(seen))
        found: Floats = seen[np.where(there, place, 0)]
        if not there.all():
            found[~there] = np.nan
        return found


def window_before(past: Past, days: int, bins: int) -> Floats | None:
    """The newest bins, so many days of local time earlier; None where the past ends before."""
    (ago,) = _bins_to(past.calendar, past.now, (days,))
    found = past.last(ago + bins)
    return found[:bins] if len(found) == ago + bins else None


def first_seen(rows: Floats) -> Floats:
    """The first along the first axis that is no hole."""
    found: Floats = rows[0]
    for row in rows[1:]:
        hole = np.isnan(found)
        if not hole.any():
            break
        found = np.where(hole, row, found)
    return found


def mean_seen(rows: Floats) -> Floats:
    """The mean along the first axis; holes are left out, nothing but holes is one."""
    seen = ~np.isnan(rows)
    count = seen.sum(axis=0)
    total = np.where(seen, rows, 0.0).sum(axis=0)
    found: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return found


@lru_cache(maxsize=65_536)
def _bins_to(calendar: Calendar, index: int, days: tuple[int, ...]) -> tuple[int, ...]:
    # A bin is asked for once by each horizon and forecaster.
    return tuple(calendar.bins_to(index, back) for back in days)
