"""Totals cut into the bins that are forecast. Pure.

In: totals of each model and when they were read, at least every few seconds. Out: counts of each
bin that is over. Never: takes a bin in which nobody looked for a while for a quiet one: it is a
hole.
"""

from collections.abc import Iterator

import numpy as np

from prewarm.calendars import US
from prewarm.foresight.near import since
from prewarm.series import Floats
from prewarm.traces.records import Ints

GAP_US = 10 * US
"""So long may pass between two looks."""


class Bins:
    """Mutated by `begin`, once, and then by `add`. Bin 0 begins at `begins_us`; where the first
    look comes later it is a hole."""

    def __init__(self, begins_us: int, width_us: int) -> None:
        self._width_us = width_us
        self.start_us = begins_us
        """Of the bin that is open now."""
        self._at_us = begins_us
        self._from: Ints = np.zeros(0, np.int64)
        self._watched = True

    def begin(self, totals: Ints, at_us: int) -> None:
        self._at_us, self._from = at_us, totals
        self._watched = at_us <= self.start_us + GAP_US

    def add(self, totals: Ints, at_us: int) -> Iterator[Floats]:
        """The bins that are over by now, each a count a model, or NaN all over."""
        self._watched &= at_us - self._at_us <= GAP_US
        self._at_us = at_us
        while at_us >= self.start_us + self._width_us:
            counts = since(totals, self._from).astype(np.float64)
            self._from = totals
            self.start_us += self._width_us
            yield counts if self._watched else np.full(len(counts), np.nan)
            self._watched = at_us < self.start_us + GAP_US
