"""Has the demand of a stream become another one? Level shifts, drift, and how wide to be. Pure.

In: for every bin and stream a standardised one-step error: 0 as forecast, 1 a usual deviation
above. Out: whether the level shifted just now, whether it drifts away, and a factor by which bands
are to be widened until the forecasters have learnt. A hole changes nothing.
Never: keeps values, looks more than one bin back; costs more for a day than for an hour.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.series import Floats

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

CLIP = 3.0
"""One wild bin says no more than this: two of them are not yet a shift."""
SLACK = 0.5
"""CUSUM's allowance: half of the shift, in deviations, that it finds soonest."""
LIMIT = 10.0
"""CUSUM's alarm. See docs/adr/0018-change-detection.md for false alarms and delays."""
DRIFT_BINS = 288
"""Half-life of the mean error that tells of drift."""
DRIFT_ON, DRIFT_OFF = 4.5, 2.5
"""In deviations of that mean. It takes less to go on drifting than to begin."""
DRIFT_STEP = 1.0 - 0.5 ** (1.0 / DRIFT_BINS)
DRIFT_SD = (DRIFT_STEP / (2.0 - DRIFT_STEP)) ** 0.5
"""How far the mean of independent unit errors strays by chance."""
WIDER = 0.25
"""Bands are so much wider after a shift, or an error beyond `CLIP`: misses come in clusters."""
WIDER_BINS = 6
"""Half-life of the widening."""
SCALE_BINS = 576
"""Half-life of what counts as a usual deviation."""
SCALE_MIN = 0.5
"""On the square-root scale a Poisson count deviates by 1; a constant series must not by 0."""
MEAN_TO_DEVIATION = 1.2533
"""A normal deviation over the mean absolute one: the square root of half of pi."""


class Changes(NamedTuple):
    """Of each stream, in this bin."""

    shifted: Bools
    """The level has just become another."""
    drifting: Bools
    """Forecasts have been off to the same side for long, each by little."""


class Errors:
    """Standardises one-step errors: on a square-root scale, over each stream's usual deviation.

    The square root makes the deviation of a count the same at every level, so that a night's
    errors weigh as much as a day's. Errors are from the mean of the whole forecast on that scale:
    of a rare model the median is 0, and every request would be an error to the same side.
    """

    def __init__(self, streams: int, levels: tuple[float, ...]) -> None:
        self._scale: Floats = np.full(streams, 1.0)
        self._seen: Floats = np.zeros(streams)
        self._weights = _level_weights(levels)

    def standardised(self, values: Floats, quantiles: Floats) -> Floats:
        """Errors of a bin in deviations; NaN at a hole, or where nothing was forecast.

        Values are of shape S, the quantiles that were forecast of them S x L. Out: shape S.
        """
        forecast = _rooted(np.maximum(quantiles, 0.0)) @ self._weights
        errors = _rooted(values) - forecast
        scale = np.maximum(self._scale, SCALE_MIN)
        z: Floats = errors / scale
        self._learn(np.minimum(np.abs(errors), CLIP * scale))
        return z

    def _learn(self, sizes: Floats) -> None:
        """The deviation, quickly at first; one wild error moves it by little."""
        known = np.isfinite(sizes)
        self._seen += known
        step = np.maximum(1.0 / (self._seen + 10.0), 1.0 - 0.5 ** (1.0 / SCALE_BINS))
        change = step * (MEAN_TO_DEVIATION * sizes - self._scale)
        self._scale += np.where(known, change, 0.0)


def _rooted(counts: Floats) -> Floats:
    rooted: Floats = 2.0 * np.sqrt(counts + 0.375)
    return rooted


def _level_weights(levels: tuple[float, ...]) -> Floats:
    """What share of the distribution each quantile stands for: half way to its neighbours."""
    between = (np.array(levels[1:]) + np.array(levels[:-1])) / 2.0
    return np.diff(np.concatenate([[0.0], between, [1.0]]))


class ChangeWatch:
    """Two-sided CUSUM and a slow mean over clipped errors of all streams together. `S` streams."""

    def __init__(self, streams: int) -> None:
        self.since: Counts = np.zeros(streams, np.int64)
        """Observed bins since the last shift, or since the start. Shape S."""
        self._up: Floats = np.zeros(streams)
        self._down: Floats = np.zeros(streams)
        self._mean: Floats = np.zeros(streams)
        self._drifting: Bools = np.zeros(streams, np.bool_)
        self._wider: Floats = np.zeros(streams)

    def update(self, z: Floats) -> Changes:
        """The standardised errors of the next bin; NaN is a hole. Shape S."""
        known = np.isfinite(z)
        size = np.where(known, z, 0.0)
        clipped = np.clip(size, -CLIP, CLIP)
        shifted = self._shifts(clipped, known)
        self._drifts(clipped, known, shifted)
        self._widen(shifted | (np.abs(size) > CLIP), known)
        self.since += known
        self.since[shifted] = 0
        return Changes(shifted, self._drifting.copy())

    def widening(self) -> Floats:
        """By what factor to widen each stream's bands, at least 1. Shape S."""
        return 1.0 + self._wider

    def _shifts(self, clipped: Floats, known: Bools) -> Bools:
        slack = np.where(known, SLACK, 0.0)
        self._up = np.maximum(self._up + clipped - slack, 0.0)
        self._down = np.maximum(self._down - clipped - slack, 0.0)
        shifted: Bools = (self._up > LIMIT) | (self._down > LIMIT)
        self._up[shifted] = self._down[shifted] = 0.0
        return shifted

    def _drifts(self, clipped: Floats, known: Bools, shifted: Bools) -> None:
        self._mean += np.where(known, DRIFT_STEP * (clipped - self._mean), 0.0)
        self._mean[shifted] = 0.0  # the new level begins with a clean record
        limit = np.where(self._drifting, DRIFT_OFF, DRIFT_ON) * DRIFT_SD
        self._drifting = np.abs(self._mean) > limit

    def _widen(self, struck: Bools, known: Bools) -> None:
        keep = np.where(known, 0.5 ** (1.0 / WIDER_BINS), 1.0)
        self._wider = np.where(struck, WIDER, keep * self._wider)
