"""Scores by hand, and what they must tell apart: the right forecast from a wrong one."""

from collections.abc import Sequence
from math import exp, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from prewarm.calendars import US, Calendar
from prewarm.forecast import LEVELS
from prewarm.scores import Score
from prewarm.scoring import (
    Rules,
    at_level,
    countable,
    pit,
    pooled,
    score,
    week_bins,
    worst_week,
    worst_week_of_all,
)
from prewarm.series import Bools, Floats
from tests.prewarm.said import HOLE, column

HAND = (0.5, 0.9, 0.95)
RULES = Rules(week_bins=1008, levels=HAND)
WAVES = Rules(week_bins=1008, levels=HAND, whole=False)


def everywhere(values: Floats) -> Bools:
    return np.ones(values.shape, np.bool_)


def scored(values: list[float], forecast: Sequence[float], rules: Rules = RULES) -> Score:
    """The same forecast in every bin of one stream."""
    asked = column(values)
    quantiles = np.tile(np.array(forecast, dtype=np.float64), (len(values), 1, 1))
    middle = np.full(asked.shape, 0.5)
    return score(asked, quantiles, everywhere(asked), middle, rules)[0]


def lies_at(value: float, forecast: Sequence[float], v: float, rules: Rules = RULES) -> float:
    quantiles = np.array(forecast, dtype=np.float64)[None, None]
    return float(pit(column([value]), quantiles, column([v]), rules)[0, 0])


@pytest.mark.parametrize(("value", "rules"), [(0.7, WAVES), (7.3, WAVES), (123_456_789, RULES)])
def test_a_constant_is_no_miss_for_being_rounded(value: float, rules: Rules) -> None:
    """Single precision says 0.69999999, 7.30000019 and 123456792. All levels lie on the value, so
    u is what is drawn."""
    rounded = float(np.float32(value))
    assert rounded != value
    assert lies_at(value, [rounded] * 3, 0.3, rules) == pytest.approx(0.3)
    assert lies_at(value * 1.001, [rounded] * 3, 0.3, rules) == 1.0


def test_losses_are_divided_by_the_mean_of_the_stream() -> None:
    found = scored([10, 20], [12, 20, 22])
    # Mean 15. Median 12: off by 2 and 8, so 10 of 30; half of 10 over two bins is 2.5.
    assert found.n == 2
    assert found.wape == pytest.approx(1 / 3)
    assert found.mape == pytest.approx((2 / 10 + 8 / 20) / 2)
    assert found.pinball_q50 == pytest.approx(2.5 / 15)
    # 0.9: idle by 10 at 0.1 each, over two bins. 0.95: idle by 12 and 2 at 0.05 each.
    assert found.pinball_q90 == pytest.approx(0.5 / 15)
    assert found.pinball_q95 == pytest.approx(0.35 / 15)
    assert found.pinball == pytest.approx((2.5 + 0.5 + 0.35) / 45)


def test_a_decision_costs_the_catalogs_price_for_each_that_is_short_and_one_for_each_idle() -> None:
    # r = 9 buys the 0.9 quantile. 18 against 10 and 20: idle by 8, short by 2 at 9 each.
    assert scored([10, 20], [12, 18, 22]).decision_cost == pytest.approx((8 + 18) / 2 / 15)
    # r = 1 buys the median: idle by 2, short by 8.
    even = Rules(week_bins=1008, levels=HAND, waiting_to_idle=1.0)
    assert scored([10, 20], [12, 18, 22], even).decision_cost == pytest.approx(5 / 15)


def test_a_level_between_two_lies_on_the_line_and_beyond_the_last_is_the_last() -> None:
    quantiles = np.array([10.0, 20.0, 22.0])
    assert at_level(quantiles, HAND, 0.7) == pytest.approx(15)
    assert at_level(quantiles, HAND, 0.9) == 20
    assert at_level(quantiles, HAND, 0.99) == 22
    assert at_level(quantiles, HAND, 0.2) == 10


def test_a_hole_and_a_bin_without_a_forecast_and_the_days_of_training_do_not_count() -> None:
    values = np.array([[1000.0], [10.0], [HOLE], [20.0], [500.0]])
    quantiles = np.tile(np.array([12.0, 20.0, 22.0]), (5, 1, 1))
    quantiles[4] = HOLE
    counted = everywhere(values)
    counted[0] = False
    assert countable(values, quantiles, counted)[:, 0].tolist() == [False, True, False, True, False]
    middle = np.full(values.shape, 0.5)
    found = score(values, quantiles, counted, middle, RULES)[0]
    assert asdict(found) == pytest.approx(asdict(scored([10, 20], [12, 20, 22])), nan_ok=True)


