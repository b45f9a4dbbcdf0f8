"""What the regression is told about a stream: forecasts of others, and where the stream stood then.

In: the past, and what the point forecasters say. Out: an array on the root scale, on which the
spread of a count is the same at every level. The place of a season is worth little without the
level that it had: hence the values a day and a week before the newest, and the days' means.
Never: NaN once anything was seen: where a feature has nothing to say, the last value stands.
"""

import numpy as np

from prewarm.forecast import Setting
from prewarm.forecasters.seasons import SameTimes, mean_seen, window_before
from prewarm.past import Past
from prewarm.series import Floats

SAID = ("last_value", "day", "week", "week_mean", "mean_hour", "ewma")
"""Forecasters whose points are features; the first is what the regression falls back on."""
_WEEKS = (7, 14, 21, 28)
COUNT = len(SAID) + 7


def rooted(values: Floats) -> Floats:
    """The root scale: its spread is the same for counts of every size (Anscombe)."""
    root: Floats = np.sqrt(values + 0.375)
    return root


def unrooted(root: Floats) -> Floats:
    values: Floats = np.maximum(root * root - 0.375, 0.0)
    return values


class Features:
    """Pure look-ups in the past; keeps nothing."""

    def __init__(self, setting: Setting) -> None:
        self._horizons = len(setting.horizons)
        self._weeks = SameTimes(setting.horizons, _WEEKS)
        self._day_bins = setting.calendar.day_bins

    def of(self, past: Past, said: dict[str, Floats]) -> Floats:
        """Shape H x S x K. `said`: points S x H by forecaster."""
        weeks = self._weeks.rows(past)
        found = [*(said[name].T for name in SAID), weeks[1], mean_seen(weeks)]
        found += [np.tile(level, (self._horizons, 1)) for level in self._levels(past)]
        last = found[0]
        rows = [rooted(np.where(np.isnan(row), last, row)) for row in found]
        return np.stack([*rows, np.ones_like(last)], axis=-1)

    def _levels(self, past: Past) -> list[Floats]:
        """Where the stream stood a day and a week ago; its mean of today, and of a week ago."""
        nothing = np.full(past.streams, np.nan)
        points = [window_before(past, days, 1) for days in (1, 7)]
        week = window_before(past, 7, self._day_bins)
        return [
            *(nothing if point is None else point[0] for point in points),
            mean_seen(past.last(self._day_bins)),
            nothing if week is None else mean_seen(week),
        ]
