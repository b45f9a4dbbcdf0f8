"""The even grid that lies under times which are not quite even. Pure.

In: ascending times. Out: how wide a bin is, where the first begins, which bin each time is of.
Never: drops a time; two that fall into one bin stay two.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.calendars import DAY_US, US
from prewarm.traces.records import Ints

_MINUTE_US, _HOUR_US = 60 * US, 3600 * US
USUAL_US = tuple(
    unit * times
    for unit, multiples in (
        (US, (1, 2, 5, 10, 15, 20, 30)),
        (_MINUTE_US, (1, 2, 3, 5, 10, 15, 20, 30)),
        (_HOUR_US, (1, 2, 3, 4, 6, 8, 12)),
        (DAY_US, (1, 7)),
    )
    for times in multiples
)
"""Widths that somebody meant, when the steps only come near them."""

_NEAR = 0.05
_COMMON = 0.1
"""Steps that are equal to the microsecond this often are the grid itself, and others are gaps."""
_STRETCH = 0.75
"""So far, in bins, may a row move to find a bin of its own."""


class Grid(NamedTuple):
    start_us: int
    width_us: int
    places: Ints
    """The bin of each time, not descending."""
    moved: NDArray[np.bool_]
    """Times that are not the starts of their bins."""

    @property
    def bins(self) -> int:
        return int(self.places[-1]) + 1


def grid_of(at_us: Ints, width_us: int = 0) -> Grid:
    """`at_us` ascends strictly. `width_us` 0: the commonest step."""
    width_us = width_us or commonest_step(np.diff(at_us))
    phase_us = _phase(at_us % width_us, width_us)
    exact = (at_us - phase_us) / width_us
    places = _apart(np.floor(exact + 0.5).astype(np.int64), exact)
    start_us = phase_us + int(places[0]) * width_us
    places = places - places[0]
    return Grid(start_us, width_us, places, at_us != start_us + places * width_us)


def commonest_step(steps: Ints) -> int:
    """Equal steps win; where all differ by a little, the usual width that they come near."""
    found, counts = np.unique(steps, return_counts=True)
    most = int(np.argmax(counts))
    if counts[most] > 1 and counts[most] >= _COMMON * len(steps):
        return int(found[most])
    middle = float(np.median(steps))
    usual = min(USUAL_US, key=lambda width: abs(width - middle))
    return usual if abs(usual - middle) <= _NEAR * usual else max(round(middle), 1)


def _phase(rests_us: Ints, width_us: int) -> int:
    """Where in a bin's width the bins begin: where most rows do, else amidst them all."""
    found, counts = np.unique(rests_us, return_counts=True)
    most = int(np.argmax(counts))
    if 2 * counts[most] >= len(rests_us):
        return int(found[most])
    turns = np.exp(2j * np.pi * rests_us / width_us).mean()
    share = float(np.angle(turns)) / (2 * np.pi)
    return 0 if abs(share) <= _NEAR else round(share * width_us) % width_us


def _apart(places: Ints, exact: NDArray[np.float64]) -> Ints:
    """Of two that share a bin, one takes the empty bin beside it, if that is near enough."""
    for row in np.flatnonzero(np.diff(places) == 0) + 1:
        place = places[row]
        before = places[row - 2] if row > 1 else place - 2
        after = places[row + 1] if row + 1 < len(places) else place + 2
        if before < place - 1 and abs(exact[row - 1] - (place - 1)) <= _STRETCH:
            places[row - 1] -= 1
        elif after > place + 1 and abs(exact[row] - (place + 1)) <= _STRETCH:
            places[row] += 1
    return places
