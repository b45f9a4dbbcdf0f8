"""Which of a few variants of a forecaster erred least of late, for each stream and horizon. Pure.

In: what every variant says in a bin, and what was seen. Out: what the best of them says. Never:
judges a variant by a bin that it had already seen when it spoke.
"""

import numpy as np
from numpy.typing import NDArray

from prewarm.forecast import Setting
from prewarm.series import Floats

ERROR_ALPHA = 0.01
"""Errors are remembered for some hundred bins."""


class LeastSquares:
    """Squared errors, smoothed. `G` variants; the first is chosen until another did better."""

    def __init__(self, setting: Setting, variants: int) -> None:
        shape = (variants, len(setting.streams), len(setting.horizons))
        self._horizons: NDArray[np.int64] = np.array(setting.horizons)
        self._each = np.arange(len(setting.horizons))
        self._said: Floats = np.full((max(setting.horizons), *shape), np.nan)
        self._errors: Floats = np.zeros(shape)
        self._bins = 0

    def add(self, values: Floats, said: Floats) -> None:
        """A bin, and what each variant says that knows it. Shapes S and G x S x H."""
        kept = len(self._said)
        then = self._said[(self._bins - self._horizons) % kept, :, :, self._each]
        off = values[:, None] - then.transpose(1, 2, 0)
        step = ERROR_ALPHA * (off * off - self._errors)
        self._errors += np.where(np.isnan(step), 0.0, step)
        self._said[self._bins % kept] = said
        self._bins += 1

    def best(self) -> Floats:
        """Of what was said in the newest bin. Shape S x H."""
        said = self._said[(self._bins - 1) % len(self._said)]
        found: Floats = np.take_along_axis(said, self._errors.argmin(axis=0)[None], axis=0)[0]
        return found
