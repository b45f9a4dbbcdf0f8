"""How much of each forecaster goes into the blend: by its late pinball losses. Pure.

In: the quantiles of all members, then the value that came. Out: weights for each stream, horizon
and level, for one forecaster may know the usual and another the bursts. Never: lets a member that
has lost for long weigh anything, trusts one that has been tried but once.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from prewarm.series import Floats

HALF_LIFE_DAYS = 1.0
SHARPNESS = 40.0
"""A member with a fortieth more loss than the best weighs 1/e of it."""
DOUBT = 0.02
"""Loss that everyone is taken to have had before the first bin, in the stream's unit."""


class Told(NamedTuple):
    """The members' quantiles made in a bin. Shape E x S x H x L."""

    bin: int
    quantiles: Floats


class Blend:
    """Discounted pinball losses of `E` members on every stream, horizon and level."""

    def __init__(
        self, shares: Floats, horizons: tuple[int, ...], levels: Floats, streams: int, day_bins: int
    ) -> None:
        self._shares = shares[:, None, None, None]
        self._horizons = horizons
        self._levels = levels
        self._forget = 0.5 ** (1 / (HALF_LIFE_DAYS * day_bins))
        self._told: deque[Told] = deque()
        self.losses: Floats = np.zeros((len(shares), streams, len(horizons), len(levels)))
        self.weights: Floats = np.broadcast_to(self._shares, self.losses.shape) / shares.sum()

    def learn(self, now: int, values: Floats, unit: Floats) -> None:
        """The value of bin `now`. Shapes S."""
        while self._told and self._told[0].bin < now - self._horizons[-1]:
            self._told.popleft()
        seen = ~np.isnan(values)
        value = np.where(seen, values, 0.0)[:, None]
        due = {told.bin: told for told in self._told}
        self.losses *= self._forget
        for place, ahead in enumerate(self._horizons):
            if (told := due.get(now - ahead)) is not None:
                off = value - told.quantiles[:, :, place]
                loss = np.maximum(self._levels * off, (self._levels - 1) * off)
                self.losses[:, :, place] += np.where(seen[:, None], loss / unit[:, None], 0.0)

    def mix(self, now: int, quantiles: Floats) -> Floats:
        """The blend. Shapes E x S x H x L and S x H x L."""
        self._told.append(Told(now, quantiles.astype(np.float32)))
        losses = self.losses + DOUBT
        weights = self._shares * np.exp(SHARPNESS * (1 - losses / losses.min(axis=0)))
        self.weights = weights / weights.sum(axis=0)
        mixed: Floats = (self.weights * quantiles).sum(axis=0)
        return np.sort(mixed, axis=-1)  # where levels cross, no loss grows by putting them in order
