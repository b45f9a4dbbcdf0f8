"""The built-in forecasters by name. Pure.

In: a name. Out: the forecaster; which of them are simple, which work on roots. Never: knows those
of plug-ins and of libraries, which have quantiles of their own.
"""

from functools import partial

from prewarm.forecast import Factory, PointFactory
from prewarm.forecasters.holt_winters import HoltWinters
from prewarm.forecasters.residuals import Trailing
from prewarm.forecasters.simple import (
    EACH_DAY,
    EACH_WEEK,
    LastValue,
    MeanHour,
    Scaled,
    Seasonal,
    WeekMean,
)
from prewarm.forecasters.smoothed import Croston, Ewma, Tsb
from prewarm.forecasters.warmserve import WarmServe

POINTS: dict[str, PointFactory] = {
    "last_value": LastValue,
    "mean_hour": MeanHour,
    "day": partial(Seasonal, days=EACH_DAY),
    "week": partial(Seasonal, days=EACH_WEEK),
    "day_scaled": partial(Scaled, days=EACH_DAY),
    "week_scaled": partial(Scaled, days=EACH_WEEK),
    "week_mean": WeekMean,
    "warmserve": WarmServe,
    "ewma": Ewma,
    "holt_winters": HoltWinters,
    "holt_winters_week": partial(HoltWinters, days=7),
    "tsb": Tsb,
    "croston": Croston,
}
ROOTS = frozenset({"holt_winters", "holt_winters_week"})
"""Those that work on square roots: `Trailing` takes their residuals there too."""
SIMPLE = (
    "last_value",
    "mean_hour",
    "day",
    "week",
    "day_scaled",
    "week_scaled",
    "week_mean",
)
"""The simple baselines: the best of them on a trace and horizon is the bar."""


def forecaster(name: str) -> Factory:
    """A built-in one with the quantiles of its trailing residuals."""
    return partial(Trailing, POINTS[name], roots=name in ROOTS)
