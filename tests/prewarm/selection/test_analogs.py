"""Distributions from like moments: timetables, pauses, what was never seen."""

from collections.abc import Iterable

import numpy as np
import pytest

from prewarm.calendars import DAY_US
from prewarm.forecast import LEVELS, Setting
from prewarm.selection.analogs import KINDS
from prewarm.selection.members import Members
from prewarm.series import Floats
from tests.prewarm.said import HOLE, HOUR_US, column, setting

Q10, Q50, Q90 = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))
HOURLY = setting(horizons=(1, 3), width_us=HOUR_US)
MARCH_20_2026_US = 20_532 * DAY_US
"""Summer time begins in Berlin on the 29th."""


def listening(values: Iterable[float], told: Setting = HOURLY) -> Members:
    members = Members(told)
    for value in column(list(values)):
        members.update(value)
    return members


def said(members: Members, kind: str, ahead: int = 0) -> Floats:
    found: Floats = members.quantiles()[members.names.index(kind), 0, ahead]
    return found


def burst_at(hour: int, days: int) -> list[float]:
    """Two an hour, and forty in one of them."""
    return [40.0 if at % 24 == hour else 2.0 for at in range(24 * days)]


def test_the_clock_knows_the_hour_of_a_daily_burst() -> None:
    # Bin 0 starts at midnight: after these bins the hour to come is nine o'clock.
    members = listening([*burst_at(9, 8), *burst_at(9, 1)[:9]])
    assert said(members, "clock")[Q50] == pytest.approx(40, abs=0.1)
    assert said(members, "recent")[Q50] == pytest.approx(2, abs=0.1)
    assert said(members, "clock", ahead=1)[Q50] == pytest.approx(2, abs=0.1)
    earlier = listening([*burst_at(9, 8), *burst_at(9, 1)[:7]])
    assert said(earlier, "clock")[Q50] == pytest.approx(2, abs=0.1)
    assert said(earlier, "clock", ahead=1)[Q50] == pytest.approx(40, abs=0.1)


def test_the_clock_is_that_of_the_people() -> None:
    """Nine o'clock comes an hour earlier, in bins, on the morning of the change."""
    told = setting(
        horizons=(1, 3), width_us=HOUR_US, zone="Europe/Berlin", start_us=MARCH_20_2026_US
    )
    calendar = told.calendar
    local_hours = [calendar.local(at).second // 3600 for at in range(12 * 24)]
    days = [calendar.local(at).day - calendar.local(0).day for at in range(12 * 24)]
    nine = next(
        at
        for at, (day, hour) in enumerate(zip(days, local_hours, strict=True))
        if (day, hour) == (9, 9)
    )
    before = nine - 24
    assert calendar.local(before).second // 3600 == 8, "the clocks have been changed that night"
    members = listening([40.0 if hour == 9 else 2.0 for hour in local_hours[:nine]], told)
    assert said(members, "clock")[Q50] == pytest.approx(40, abs=0.1)
    assert said(members, "clock", ahead=1)[Q50] == pytest.approx(2, abs=0.1)


def on_and_off(bins: int) -> list[float]:
    """Ten an hour for hours, then nothing for many, as nobody can foretell."""
    rng, found = np.random.default_rng(5), list[float]()
    while len(found) < bins:
        found += [10.0] * int(rng.integers(6, 12)) + [0.0] * int(rng.integers(30, 50))
    return found[:bins]


def test_a_pause_is_likely_to_last_and_so_is_a_run() -> None:
    values = on_and_off(600)
    off = next(at for at in range(500, 600) if values[at - 3 : at] == [0.0] * 3)
    on = next(at for at in range(500, 600) if values[at - 3 : at] == [10.0] * 3)
    asleep, awake = listening(values[:off]), listening(values[:on])
    assert said(asleep, "analog")[[Q50, Q90]] == pytest.approx([0, 0], abs=1e-6)
    assert said(awake, "analog")[Q50] == pytest.approx(10, abs=0.01)
    # Whoever only looks at the last days cannot tell them apart.
    assert said(asleep, "recent")[Q90] == said(awake, "recent")[Q90] == pytest.approx(10, abs=0.01)


def test_an_error_is_added_to_where_the_stream_stands_now() -> None:
    rng = np.random.default_rng(6)
    calm = rng.poisson(100, 24 * 6).astype(float)
    risen = rng.poisson(400, 24).astype(float)
    bands = said(listening([*calm, *risen]), "level")
    assert 300 < bands[Q50] < 500
    assert bands[Q10] < risen[-1] < bands[Q90]


def test_newer_days_count_more_than_older_ones() -> None:
    values = [*[10.0] * 24 * 7, *[20.0] * 24 * 4]
    # Halved every three days, four newer ones weigh 1 - 0.5^(4/3) = 0.6 of all that ever was.
    assert said(listening(values), "recent")[Q50] == pytest.approx(20, abs=0.01)


def test_without_a_past_nobody_says_anything() -> None:
    for members in (Members(HOURLY), listening([HOLE] * 50)):
        assert np.isnan(members.quantiles()).all()


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_whatever_was_seen_there_is_a_sound_word_on_it(kind: str) -> None:
    rng = np.random.default_rng(8)
    values = rng.poisson(3, 24 * 9).astype(float)
    values[rng.random(len(values)) < 0.3] = HOLE
    values[70:140] = HOLE
    members, first = Members(HOURLY), int(np.flatnonzero(~np.isnan(values))[0])
    for at, value in enumerate(values):
        members.update(np.array([value]))
        bands = members.quantiles()[members.names.index(kind)]
        if at >= first:
            assert (np.isfinite(bands) & (bands >= 0)).all()
            assert (np.diff(bands, axis=-1) >= 0).all()


def test_of_an_hour_that_nobody_ever_saw_there_is_but_the_last_value() -> None:
    mornings = [10.0 if at % 24 < 9 else HOLE for at in range(24 * 5)]
    evening = listening([*mornings, *[12.0] * 9, *[HOLE] * 8])
    # At six in the evening; from three to nine nobody ever looked.
    assert said(evening, "clock") == pytest.approx(said(evening, "last_value"))
    assert said(evening, "last_value")[Q50] == 12.0


def test_bins_so_short_that_no_day_of_them_is_kept_have_no_clock() -> None:
    """Fifteen seconds are kept for less than a day: of yesterday there is nothing to look up."""
    seconds = setting(width_us=15_000_000)
    members = Members(seconds)
    rng = np.random.default_rng(9)
    for value in rng.poisson(20, DAY_US // 15_000_000 + 2):
        members.update(np.array([float(value)]))
    last = members.past.back(0)[0]
    assert said(members, "clock")[Q50] == pytest.approx(last, abs=8)
    assert said(members, "clock")[Q10] > 0


def test_who_is_listed_has_a_share_and_a_name_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.share > 0 for kind in KINDS)
    assert {kind.base for kind in KINDS} <= {"", "last", "regression"}
