"""Everyone who competes: the built-in forecasters, those that learn from like moments, guests. Pure.

In: bin after bin. Out: the quantiles of every member, E x S x H x L in the order of `names`.
Never: ranks them; takes another's failure for its own: a guest is handed in guarded.
"""

from collections.abc import Mapping

import numpy as np

from prewarm.calendars import DAY_US
from prewarm.forecast import Forecaster, PointFactory, Setting
from prewarm.forecasters.registry import POINTS
from prewarm.forecasters.residuals import Residuals
from prewarm.forecasters.simple import or_last_value
from prewarm.past import Past
from prewarm.selection.analogs import KINDS, Analogs
from prewarm.selection.features import COUNT, Features, rooted, unrooted
from prewarm.selection.regression import Regression
from prewarm.series import Floats

UNIT_HALF_LIFE_DAYS = 3.0


class Members:
    """`guests`: forecasters beside the built-in ones, by name."""

    def __init__(
        self,
        setting: Setting,
        points: Mapping[str, PointFactory] = POINTS,
        guests: Mapping[str, Forecaster] | None = None,
    ) -> None:
        streams = len(setting.streams)
        self.past = Past(setting.calendar, streams)
        self.day_bins = max(DAY_US // setting.calendar.width_us, 1)
        self._setting = setting
        self._points = {name: or_last_value(make)(setting) for name, make in points.items()}
        self._residuals = Residuals(_stacked(setting, len(points)))
        self._features = Features(setting)
        self._regression = Regression(setting, COUNT, self.day_bins)
        self._analogs = Analogs(setting)
        self._guests = dict(guests or {})
        self.names = (*(kind.name for kind in KINDS), *self._points, *self._guests)
        self._mean = np.full(streams, np.nan)
        self._said: Floats = np.full((len(points), streams, len(setting.horizons)), np.nan)
        self._bases: dict[str, Floats] = {}

    @property
    def unit(self) -> Floats:
        """What a stream is measured by: the late mean of its values, one request at least. S."""
        unit: Floats = np.maximum(np.nan_to_num(self._mean), 1.0 / self.day_bins)
        return unit

    def update(self, values: Floats) -> None:
        """The next bin. Shape S; NaN is a hole."""
        self.past.add(values)
        self._learn_unit(values)
        root, root_unit = rooted(values), rooted(self.unit)
        self._regression.learn(root, root_unit)
        self._analogs.learn(root)
        for point in self._points.values():
            point.update(self.past)
        said = {name: point.points(self.past) for name, point in self._points.items()}
        self._said = np.stack(list(said.values()))
        self._residuals.add(
            np.tile(values, len(said)), self._said.reshape(-1, self._said.shape[-1])
        )
        features = self._features.of(self.past, said)
        learnt = self._regression.points(features, root_unit).T
        self._bases = {"regression": learnt, "last": features[..., 0].T}
        self._analogs.tell(self._bases)
        for guest in self._guests.values():
            guest.update(values)

    def quantiles(self) -> Floats:
        """Shape E x S x H x L. A member that has nothing to say is NaN."""
        _, streams, horizons = self._said.shape
        like = self._analogs.quantiles(self.past, self._bases, rooted(self.unit))
        simple = self._residuals.quantiles(self._said.reshape(-1, horizons))
        found = [
            unrooted(np.stack(like)),
            simple.reshape(len(self._points), streams, horizons, -1),
            *(guest.predict()[None] for guest in self._guests.values()),
        ]
        return np.concatenate(found)

    def _learn_unit(self, values: Floats) -> None:
        seen = ~np.isnan(values)
        known = ~np.isnan(self._mean)
        count = self.past.now + 1
        step = max(1 - 0.5 ** (1 / (UNIT_HALF_LIFE_DAYS * self.day_bins)), 1 / count)
        moved = self._mean + step * (values - self._mean)
        self._mean = np.where(seen, np.where(known, moved, values), self._mean)


def _stacked(setting: Setting, times: int) -> Setting:
    """The same setting for the streams of so many forecasters, one after the other."""
    return Setting(
        calendar=setting.calendar,
        streams=setting.streams * times,
        horizons=setting.horizons,
        levels=setting.levels,
        whole=setting.whole,
    )
