"""When a slow forecaster wants a fit, and how the newest path is read between two of them."""

import numpy as np
import pytest

from prewarm.calendars import DAY_US, Calendar
from prewarm.forecast import Setting
from prewarm.forecasters.paths import FitRequest, Path, PathForecaster
from prewarm.past import Past

HOUR = 6
"""Bins of ten minutes."""
DAY = 24 * HOUR
CALENDAR = Calendar(start_us=20_000 * DAY_US, width_us=DAY_US // DAY)
STREAMS = ("a", "b")


def forecaster(*horizons: int) -> PathForecaster:
    setting = Setting(calendar=CALENDAR, streams=STREAMS, horizons=horizons or (1, 6, 24))
    return PathForecaster(setting, "prophet")


def seen(bins: int, value: float = 10.0, calendar: Calendar = CALENDAR) -> Past:
    past = Past(calendar, len(STREAMS))
    for _ in range(bins):
        past.add(np.full(len(STREAMS), value))
    return past


def more(past: Past, bins: int, value: float = 10.0) -> Past:
    for _ in range(bins):
        past.add(np.full(past.streams, value))
    return past


def path(first: int, medians: list[float]) -> Path:
    rows = np.tile(np.array(medians, np.float64), (len(STREAMS), 1))
    return Path(forecaster="prophet", first=first, medians=rows, notes=("", ""))


def wanted(one: PathForecaster, past: Past) -> FitRequest:
    request = one.request(past)
    assert request is not None, "no fit was due"
    return request


def test_the_newest_path_is_read_at_the_bins_that_the_horizons_mean() -> None:
    one = forecaster(1, 3)
    one.accept(path(first=5, medians=[50, 60, 70, 80]))
    # Bins 0 to 4 were seen: a horizon of one is bin 5, of three bin 7.
    assert one.points(seen(5)).tolist() == [[50, 70], [50, 70]]


def test_before_the_first_path_and_beyond_its_end_there_is_nothing_to_say() -> None:
    one = forecaster(1, 3)
    assert np.isnan(one.points(seen(5))).all()
    one.accept(path(first=5, medians=[50, 60]))
    assert np.isnan(one.points(seen(5))).tolist() == [[False, True], [False, True]]
    assert np.isnan(one.points(seen(9))).all()


def test_before_its_first_bin_a_path_says_nothing() -> None:
    one = forecaster(1, 3)
    one.accept(path(first=7, medians=[50, 60]))
    assert np.isnan(one.points(seen(5))).tolist() == [[True, False], [True, False]]


def test_a_path_is_carried_to_the_level_of_the_last_hour_and_less_so_far_away() -> None:
    one = forecaster(1, 36)
    past = seen(DAY)
    one.accept(path(first=DAY, medians=[10.0] * DAY))
    more(past, HOUR, 20.0)
    # Seen 120, said 60, and one bin of 10 and one more for the path: (120 + 11) / (60 + 11).
    level = 131 / 71
    # Half of the departure, in logs, is gone after six hours, the horizon of 36 bins.
    expected = [10 * level**0.5 ** (1 / 36), 10 * level**0.5]
    assert one.points(past)[0] == pytest.approx(expected)


def test_holes_of_the_last_hour_leave_the_level_as_it_is() -> None:
    one = forecaster(1)
    past = seen(DAY)
    one.accept(path(first=DAY, medians=[10.0] * DAY))
    more(past, HOUR, np.nan)
    assert one.points(past).tolist() == [[10.0], [10.0]]


def test_a_burst_moves_the_level_no_further_than_tenfold() -> None:
    one = forecaster(1)
    past = seen(DAY)
    one.accept(path(first=DAY, medians=[10.0] * DAY))
    more(past, HOUR, 1e9)
    assert (one.points(past) <= 100.0).all()


def test_two_days_of_past_make_the_first_fit_due_and_it_is_asked_for_once() -> None:
    one = forecaster()
    past = seen(2 * DAY - 1)
    assert one.request(past) is None
    request = wanted(one, more(past, 1))
    assert (request.first, len(request.values), request.ahead) == (0, 2 * DAY, 2 * DAY)
    assert one.request(more(past, 1)) is None, "one is under way"


def test_what_a_fit_was_given_does_not_change_under_its_hands() -> None:
    past = seen(2 * DAY)
    request = wanted(forecaster(), past)
    before = request.values.copy()
    more(past, 20 * DAY, 99.0)
    assert (request.values == before).all()


def test_a_path_is_renewed_in_the_quiet_hour_of_the_next_night_or_after_a_day() -> None:
    zone = Calendar(start_us=CALENDAR.start_us, width_us=CALENDAR.width_us, zone="Asia/Tokyo")
    setting = Setting(calendar=zone, streams=STREAMS, horizons=(1,))
    one = PathForecaster(setting, "prophet")
    past = seen(2 * DAY, calendar=zone)
    wanted(one, past)
    one.accept(path(first=2 * DAY, medians=[10.0] * (2 * DAY)))
    hours = 0
    while one.request(past) is None:
        more(past, 1)
        hours = past.now + 1 - 2 * DAY
    # Midnight of UTC is nine in the morning of Tokyo; three at night is 18 hours later.
    assert zone.local(past.now).second == 3 * 3_600
    assert hours == 18 * HOUR + 1


def test_a_level_shift_is_fitted_anew_three_hours_after_it() -> None:
    one = forecaster()
    past = seen(2 * DAY)
    wanted(one, past)
    one.accept(path(first=2 * DAY, medians=[10.0] * (2 * DAY)))
    more(past, HOUR)
    one.shifted(past.now)
    assert one.request(more(past, 2 * HOUR)) is None
    request = wanted(one, more(past, HOUR))
    one.accept(path(first=request.first + len(request.values), medians=[10.0] * (2 * DAY)))
    assert one.request(more(past, HOUR)) is None, "the shift has been fitted"


def test_a_failed_fit_keeps_the_path_and_is_tried_again_after_pauses_that_grow_to_a_day() -> None:
    one = forecaster()
    past = seen(2 * DAY)
    wanted(one, past)
    one.accept(path(first=2 * DAY, medians=[10.0] * (2 * DAY)))
    more(past, DAY)
    pauses = []
    for _ in range(7):
        wanted(one, past)
        one.failed(past.now, "it took more than 60 s")
        failed_at = past.now
        while past.now - failed_at < 2 * DAY and not one._due(CALENDAR, past.now):
            more(past, 1)
        pauses.append((past.now - failed_at) // HOUR)
    assert pauses == [1, 2, 4, 8, 16, 24, 24]
    assert one.path is not None
    assert (one.failures, one.trouble) == (7, "it took more than 60 s")


def test_staleness_counts_the_bins_since_the_fit() -> None:
    one = forecaster()
    assert one.staleness_bins(100) is None
    one.accept(path(first=101, medians=[1.0]))
    assert one.staleness_bins(100) == 0
    assert one.staleness_bins(150) == 50


def test_an_older_path_that_comes_late_replaces_no_newer_one() -> None:
    one = forecaster()
    one.accept(path(first=200, medians=[2.0]))
    one.accept(path(first=100, medians=[1.0]))
    assert one.path is not None
    assert one.path.first == 200
