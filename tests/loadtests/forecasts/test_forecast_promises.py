"""What the forecasts promise on demand that we generate: a few seeds, a few streams, two weeks."""

import numpy as np
import pytest

from loadtests.generator import BIN_US, World, generate_counts
from prewarm.backtest import Ask, backtest
from prewarm.calendars import DAY_US, US, Calendar
from prewarm.forecasters.registry import SIMPLE
from prewarm.scores import Backtest, Score
from prewarm.scoring import Pooled, pooled
from prewarm.series import Floats, Panel

SMALL = World(clients=8, days=14)
HORIZONS = (1, 6, 24)
"""Ten minutes, an hour, four hours."""
MONDAY_US = 4 * DAY_US


def generated(seed: int) -> Panel:
    counts = generate_counts(seed, SMALL)
    return Panel(
        calendar=Calendar(counts.start_us, BIN_US),
        streams=counts.streams,
        values=counts.counts.astype(float),
    )


def weekly(weeks: int, seed: int) -> Panel:
    """Every hour of the week has a level of its own, and no day is like another."""
    rng = np.random.default_rng(seed)
    week = rng.lognormal(3.5, 0.8, 7 * 24)
    values: Floats = rng.poisson(np.tile(week, weeks)).astype(float)
    return Panel(
        calendar=Calendar(MONDAY_US, 3_600 * US), streams=("weekly",), values=values[:, None]
    )


def all_streams(found: Backtest, place: int, name: str = "") -> Pooled:
    """Ours, or one that it chose from."""
    results = [stream.horizons[place] for stream in found.streams]
    scores: list[Score] = [r.forecasters[name] if name else r.score for r in results]
    return pooled(scores, [stream.scored for stream in found.streams], np.nan)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_never_much_worse_than_the_last_value_and_keeps_its_promises(seed: int) -> None:
    ask = Ask(horizons=HORIZONS, score_from=8 * DAY_US // BIN_US)
    found, _ = backtest(generated(seed), ask)
    for place in range(len(HORIZONS)):
        ours, last = (all_streams(found, place, name).score for name in ("", "last_value"))
        assert ours.n == last.n >= 5 * 6 * 144, "at least five of the eight are asked for enough"
        assert ours.pinball <= 1.02 * last.pinball
        assert ours.coverage_q90 == pytest.approx(0.9, abs=0.03)
        assert ours.coverage_q95 == pytest.approx(0.95, abs=0.03)


def test_on_a_weekly_stream_it_is_better_than_the_best_simple_baseline() -> None:
    found, _ = backtest(weekly(6, 1), Ask(horizons=(1, 4), score_from=4 * 7 * 24))
    for place in (0, 1):
        simple = {name: all_streams(found, place, name).score.pinball for name in SIMPLE}
        best = min(simple, key=lambda name: simple[name])
        assert best == "week"
        assert all_streams(found, place).score.pinball < simple[best]


def test_where_there_is_a_rhyme_it_may_act() -> None:
    found, _ = backtest(weekly(4, 2), Ask(horizons=(1,), score_from=3 * 7 * 24))
    (result,) = found.streams[0].horizons
    assert result.acted_share > 0.95
    assert result.score.decision_cost < result.forecasters["last_value"].decision_cost
