"""Forecasters of other people's libraries: Prophet, and AutoETS and MSTL of statsforecast. An edge.

In: a `FitRequest`. Out: the `Path` that a library says. All of them work on square roots, where the
noise of a count is the same by day and night and a peak does not rule the fit: on real traces that
beat the plain scale and logarithms by far (docs/adr/0017-slow-forecasters-in-a-capped-child.md).
Never: imports a library before its first fit (a second or two each), lets it log or warn. No other
module may import them. Prophet runs a program of its own, cmdstan, for every fit.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from prewarm.calendars import US, Calendar
from prewarm.events import covered
from prewarm.forecasters.fits import Grid, MissingLibraryError, filled, path_of
from prewarm.forecasters.paths import FitRequest, Path
from prewarm.series import Floats

_MINUTE_US = 60 * US
_PROPHET_WIDTH_US = 10 * _MINUTE_US
"""Wider than a fit needs to be quick for, and narrower than any daily shape that it can follow."""
_HOUR_US = 60 * _MINUTE_US
"""AutoETS knows no season of more than 24 bins; MSTL takes ten seconds for a week of five minutes
and 0.1 for one of hours, and is no better for it."""
_LOGGERS = ("cmdstanpy", "prophet", "prophet.plot")
_SILENT = logging.NullHandler()

Fit = Callable[[FitRequest], Path]


def prophet(request: FitRequest) -> Path:
    """Real dates in local time: days, weeks, a country's holidays, announced events."""
    return path_of(request, _prophet, _PROPHET_WIDTH_US)


def auto_ets(request: FitRequest) -> Path:
    """Exponential smoothing with a season of a day, by AIC. Knows no time zone and no events."""
    return path_of(request, _auto_ets, _HOUR_US)


def mstl(request: FitRequest) -> Path:
    """Seasons of a day and a week by LOESS, the rest by AutoETS. Knows no time zone, no events."""
    return path_of(request, _mstl, _HOUR_US)


HEAVY: dict[str, Fit] = {"prophet": prophet, "auto_ets": auto_ets, "mstl": mstl}
"""Fitted now and then, in a process of their own."""


def _prophet(grid: Grid) -> tuple[Floats, str]:
    with _quietly("prophet"):
        import pandas as pd
        from prophet import Prophet

        bins = np.arange(len(grid.values) + grid.ahead)
        table = pd.DataFrame({"ds": _local(grid.calendar, bins)})
        table["y"] = np.sqrt(np.concatenate((grid.values, np.full(grid.ahead, np.nan))))
        columns = _events(grid, bins)
        table = table.assign(**columns)
        holidays, note = _holidays(grid, table)
        model = Prophet(
            seasonality_mode="additive",  # of square roots
            daily_seasonality=True,
            weekly_seasonality=len(grid.values) >= 7 * grid.day,
            yearly_seasonality=False,
            holidays=holidays,
            uncertainty_samples=0,
        )
        for column in columns:
            model.add_regressor(column, standardize=False)
        model.fit(table[: len(grid.values)])
        if model.stan_backend is not None:
            model.stan_backend.cleanup()  # else its files stay until the process ends
        said = _in_order(model, table[len(grid.values) :])
    return np.maximum(said, 0.0) ** 2, note


def _auto_ets(grid: Grid) -> tuple[Floats, str]:
    with _quietly("statsforecast"):
        from statsforecast.models import AutoETS

        # Additive errors and seasons, as is right for square roots; whether with a trend is open.
        model = AutoETS(season_length=grid.day, model="AZA" if grid.day > 1 else "AZN")
        return _squared(model, grid), ""


def _mstl(grid: Grid) -> tuple[Floats, str]:
    seasons = [s for s in (grid.day, 7 * grid.day) if s > 1 and len(grid.values) >= 2 * s]
    if not seasons:
        return np.full(grid.ahead, np.nan), "no season was seen twice"
    with _quietly("statsforecast"):
        from statsforecast.models import MSTL

        return _squared(MSTL(season_length=seasons), grid), ""


def _squared(model: Any, grid: Grid) -> Floats:
    said = model.forecast(y=np.sqrt(filled(grid)), h=grid.ahead)["mean"]
    squared: Floats = np.maximum(said, 0.0) ** 2
    return squared


def _local(calendar: Calendar, bins: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Dates as the clock on the wall showed them, which is what Prophet takes dates for."""
    at_us = calendar.start_us + bins * calendar.width_us
    offsets_us = np.array([calendar.offset_us(int(at)) for at in at_us], np.int64)
    return (at_us + offsets_us).astype("datetime64[us]").astype("datetime64[ns]")


def _events(grid: Grid, bins: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Floats]:
    """A column for all occasions of one name. One of which none was seen teaches nothing."""
    seen = np.flatnonzero(np.isfinite(grid.values))
    columns: list[Floats] = []
    for name in sorted({event.name for event in grid.events}):
        shares = [covered(grid.calendar, e, bins) for e in grid.events if e.name == name]
        column: Floats = np.max(shares, axis=0)
        if column[seen].any():
            columns.append(column)
    # Names of our own: Prophet refuses "trend" and the like.
    return {f"event_{place}": column for place, column in enumerate(columns)}


def _holidays(grid: Grid, table: Any) -> tuple[Any, str]:
    """All under one name: within some weeks none comes twice, but one teaches about the next."""
    if not grid.country:
        return None, ""
    import pandas as pd
    from prophet.make_holidays import make_holidays_df

    years = sorted({int(year) for year in table["ds"].dt.year})
    try:
        days = make_holidays_df(year_list=years, country=grid.country)["ds"].unique()
    except (AttributeError, TypeError):
        return None, f"no holidays are known of country {grid.country!r}"
    return pd.DataFrame({"ds": days, "holiday": "holiday"}), ""


def _in_order(model: Any, table: Any) -> Floats:
    """Prophet answers by date: in the hour that comes twice that is not our order."""
    order = np.argsort(table["ds"].to_numpy(), kind="stable")
    said = np.empty(len(table))
    said[order] = model.predict(table)["yhat"].to_numpy()
    return said


@contextmanager
def _quietly(library: str) -> Iterator[None]:
    """Without the library's logs and warnings; a missing one is named with what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                logger = logging.getLogger(name)
                logger.addHandler(_SILENT)  # cmdstanpy makes one that shouts where there is none
                logger.setLevel(logging.CRITICAL)
            yield
    except ImportError as error:
        raise MissingLibraryError(
            f"{library} is not installed ({error}): pip install 'warmtide[forecast]'"
        ) from error
