"""A line through the forecasters: each stream and horizon learns how much to make of each. Pure.

In: features on the root scale, then the value that came. Out: a point for every stream and horizon.
Recursive least squares that forgets: the newest days count most, one wild bin counts little, and
what the data leave open stays at the prior, which is the last value.
Never: looks at a value before it was seen; strays far beyond the features.
"""

import numpy as np
from numpy.typing import NDArray

from prewarm.forecast import Setting
from prewarm.selection.pace import pace_bins
from prewarm.series import Floats

HALF_LIFE_DAYS = 5.0
RIDGE = 1.0
"""Weight of the prior, against errors of the usual size. Forgotten like the data, but renewed."""
ERRORS_MAX = 4.0
"""In usual errors: a larger one counts as one of this size."""
LEARN = 0.05
STRAY = 0.3
"""How far a point may lie outside of all features, in the stream's unit."""
ROOT_OF_NOTHING = 0.375**0.5
_SCALE_STEP = 0.01
_SOLVE_EVERY = 3


class Regression:
    """`K` features, a constant among them; the first is the last value. Mutated by `learn`."""

    def __init__(self, setting: Setting, features: int) -> None:
        shape = (len(setting.horizons), len(setting.streams))
        self._horizons: NDArray[np.int64] = np.array(setting.horizons)
        self._each = np.arange(len(setting.horizons))
        self._forget = 0.5 ** (1 / (HALF_LIFE_DAYS * pace_bins(setting.calendar)))
        self._prior: Floats = np.zeros(features)
        self._prior[0] = 1.0
        self._gram: Floats = np.tile(np.eye(features) * RIDGE, (*shape, 1, 1))
        self._moment: Floats = np.tile(self._prior * RIDGE, (*shape, 1))
        self._coefficients: Floats = np.tile(self._prior, (*shape, 1))
        self._error: Floats = np.full(shape, 0.3)
        self._told: Floats = np.full((max(setting.horizons) + 1, *shape, features), np.nan)
        self._bins = 0

    def learn(self, root: Floats, unit: Floats) -> None:
        """The value that came, on the root scale, and the unit in which a stream is measured there.
        Shapes S; NaN is a hole. Call it before `points` of the same bin."""
        then = self._told[(self._bins - self._horizons) % len(self._told), self._each]
        seen = ~np.isnan(root + then[..., 0])
        then = np.where(seen[..., None], then, 0.0) / unit[:, None]
        value = np.where(seen, root / unit, 0.0)
        off = np.where(seen, value - (then * self._coefficients).sum(axis=-1), 0.0)
        self._error += np.where(seen, _SCALE_STEP * (np.abs(off) - self._error), 0.0)
        trust = np.minimum(1.0, ERRORS_MAX * self._error / np.maximum(np.abs(off), 1e-9))
        trust = np.where(seen, LEARN * trust / np.maximum(self._error, 0.02) ** 2, 0.0)
        self._add(then, value, trust)

    def _add(self, then: Floats, value: Floats, trust: Floats) -> None:
        keep, renew = self._forget, (1 - self._forget) * RIDGE
        weighted = then * trust[..., None]
        self._gram *= keep
        self._gram += weighted[..., :, None] * then[..., None, :]
        diagonal = np.einsum("...kk->...k", self._gram)
        diagonal += renew
        self._moment *= keep
        self._moment += weighted * value[..., None] + renew * self._prior
        due = (self._bins + self._each) % _SOLVE_EVERY == 0
        if due.any():
            solved = np.linalg.solve(self._gram[due], self._moment[due][..., None])
            self._coefficients[due] = solved[..., 0]

    def points(self, features: Floats, unit: Floats) -> Floats:
        """Features and points are on the root scale. Shapes H x S x K and H x S."""
        self._told[self._bins % len(self._told)] = features
        self._bins += 1
        found = (features * self._coefficients).sum(axis=-1)
        named = features[..., :-1]
        low, high = named.min(axis=-1), named.max(axis=-1)
        clipped: Floats = np.clip(found, low - STRAY * unit, high + STRAY * unit)
        return np.maximum(clipped, ROOT_OF_NOTHING)
