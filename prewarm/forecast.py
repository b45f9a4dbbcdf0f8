"""The port of the forecasters: fit, update, predict quantiles. Pure.

In: a `Setting` once, then bin after bin of what was asked. Out: for every stream, horizon and level
a quantile. A horizon of k bins means the k-th bin after the last one seen. All streams go through a
forecaster together, as arrays, so that five hundred models cost little more than one.
Never: sees a bin before its time, says a negative or infinite number. NaN means "nothing to say".

A forecaster of one's own is a `Factory` under the entry points `warmtide.forecasters`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prewarm.calendars import Calendar
from prewarm.past import Past
from prewarm.series import Floats, Panel

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)
"""The quantiles that are forecast; others lie on the straight line between two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a forecaster is told before the first bin."""

    calendar: Calendar
    streams: tuple[str, ...]
    horizons: tuple[int, ...]
    """In bins, ascending, each at least 1."""
    levels: tuple[float, ...] = LEVELS
    whole: bool = True
    """Counts; False for concurrency."""


class Forecaster(Protocol):
    """Quantiles for every stream. `S` streams, `H` horizons, `L` levels."""

    def fit(self, past: Panel) -> None:
        """All of the past at once, instead of bin by bin; the next `update` follows on it."""

    def update(self, values: Floats) -> None:
        """The next bin. Shape S; NaN is a hole."""

    def predict(self) -> Floats:
        """Quantiles, ascending along the levels. Shape S x H x L."""


class PointForecaster(Protocol):
    """One number for every stream and horizon; its errors make the quantiles of it.

    `past` already holds the bin that `update` tells of. A point forecaster keeps nothing that it
    can look up there.
    """

    def update(self, past: Past) -> None:
        """A bin was added to the past."""

    def points(self, past: Past) -> Floats:
        """Shape S x H; NaN where it has nothing to say, as before its season has come round."""


Factory = Callable[[Setting], Forecaster]
PointFactory = Callable[[Setting], PointForecaster]
