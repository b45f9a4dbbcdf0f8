"""Holt-Winters: a level, a damped trend and a season of a day or a week, each smoothed. Pure.

In: the past, bin after bin. Out: a number for each stream and horizon. It works on the square roots
of demand: there a season that swings with the level is nearly one that is added to it, and the
noise of counts is the same by day and night; so nothing is divided, and zeros do no harm.
Never: lets a hole move a level (the trend runs on), says more than twice what was ever asked.
"""

import numpy as np

from prewarm.calendars import DAY_US, US
from prewarm.forecast import Setting
from prewarm.forecasters.choice import LeastSquares
from prewarm.forecasters.seasons import mean_seen
from prewarm.past import Past
from prewarm.series import Bools, Floats

VARIANTS = ((0.3, 0.2), (0.1, 0.2), (0.1, 0.4), (0.6, 0.3), (0.9, 0.5))
"""Weights of the newest error in level and season; a stream takes those that erred least."""
TREND = 0.02
"""Of the level's step, so much goes into the trend."""
DAMPING = 0.8
GROWTH_MAX = 2.0
SLOTS_MAX = 288
"""A day has so many slots at most; narrower bins share one."""
_FIRST_SEASON = 0.3
"""Where several bins of the first season share a slot: the weight of the newer."""


class HoltWinters:
    """The season, a day or a week, starts as the first one less its mean; before that is over,
    nothing is said."""

    def __init__(self, setting: Setting, days: int = 1) -> None:
        shape = (len(VARIANTS), len(setting.streams))
        day_bins = -(-DAY_US // setting.calendar.width_us)
        self._horizons = setting.horizons
        self._days = days
        self._season_bins = days * day_bins
        self._day_slots = min(day_bins, SLOTS_MAX)
        self._alpha, self._gamma = (np.array(v)[:, None] for v in zip(*VARIANTS, strict=True))
        self._level: Floats = np.full(shape, np.nan)
        self._trend: Floats = np.zeros(shape)
        self._season: Floats = np.full((days * self._day_slots, *shape), np.nan)
        self._age = np.zeros(shape[1], np.int64)
        self._largest: Floats = np.zeros(shape[1])
        self._choice = LeastSquares(setting, len(VARIANTS))
        # Of a trend damped with every bin, so much is left to come until each horizon.
        self._reach = [sum(DAMPING**k for k in range(1, h + 1)) for h in setting.horizons]

    def update(self, past: Past) -> None:
        newest = past.back(0)
        root = np.sqrt(newest)
        np.fmax(self._largest, newest, out=self._largest)
        season = self._season[self._slot(past, past.now)]
        self._learn_first_season(root, season)
        self._smooth(root, season)
        self._age += (self._age > 0) | ~np.isnan(newest)
        self._begin(self._age == self._season_bins)
        self._choice.add(root, self._ahead(past))

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        best = np.maximum(self._choice.best(), 0.0)
        found: Floats = np.minimum(best * best, GROWTH_MAX * self._largest[:, None])
        return found

    def _learn_first_season(self, root: Floats, season: Floats) -> None:
        step = np.where(np.isnan(self._level), _FIRST_SEASON * (root - season), 0.0)
        season += np.where(np.isnan(step), 0.0, step)
        np.copyto(season, root, where=np.isnan(season))

    def _smooth(self, root: Floats, season: Floats) -> None:
        self._trend *= DAMPING
        self._level += self._trend
        off = root - self._level - season
        off[np.isnan(off)] = 0.0
        self._level += self._alpha * off
        self._trend += TREND * self._alpha * off
        season += self._gamma * (1 - self._alpha) * off

    def _begin(self, full: Bools) -> None:
        if not full.any():
            return
        first = self._season[:, :, full]
        level = mean_seen(first)
        self._level[:, full] = level
        self._season[:, :, full] = np.nan_to_num(first - level)

    def _ahead(self, past: Past) -> Floats:
        slots = [self._slot(past, past.now + ahead) for ahead in self._horizons]
        seasons = self._season[slots].transpose(1, 2, 0)
        found: Floats = self._level[:, :, None] + self._trend[:, :, None] * self._reach + seasons
        return found

    def _slot(self, past: Past, index: int) -> int:
        local = past.calendar.local(index)
        of_day = local.second * US * self._day_slots // DAY_US
        return local.day % self._days * self._day_slots + of_day
