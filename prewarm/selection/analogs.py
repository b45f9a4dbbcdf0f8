"""What followed in like moments: whole distributions, for bursts, pauses and timetables. Pure.

In: every bin's value, and the points that were made of it. Out: quantiles on the root scale, from
past bins weighted by their age and by how like the moment was: the level, the time of day. Some
take what followed as it was, others what it was off from a point, and add that to today's point.
Never: uses a bin before it was seen; sees more than two weeks back.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.forecast import Setting
from prewarm.past import Past
from prewarm.selection.pace import pace_bins
from prewarm.selection.weighted import weighted_quantiles
from prewarm.series import Floats, Singles

Ints = NDArray[np.int64]

KEPT_DAYS = 14
KEPT_BINS = 4_500
ALL_BINS = 300
"""So many newest bins are all looked at; of older ones only some, evenly spread."""
OLDER_BINS = 350
CLOCK_BINS = 400


class Kind(NamedTuple):
    """One way of being like."""

    name: str
    base: str = ""
    """Which point the level is compared by, and residuals are taken from: `regression`, `last`."""
    shifted: bool = False
    """Residuals from the base, added to today's; else what followed, as it was."""
    nearness: float = 0.0
    """How far levels may differ, in the stream's unit. 0: the level does not matter."""
    floor: float = 0.0
    """What a moment of quite another level still counts."""
    half_life_days: float = 4.0
    clock_hours: float = 0.0
    """How far times of day may differ. 0: the time of day does not matter."""
    share: float = 1.0
    """What it weighs in a blend before anything tells them apart: at a first burst it is likelier
    that all will be as it was than that the burst stays."""


KINDS = (
    Kind("regression", "regression", True, 0.2, 0.02, 4.0, share=0.5),
    Kind("regression_clock", "regression", True, 0.3, 0.02, 7.0, 1.5, share=0.25),
    Kind("level", "last", True, 0.15, 0.02, 3.0, share=0.25),
    Kind("analog", "last", False, 0.15, 1e-4, 4.0, share=3.0),
    Kind("clock", "", False, 0.0, 0.0, 7.0, 0.5, share=1.0),
    Kind("recent", "", False, 0.0, 0.0, 3.0, share=6.0),
)


