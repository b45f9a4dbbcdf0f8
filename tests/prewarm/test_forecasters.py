"""Each built-in forecaster by hand: small streams, the arithmetic beside them."""

from math import isnan

import pytest

from prewarm.calendars import US
from prewarm.forecast import PointFactory
from prewarm.forecasters.holt_winters import DAMPING, TREND, VARIANTS
from prewarm.forecasters.registry import POINTS, ROOTS, SIMPLE
from prewarm.forecasters.simple import OrLastValue
from tests.prewarm.said import HOLE, HOUR6_US, HOUR_US, MIN10_US, column, last_points, setting
from tests.prewarm.said import points as all_points

DAYS = [1, 2, 3, 4, 5, 6, 7, 8]
"""Two days of four bins."""


def test_every_simple_baseline_is_among_the_forecasters_and_keeps_plain_residuals() -> None:
    assert set(SIMPLE) | ROOTS < set(POINTS)
    assert not set(SIMPLE) & ROOTS


def test_the_last_value_stands_for_every_horizon() -> None:
    assert last_points(POINTS["last_value"], [3, 8], setting(horizons=(1, 5))) == [8, 8]


def test_through_a_hole_the_last_value_seen_stands() -> None:
    assert last_points(POINTS["last_value"], [3, 8, HOLE, HOLE], setting()) == [8]


def test_the_last_hour_is_averaged_without_its_holes() -> None:
    # Six bins of ten minutes; 99 is older, the hole does not count: (2 + 4 + 6 + 8 + 10) / 5.
    values = [99, 2, 4, HOLE, 6, 8, 10]
    assert last_points(POINTS["mean_hour"], values, setting(width_us=MIN10_US)) == [6]


def test_an_hour_of_holes_leaves_the_last_value_and_wide_bins_are_hours_of_their_own() -> None:
    told = setting(width_us=MIN10_US)
    assert last_points(POINTS["mean_hour"], [5, 7, *[HOLE] * 6], told) == [7]
    assert last_points(POINTS["mean_hour"], [5, 7], setting(width_us=HOUR6_US)) == [7]


def test_a_day_ago_is_the_same_local_time_of_the_bin_to_come() -> None:
    # After two days of four bins the next bin is the third day's first; a day before: 5, then 6.
    told = setting(horizons=(1, 2, 4))
    assert last_points(POINTS["day"], DAYS, told) == [5, 6, 8]


def test_a_horizon_beyond_a_day_goes_back_to_a_day_that_was_seen() -> None:
    # The fifth bin to come has its day-ago bin in the future; two days before it stands 5.
    assert last_points(POINTS["day"], DAYS, setting(horizons=(5,))) == [5]


def test_a_hole_a_day_ago_asks_the_day_before() -> None:
    values = [1, 2, 3, 4, HOLE, 6, 7, 8]
    assert last_points(POINTS["day"], values, setting()) == [1]


def test_before_the_season_has_come_round_there_is_nothing_to_say() -> None:
    assert isnan(last_points(POINTS["day"], [1, 2], setting())[0])
    assert isnan(last_points(POINTS["week"], [1] * 20, setting())[0])
    assert isnan(last_points(POINTS["week_mean"], [1, 2], setting())[0])
    assert isnan(last_points(POINTS["warmserve"], [1, 2, 3], setting())[0])
    assert isnan(last_points(POINTS["holt_winters"], [1, 2, 3], setting())[0])


def test_for_scores_the_last_value_stands_in_until_then() -> None:
    # Three bins in: the fourth has no day before it. With four, the fifth has: the first bin.
    said = all_points(
        lambda told: OrLastValue(told, POINTS["day"](told)), column([5, 6, 7, 8]), setting()
    )
    assert said[:, 0, 0].tolist() == [5, 6, 7, 5]


def test_a_week_ago_falls_back_to_two_weeks_ago() -> None:
    weeks = [float(n) for n in range(56)]
    assert last_points(POINTS["week"], weeks, setting()) == [28]
    weeks[28] = HOLE
    assert last_points(POINTS["week"], weeks, setting()) == [0]


def test_yesterday_is_scaled_by_what_the_last_hour_was_to_the_same_hour_of_yesterday() -> None:
    # Hourly bins. Yesterday: 10 an hour, then 40 in its last. Today 20 an hour: twice the level,
    # so the hour to come, 40 yesterday, will be 80.
    values = [*[10] * 23, 40, *[20] * 23]
    assert last_points(POINTS["day_scaled"], values, setting(width_us=HOUR_US)) == [80]


