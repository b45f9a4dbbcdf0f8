"""Forecasters that are too slow for every bin: fitted now and then, read in every bin. Pure.

In: the past, and the paths that somebody else fits on request. Out: a `FitRequest` when it is time
for a new fit; points from the newest path, carried to the level of the last hour. NaN before the
first path and beyond the end of the newest. Never: fits, waits for a fit, loses a path that still
holds because a later fit failed.
"""

from dataclasses import dataclass

import numpy as np

from placement.catalog import DemandEvent
from prewarm.calendars import DAY_US, US, Calendar
from prewarm.forecast import Setting
from prewarm.past import Past
from prewarm.series import Floats

HOUR_US = 3_600 * US


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitRequest:
    """All that a fit needs to know, and the work of another process."""

    forecaster: str
    calendar: Calendar
    streams: tuple[str, ...]
    first: int
    """The bin of the first row of `values`."""
    values: Floats
    """Bins x streams; NaN is a hole."""
    ahead: int
    """How many bins to come are asked for."""
    country: str = ""
    """ISO 3166 code of the country whose holidays are kept; empty: none."""
    events: tuple[DemandEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """What a slow forecaster said at one fit. Every bin before `first` was seen by it."""

    forecaster: str
    first: int
    medians: Floats
    """Streams x bins, never negative or infinite; NaN where there is nothing to say."""
    notes: tuple[str, ...]
    """For each stream why nothing is said of it, or what was left out; empty where all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When to fit, and how much."""

    days_min: int = 2
    """Of past, before the first fit."""
    days_fitted: int = 28
    days_ahead: int = 2
    """Twice the time between two fits: one may fail and the path still holds."""
    quiet_hour: int = 3
    """Of local time: a day's fit is made in it."""
    stale_us: int = DAY_US
    """A fit of this age is renewed at any hour."""
    settled_us: int = 3 * HOUR_US
    """So long after a level shift there is enough of the new level to fit it."""
    pause_us: int = HOUR_US
    """After a failed fit; doubled with every further one, up to `stale_us`."""


DAILY = Schedule()
_LEVEL_US = HOUR_US
"""The level is that of the last hour."""
_FADES_US = 6 * HOUR_US
"""After so long half of a level's departure from the path, in logs, is expected to be gone."""
_LEVEL_MAX = 10.0


class PathForecaster:
    """A `PointForecaster` that reads what a library said at its last fit.

    A fit of last night knows the shape of today better than its level, so the path is multiplied
    by how far the last hour lay above or below it, ever less so for bins further away.
    """

    def __init__(self, setting: Setting, name: str, schedule: Schedule = DAILY) -> None:
        self.name = name
        self.path: Path | None = None
        self.failures = 0
        """In a row."""
        self.trouble = ""
        """Why the last fit failed; empty after one that did not."""
        self._setting = setting
        self._schedule = schedule
        self._horizons = np.array(setting.horizons, np.int64)
        self._under_way = False
        self._shifted_at: int | None = None
        self._not_before = 0

    def update(self, past: Past) -> None:
        """Nothing is learnt between two fits but the level, and that is looked up in the past."""

    def points(self, past: Past) -> Floats:
        if self.path is None:
            return np.full((past.streams, len(self._horizons)), np.nan)
        at = past.now + self._horizons - self.path.first
        inside = (at >= 0) & (at < self.path.medians.shape[1])
        found: Floats = self.path.medians[:, np.where(inside, at, 0)]
        found[:, ~inside] = np.nan
        fading = 0.5 ** (self._horizons / self._bins(_FADES_US))
        return found * self._level(past, self.path)[:, None] ** fading

    def request(
        self, past: Past, country: str = "", events: tuple[DemandEvent, ...] = ()
    ) -> FitRequest | None:
        """The fit that is wanted now; None where none is due, or one is under way."""
        if self._under_way or not self._due(past.calendar, past.now):
            return None
        values = past.last(self._bins(self._schedule.days_fitted * DAY_US))
        self._under_way = True
        return FitRequest(
            forecaster=self.name,
            calendar=past.calendar,
            streams=self._setting.streams,
            first=past.now + 1 - len(values),
            values=values.copy(),
            ahead=self._bins(self._schedule.days_ahead * DAY_US),
            country=country,
            events=events,
        )

    def accept(self, path: Path) -> None:
        """A fit is done."""
        self._under_way = False
        self.failures, self.trouble = 0, ""
        if self._shifted_at is not None and path.first > self._settled(self._shifted_at):
            self._shifted_at = None
        if self.path is None or path.first > self.path.first:
            self.path = path

    def failed(self, now: int, why: str) -> None:
        """A fit came to nothing: the old path stays, and the next fit waits ever longer."""
        self._under_way = False
        self.failures += 1
        self.trouble = why
        pause_us = self._schedule.pause_us * 2 ** min(self.failures - 1, 16)
        self._not_before = now + self._bins(min(pause_us, self._schedule.stale_us))

    def shifted(self, now: int) -> None:
        """The level of a stream has become another: fit again as soon as there is enough of it."""
        if self._shifted_at is None:
            self._shifted_at = now

    def staleness_bins(self, now: int) -> int | None:
        """How many bins were seen since the last fit; None before the first."""
        return None if self.path is None else now + 1 - self.path.first

    def _due(self, calendar: Calendar, now: int) -> bool:
        if now < self._not_before:
            return False
        age = self.staleness_bins(now)
        if age is None:
            return now + 1 >= self._bins(self._schedule.days_min * DAY_US)
        if age >= self._bins(self._schedule.stale_us):
            return True
        if self._shifted_at is not None and now >= self._settled(self._shifted_at):
            return True
        quiet = calendar.local(now).second // 3_600 == self._schedule.quiet_hour
        return quiet and age >= self._bins(self._schedule.stale_us // 2)

    def _settled(self, shifted_at: int) -> int:
        return shifted_at + self._bins(self._schedule.settled_us)

    def _level(self, past: Past, path: Path) -> Floats:
        """How far the last hour lay above the path. One bin counts for the path, so that a lone
        bin moves the level half way, and quiet streams stay near it. Shape S."""
        age = past.now + 1 - path.first
        bins = min(self._bins(_LEVEL_US), age)
        if bins <= 0 or age > path.medians.shape[1]:
            return np.ones(past.streams)
        said = path.medians[:, age - bins : age].T
        seen = past.last(bins)
        known = np.isfinite(said) & np.isfinite(seen)
        said_sum = np.where(known, said, 0.0).sum(axis=0)
        seen_sum = np.where(known, seen, 0.0).sum(axis=0)
        one_bin = said_sum / np.maximum(known.sum(axis=0), 1) + 1.0
        level: Floats = (seen_sum + one_bin) / (said_sum + one_bin)
        return np.clip(level, 1.0 / _LEVEL_MAX, _LEVEL_MAX)

    def _bins(self, span_us: int) -> int:
        return max(span_us // self._setting.calendar.width_us, 1)
