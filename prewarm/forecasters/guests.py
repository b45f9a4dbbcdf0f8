"""Forecasters beside the built-in ones: slow ones of libraries, those of other packages. An edge.

In: names. Out: `Guests` for a selector, and how they do: fits, ages, troubles. Whoever fits is
handed in: a process beside a gateway, or this one where nobody waits. Never: lets what a guest
raises out.
"""

from collections.abc import Iterable
from math import nan

from prewarm.forecast import Setting
from prewarm.forecasters.paths import PathForecaster
from prewarm.forecasters.plugins import Made, forecaster_named
from prewarm.forecasters.refits import Fits, Fitted, refit
from prewarm.forecasters.registry import POINTS
from prewarm.past import Past
from prewarm.selection.members import Guests


class House:
    """Some guests, made for one setting. Raises `UnknownForecasterError`."""

    def __init__(
        self, names: Iterable[str], setting: Setting, fits: Fits, country: str = ""
    ) -> None:
        wanted = [name for name in names if name not in POINTS]
        self._made = {name: forecaster_named(name)(setting) for name in wanted}
        self._paths = {n: m for n, m in self._made.items() if isinstance(m, PathForecaster)}
        self._fits = fits
        self._country = country
        self.fitted_s: dict[str, list[float]] = {}
        """How long each fit took."""
        self.fitting_s = 0.0
        """All fits together."""
        self.guests = Guests(
            points={n: m for n, m in self._made.items() if not _whole(m)},  # type: ignore[misc]
            whole={n: m for n, m in self._made.items() if _whole(m)},  # type: ignore[misc]
            refit=self._refit,
        )

    def staleness_bins(self, now: int) -> dict[str, float]:
        """How old the fits are of those that need fits; NaN of one that has none."""
        ages = {name: path.staleness_bins(now) for name, path in self._paths.items()}
        return {name: nan if age is None else age for name, age in ages.items()}

    def troubles(self) -> dict[str, str]:
        found = {name: getattr(made, "trouble", "") for name, made in self._made.items()}
        return {name: trouble for name, trouble in found.items() if trouble}

    def _refit(self, past: Past) -> None:
        # Events are taken out of the past before anyone sees it: none are left to tell of.
        for one in refit(self._paths, past, self._fits, self._country):
            if isinstance(one, Fitted):
                self.fitted_s.setdefault(one.path.forecaster, []).append(one.fit_s)
                self.fitting_s += one.fit_s


def _whole(made: Made) -> bool:
    """Whether it names quantiles of its own."""
    return not hasattr(made, "points")
