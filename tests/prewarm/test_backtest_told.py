"""What a back-test tells beside the scores: the worst week of all streams together."""

from math import isnan

import numpy as np

from prewarm.backtest import Ask, backtest
from prewarm.calendars import US, Calendar
from prewarm.series import Floats, Panel

HOUR_US = 3_600 * US
WEEK = 7 * 24


def panel(values: Floats) -> Panel:
    names = tuple(f"s{at}" for at in range(values.shape[1]))
    return Panel(calendar=Calendar(0, HOUR_US), streams=names, values=values)


def counts(weeks: int, *means: float) -> Floats:
    rng = np.random.default_rng(7)
    found: Floats = rng.poisson(means, size=(weeks * WEEK, len(means))).astype(np.float64)
    return found


def test_of_one_stream_the_worst_week_is_its_own() -> None:
    found, _ = backtest(panel(counts(3, 20.0)), Ask(horizons=(1, 4), score_from=WEEK))
    own = tuple(result.score.worst_week_q90 for result in found.streams[0].horizons)
    assert found.worst_weeks_q90 == own
    assert all(0.7 < week <= 1.0 for week in own)


def test_a_bad_week_of_one_of_two_streams_is_half_a_bad_week() -> None:
    values = counts(3, 20.0, 20.0)
    values[2 * WEEK + 24 :: 24, 0] *= 50  # an hour of every day of the last week, for one of them
    found, _ = backtest(panel(values), Ask(horizons=(1,), score_from=WEEK))
    each = [stream.horizons[0].score.worst_week_q90 for stream in found.streams]
    assert min(each) <= found.worst_weeks_q90[0] <= max(each)


def test_streams_that_were_hardly_asked_have_no_say_and_no_week_is_no_number() -> None:
    values = counts(3, 20.0, 0.05)
    both, _ = backtest(panel(values), Ask(horizons=(1,), score_from=WEEK))
    assert both.streams[1].scored < 100
    assert both.worst_weeks_q90[0] == both.streams[0].horizons[0].score.worst_week_q90
    short, _ = backtest(panel(counts(1, 20.0)), Ask(horizons=(1,), score_from=WEEK - 24))
    assert isnan(short.worst_weeks_q90[0])
