"""Forecasts and the last seconds, weighed against each other; forecasts turned upside down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.forecast import LEVELS
from prewarm.foresight.ahead import Ahead, at_ranks, between, turned
from prewarm.foresight.options import Options
from prewarm.series import Floats
from tests.prewarm.foresight.pasts import foreseen, steady, together

STREAMS = ("calm", "calm")


def ahead(values: Floats, options: Options | None = None) -> Ahead:
    found = Ahead(options or Options(), 12, np.random.default_rng(3))
    found.draw(foreseen(values).far)
    return found


def rate(of: Ahead, live: float, seconds: float, dispersion: float = 1.0) -> float:
    return float(of.now(np.array([live]), seconds, np.array([dispersion])).rate_per_s[0])


def test_before_anything_was_watched_the_forecast_is_the_rate() -> None:
    assert rate(ahead(steady(300.0)), 0.0, 0.0) == pytest.approx(1.0, rel=0.1)


def test_a_few_silent_seconds_say_little_and_a_silent_minute_much() -> None:
    of = ahead(steady(300.0))
    assert rate(of, 0.0, 1.0) > 0.5
    assert rate(of, 0.0, 58.0) < 0.1


def test_a_flash_crowd_is_believed_at_once() -> None:
    assert rate(ahead(steady(30.0)), 25.0, 10.0, dispersion=4.0) > 20


def test_what_clumping_explains_moves_the_rate_little() -> None:
    of = ahead(steady(300.0))
    even, clumped = (rate(of, 1.3, 30.0, dispersion) for dispersion in (1.0, 8.0))
    assert 1.0 < clumped < even < 1.3


def test_later_bins_are_moved_as_well_and_ever_less() -> None:
    of = ahead(steady(300.0))
    rates = of.rates(of.now(np.array([10.0]), 58.0, np.ones(1))).mean(axis=0)[:, 0]
    assert rates[0] == pytest.approx(10, rel=0.1)
    assert (np.diff(rates[:6]) < 0.5).all()
    # After eleven bins, 55 minutes at a half-life of 15: 9 x 0.5^3.67 = 0.7 above the forecast.
    assert rates[11] == pytest.approx(1.7, abs=0.3)


def test_without_any_past_the_last_seconds_are_all_there_is() -> None:
    of = ahead(np.full((0, 1), np.nan))
    assert rate(of, 3.0, 20.0) == 3.0
    assert (of.rates(of.now(np.array([3.0]), 20.0, np.ones(1))) == 3.0).all()


@given(st.floats(0, 50), st.floats(0, 60), st.floats(1, 16))
def test_the_rate_lies_between_what_is_seen_and_what_is_forecast(
    live: float, seconds: float, dispersion: float
) -> None:
    found = rate(AHEAD, live, seconds, dispersion)
    said = float(AHEAD.forecast[:, 0, 0].mean())
    assert min(live, said) - 1e-9 <= found <= max(live, said) + 1e-9


AHEAD = ahead(together()[:, :1])


def test_rates_are_never_negative_or_unknown() -> None:
    rates = AHEAD.rates(AHEAD.now(np.array([0.0]), 58.0, np.ones(1)))
    assert (rates >= 0).all()


def test_between_two_horizons_lies_the_line_and_beyond_the_last_its_value() -> None:
    quantiles = np.array([[[10.0], [20.0], [40.0]]])
    horizons = np.array([1, 2, 4])
    said = [float(between(quantiles, horizons, at)[0, 0]) for at in (1, 2, 3, 4, 9)]
    assert said == [10, 20, 30, 40, 40]


def test_a_rank_is_taken_through_the_quantiles() -> None:
    quantiles = np.array([np.array(LEVELS) * 100])
    found = at_ranks(quantiles, np.array([[0.001], [0.25], [0.5], [0.97], [0.999]]))[:, 0]
    assert found == pytest.approx([1, 25, 50, 97, 99])


def test_turned_upside_down_much_is_little_and_little_much() -> None:
    seen = np.array([[0.0], [np.nan], [100.0]])
    low, high = np.full((1, 1, 14), 10.0), np.linspace(80, 93, 14)[None, None]
    assert (turned(low, seen) == 90).all()
    upside_down = turned(high, seen)[0, 0]
    assert upside_down == pytest.approx(np.linspace(7, 20, 14))


def test_what_was_never_seen_stays_unknown_upside_down() -> None:
    quantiles = np.full((1, 1, 14), np.nan)
    assert np.isnan(turned(quantiles, np.full((5, 1), np.nan))).all()
