"""Exponentially smoothed levels: EWMA, and the two for rare demand, TSB and Croston. Pure.

In: the past, bin after bin. Out: a level for each stream, the same for every horizon. Never: lets a
hole change a level.
"""

import numpy as np

from prewarm.forecast import Setting
from prewarm.forecasters.choice import LeastSquares
from prewarm.forecasters.simple import flat
from prewarm.past import Past
from prewarm.series import Bools, Floats

EWMA_ALPHAS = (0.4, 0.1, 0.2, 0.7)
"""The weight of the newest bin, to choose from."""
RARE_ALPHA = 0.1
"""The weight of the newest demand, and of the newest bin in how often there is any: the middle of
what Teunter, Syntetos and Babai (2011) tried."""


class Ewma:
    """The smoothed level; each stream and horizon has the smoothing that erred least of late.

    It names a middle, not a margin: the upper margin of "EWMA and a margin" is a high quantile of
    its residuals, which `residuals` adds to it as to every other.
    """

    def __init__(self, setting: Setting) -> None:
        self._shape = (len(EWMA_ALPHAS), len(setting.streams), len(setting.horizons))
        self._alphas: Floats = np.array(EWMA_ALPHAS)[:, None]
        self._levels: Floats = np.full(self._shape[:2], np.nan)
        self._choice = LeastSquares(setting, len(EWMA_ALPHAS))

    def update(self, past: Past) -> None:
        newest = past.back(0)
        step = self._alphas * (newest - self._levels)
        self._levels += np.where(np.isnan(step), 0.0, step)
        np.copyto(self._levels, newest, where=np.isnan(self._levels))
        self._choice.add(newest, np.broadcast_to(self._levels[:, :, None], self._shape))

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return self._choice.best()


class Tsb:
    """Teunter, Syntetos and Babai: how often a bin has demand, times how large it then is.

    How often is learned from every bin, so a model that is asked for no more fades to 0. A stream
    that has only ever been quiet is forecast to stay so.
    """

    def __init__(self, setting: Setting) -> None:
        streams = len(setting.streams)
        self._horizons = len(setting.horizons)
        self._often: Floats = np.full(streams, np.nan)
        self._size: Floats = np.zeros(streams)
        self._asked = np.zeros(streams, np.bool_)

    def update(self, past: Past) -> None:
        newest = past.back(0)
        busy = newest > 0
        step = RARE_ALPHA * (busy - self._often)
        self._often += np.where(np.isnan(newest) | np.isnan(step), 0.0, step)
        first = np.isnan(self._often) & ~np.isnan(newest)
        np.copyto(self._often, busy.astype(np.float64), where=first)
        _smooth_sizes(self._size, self._asked, newest, busy)

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return flat(self._often * self._size, self._horizons)


class Croston:
    """Croston's classic: the size of a demand over the bins between two. It learns in busy bins
    only, so it does not notice that a model is asked for no more; `Tsb` does."""

    def __init__(self, setting: Setting) -> None:
        streams = len(setting.streams)
        self._horizons = len(setting.horizons)
        self._gap: Floats = np.ones(streams)
        self._waited: Floats = np.zeros(streams)
        self._size: Floats = np.full(streams, np.nan)
        self._asked = np.zeros(streams, np.bool_)

    def update(self, past: Past) -> None:
        newest = past.back(0)
        busy, seen = newest > 0, ~np.isnan(newest)
        self._waited += seen
        weight = np.where(self._asked, RARE_ALPHA, 1.0)
        self._gap += np.where(busy, weight * (self._waited - self._gap), 0.0)
        self._waited[busy] = 0.0
        self._size[seen & np.isnan(self._size)] = 0.0
        _smooth_sizes(self._size, self._asked, newest, busy)

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return flat(self._size / self._gap, self._horizons)


def _smooth_sizes(size: Floats, asked: Bools, newest: Floats, busy: Bools) -> None:
    """The first demand is taken as it is."""
    weight = np.where(asked, RARE_ALPHA, 1.0)
    size += np.where(busy, weight * (newest - size), 0.0)
    asked |= busy
