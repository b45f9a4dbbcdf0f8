"""What a forecaster says about hand-made streams: the shared words of the forecasters' tests."""

from collections.abc import Sequence

import numpy as np

from prewarm.calendars import US, Calendar
from prewarm.forecast import LEVELS, PointFactory, Setting
from prewarm.past import Past
from prewarm.series import Floats, Panel

HOLE = float("nan")
MIN10_US = 600 * US
HOUR_US = 3_600 * US
HOUR6_US = 6 * HOUR_US
"""Four bins a day: seasons that fit on a line."""


def setting(
    *,
    streams: int = 1,
    horizons: tuple[int, ...] = (1,),
    width_us: int = HOUR6_US,
    levels: tuple[float, ...] = LEVELS,
    zone: str = "UTC",
    start_us: int = 0,
) -> Setting:
    return Setting(
        calendar=Calendar(start_us, width_us, zone),
        streams=tuple(f"s{n}" for n in range(streams)),
        horizons=horizons,
        levels=levels,
    )


def column(values: Sequence[float]) -> Floats:
    """One stream, as bins x streams."""
    return np.array(values, dtype=np.float64)[:, None]


def panel(values: Floats, told: Setting) -> Panel:
    return Panel(calendar=told.calendar, streams=told.streams, values=values)


def points(factory: PointFactory, values: Floats, told: Setting) -> Floats:
    """What it says after each bin. Shape T x S x H."""
    past, forecaster = Past(told.calendar, len(told.streams)), factory(told)
    said = []
    for row in values:
        past.add(row)
        forecaster.update(past)
        said.append(forecaster.points(past).copy())
    return np.array(said)


def last_points(factory: PointFactory, values: Sequence[float], told: Setting) -> list[float]:
    """What it says in the end of its one stream, by horizon."""
    found: list[float] = points(factory, column(values), told)[-1, 0].tolist()
    return found
