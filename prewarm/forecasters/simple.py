"""The simple forecasters, which all others must beat: the last value, the last hour, the same time
of earlier days. Pure.

In: the past of all streams. Out: a number for each stream and horizon. Never: draws on more than a
look back; NaN where the season has not come round, for which `OrLastValue` is the remedy.
"""

import numpy as np

from prewarm.calendars import US
from prewarm.forecast import PointForecaster, Setting
from prewarm.forecasters.seasons import SameTimes, first_seen, mean_seen, window_before
from prewarm.past import Past
from prewarm.series import Floats

HOUR_US = 3_600 * US
EACH_DAY = (1, 2, 3, 4, 5, 6, 7)
EACH_WEEK = (7, 14)
SCALE_MAX = 4.0
"""Today's level is at most so many times, and at least so small a part, of the other day's."""


class LastValue:
    """The last value seen; through a hole the one before it."""

    def __init__(self, setting: Setting) -> None:
        self._horizons = len(setting.horizons)
        self.last: Floats = np.full(len(setting.streams), np.nan)

    def update(self, past: Past) -> None:
        newest = past.back(0)
        np.copyto(self.last, newest, where=~np.isnan(newest))

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return flat(self.last, self._horizons)


class MeanHour:
    """The mean of the last hour, or of the last bin where bins are wider; an hour of holes leaves
    the last value that was seen."""

    def __init__(self, setting: Setting) -> None:
        self._bins = max(HOUR_US // setting.calendar.width_us, 1)
        self._last = LastValue(setting)
        self._horizons = len(setting.horizons)

    def update(self, past: Past) -> None:
        self._last.update(past)

    def points(self, past: Past) -> Floats:
        mean = mean_seen(past.last(self._bins))
        return flat(np.where(np.isnan(mean), self._last.last, mean), self._horizons)


class Seasonal:
    """The value at the same local time of an earlier day; a hole there asks one more season."""

    def __init__(self, setting: Setting, days: tuple[int, ...]) -> None:
        self._same = SameTimes(setting.horizons, days)

    def update(self, past: Past) -> None:
        pass

    def points(self, past: Past) -> Floats:
        return first_seen(self._same.rows(past)).T


class Scaled:
    """The seasonal value, times what the last hour was to the same hour of that day.

    Only bins that were seen on both days count. An hour is long enough to be more than noise and
    short enough to be today's level still. Where that day's hour was empty, nothing now means "as
    then" and anything now the largest scale; where no bin of both was seen, the day stands as is.
    """

    def __init__(self, setting: Setting, days: tuple[int, ...]) -> None:
        self._days = days
        self._bins = max(HOUR_US // setting.calendar.width_us, 1)
        self._same = SameTimes(setting.horizons, days)

    def update(self, past: Past) -> None:
        pass

    def points(self, past: Past) -> Floats:
        rows = self._same.rows(past)
        found: Floats = np.full_like(rows[0], np.nan)
        for row, days in zip(rows, self._days, strict=True):
            hole = np.isnan(found)
            if not hole.any():
                break
            found = np.where(hole, row * self._scale(past, days), found)
        return found.T

    def _scale(self, past: Past, days: int) -> Floats:
        then, now = window_before(past, days, self._bins), past.last(self._bins)
        if then is None:
            return np.ones(past.streams)
        both = ~np.isnan(then + now)
        before, today = (np.where(both, values, 0.0).sum(axis=0) for values in (then, now))
        scale = np.where(today > 0, SCALE_MAX, 1.0)
        with np.errstate(over="ignore"):  # over next to nothing: the largest scale
            np.divide(today, before, out=scale, where=before > 0)
        return np.clip(scale, 1 / SCALE_MAX, SCALE_MAX)


class WeekMean:
    """The mean of the same local time over the last seven days; holes are left out."""

    def __init__(self, setting: Setting) -> None:
        self._same = SameTimes(setting.horizons, EACH_DAY)

    def update(self, past: Past) -> None:
        pass

    def points(self, past: Past) -> Floats:
        return mean_seen(self._same.rows(past)).T


class OrLastValue:
    """A forecaster that says the last value where another has nothing to say: so that all are
    scored on the same bins, before their season has come round too."""

    def __init__(self, setting: Setting, inner: PointForecaster) -> None:
        self._inner = inner
        self._last = LastValue(setting)

    def update(self, past: Past) -> None:
        self._inner.update(past)
        self._last.update(past)

    def points(self, past: Past) -> Floats:
        said = self._inner.points(past)
        return np.where(np.isnan(said), self._last.last[:, None], said)


def flat(level: Floats, horizons: int) -> Floats:
    """The same for every horizon."""
    return np.repeat(level[:, None], horizons, axis=1)
