"""Quantiles for a forecaster that names a point: the point plus what it was lately off by. Pure.

In: points, and what was then seen. Out: for each level the point plus that quantile of the last
three days' residuals, of the same stream and horizon, never below 0. A residual of horizon k is a
value minus the point made k bins before it. `Trailing` goes bin by bin, `quantiles_of` over a whole
back-test; they agree. With `roots` the residuals are those of square roots, so that a band is as
wide as its hour is busy; simple baselines are scored without.
Never: counts a hole as a miss, uses a residual before its value was seen.

Cost: a bin is written in O(streams x horizons); only `predict` sorts: with four horizons and three
days of five minutes some 30 us for one stream and 6 ms for 500, where numpy sorts by AVX-512.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from prewarm.calendars import DAY_US, Calendar
from prewarm.forecast import LEVELS, PointFactory, Setting
from prewarm.past import Past
from prewarm.series import Floats, Panel

DAYS = 3
_FIRST_ROOM = 64
_CHUNK_FLOATS = 2_000_000


def window_bins(calendar: Calendar) -> int:
    """How many bins three days are."""
    return max(DAYS * DAY_US // calendar.width_us, 1)


class Residuals:
    """The trailing residuals of a point forecaster: told of each bin and of the points made in it.

    Shape of the store: streams x horizons x bins, in no order, grown until it holds the window.
    """

    def __init__(self, setting: Setting, roots: bool = False) -> None:
        self._roots = roots
        self._levels: Floats = np.array(setting.levels)
        self._horizons: NDArray[np.int64] = np.array(setting.horizons)
        self._window = window_bins(setting.calendar)
        shape = (len(setting.streams), len(setting.horizons))
        self._made: Floats = np.full((max(setting.horizons), *shape), np.nan)
        self._off: Floats = np.full((*shape, min(self._window, _FIRST_ROOM)), np.nan)
        self._bins = 0

    def add(self, values: Floats, points: Floats) -> None:
        """A bin and the points that were made knowing it. Shapes S and S x H."""
        kept = len(self._made)
        place = self._bins % self._window
        if place == self._off.shape[2]:
            room = min(place, self._window - place)
            more = np.full((*self._off.shape[:2], room), np.nan)
            self._off = np.concatenate((self._off, more), axis=2)
        each = np.arange(len(self._horizons))
        then = self._made[(self._bins - self._horizons) % kept, :, each]
        self._off[:, :, place] = _off(values[:, None], then.T, self._roots)
        self._made[self._bins % kept] = points
        self._bins += 1

    def quantiles(self, points: Floats) -> Floats:
        """Shape S x H x L; the point alone as long as nothing is known of its residuals."""
        return _around(points, self._off[:, :, : self._bins], self._levels, self._roots)


class Trailing:
    """A forecaster around any point forecaster."""

    def __init__(self, point: PointFactory, setting: Setting, roots: bool = False) -> None:
        self._past = Past(setting.calendar, len(setting.streams))
        self._point = point(setting)
        self._residuals = Residuals(setting, roots)
        self._points: Floats = np.full((len(setting.streams), len(setting.horizons)), np.nan)

    def fit(self, past: Panel) -> None:
        for values in past.values:
            self.update(values)

    def update(self, values: Floats) -> None:
        self._past.add(values)
        self._point.update(self._past)
        self._points = self._point.points(self._past)
        self._residuals.add(values, self._points)

    def predict(self) -> Floats:
        return self._residuals.quantiles(self._points)


def aligned(made: Floats, horizons: tuple[int, ...]) -> Floats:
    """From rows by the bin in which a forecast was made to rows by the bin that it is of; NaN where
    none was. Shape T x S x H."""
    found = np.full_like(made, np.nan)
    for place, ahead in enumerate(horizons):
        found[ahead:, :, place] = made[: len(made) - ahead, :, place]
    return found


def quantiles_of(
    points: Floats,
    values: Floats,
    horizons: tuple[int, ...],
    window: int,
    levels: tuple[float, ...] = LEVELS,
    roots: bool = False,
) -> Floats:
    """The quantiles of a whole back-test, chunk by chunk rather than bin by bin.

    `points` (T x S x H) and the result (T x S x H x L) stand by the bin that they are of: for bin t
    at horizon k the residuals of the bins up to t - k are known.
    """
    padding = ((window, 0), (0, 0), (0, 0))
    off = np.pad(_off(values[:, :, None], points, roots), padding, constant_values=np.nan)
    found = np.full((*points.shape, len(levels)), np.nan)
    bins, streams = values.shape
    chunk = max(_CHUNK_FLOATS // (streams * window), 1)
    for place, ahead in enumerate(horizons):
        # The window that begins at row t ends with bin t - 1, for there is one window of padding.
        known = sliding_window_view(off[:, :, place], window, axis=0)
        for first in range(ahead, bins, chunk):
            until = min(first + chunk, bins)
            found[first:until, :, place] = _around(
                points[first:until, :, place],
                known[first - ahead + 1 : until - ahead + 1],
                np.array(levels),
                roots,
            )
    return found


def _off(values: Floats, points: Floats, roots: bool) -> Floats:
    found: Floats = np.sqrt(values) - np.sqrt(points) if roots else values - points
    return found


def _around(points: Floats, off: Floats, levels: Floats, roots: bool) -> Floats:
    """Points plus the quantiles of the residuals along the last axis, linear between two of them,
    as `numpy.quantile` has it."""
    ordered = np.sort(off, axis=-1)  # NaN goes last
    count = (~np.isnan(off)).sum(axis=-1)[..., None]
    place = levels * np.maximum(count - 1, 0)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low, high = (np.take_along_axis(ordered, at, axis=-1) for at in (below, above))
    error = np.where(count > 0, low + (place - below) * (high - low), 0.0)
    # Rounding must not make a higher quantile the lower one.
    middle = np.sqrt(points) if roots else points
    found: Floats = np.maximum.accumulate(middle[..., None] + error, axis=-1)
    found = np.maximum(found, 0.0)
    return found * found if roots else found