def test_a_stream_that_was_never_asked_has_no_relative_losses() -> None:
    found = scored([0, 0], [0, 0, 0])
    assert found.n == 2
    assert all(isnan(x) for x in (found.wape, found.mape, found.pinball, found.decision_cost))
    assert found.coverage_q90 == 1


def test_a_stream_of_holes_has_no_score() -> None:
    found = scored([HOLE, HOLE], [1, 2, 3])
    assert found.n == 0
    assert isnan(found.pinball_q50)
    assert isnan(found.coverage_q90)


def test_a_count_lies_somewhere_between_the_one_below_it_and_itself() -> None:
    # From 0.5 at 10 to 0.9 at 20 a count is 0.04: 15 goes from 0.66 to 0.70.
    assert lies_at(15, [10, 20, 22], v=0.5) == pytest.approx(0.68)
    assert lies_at(15, [10, 20, 22], v=0.0) == pytest.approx(0.66)


def test_a_mean_that_is_no_count_lies_where_it_lies() -> None:
    assert lies_at(15, [10, 20, 22], v=0.3, rules=WAVES) == pytest.approx(0.7)


@pytest.mark.parametrize("rules", [RULES, WAVES])
def test_nothing_where_nothing_was_expected_is_drawn_over_all_that_was_nothing(
    rules: Rules,
) -> None:
    assert lies_at(0, [0, 0, 5], v=0.5, rules=rules) == pytest.approx(0.45)
    assert lies_at(0, [0, 0, 0], v=0.25, rules=rules) == pytest.approx(0.25)


@pytest.mark.parametrize("rules", [RULES, WAVES])
def test_what_lies_beyond_the_outermost_quantiles(rules: Rules) -> None:
    assert lies_at(40, [10, 20, 22], v=0.5, rules=rules) == 1
    assert lies_at(4, [10, 20, 22], v=0.5, rules=rules) == 0


def test_a_constant_that_was_known_for_certain_is_drawn_over_everything() -> None:
    assert lies_at(7, [7, 7, 7], v=0.3) == pytest.approx(0.3)
    assert lies_at(7, [7, 7, 7], v=0.3, rules=WAVES) == pytest.approx(0.3)


@given(
    quantiles=st.lists(st.floats(0, 50), min_size=3, max_size=3).map(sorted),
    value=st.integers(0, 60),
    v=st.floats(0, 1),
)
def test_within_a_quantile_a_value_lies_within_its_level(
    quantiles: list[float], value: int, v: float
) -> None:
    for rules in (RULES, WAVES):
        u = lies_at(value, quantiles, v, rules)
        assert 0 <= u <= 1
        for level, quantile in zip(HAND, quantiles, strict=True):
            if value < quantile:
                assert u <= level + 1e-12
            if value - 1 >= quantile:
                assert u >= level - 1e-12


def straight_poisson(mean: float, levels: tuple[float, ...]) -> Floats:
    """The quantiles whose straight lines pass through P(N <= n) at every whole n."""
    counts = range(int(mean * 4 + 40))
    weights = [exp(-mean)]
    for n in counts[1:]:
        weights.append(weights[-1] * mean / n)
    found: Floats = np.interp(levels, np.cumsum(weights), counts)
    return found


EACH_PERCENT = tuple(n / 100 for n in range(1, 100))


def poisson_scores(mean: float, believed: float, levels: tuple[float, ...] = EACH_PERCENT) -> Score:
    rng = np.random.default_rng(7)
    asked = rng.poisson(mean, (20_000, 1)).astype(np.float64)
    quantiles = np.broadcast_to(straight_poisson(believed, levels), (*asked.shape, len(levels)))
    rules = Rules(week_bins=1008, levels=levels)
    return score(asked, quantiles, everywhere(asked), rng.random(asked.shape), rules)[0]


@pytest.mark.parametrize("mean", [0.05, 0.4, 3.0, 40.0])
def test_the_true_distribution_of_counts_is_calibrated(mean: float) -> None:
    # 20,000 draws: a standard error of 0.002.
    found = poisson_scores(mean, mean)
    assert found.coverage_q90 == pytest.approx(0.9, abs=0.01)
    assert found.coverage_q95 == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("mean", [0.05, 0.4, 3.0, 40.0])
