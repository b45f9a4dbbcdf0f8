"""Exponentially smoothed levels: EWMA. Pure.

In: the past, bin after bin. Out: a level for each stream, the same for every horizon. Never: lets a
hole change a level.
"""

import numpy as np

from prewarm.forecast import Setting
from prewarm.forecasters.simple import flat
from prewarm.past import Past
from prewarm.series import Floats

EWMA_ALPHAS = (0.1, 0.2, 0.4, 0.7)
"""The weight of the newest bin, to choose from."""
ERROR_ALPHA = 0.01
"""Errors are remembered for some hundred bins."""


class Ewma:
    """The smoothed level. Each stream has the smoothing that erred least, squared, of late.

    It names a middle, not a margin: the upper margin of "EWMA + margin" is a high quantile of its
    residuals, which `residuals` adds to it as it does for everybody.
    """

    def __init__(self, setting: Setting) -> None:
        streams = len(setting.streams)
        self._horizons = len(setting.horizons)
        self._alphas: Floats = np.array(EWMA_ALPHAS)[:, None]
        self._levels: Floats = np.full((len(EWMA_ALPHAS), streams), np.nan)
        self._errors: Floats = np.zeros((len(EWMA_ALPHAS), streams))

    def update(self, past: Past) -> None:
        newest = past.back(0)
        off = newest - self._levels
        known = ~np.isnan(off)
        self._errors += np.where(known, ERROR_ALPHA * (off * off - self._errors), 0.0)
        self._levels += np.where(known, self._alphas * off, 0.0)
        np.copyto(self._levels, newest, where=np.isnan(self._levels))

    def points(self, past: Past) -> Floats:
        best = self._errors.argmin(axis=0)
        return flat(self._levels[best, np.arange(past.streams)], self._horizons)
