"""A past that is learnt at once is worth as much as one that was gone through bin by bin."""

import numpy as np
import pytest

from prewarm.calendars import US, Calendar
from prewarm.forecast import Setting
from prewarm.forecasters.registry import POINTS
from prewarm.past import Past
from prewarm.selection.selector import Selector
from prewarm.series import Floats, Panel

WIDTH_US = 300 * US
DAY = 288
SETTING = Setting(calendar=Calendar(0, WIDTH_US), streams=("a",), horizons=(2, 12))


def by_day(days: float) -> Floats:
    """Busy by day, and far busier than the last value tells some bins ahead."""
    at = np.arange(round(days * DAY))
    rates = 50 * (1 + 0.9 * np.sin(2 * np.pi * at / DAY))
    found: Floats = np.random.default_rng(5).poisson(rates).astype(np.float64)[:, None]
    return found


def taught(values: Floats) -> Selector:
    selector = Selector(SETTING, np.random.default_rng(6))
    selector.fit(Panel(calendar=SETTING.calendar, streams=SETTING.streams, values=values))
    return selector


def test_after_days_of_it_forecasts_may_be_acted_on_at_once() -> None:
    assert taught(by_day(5)).acts.all()


def test_less_than_a_day_is_no_trial_either_way() -> None:
    assert not taught(by_day(0.9)).acts.any()


def test_a_bin_learnt_later_counts_no_more_than_those_before() -> None:
    """Who weighs most is not told by the newest hour alone."""
    values = by_day(5)
    selector = taught(values[:-12])
    selector.predict()
    before = selector.weights[:, 0, 1]
    for row in values[-12:]:
        selector.update(row)
        selector.predict()
    assert np.abs(selector.weights[:, 0, 1] - before).sum() < 0.5


@pytest.mark.parametrize("name", ["week", "week_scaled"])
def test_of_minutes_too_a_week_comes_round(name: str) -> None:
    """The past holds more bins than a week of them has."""
    minutes = Setting(calendar=Calendar(0, 60 * US), streams=("a",), horizons=(60,))
    past, point = Past(minutes.calendar, 1), POINTS[name](minutes)
    week = 7 * 1440
    for at in range(week + 120):
        past.add(np.array([float(at % week)]))
        point.update(past)
    # The newest minute is the 119th of its week, and sixty ahead is the 179th.
    assert point.points(past)[0, 0] == pytest.approx(179.0)
