"""What forecasting costs, each figure in a process of its own on one core. An edge.

In: nothing. Out: `Costs`. Never: measures beside another measurement, or on more than one core.
"""

import os
import pickle
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loadtests.draws import stream
from loadtests.errors import AskedError
from loadtests.forecasts.costs import Costs
from loadtests.study.pool import Told, each_in_a_process
from prewarm.calendars import US, Calendar
from prewarm.forecast import Setting
from prewarm.forecasters.libraries import HEAVY
from prewarm.forecasters.paths import DAILY, FitRequest
from prewarm.selection.selector import Selector
from prewarm.series import Floats, Panel

WIDTH_US = 300 * US
DAY_BINS = 288
BINS = 14 * DAY_BINS
FLEET = 500
HORIZONS = (2, 4, 12, 48)
"""10 min to 4 h."""
TIMED_BINS = 50


class Measured(NamedTuple):
    fit_s: float
    update_ms: float
    predict_ms: float
    rss_mb: float


class Task(NamedTuple):
    """One figure, and the file that it goes into."""

    streams: int
    library: str
    """Fit this one alone; empty: the whole selection."""
    into: Path


def measured() -> Costs:
    one, fleet = (_alone(streams, "") for streams in (1, FLEET))
    fits, failed = {}, {}
    for name in HEAVY:
        try:
            fits[name] = _alone(1, name).fit_s
        except AskedError as error:
            failed[name] = str(error).strip().splitlines()[-1]
    return Costs(
        one_update_ms=one.update_ms,
        one_predict_ms=one.predict_ms,
        one_horizons=len(HORIZONS),
        fleet_streams=FLEET,
        fleet_bins=BINS,
        fleet_fit_s=fleet.fit_s,
        fleet_update_ms=fleet.update_ms,
        fleet_predict_ms=fleet.predict_ms,
        fleet_rss_mb=fleet.rss_mb,
        fit_s=fits,
        failed=failed,
    )


def _alone(streams: int, library: str) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        task = Task(streams, library, Path(folder) / "figures")
        for ended in each_in_a_process(_measure, [task], 1, lambda *_: None):
            if ended.error:
                raise AskedError(ended.error)
        found: Measured = pickle.loads(task.into.read_bytes())  # our own child wrote it
    return found


def _measure(task: Task, _: Told) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    values = demand(task.streams)
    fit: Callable[[Floats], Any] = _library(task.library) if task.library else _selection
    began_s = _spent_s()
    fitted = fit(values)
    fit_s = _spent_s() - began_s
    update_ms, predict_ms = _per_bin_ms(fitted, values) if isinstance(fitted, Selector) else (0, 0)
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    task.into.write_bytes(pickle.dumps(Measured(fit_s, update_ms, predict_ms, rss_mb)))


def demand(streams: int) -> Floats:
    """Two weeks of counts with a daily shape, from busy to rare. Shape bins x streams."""
    by_day = 1 + 0.8 * np.sin(2 * np.pi * np.arange(BINS) / DAY_BINS)
    means = 50.0 / (1 + np.arange(streams))
    found: Floats = stream(0, "costs").poisson(by_day[:, None] * means).astype(np.float64)
    return found


def _selection(values: Floats) -> Selector:
    names = tuple(f"m{at}" for at in range(values.shape[1]))
    calendar = Calendar(0, WIDTH_US)
    selector = Selector(
        Setting(calendar=calendar, streams=names, horizons=HORIZONS), stream(0, "pit")
    )
    selector.fit(Panel(calendar=calendar, streams=names, values=values))
    return selector


def _library(name: str) -> Callable[[Floats], Any]:
    def fit(values: Floats) -> Any:
        return HEAVY[name](
            FitRequest(
                forecaster=name,
                calendar=Calendar(0, WIDTH_US),
                streams=("m0",),
                first=0,
                values=values,
                ahead=DAILY.days_ahead * DAY_BINS,
            )
        )

    return fit


def _spent_s() -> float:
    """Processor time of this process and of those that it ran."""
    return sum(os.times()[:4])


def _per_bin_ms(selector: Selector, values: Floats) -> tuple[float, float]:
    """An update and a forecast, as in every bin of a live gateway."""
    update_s = predict_s = 0.0
    for values_of_bin in values[-TIMED_BINS:]:
        began_s = time.process_time()
        selector.update(values_of_bin)
        learnt_s = time.process_time()
        selector.predict()
        update_s += learnt_s - began_s
        predict_s += time.process_time() - learnt_s
    return update_s / TIMED_BINS * 1000, predict_s / TIMED_BINS * 1000
