"""The newest values of many streams, as the forecasters look back on them. Pure.

In: one bin after the other. Out: what stood so many bins, or days of local time, before. A hole
stays NaN; who asks for the value of a hole gets NaN, and decides. Never: grows beyond `bins`.
"""

import numpy as np

from prewarm.calendars import DAY_US, Calendar
from prewarm.series import Floats

KEPT_DAYS = 30
KEPT_BINS = 21_600
"""Fifteen days of minutes, so that a week has come round twice; of ten seconds two and a half,
which is more than short horizons need."""


class Past:
    """A ring of the last bins of all streams. Mutated by `add` alone."""

    def __init__(self, calendar: Calendar, streams: int, bins: int | None = None) -> None:
        kept = bins or min(-(-KEPT_DAYS * DAY_US // calendar.width_us), KEPT_BINS)
        self.calendar = calendar
        self.streams = streams
        self.now = -1
        """The index of the newest bin; -1 before the first."""
        self._kept = kept
        # Every bin is written twice, `kept` apart, so that any window of the past is one slice.
        self._values: Floats = np.full((2 * kept, streams), np.nan)

    def add(self, values: Floats) -> None:
        """The next bin of every stream; NaN where nobody looked. Shape: streams."""
        self.now += 1
        place = self.now % self._kept
        self._values[place] = self._values[place + self._kept] = values

    def back(self, bins: int) -> Floats:
        """The values so many bins before the newest one (0: the newest). Shape: streams."""
        if not 0 <= bins < self._kept or bins > self.now:
            return np.full(self.streams, np.nan)
        found: Floats = self._values[(self.now - bins) % self._kept]
        return found

    def last(self, bins: int) -> Floats:
        """The newest bins, oldest first, fewer where there are fewer. Shape: bins x streams."""
        count = min(bins, self.now + 1, self._kept)
        end = self.now % self._kept + self._kept + 1
        found: Floats = self._values[end - count : end]
        return found

    def same_time(self, horizon: int, days: int) -> Floats:
        """What was seen at the local time of the horizon-th bin to come, so many days earlier."""
        return self.back(self.calendar.bins_to(self.now + horizon, days) - horizon)
