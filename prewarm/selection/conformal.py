"""Bands that keep their promise: stretched until as much lies within them as they say. Pure.

Adaptive conformal inference (Gibbs and Candès, 2021) on the distance from the median, by a factor
for each level: half of each step is a stream's own, half is shared by all streams of a horizon, for
a rare model's few misses are little proof. Where a level lies on the median, as at 0, nothing is
stretched.
In: forecasts, then what came. Out: forecasts with stretched bands. Never: lets a level cross
another or fall below 0; stretches beyond bounds: such a band is clipped, and that is counted.
"""

import numpy as np
from numpy.typing import NDArray

from prewarm.scoring import Rules, pit
from prewarm.selection.pending import Pending
from prewarm.series import Floats

STEP_ALL = 0.01
"""By how much, in logs, the bands of a horizon grow where all streams miss a sure thing."""
STEP_OWN = 0.01
"""The same for a stream's own misses."""
NARROWEST, WIDEST = 1 / 1.35, 2.0
"""Bands that are too wide cost little; those that are too narrow keep somebody waiting."""


class Conformal:
    """One factor, in logs, for each stream, horizon and level. Shapes S x H x L."""

    def __init__(self, streams: int, horizons: tuple[int, ...], rules: Rules) -> None:
        self._horizons = horizons
        self._rules = rules
        self._levels: Floats = np.array(rules.levels)
        self._outward = np.sign(self._levels - 0.5)
        self._median = rules.levels.index(0.5)
        self._told: Pending[Floats] = Pending(horizons)
        self._stretch: Floats = np.zeros((streams, len(horizons), len(rules.levels)))
        self.clipped: NDArray[np.int64] = np.zeros((streams, len(horizons)), np.int64)

    def learn(self, now: int, values: Floats, uniform: Floats) -> None:
        """The value of bin `now`, and a draw for its randomised PIT. Shapes S."""
        for place, quantiles in self._told.due(now):
            u = pit(values, quantiles[:, place], uniform, self._rules)[:, None]
            short = np.where(np.isnan(u), 0.0, self._levels - (u <= self._levels))
            seen = max(int((~np.isnan(u)).sum()), 1)
            step = STEP_OWN * short + STEP_ALL * short.sum(axis=0) / seen
            # Of far horizons the answer comes late, and overlapping forecasts miss together.
            step /= self._horizons[place] ** 0.5
            self._stretch[:, place] += self._outward * step

    def correct(self, now: int, raw: Floats, widening: Floats) -> Floats:
        """The forecast with its bands stretched; `widening`, of shape S, is for now, and on top.
        Shape S x H x L."""
        bounded = np.clip(self._stretch, np.log(NARROWEST), np.log(WIDEST))
        median = raw[..., self._median, None]
        found = median + (raw - median) * np.exp(bounded) * widening[:, None, None]
        clipped = (bounded != self._stretch) | ((found < 0) & (raw > 0))
        self.clipped += clipped.any(axis=-1)
        # Beyond the bounds it would take as long to come back as it took to go there.
        self._stretch = bounded
        found = np.sort(np.maximum(found, 0.0), axis=-1)
        self._told.tell(now, found)
        return found
