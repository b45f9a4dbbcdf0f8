"""A fit, stream after stream: what every library needs done before and after it. Pure.

In: a `FitRequest`, and how a library fits one stream on a grid that it can bear. Out: a `Path`, or
an error where the library itself is missing. Never: hands a library a constant or less than two
days, lets its exception out, says a negative number or more than twice what was ever seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.catalog import DemandEvent
from prewarm.calendars import DAY_US, Calendar
from prewarm.forecasters.paths import FitRequest, Path
from prewarm.series import Floats

_DAYS_MIN = 2
_CEILING = 2.0
"""Times the largest value seen. A trend that goes on for two days would else explode."""


class MissingLibraryError(Exception):
    """A library that a forecaster needs is not installed: what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """One stream on bins wide enough for a library. Row 0 is bin 0 of `calendar`."""

    calendar: Calendar
    values: Floats
    """A mean over the fine bins seen; NaN where none was."""
    ahead: int
    country: str
    events: tuple[DemandEvent, ...]
    """Those that touch this stream."""

    @property
    def day(self) -> int:
        """How many bins a day has."""
        return max(round(DAY_US / self.calendar.width_us), 1)


OneFit = Callable[[Grid], tuple[Floats, str]]
"""The bins to come on the same grid, and a note; the note is empty where all is well."""


def path_of(request: FitRequest, one_fit: OneFit, width_us: int) -> Path:
    """Fit every stream on bins of about this width; one that cannot be fitted says why."""
    rows = [_stream(request, stream, one_fit, width_us) for stream in range(len(request.streams))]
    return Path(
        forecaster=request.forecaster,
        first=request.first + len(request.values),
        medians=np.array([row for row, _ in rows]).reshape(len(rows), request.ahead),
        notes=tuple(note for _, note in rows),
    )


def filled(grid: Grid) -> Floats:
    """With the mean of the same time of other days in the holes, else the mean of all."""
    days = -(-len(grid.values) // grid.day)
    by_day = np.full(days * grid.day, np.nan)
    by_day[: len(grid.values)] = grid.values
    usual = _mean(by_day.reshape(days, grid.day), axis=0)
    usual = np.where(np.isnan(usual), _mean(grid.values, axis=0), usual)
    place = np.arange(len(grid.values)) % grid.day
    whole: Floats = np.where(np.isnan(grid.values), usual[place], grid.values)
    return whole


def _stream(request: FitRequest, stream: int, one_fit: OneFit, width_us: int) -> tuple[Floats, str]:
    nothing = np.full(request.ahead, np.nan)
    values = request.values[:, stream]
    seen = values[np.isfinite(values)]
    if not len(seen):
        return nothing, "nothing was seen of it"
    if len(seen) * request.calendar.width_us < _DAYS_MIN * DAY_US:
        return nothing, f"less than {_DAYS_MIN} days were seen of it"
    if seen.min() == seen.max():
        return np.full(request.ahead, seen[0]), ""
    per = max(width_us // request.calendar.width_us, 1)
    try:
        path, note = one_fit(_grid(request, stream, per))
    except MissingLibraryError:
        raise
    except MemoryError:
        return nothing, "its fit needs more memory than its process may take"
    except Exception as error:  # a library may raise anything; that costs this stream alone
        return nothing, f"{type(error).__name__}: {error}"
    fine = _fine(path, per, request.ahead)
    return np.clip(fine, 0.0, _CEILING * seen.max()), note


def _grid(request: FitRequest, stream: int, per: int) -> Grid:
    # The oldest bins that don't fill a coarse one are left out, so that the newest one is whole.
    spare = len(request.values) % per
    calendar = Calendar(
        start_us=request.calendar.at_us(request.first + spare),
        width_us=request.calendar.width_us * per,
        zone=request.calendar.zone,
    )
    name = request.streams[stream]
    return Grid(
        calendar=calendar,
        values=_mean(request.values[spare:, stream].reshape(-1, per), axis=1),
        ahead=-(-request.ahead // per),
        country=request.country,
        events=tuple(event for event in request.events if event.touches(name)),
    )


def _fine(path: Floats, per: int, ahead: int) -> Floats:
    """A straight line from the middle of each coarse bin to that of the next."""
    middles = (np.arange(len(path)) + 0.5) * per - 0.5
    fine: Floats = np.interp(np.arange(ahead), middles, path)
    return fine


def _mean(values: Floats, axis: int) -> Floats:
    """Of what is no hole."""
    known: NDArray[np.bool_] = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    count = known.sum(axis=axis)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