def test_only_bins_seen_on_both_days_make_the_level() -> None:
    # Ten-minute bins, 144 a day. The last hour saw 6 in each bin but for a hole; the same hour of
    # yesterday 3, but for a hole elsewhere. Four bins were seen on both days: 24 / 12 = 2.
    yesterday, today = [3.0] * 144, [6.0] * 100
    yesterday[95] = today[98] = HOLE
    told = setting(width_us=MIN10_US)
    assert last_points(POINTS["day_scaled"], [*yesterday, *today], told) == [6]


@pytest.mark.parametrize(
    ("then", "now", "scale"),
    [(1, 100, 4.0), (100, 1, 0.25), (0, 0, 1.0), (0, 5, 4.0), (5, 0, 0.25), (5, HOLE, 1.0)],
)
def test_the_scale_has_bounds_and_a_defined_value_at_zero(
    then: float, now: float, scale: float
) -> None:
    values = [*[8] * 5, then, 8, *[8] * 17, *[8] * 5, now]
    assert last_points(POINTS["day_scaled"], values, setting(width_us=HOUR_US)) == [8 * scale]


def test_last_week_is_scaled_by_the_same_hour_of_last_week() -> None:
    # Six-hour bins, 28 a week: the newest is 3 where it was 1 a week ago; the next was 2.
    values = [1, 2, *[5] * 26, 3]
    assert last_points(POINTS["week_scaled"], values, setting()) == [6]


def test_seven_days_are_averaged_and_holes_left_out() -> None:
    # The same bin of eight days, newest last: 9 is too old; (1 + 2 + 3 + 4 + 5 + 6) / 6.
    firsts = [9, 1, 2, 3, HOLE, 4, 5, 6]
    values = [v for first in firsts for v in (first, 0, 0, 0)]
    assert last_points(POINTS["week_mean"], values, setting()) == [3.5]


def test_a_season_is_of_local_time() -> None:
    # Berlin, hourly, from noon UTC on Saturday 28 March 2026. Clocks go forward at 01:00 UTC the
    # next night, so a local day later is 23 bins later.
    start_us = 1_774_699_200 * US
    told = setting(width_us=HOUR_US, zone="Europe/Berlin", start_us=start_us)
    values = [float(n) for n in range(23)]
    assert last_points(POINTS["day"], values, told) == [0]


def test_warmserve_corrects_the_usual_by_late_errors_of_which_the_newest_weighs_most() -> None:
    # Usual of the third day: means of two days. Errors so far, oldest first: the second day's bins
    # against the first alone, 12 - 10 = 2, 20 - 20, 30 - 30, 36 - 40 = -4; the third day's first
    # against the mean of 10 and 12: 14 - 11 = 3. Newest first with weights 1, 1/2, 1/4, 1/8, 1/16:
    # 3 - 2 + 0 + 0 + 2/16 = 1.125, over 31/16: 18/31. The next bin is usually 20.
    values = [10, 20, 30, 40, 12, 20, 30, 36, 14]
    said = last_points(POINTS["warmserve"], values, setting(horizons=(1, 2)))
    assert said == pytest.approx([20 + 18 / 31, 30 + 18 / 31])


def test_warmserve_leaves_holes_out_of_its_errors_and_says_no_less_than_nothing() -> None:
    # Errors newest first: a hole, then 0 - 8 = -8, the only one: -8 stands. 4 - 8 is clipped.
    assert last_points(POINTS["warmserve"], [8, 6, 4, 4, 0, HOLE], setting()) == [0]


def test_ewma_moves_by_its_weight_of_the_newest_error() -> None:
    # No error has come in yet when it first speaks, so the first weight, 0.4, holds:
    # 10, then 10 + 0.4 x (20 - 10).
    assert last_points(POINTS["ewma"], [10, 20], setting(horizons=(2,))) == [14]
    assert last_points(POINTS["ewma"], [10, HOLE, 20], setting(horizons=(3,))) == [14]


