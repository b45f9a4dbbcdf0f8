"""Who may act on a forecast: who has been cheaper than the last value would have been. Pure.

In: quantiles, then what came. Out: for every stream and horizon whether to act. What counts is the
cost of deciding by it: too little stock costs `waiting_to_idle` times what too much costs, which
makes its quantile r / (1 + r) the one to buy. It has to be cheaper at a quarter and at four times
the price too, for prices are guesses. Who lost the right gets it back by being cheaper again.
Never: trusts a forecast that has been tried for less than a day.
"""

import numpy as np

from prewarm.forecast import Setting
from prewarm.scoring import ROUNDING, at_level, newsvendor
from prewarm.selection.pace import pace_bins
from prewarm.selection.pending import Pending
from prewarm.series import Bools, Floats

PRICE_FACTORS = (0.25, 1.0, 4.0)
HALF_LIFE_DAYS = 3.0
DEARER_TO_LOSE = 1.02
"""Once it acts it may be so much dearer before it loses the right: no flapping."""


class Gate:
    """Discounted costs of everyone: `F` forecasters, the last value first, the blend second.

    Shape of the costs: F x S x H x 3, by `PRICE_FACTORS`.
    """

    def __init__(
        self,
        forecasters: int,
        setting: Setting,
        waiting_to_idle: float,
    ) -> None:
        streams, horizons = len(setting.streams), setting.horizons
        pace = pace_bins(setting.calendar)
        self._levels = setting.levels
        self._prices: Floats = np.array([waiting_to_idle * factor for factor in PRICE_FACTORS])
        self._forget = 0.5 ** (1 / (HALF_LIFE_DAYS * pace))
        self._enough = float(pace)
        self._bought: Pending[tuple[Floats, int]] = Pending(horizons)
        self.costs: Floats = np.zeros((forecasters, streams, len(horizons), len(PRICE_FACTORS)))
        self._tried: Floats = np.zeros((streams, len(horizons)))
        self.acts: Bools = np.zeros((streams, len(horizons)), np.bool_)

    def learn(self, now: int, values: Floats) -> None:
        """The value of bin `now`. Shape S."""
        self.costs *= self._forget
        for place, (bought, bins) in self._bought.due(now):
            # A stream without a past has no last value to be compared with.
            seen = ~np.isnan(values) & ~np.isnan(bought[0, :, place, 0])
            off = values[:, None] - bought[:, :, place]
            off[np.abs(off) < ROUNDING * (1 + values[:, None])] = 0.0
            cost = np.where(off > 0, self._prices * off, -off)
            self.costs[:, :, place] += bins * np.where(seen[:, None], cost, 0.0)
            self._tried[:, place] += bins * seen
        self._judge()

    def tell(self, now: int, quantiles: Floats, bins: int = 1) -> None:
        """What everyone forecast in bin `now`. Shape F x S x H x L. It stands for so many bins,
        where not every one is forecast."""
        bought = [at_level(quantiles, self._levels, newsvendor(p)) for p in self._prices.tolist()]
        self._bought.tell(now, (np.stack(bought, axis=-1), bins))

    def _judge(self) -> None:
        last, ours = self.costs[0], self.costs[1]
        allowed = np.where(self.acts[..., None], last * DEARER_TO_LOSE, last)
        self.acts = (ours <= allowed).all(axis=-1) & (self._tried >= self._enough)

    def beats_last_value(self) -> Bools:
        """Of everyone, at all three prices. Shape F x S x H."""
        cheaper: Bools = (self.costs <= self.costs[0]).all(axis=-1)
        return cheaper