class Analogs:
    """Rings of what was seen and of the points made of it, by the bin that they are of."""

    def __init__(self, setting: Setting) -> None:
        streams, horizons = len(setting.streams), len(setting.horizons)
        self._day_bins = setting.calendar.day_bins
        self._pace_bins = pace_bins(setting.calendar)
        self._looked_at = min(KEPT_DAYS * self._day_bins, KEPT_BINS)
        self._kept = self._looked_at + max(setting.horizons) + 1
        self._horizons: Ints = np.array(setting.horizons)
        self._levels: Floats = np.array(setting.levels)
        self._root: Singles = np.full((streams, self._kept), np.nan, np.float32)
        self._made: dict[str, Singles] = {
            base: np.full((streams, horizons, self._kept), np.nan, np.float32)
            for base in ("regression", "last")
        }
        self._told: dict[str, Singles] = {
            base: np.full((max(setting.horizons) + 1, streams, horizons), np.nan, np.float32)
            for base in ("regression", "last")
        }
        self._bins = 0

    def learn(self, root: Floats) -> None:
        """A bin on the root scale; NaN is a hole. Shape S."""
        place = self._bins % self._kept
        self._root[:, place] = root
        each = np.arange(len(self._horizons))
        for base, told in self._told.items():
            then = (self._bins - self._horizons) % len(told)
            self._made[base][:, :, place] = told[then, :, each].T
        self._bins += 1

    def tell(self, points: dict[str, Floats]) -> None:
        """The points made in the newest bin, by base. Shapes S x H."""
        for base, told in self._told.items():
            told[(self._bins - 1) % len(told)] = points[base]

    def quantiles(self, past: Past, points: dict[str, Floats], unit: Floats) -> list[Floats]:
        """One array S x H x L for each of `KINDS`, on the root scale; NaN where none is alike."""
        near = _Sample(self, np.tile(self._ages(), (len(self._horizons), 1)))
        if self._bins <= self._day_bins:  # no clock has come round yet
            unknown = np.full((*points["last"].shape, len(self._levels)), np.nan)
            return [
                unknown if kind.clock_hours else self._of(kind, near, points, unit)
                for kind in KINDS
            ]
        clock = self._by_clock(past)
        return [self._of(kind, clock if kind.clock_hours else near, points, unit) for kind in KINDS]

    def _of(self, kind: Kind, sample: "_Sample", points: dict[str, Floats], unit: Floats) -> Floats:
        weights = sample.seen * self._by_age(kind, sample)
        values: Floats | Singles = sample.values
        if kind.base:
            now = points[kind.base].astype(np.float32)[..., None]
            then = sample.made(kind.base)
            near = np.exp(np.abs(then - now) * (-1 / (kind.nearness * unit))[:, None, None])
            weights = np.where(np.isnan(near), 0.0, weights * (near + kind.floor))
            if kind.shifted:  # an error shrinks with the level, and does not grow with it
                values = now + (values - then) * np.minimum(now / then, 1)
        values = np.where(weights > 0, np.maximum(values, 0.0), 0.0)
        found = weighted_quantiles(values, weights, self._levels)
        # No bin near that hour was seen, or nothing said so far ahead has met its bin yet.
        found[~weights.any(axis=-1)] = np.nan
        return found

    def _by_age(self, kind: Kind, sample: "_Sample") -> Floats:
        """Shape H x N."""
        weights: Floats = 0.5 ** (sample.ages / (kind.half_life_days * self._pace_bins))
        if kind.clock_hours:
            bins = kind.clock_hours * self._day_bins / 24
            weights = weights * np.exp(-sample.off_clock / bins)
        return weights

    def _ages(self) -> Ints:
        """Bins back from the newest, which is 0: all of the last ones, then some."""
        oldest = min(self._bins, self._looked_at)
        step = max(-(-(self._looked_at - ALL_BINS) // OLDER_BINS), 1)
        return np.concatenate([np.arange(min(oldest, ALL_BINS)), np.arange(ALL_BINS, oldest, step)])

    def _by_clock(self, past: Past) -> "_Sample":
        """Bins near the local time of the bin to come, of each of the past days."""
        reach = max(self._day_bins // 8, 1)
        step = max(-(-(2 * reach + 1) * KEPT_DAYS // CLOCK_BINS), 1)
        around = np.arange(-reach, reach + 1, step)
        rows = []
        for ahead in self._horizons.tolist():
            target = past.now + ahead
            days = [past.calendar.bins_to(target, day) for day in range(1, KEPT_DAYS + 1)]
            rows.append((np.array(days)[:, None] - ahead + around).ravel())
        return _Sample(self, np.array(rows), np.tile(np.abs(around), KEPT_DAYS))


class _Sample:
    """Past bins that are looked at. `ages`, H x N, are counted back from the newest bin;
    `off_clock`, N, is how many bins their time of day is off from that of the bin to come."""

    def __init__(self, analogs: Analogs, ages: Ints, off_clock: Ints | None = None) -> None:
        self.ages = ages
        self.off_clock = np.zeros(ages.shape[1], np.int64) if off_clock is None else off_clock
        there = (ages >= 0) & (ages < min(analogs._bins, analogs._kept))
        self._place = (analogs._bins - 1 - ages) % analogs._kept
        self._analogs = analogs
        self.values: Singles = analogs._root[:, self._place]
        self.seen = ~np.isnan(self.values) & there

    def made(self, base: str) -> Singles:
        """The points that were made of these bins, at the same horizon. Shape S x H x N."""
        each = np.arange(len(self.ages))[:, None]
        found: Singles = self._analogs._made[base][:, each, self._place]
        return found
