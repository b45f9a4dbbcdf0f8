"""How much of each forecaster goes into the blend: by its late pinball losses. Pure.

In: the quantiles of all members, then the value that came. Out: weights for each stream, horizon
and level, for one forecaster may know the usual and another the bursts. Core members always take
part; a guest is let in where it has been better than the blend of the core, over days, and is let
out where it is so no more. Never: lets a member that has lost for long weigh anything.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.forecast import Setting
from prewarm.selection.pace import pace_bins
from prewarm.selection.pending import Pending
from prewarm.series import Bools, Floats

HALF_LIFE_DAYS = 1.0
HALF_LIFE_HORIZONS = 12.0
"""Up to twice the above: forecasts that overlap err alike, so far ones take longer to learn."""
SHARPNESS = 40.0
"""A member with a fortieth more loss than the best weighs 1/e of it."""
DOUBT = 0.02
"""Loss that everyone is taken to have had before the first bin, in the stream's unit."""
GUEST_HALF_LIFE_DAYS = 5.0
BETTER = 0.9
"""A guest's loss over that of the core's blend, to be let in."""


class _Told(NamedTuple):
    members: NDArray[np.float32]
    core: NDArray[np.float32]
    bins: int


class Blend:
    """Discounted pinball losses of `E` members on every stream, horizon and level.

    `shares`: what a member weighs where losses do not tell. NaN: a guest.
    """

    def __init__(self, shares: Floats, setting: Setting) -> None:
        pace, levels = pace_bins(setting.calendar), np.array(setting.levels)
        shape = (len(shares), len(setting.streams), len(setting.horizons), len(levels))
        self._shares = np.nan_to_num(shares, nan=1.0)[:, None, None, None]
        self._core: Bools = ~np.isnan(shares)
        self._levels = levels
        ahead = np.array(setting.horizons)
        usual = HALF_LIFE_DAYS * pace
        half_life = np.clip(HALF_LIFE_HORIZONS * ahead, usual, 2 * usual)
        self._forget = (0.5 ** (1 / half_life))[:, None]
        self._forget_guests = 0.5 ** (1 / (GUEST_HALF_LIFE_DAYS * pace))
        self._told: Pending[_Told] = Pending(setting.horizons)
        self.losses: Floats = np.zeros(shape)
        self._long: Floats = np.zeros(shape[:3])
        self._core_long: Floats = np.zeros(shape[1:3])
        self.weights: Floats = np.zeros(shape)

    @property
    def members(self) -> Bools:
        """Who takes part. Shape E x S x H."""
        better = self._long < BETTER * self._core_long
        return better | self._core[:, None, None]

    def learn(self, now: int, values: Floats, unit: Floats) -> None:
        """The value of bin `now`, and what its stream is measured in. Shapes S."""
        self.losses *= self._forget
        self._long *= self._forget_guests
        self._core_long *= self._forget_guests
        measured = values / unit
        for place, told in self._told.due(now):
            # Where even the last value was unknown there was no forecast to be right or wrong.
            known = np.where(np.isnan(told.core[:, place, -1]), np.nan, measured)
            loss = told.bins * self._loss(known, told.members[:, :, place] / unit[:, None])
            self.losses[:, :, place] += loss
            self._long[:, :, place] += loss.mean(axis=-1)
            core = told.bins * self._loss(known, told.core[:, place] / unit[:, None])
            self._core_long[:, place] += core.mean(axis=-1)

    def mix(self, now: int, quantiles: Floats, bins: int = 1) -> Floats:
        """The blend. Shapes E x S x H x L and S x H x L. It stands for so many bins, where not
        every one is forecast."""
        core = quantiles[self._core]
        core_mixed, core_weights = self._mixed(self._core, core, None)
        joined = self.members
        guests = joined & ~self._core[:, None, None]
        if guests.any():
            everyone = np.ones_like(self._core)
            mixed, self.weights = self._mixed(everyone, quantiles, joined)
        else:
            mixed, self.weights = core_mixed, np.zeros_like(self.weights)
            self.weights[self._core] = core_weights
        self._told.tell(
            now, _Told(quantiles.astype(np.float32), core_mixed.astype(np.float32), bins)
        )
        return mixed

    def _mixed(self, of: Bools, quantiles: Floats, joined: Bools | None) -> tuple[Floats, Floats]:
        losses = self.losses[of] + DOUBT
        if joined is not None:
            losses = np.where(joined[..., None], losses, np.inf)
        weights = self._shares[of] * np.exp(SHARPNESS * (1 - losses / losses.min(axis=0)))
        weights /= weights.sum(axis=0)
        mixed = (weights * quantiles).sum(axis=0)
        # Where levels cross, no loss grows by putting them in order.
        return np.sort(mixed, axis=-1), weights

    def _loss(self, values: Floats, quantiles: Floats) -> Floats:
        """Pinball losses; none at a hole, or where nothing was forecast. Shapes S, ... x S x L."""
        off = values[:, None] - quantiles
        loss = np.maximum(self._levels * off, (self._levels - 1) * off)
        return np.where(np.isnan(off), 0.0, loss)
