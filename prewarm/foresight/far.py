"""The next hours of each model, bin by bin: quantiles, and the errors made together. Pure.

In: a past, then bin after bin of what was asked. Out: quantiles for each model, horizon and level:
the selector's, or the last value's where that has been no dearer to go by; who may be acted on;
where past values lay in their forecasts. Draws what the randomised PIT needs,
from a generator that is handed in. Never: sees a bin before its time.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from prewarm.forecast import LEVELS, Setting
from prewarm.foresight.learnt import Learnt
from prewarm.scoring import Rules, pit, week_bins
from prewarm.selection.pending import Pending
from prewarm.selection.selector import Selector
from prewarm.series import Bools, Floats

FORECASTS_OF_PAST = 128
"""A longer past is forecast in every second bin only, or third, ...: it is to be learnt quickly."""
ORIGINS_KEPT = 300
SEEN_KEPT_DAYS = 14


class Far:
    """`S` streams, `H` horizons, `L` levels. Mutated by `close` alone."""

    def __init__(
        self,
        learnt: Learnt,
        horizons: tuple[int, ...],
        waiting_to_idle: float,
        rng: np.random.Generator,
    ) -> None:
        panel = learnt.panel
        self.setting = Setting(
            calendar=panel.calendar, streams=panel.streams, horizons=horizons, whole=panel.whole
        )
        self._rng = rng
        self._rules = Rules(week_bins=week_bins(panel.calendar), whole=panel.whole)
        self._selector = Selector(self.setting, rng, waiting_to_idle=waiting_to_idle)
        self._last = self._selector.names.index("last_value")
        self._told: Pending[Floats] = Pending(horizons)
        self._ranks: OrderedDict[int, Floats] = OrderedDict()
        self._now = -1
        self._seen_kept = SEEN_KEPT_DAYS * panel.calendar.day_bins
        self.quantiles: Floats = np.full((len(panel.streams), len(horizons), len(LEVELS)), np.nan)
        self._learn(panel.values)

    @property
    def acts(self) -> Bools:
        """Whether each forecast may be acted on. Shape S x H."""
        return self._selector.acts

    def close(self, bins: Sequence[Floats]) -> None:
        """The next bins are over: counts of shape S; NaN where nobody watched."""
        for counts in bins:
            self._update(counts)
        self._predict(1)

    def errors(self) -> Floats:
        """Where the values lay in what had been forecast of them: for each past moment at which
        somebody forecast, for each horizon and stream. Shape N x H x S, between 0 and 1; NaN where
        one of both is unknown."""
        farthest = self.setting.horizons[-1]
        whole = [ranks for at, ranks in self._ranks.items() if at + farthest <= self._now]
        shape = (len(whole), len(self.setting.horizons), len(self.setting.streams))
        return np.array(whole).reshape(shape)

    def seen(self) -> Floats:
        """What was seen of late. Shape bins x S; NaN is a hole."""
        return self._selector.members.past.last(self._seen_kept)

    def _learn(self, past: Floats) -> None:
        step = max(-(-len(past) // FORECASTS_OF_PAST), 1)
        for at, values in enumerate(past):
            self._update(values)
            if at % step == 0 or at == len(past) - 1:
                self._predict(step)

    def _update(self, values: Floats) -> None:
        self._selector.update(values)
        self._now += 1
        for place, told in self._told.due(self._now):
            ranks = pit(values, told[:, place], self._rng.random(len(values)), self._rules)
            self._ranks[self._now - self.setting.horizons[place]][place] = ranks

    def _predict(self, bins: int) -> None:
        blend = self._selector.predict(bins)
        last = self._selector.each[self._last]
        self.quantiles = np.where(self._selector.acts[..., None], blend, last)
        self._told.tell(self._now, self.quantiles)
        streams, horizons = len(self.setting.streams), len(self.setting.horizons)
        self._ranks[self._now] = np.full((horizons, streams), np.nan)
        if len(self._ranks) > ORIGINS_KEPT:
            self._ranks.popitem(last=False)
