"""What to make of the last value, the last hour, yesterday, last week and the week's mean: learned
for each stream and horizon, by least squares that forget. Pure.

In: the past, bin after bin. Out: a number for each stream and horizon. Seasons count twice, at the
bin to come and at the newest, for their difference is how the season moves. All is in square roots,
in which the noise of counts is the same by day and night. Few bins say little about nine weights,
so they are held near the last value, by the one of three forces that erred least of late.
Never: learns from a hole, says more than twice the largest that it looked at.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from prewarm.calendars import DAY_US
from prewarm.forecast import Setting
from prewarm.forecasters.choice import LeastSquares
from prewarm.forecasters.seasons import SameTimes, first_seen, mean_seen
from prewarm.forecasters.simple import EACH_DAY, EACH_WEEK, HOUR_US, LastValue, MeanHour
from prewarm.past import Past
from prewarm.series import Bools, Floats

FORCES = (30.0, 3.0, 0.3)
"""How many bins' worth of evidence the last value has from the start."""
HALF_LIFE_DAYS = 7
HALF_LIFE_BINS_MIN = 300
"""So old a bin counts half; where bins are wide, a week holds too few for nine weights."""
GROWTH_MAX = 2.0
TURNS_MAX = 12
"""A stream's weights are solved once an hour, and at least every so many bins."""
INPUTS = 9
_LAST = 1


class Regression:
    """Ridge regression towards the last value. Each bin adds to the sums from which weights are
    solved; that is most of the work, so the streams take turns."""

    def __init__(self, setting: Setting) -> None:
        width_us, shape = setting.calendar.width_us, (len(setting.streams), len(setting.horizons))
        self._horizons: NDArray[np.int64] = np.array(setting.horizons)
        self._days = SameTimes((0, *setting.horizons), EACH_DAY)
        self._weeks = SameTimes((0, *setting.horizons), EACH_WEEK)
        self._last, self._hour = LastValue(setting), MeanHour(setting)
        self._kept = 0.5 ** (1 / max(HALF_LIFE_DAYS * DAY_US / width_us, HALF_LIFE_BINS_MIN))
        self._shown: Floats = np.full((max(setting.horizons), *shape, INPUTS), np.nan)
        self._squares: Floats = np.zeros((*shape, INPUTS, INPUTS))
        self._products: Floats = np.zeros((*shape, INPUTS))
        self._prior = np.eye(INPUTS)[_LAST]
        self._weights: Floats = np.tile(self._prior, (len(FORCES), *shape, 1))
        self._choice = LeastSquares(setting, len(FORCES))
        self._has_day: Bools = np.zeros(shape[0], np.bool_)
        # A stream's turn is its name's, so that it is forecast alike in any company.
        self._turns = min(max(HOUR_US // width_us, 1), TURNS_MAX)
        self._turn: NDArray[np.int64] = np.array(
            [crc32(name.encode()) % self._turns for name in setting.streams], dtype=np.int64
        )

    def update(self, past: Past) -> None:
        self._last.update(past)
        self._hour.update(past)
        root = np.sqrt(past.back(0))
        self._learn(past, root)
        inputs = self._inputs(past)
        self._shown[past.now % len(self._shown)] = inputs
        self._renew(self._turn == past.now % self._turns)
        said = np.maximum((self._weights * inputs).sum(axis=-1), 0.0)
        most = np.sqrt(GROWTH_MAX) * inputs[..., _LAST:].max(axis=-1)
        self._choice.add(root, np.minimum(said, most))

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return np.square(self._choice.best())

    def _inputs(self, past: Past) -> Floats:
        """Shape S x H x inputs: 1, then roots. Without a week to look at, the day stands for it,
        and for the day the last value."""
        last, days = self._last.last, self._days.rows(past)
        day, mean, week = first_seen(days), mean_seen(days), first_seen(self._weeks.rows(past))
        self._start_over(~np.isnan(day[0]) & ~self._has_day)
        day, mean = (np.where(np.isnan(season), last, season) for season in (day, mean))
        week = np.where(np.isnan(week), day, week)
        found = np.ones((past.streams, len(self._horizons), INPUTS))
        found[..., _LAST] = last[:, None]
        found[..., 2] = self._hour.points(past)
        for place, season in zip((3, 5, 7), (day, week, mean), strict=True):
            found[..., place] = season[1:].T
            found[..., place + 1] = season[0][:, None]
        return np.sqrt(found)

    def _start_over(self, mine: Bools) -> None:
        """A stream's first day has come round: what was learned while the last value stood for it
        would tell the day's weight wrong."""
        if mine.any():
            self._has_day |= mine
            self._squares[mine] = self._products[mine] = 0.0
            self._weights[:, mine] = self._prior
            self._shown[:, mine] = np.nan
            self._choice.forget(mine)

    def _learn(self, past: Past, root: Floats) -> None:
        """From the newest bin and what was known of it, each horizon so many bins before."""
        rows = (past.now - self._horizons) % len(self._shown)
        then = self._shown[rows, :, np.arange(len(rows))].transpose(1, 0, 2)
        known = ~np.isnan(then.sum(axis=-1) + root[:, None])[..., None]
        then = np.where(known, then, 0.0)
        self._squares *= self._kept
        self._products *= self._kept
        self._squares += then[..., :, None] * then[..., None, :]
        self._products += then * np.where(known, root[:, None, None], 0.0)

    def _renew(self, mine: Bools) -> None:
        if not mine.any():
            return
        squares, products = self._squares[mine], self._products[mine]
        bins = np.maximum(squares[..., 0, 0], 1.0)
        # One bin's worth of evidence: the mean square of an input.
        worth = np.trace(squares, axis1=-2, axis2=-1) / INPUTS / bins + 1e-9
        for place, force in enumerate(FORCES):
            hold = (force * worth)[..., None]
            held = squares + hold[..., None] * np.eye(INPUTS)
            right = products + hold * self._prior
            self._weights[place][mine] = np.linalg.solve(held, right[..., None])[..., 0]