def test_the_levels_that_are_forecast_read_it_within_what_lies_between_two_of_them(
    mean: float,
) -> None:
    # Where the share of quiet bins lies between two levels, the lower is read: a little more seems
    # to be within, never less.
    found = poisson_scores(mean, mean, levels=LEVELS)
    assert 0.89 <= found.coverage_q90 <= 0.925
    assert 0.94 <= found.coverage_q95 <= 0.965


@pytest.mark.parametrize("mean", [0.4, 3.0, 40.0])
def test_a_wrong_distribution_is_not(mean: float) -> None:
    assert poisson_scores(mean, mean * 0.7).coverage_q90 < 0.87
    assert poisson_scores(mean, mean * 1.5).coverage_q90 > 0.93


def test_the_draws_are_uniform_under_the_true_distribution() -> None:
    # Between the outermost levels; what lies beyond sits on them.
    rng = np.random.default_rng(3)
    asked = rng.poisson(5.0, (50_000, 1)).astype(np.float64)
    quantiles = np.broadcast_to(straight_poisson(5.0, LEVELS), (*asked.shape, len(LEVELS)))
    u = pit(asked, quantiles, rng.random(asked.shape), Rules(week_bins=1008))
    shares = [float(((u > low) & (u <= low + 0.1)).mean()) for low in np.arange(0.1, 0.85, 0.1)]
    assert shares == pytest.approx([0.1] * len(shares), abs=0.015)


@pytest.mark.parametrize(("name", "level"), [("q50", 0.5), ("q90", 0.9), ("q95", 0.95)])
def test_no_other_number_has_less_pinball_loss_than_the_true_quantile(
    name: str, level: float
) -> None:
    rng = np.random.default_rng(11)
    asked = rng.gamma(3.0, 10.0, (20_000, 1))
    truth = float(np.quantile(rng.gamma(3.0, 10.0, 1_000_000), level))

    def loss(bought: float) -> float:
        quantiles = np.full((*asked.shape, 3), bought)
        found = score(asked, quantiles, everywhere(asked), asked, WAVES)[0]
        return float(getattr(found, f"pinball_{name}"))

    assert loss(truth) < min(loss(truth * off) for off in (0.8, 0.9, 1.1, 1.2))


def test_the_worst_week_runs_from_the_first_bin_that_counts_and_needs_enough_of_them() -> None:
    # Weeks of 200 bins. Ten bins of training; a week all within, one with 50 of 200 beyond, and
    # 60 bins all beyond, which are too few to say anything.
    u = column([*[1.0] * 10, *[0.5] * 200, *[1.0] * 50, *[0.5] * 150, *[1.0] * 60])
    counts = everywhere(u)
    counts[:10] = False
    assert worst_week(u, counts, 0.9, week=200).tolist() == [0.75]
    # Of two streams together the second week has 250 of 400 within, and the rest is enough.
    both = np.hstack((u, np.full_like(u, 0.5)))
    assert worst_week_of_all(both, np.hstack((counts, counts)), 0.9, week=200) == 0.5
    assert isnan(worst_week(u, ~everywhere(u), 0.9, week=200)[0])
    assert isnan(worst_week_of_all(u, ~everywhere(u), 0.9, week=200))


def test_a_week_is_so_many_bins() -> None:
    assert week_bins(Calendar(0, 600 * US)) == 1008


def test_streams_are_averaged_alike_and_bins_pooled_and_quiet_streams_left_out() -> None:
    busy = scored([10, 20], [12, 20, 22])
    other = scored([40, 40, 40, 40], [30, 30, 30])
    quiet = scored([1, 1], [90, 90, 90])
    found = pooled([busy, other, quiet], [150, 160, 2], worst_week_q90=0.8)
    assert found.streams == 2
    assert found.score.n == 6
    assert found.score.pinball_q50 == pytest.approx((2.5 / 15 + 5 / 40) / 2)
    # Of six bins the two of the first are within: 10 at 0, 20 at 0.9 less half a count.
    assert found.score.coverage_q90 == pytest.approx(2 / 6)
    assert found.score.wape == pytest.approx((1 / 3 + 1 / 4) / 2)
    # Weighed by what was asked: 150 of 310 were off by a third, 160 by a quarter.
    assert found.wape_of_all == pytest.approx((150 / 3 + 160 / 4) / 310)
    assert found.score.worst_week_q90 == 0.8


def test_nothing_pooled_is_no_score() -> None:
    found = pooled([scored([1, 1], [9, 9, 9])], [2], worst_week_q90=HOLE)
    assert found.streams == 0
    assert isnan(found.score.pinball)
    assert isnan(found.wape_of_all)
