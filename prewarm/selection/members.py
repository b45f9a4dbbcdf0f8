"""Everyone who competes: built-in forecasters, those that learn from like moments, guests. Pure.

In: bin after bin. Out: the quantiles of every member, E x S x H x L in the order of `names`.
Never: ranks them; takes another's failure for its own: a guest is handed in guarded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from prewarm.forecast import Forecaster, PointForecaster, Setting
from prewarm.forecasters.registry import POINTS, ROOTS
from prewarm.forecasters.residuals import Residuals
from prewarm.forecasters.simple import OrLastValue
from prewarm.past import Past
from prewarm.selection.analogs import KINDS, Analogs
from prewarm.selection.features import COUNT, Features, rooted, unrooted
from prewarm.selection.pace import pace_bins
from prewarm.selection.regression import Regression
from prewarm.series import Floats

UNIT_HALF_LIFE_DAYS = 3.0


@dataclass(frozen=True)
class Guests:
    """Forecasters beside the built-in ones, by name, made for the same setting."""

    points: Mapping[str, PointForecaster] = field(default_factory=dict)
    """Their quantiles are made of their trailing errors."""
    whole: Mapping[str, Forecaster] = field(default_factory=dict)
    """They name quantiles of their own."""
    refit: Callable[[Past], None] = lambda _: None
    """Called after every bin, before anyone is read: here slow ones get their newest fits."""


NOBODY = Guests()


class _Group(NamedTuple):
    """Point forecasters whose errors are kept on the same scale."""

    names: tuple[str, ...]
    residuals: Residuals


class Members:
    """Mutated by `update` alone."""

    def __init__(self, setting: Setting, guests: Guests = NOBODY) -> None:
        streams = len(setting.streams)
        self.past = Past(setting.calendar, streams)
        self._pace = pace_bins(setting.calendar)
        self._shape = (streams, len(setting.horizons), len(setting.levels))
        self._guests = guests
        made = {name: make(setting) for name, make in POINTS.items()}
        self._points = {
            name: OrLastValue(setting, point) for name, point in {**made, **guests.points}.items()
        }
        roots = tuple(name for name in self._points if name in ROOTS)
        plain = tuple(name for name in self._points if name not in ROOTS)
        self._groups = [
            _Group(names, Residuals(_stacked(setting, len(names)), roots=names is roots))
            for names in (plain, roots)
        ]
        self._features = Features(setting)
        self._regression = Regression(setting, COUNT)
        self._analogs = Analogs(setting)
        self.names = (*(kind.name for kind in KINDS), *plain, *roots, *guests.whole)
        self._mean = np.full(streams, np.nan)
        self._said: dict[str, Floats] = {}
        self._bases: dict[str, Floats] = {}

    @property
    def unit(self) -> Floats:
        """What a stream is measured by: the late mean of its values, one request at least. S."""
        unit: Floats = np.maximum(np.nan_to_num(self._mean), 1.0 / self._pace)
        return unit

    def update(self, values: Floats) -> None:
        """The next bin. Shape S; NaN is a hole."""
        self.past.add(values)
        self._learn_unit(values)
        root, root_unit = rooted(values), rooted(self.unit)
        self._regression.learn(root, root_unit)
        self._analogs.learn(root)
        self._guests.refit(self.past)
        for point in self._points.values():
            point.update(self.past)
        self._said = {name: point.points(self.past) for name, point in self._points.items()}
        for group in self._groups:
            group.residuals.add(np.tile(values, len(group.names)), self._stack(group))
        features = self._features.of(self.past, self._said)
        learnt = self._regression.points(features, root_unit).T
        self._bases = {"regression": learnt, "last": features[..., 0].T}
        self._analogs.tell(self._bases)
        for guest in self._guests.whole.values():
            guest.update(values)

    def quantiles(self) -> Floats:
        """Shape E x S x H x L. Who has nothing to say repeats the last value; NaN before one."""
        if self.past.now < 0:
            return np.full((len(self.names), *self._shape), np.nan)
        like = self._analogs.quantiles(self.past, self._bases, rooted(self.unit))
        found = [unrooted(np.stack(like))]
        for group in self._groups:
            stacked = group.residuals.quantiles(self._stack(group))
            found.append(stacked.reshape(len(group.names), *like[0].shape))
        found += [guest.predict()[None] for guest in self._guests.whole.values()]
        everyone = np.concatenate(found)
        last = everyone[self.names.index("last_value")]
        return np.where(np.isnan(everyone) | np.isnan(last), last, everyone)

    def _stack(self, group: _Group) -> Floats:
        """Points of all streams, forecaster by forecaster. Shape (E x S) x H."""
        return np.concatenate([self._said[name] for name in group.names])

    def _learn_unit(self, values: Floats) -> None:
        seen = ~np.isnan(values)
        known = ~np.isnan(self._mean)
        count = self.past.now + 1
        step = max(1 - 0.5 ** (1 / (UNIT_HALF_LIFE_DAYS * self._pace)), 1 / count)
        moved = self._mean + step * (values - self._mean)
        self._mean = np.where(seen, np.where(known, moved, values), self._mean)


def _stacked(setting: Setting, times: int) -> Setting:
    """The same setting for the streams of so many forecasters, one after the other."""
    return replace(setting, streams=setting.streams * times)
