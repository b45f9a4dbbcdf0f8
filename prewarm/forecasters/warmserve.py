"""WarmServe's forecast as released: the seasonal mean, corrected by its late errors. Pure.

In: the past. Out: for each stream the mean of past days in the same window of the day, plus the
mean error of that in the last ten windows, of which the newest weighs most. Published one window
ahead; for longer horizons the same correction stands. Never: adds a margin.
"""

import numpy as np

from prewarm.forecast import Setting
from prewarm.forecasters.seasons import SameTimes, mean_seen
from prewarm.past import KEPT_DAYS, Past
from prewarm.series import Floats

DEPTH = 10
"""So many windows correct the forecast; each older one weighs half as much."""
_WEIGHTS: Floats = np.power(0.5, np.arange(DEPTH))


def correction(errors: Floats) -> Floats:
    """Of errors along the first axis, newest first: their weighted mean over the newest ten. Holes
    are left out; without any error there is nothing to correct."""
    errors = errors[:DEPTH]
    known = ~np.isnan(errors)
    weights = _WEIGHTS[: len(errors)]
    total, weight = weights @ np.where(known, errors, 0.0), weights @ known
    found: Floats = np.zeros(errors.shape[1:])
    return np.divide(total, weight, out=found, where=weight > 0)


class WarmServe:
    """Past days are all that the past holds, a month unless bins are narrow. It has nothing to say
    on the first day."""

    def __init__(self, setting: Setting) -> None:
        ahead = (0, *setting.horizons)
        self._same = SameTimes(ahead, tuple(range(1, KEPT_DAYS)))
        self._usual: Floats = np.full((len(ahead), len(setting.streams)), np.nan)
        self._errors: Floats = np.full((DEPTH, len(setting.streams)), np.nan)

    def update(self, past: Past) -> None:
        self._usual = mean_seen(self._same.rows(past))
        self._errors[1:] = self._errors[:-1]
        self._errors[0] = past.back(0) - self._usual[0]

    def points(self, past: Past) -> Floats:  # noqa: ARG002
        return np.maximum(self._usual[1:] + correction(self._errors), 0.0).T
