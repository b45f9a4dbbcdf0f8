"""Bands that keep their promise: levels are moved until as much is covered as they say. Pure.

Adaptive conformal inference (Gibbs and Candès, 2021), on the level rather than on the width: to
cover nine bins of ten it may take the forecast's 0.93. A level is looked up in the forecast's own
distribution, so a rare model's band stays at 0 where 0 is right.
In: forecasts, then what came. Out: forecasts with moved levels. Never: lets a level cross another,
leaves the distribution: where its end is reached the band is clipped, and that is counted.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.scoring import Rules, pit
from prewarm.series import Floats

STEP_ALL = 0.005
"""How far a horizon's levels move, for all streams, where all of them missed a sure thing."""
STEP_OWN = 0.001
"""How far a stream's own levels move beside that. Little: a rare model's few misses are no proof."""


class _Told(NamedTuple):
    bin: int
    raw: Floats
    levels: Floats


class Conformal:
    """One offset for each stream, horizon and level but the median. Shapes S x H x L."""

    def __init__(self, streams: int, horizons: tuple[int, ...], rules: Rules) -> None:
        self._horizons = horizons
        self._rules = rules
        self._levels: Floats = np.array(rules.levels)
        self._median = rules.levels.index(0.5)
        self._told: deque[_Told] = deque()
        self._offset: Floats = np.zeros((streams, len(horizons), len(rules.levels)))
        self.clipped: NDArray[np.int64] = np.zeros((streams, len(horizons)), np.int64)

    def learn(self, now: int, values: Floats, uniform: Floats) -> None:
        """The value of bin `now`, and a draw for its randomised PIT. Shapes S."""
        while self._told and self._told[0].bin < now - self._horizons[-1]:
            self._told.popleft()
        due = {told.bin: told for told in self._told}
        for place, ahead in enumerate(self._horizons):
            if (told := due.get(now - ahead)) is None:
                continue
            u = pit(values, told.raw[:, place], uniform, self._rules)[:, None]
            short = np.where(np.isnan(u), 0.0, self._levels - (u <= told.levels[:, place]))
            short[:, self._median] = 0.0
            seen = max(int((~np.isnan(u)).sum()), 1)
            self._offset[:, place] += STEP_OWN * short + STEP_ALL * short.sum(axis=0) / seen

    def correct(self, now: int, raw: Floats) -> Floats:
        """The forecast with its levels moved. Shape S x H x L."""
        wanted = self._levels + self._offset
        clipped = (wanted < self._levels[0]) | (wanted > self._levels[-1])
        self.clipped += clipped[..., 1:-1].any(axis=-1)
        levels = np.clip(wanted, self._levels[0], self._levels[-1])
        # An offset beyond the end would take as long to come back as it took to go there.
        self._offset = np.clip(levels - self._levels, -0.5, 0.5)
        levels = np.maximum.accumulate(levels, axis=-1)
        self._told.append(_Told(now, raw.astype(np.float32).astype(np.float64), levels))
        return at_levels(raw, self._levels, levels)


def at_levels(quantiles: Floats, known: Floats, wanted: Floats) -> Floats:
    """Quantiles of other levels, on the line between two known ones. Shapes ... x L."""
    last = len(known) - 1
    above = np.clip(np.searchsorted(known, wanted), 1, last)
    low, high = (np.take_along_axis(quantiles, place, -1) for place in (above - 1, above))
    part = (wanted - known[above - 1]) / (known[above] - known[above - 1])
    found: Floats = low + part * (high - low)
    return found