def test_ewma_takes_the_weight_that_erred_least() -> None:
    # A level that jumps and stays is followed best by the largest weight, one that flickers around
    # a level best by the smallest.
    steps = [float(level) for level in (10, 90, 30, 70, 20) for _ in range(5)]
    flicker = [50.0 + 40 * (-1) ** n for n in range(60)]
    fast = last_points(POINTS["ewma"], [*steps, 50], setting())[0]
    slow = last_points(POINTS["ewma"], flicker, setting())[0]
    # 0.7 x 50 + 0.3 x about 20, against 50 give or take 0.1 x 40.
    assert fast == pytest.approx(41, abs=0.1)
    assert slow == pytest.approx(50, abs=4)


def test_tsb_learns_size_from_demands_and_frequency_from_every_bin() -> None:
    # Often: 1, then 0.9, 0.81 through two quiet bins, then 0.81 + 0.1 x 0.19 = 0.829.
    # Size: 10, then 10 + 0.1 x (20 - 10) = 11. A hole teaches neither.
    assert last_points(POINTS["tsb"], [10, 0, 0], setting()) == pytest.approx([8.1])
    assert last_points(POINTS["tsb"], [10, 0, HOLE, 0, 20], setting()) == pytest.approx([9.119])


def test_tsb_fades_when_nobody_asks_any_more_and_croston_does_not_notice() -> None:
    values = [6, 0, 6, *[0] * 60]
    (tsb,) = last_points(POINTS["tsb"], values, setting())
    (croston,) = last_points(POINTS["croston"], values, setting())
    # Often was 0.9 + 0.1 x 0.1 = 0.91; sixty quiet bins are 0.9^60 of that.
    assert tsb == pytest.approx(6 * 0.91 * 0.9**60)
    # The gap was 1, then 1 + 0.1 x (2 - 1).
    assert croston == pytest.approx(6 / 1.1)


def test_croston_counts_only_bins_that_were_seen_between_two_demands() -> None:
    assert last_points(POINTS["croston"], [6, HOLE, 0, HOLE, 6], setting()) == pytest.approx(
        [6 / 1.1]
    )


def test_holt_winters_begins_with_the_first_day_less_its_mean() -> None:
    # Roots 1, 2, 3, 4: level 2.5, seasons -1.5, -0.5, 0.5, 1.5; so the next day is the same.
    told = setting(horizons=(1, 2, 4))
    assert last_points(POINTS["holt_winters"], [1, 4, 9, 16], told) == pytest.approx([1, 4, 16])


def test_holt_winters_moves_level_trend_and_season_by_the_error() -> None:
    # The next root is 2 where 1 was forecast: an error of 1. The first variant holds, for a horizon
    # of two bins has seen no error yet. Two bins on the season is 0.5.
    alpha, _ = VARIANTS[0]
    level, trend = 2.5 + alpha, TREND * alpha
    expected = (level + trend * (DAMPING + DAMPING**2) + 0.5) ** 2
    (said,) = last_points(POINTS["holt_winters"], [1, 4, 9, 16, 4], setting(horizons=(2,)))
    assert said == pytest.approx(expected)


def test_holt_winters_of_a_week_begins_with_the_first_week_and_knows_its_weekend() -> None:
    # Five days of 9 and two of 1: roots 3 and 1, which come back in the week after.
    week = [9] * 20 + [1] * 8
    assert isnan(last_points(POINTS["holt_winters_week"], week[:-1], setting())[0])
    told = setting(horizons=(1, 20, 21))
    assert last_points(POINTS["holt_winters_week"], week, told) == pytest.approx([9, 9, 1])


def test_holt_winters_says_no_more_than_twice_what_was_ever_asked() -> None:
    # Roots of the first day 10, 1, 1, 1: level 3.25, season of the first bin 6.75. The second day
    # is all 10, so the level nears 10, and the third day's first bin (10 + 6.75)^2 = 280.
    values = [100, 1, 1, 1, 100, 100, 100, 100]
    assert last_points(POINTS["holt_winters"], values, setting()) == [200]


def test_holt_winters_follows_the_season_that_it_is_shown() -> None:
    # Days of 100, 400, 100, 0; on the tenth day all is a quarter more.
    day = [100.0, 400.0, 100.0, 0.0]
    values = [*day * 9, 125, 500]
    (said,) = last_points(POINTS["holt_winters"], values, setting())
    assert 100 < said < 160


@pytest.mark.parametrize("name", POINTS)
def test_a_constant_stream_is_forecast_as_it_is(name: str) -> None:
    factory: PointFactory = POINTS[name]
    said = last_points(factory, [7.0] * (4 * 15), setting(horizons=(1, 3)))
    assert said == pytest.approx([7.0, 7.0])
