"""The forecast that is acted on: a blend, corrected to keep its promises, behind a gate. Pure.

In: bin after bin of what was asked. Out: quantiles for each stream, horizon and level; who made
them; whether they may be acted on. Announced events are taken out of what the members see and put
back into what is forecast. Draws nothing but what the randomised PIT needs, from a generator that
is handed in. Never: raises on any value; says a negative or infinite number.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.change import ChangeWatch, Errors
from prewarm.cleaning import VALUE_MAX
from prewarm.events import Uplift
from prewarm.forecast import Setting
from prewarm.prior import Prior
from prewarm.scoring import Rules, at_level, week_bins
from prewarm.selection.analogs import KINDS
from prewarm.selection.blend import Blend
from prewarm.selection.conformal import Conformal
from prewarm.selection.gate import Gate
from prewarm.selection.members import NOBODY, Guests, Members
from prewarm.selection.pending import Pending
from prewarm.series import Floats, Panel

CORE = {**{kind.name: kind.share for kind in KINDS}, "last_value": 1.0, "ewma": 1.0}
"""Who always takes part in the blend, and with what share where nothing tells them apart."""
FIT_STEP = 24
"""While a past is fitted, only every so many bins are forecast, to judge the members by."""


class Standing(NamedTuple):
    """How a forecaster does now. Shapes S x H."""

    share: Floats
    loss: Floats
    """Discounted pinball loss over that of the last value."""
    cost: Floats
    """Discounted decision cost over that of the last value, at the three prices: S x H x 3."""
    beats_last_value: NDArray[np.bool_]


class Selector:
    """A `Forecaster` of forecasters."""

    def __init__(
        self,
        setting: Setting,
        rng: np.random.Generator,
        *,
        waiting_to_idle: float = 9.0,
        guests: Guests = NOBODY,
        uplift: Uplift | None = None,
        prior: Prior | None = None,
    ) -> None:
        streams, levels = len(setting.streams), np.array(setting.levels)
        self.members = Members(setting, guests)
        self.names = self.members.names
        shares = np.array([CORE.get(name, np.nan) for name in self.names])
        self._setting = setting
        self._rng = rng
        self._uplift = uplift
        self._prior = prior
        self._rules = Rules(
            week_bins=week_bins(setting.calendar), levels=setting.levels, whole=setting.whole
        )
        self._last = self.names.index("last_value")
        self._blend = Blend(shares, setting)
        self._conformal = Conformal(streams, setting.horizons, self._rules)
        self._gate = Gate(len(self.names) + 2, setting, waiting_to_idle)
        self._errors = Errors(streams, setting.levels)
        self.watch = ChangeWatch(streams)
        self._nearest: Pending[Floats] = Pending(setting.horizons[:1])
        self._usual: Floats | None = None
        """What had been said of the newest bin at the nearest horizon, events left out. S x L."""
        self.each: Floats = np.zeros((len(self.names), streams, len(setting.horizons), len(levels)))
        """What every member said last, events put back in. Shape E x S x H x L."""

    @property
    def acts(self) -> NDArray[np.bool_]:
        """Whether each forecast may be acted on. Shape S x H."""
        return self._gate.acts

    @property
    def clipped(self) -> NDArray[np.int64]:
        """How many bands were clipped so far. Shape S x H."""
        return self._conformal.clipped

    @property
    def weights(self) -> Floats:
        """What each member weighs in the blend, over all levels. Shape E x S x H."""
        found: Floats = self._blend.weights.mean(axis=-1)
        return found

    def fit(self, past: Panel) -> None:
        for at, values in enumerate(past.values):
            self.update(values)
            if at % FIT_STEP == 0:
                self.predict(FIT_STEP)

    def update(self, values: Floats) -> None:
        """The next bin. Shape S; NaN is a hole, and so is what cannot be: what is below 0, or above
        `VALUE_MAX`."""
        now = self.members.past.now + 1
        self._usual = next((said for _, said in self._nearest.due(now)), None)
        sound = (values >= 0) & (values <= VALUE_MAX)
        usual = self._without_events(now, np.where(sound, values, np.nan))
        self.members.update(usual)
        self._notice(usual)
        self._blend.learn(now, usual, self.members.unit)
        self._conformal.learn(now, usual, self._rng.random(len(usual)))
        self._gate.learn(now, usual)
        if self._prior is not None:
            self._prior.update(usual, self._launches(now))

    def predict(self, bins: int = 1) -> Floats:
        """Quantiles of what will be asked. Shape S x H x L; NaN for a stream without any past.
        Everyone is judged by it as if so many bins had been forecast alike."""
        now = self.members.past.now
        each = self.members.quantiles()
        self.each = self._with_events(now, each)
        raw = self._blend.mix(now, each, bins)
        found = self._conformal.correct(now, raw, self.watch.widening())
        self._gate.tell(now, np.concatenate([each[self._last][None], found[None], each]), bins)
        self._nearest.tell(now, found[:, 0])
        return self._with_events(now, self._with_prior(now, found))

    def standings(self) -> dict[str, Standing]:
        """The scoreboard: every member, and "blend"."""
        best = np.maximum(self._blend.losses[self._last].sum(axis=-1), 1e-9)
        costs = self._gate.costs / np.maximum(self._gate.costs[0], 1e-9)
        beats = self._gate.beats_last_value()
        found = {
            name: Standing(
                self.weights[i],
                self._blend.losses[i].sum(axis=-1) / best,
                costs[i + 2],
                beats[i + 2],
            )
            for i, name in enumerate(self.names)
        }
        whole = np.ones_like(best)
        found["blend"] = Standing(whole, whole * np.nan, costs[1], beats[1])
        return found

    def _without_events(self, now: int, values: Floats) -> Floats:
        if self._uplift is None:
            return values
        if self._usual is not None:
            self._uplift.observe(now, values, at_level(self._usual, self._setting.levels, 0.5))
        without: Floats = values / self._uplift.factors(now)
        return without

    def _with_events(self, now: int, found: Floats) -> Floats:
        """Shape ... S x H x L."""
        if self._uplift is None:
            return found
        factors = [self._uplift.factors(now + ahead) for ahead in self._setting.horizons]
        raised: Floats = found * np.stack(factors, axis=1)[..., None]
        return raised

    def _with_prior(self, now: int, found: Floats) -> Floats:
        """A stream of little past leans on what is expected of it."""
        if self._prior is None:
            return found
        weight = self._prior.weight()[:, None, None]
        launches = [self._launches(now + ahead) for ahead in self._setting.horizons]
        median = at_level(found, self._setting.levels, 0.5)
        prior = self._prior.quantiles(median, np.stack(launches, axis=1))
        return np.where(np.isnan(found), prior, weight * found + (1 - weight) * prior)

    def _launches(self, index: int) -> Floats:
        if self._uplift is None:
            return np.full(len(self._setting.streams), np.nan)
        return self._uplift.launches(index)

    def _notice(self, usual: Floats) -> None:
        """Misses and shifts of level, after which bands are wider for a while."""
        if self._usual is not None:
            self.watch.update(self._errors.standardised(usual, self._usual))
