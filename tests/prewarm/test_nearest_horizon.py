"""What the selector learns from its nearest forecast, be it of the next bin or of a later one."""

import numpy as np
import pytest

from placement.catalog import DemandEvent
from prewarm.calendars import US, Calendar
from prewarm.events import Uplift
from prewarm.forecast import LEVELS, Setting
from prewarm.scoring import at_level
from prewarm.selection.selector import Selector
from prewarm.series import Floats

CALENDAR = Calendar(start_us=0, width_us=300 * US)
NEAREST = pytest.mark.parametrize("horizons", [(1, 4), (2, 4), (12, 24)])


def selector(horizons: tuple[int, ...], *events: DemandEvent) -> Selector:
    setting = Setting(calendar=CALENDAR, streams=("chat",), horizons=horizons)
    uplift = Uplift(CALENDAR, setting.streams, events)
    return Selector(setting, np.random.default_rng(3), uplift=uplift)


def hour(day_bin: int, uplift: float) -> DemandEvent:
    start_us = CALENDAR.at_us(day_bin)
    return DemandEvent(name="launch", start_us=start_us, end_us=start_us + 3600 * US, uplift=uplift)


def go(ours: Selector, values: list[float]) -> Floats:
    """What is forecast after the last of them."""
    for value in values[:-1]:
        ours.update(np.array([value]))
        ours.predict()
    ours.update(np.array(values[-1:]))
    return ours.predict()


@NEAREST
def test_bands_widen_after_misses_at_any_nearest_horizon(horizons: tuple[int, ...]) -> None:
    ours = selector(horizons)
    go(ours, [20.0] * 100)
    assert ours.watch.widening() == pytest.approx(1.0, abs=0.01)
    go(ours, [200.0] * 3)
    assert ours.watch.widening() > 1.1


@NEAREST
def test_what_an_event_did_is_learnt_at_any_nearest_horizon(horizons: tuple[int, ...]) -> None:
    first, second = hour(100, uplift=2.0), hour(200, uplift=2.0)
    ours = selector(horizons, first, second)
    # An hour of 12 bins with six times the usual, where twice was announced.
    calm = 200 - 112 - horizons[0]
    said = go(ours, [20.0] * 100 + [120.0] * 12 + [20.0] * calm + [20.0])
    median = at_level(said, LEVELS, 0.5)[0, 0]
    # By the announcement it would be 40; one occasion is believed in part.
    assert median > 60


def test_members_are_told_of_events_as_the_blend_is() -> None:
    """Else a back-test would hold them against demand that they were never let to see."""
    ours = selector((1, 4), hour(101, uplift=3.0))
    go(ours, [20.0] * 101)
    last = ours.each[ours.names.index("last_value")]
    assert at_level(last, LEVELS, 0.5)[0] == pytest.approx([60.0, 60.0], rel=0.01)
