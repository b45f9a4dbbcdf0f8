"""Back-tests: nobody looks ahead, all are scored alike, guests compete, thin data do no harm."""

from collections.abc import Iterator
from math import isfinite, isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from placement.catalog import DemandEvent
from prewarm.backtest import Ask, Trail, backtest
from prewarm.calendars import DAY_US, Calendar
from prewarm.forecasters.plugins import UnknownForecasterError
from prewarm.scores import HorizonResult
from prewarm.selection.selector import Selector
from prewarm.series import Floats, Panel
from tests.prewarm.said import HOLE, HOUR6_US, HOUR_US, setting
from tests.prewarm.selection.hearing import cells
from tests.prewarm.strangers import installed

DAY = 24
MARCH_20_2026_US = 20_532 * DAY_US
"""Summer time begins in Berlin on the 29th."""


def panel(
    values: Floats,
    width_us: int = HOUR_US,
    calendar: Calendar | None = None,
    *,
    whole: bool = True,
) -> Panel:
    names = tuple(f"s{at}" for at in range(values.shape[1]))
    return Panel(
        calendar=calendar or Calendar(0, width_us), streams=names, values=values, whole=whole
    )


def counts(days: int, *means: float, seed: int = 3) -> Floats:
    rng = np.random.default_rng(seed)
    found: Floats = rng.poisson(means, (days * DAY, len(means))).astype(float)
    return found


def trail_of(tried: Panel, ask: Ask) -> Trail:
    _, trail = backtest(tried, ask)
    assert trail is not None
    return trail


# Nobody looks ahead

HORIZONS = (1, 2, 5)
BINS = 24
values_of = arrays(np.float64, (BINS, 2), elements=cells)


@settings(max_examples=15)
@given(values=values_of, others=values_of, first=st.integers(0, BINS - 1))
def test_what_comes_later_changes_no_forecast_that_was_made_before(
    values: Floats, others: Floats, first: int
) -> None:
    ask = Ask(horizons=HORIZONS, score_from=4, keep=True)
    changed = np.concatenate([values[:first], others[first:]])
    one, two = (trail_of(panel(each, HOUR6_US), ask) for each in (values, changed))
    for place, ahead in enumerate(HORIZONS):
        until = max(first + ahead - one.first, 0)  # bin b was forecast in bin b - ahead
        for name in ("q50", "q90", "q95", "chosen", "acted"):
            said, said_too = (getattr(trail, name)[:until, :, place] for trail in (one, two))
            assert np.array_equal(said, said_too, equal_nan=name.startswith("q"))


def test_a_trail_is_what_the_selector_said_by_the_bin_that_it_is_of() -> None:
    values, first = counts(4, 20.0, 3.0), 40
    trail = trail_of(panel(values), Ask(horizons=(1, 4), score_from=first, keep=True, seed=9))
    told = setting(streams=2, horizons=(1, 4), width_us=HOUR_US)
    one = Selector(told, np.random.default_rng(9))
    said = []
    for value in values:
        one.update(value)
        said.append(one.predict()[..., told.levels.index(0.9)])
    for place, ahead in enumerate((1, 4)):
        made = np.array(said)[first - ahead : len(values) - ahead, :, place]
        assert trail.q90[:, :, place] == pytest.approx(made, rel=1e-6)
    assert np.array_equal(trail.actual, values[first:])
    assert trail.first == first
    assert (trail.chosen >= 0).all()


# What is scored


def of(tried: Panel, ask: Ask, stream: int = 0, place: int = 0) -> HorizonResult:
    found, _ = backtest(tried, ask)
    return found.streams[stream].horizons[place]


def test_everyone_is_scored_on_the_same_bins_before_a_season_has_come_round_too() -> None:
    values = counts(6, 20.0)
    values[100:110] = HOLE
    result = of(panel(values), Ask(horizons=(3,), score_from=2 * DAY))
    assert result.horizon_s == 3 * 3600
    assert {score.n for score in result.forecasters.values()} == {4 * DAY - 10}
    assert result.score.n == 4 * DAY - 10
    assert sum(result.method_share.values()) == pytest.approx(1.0)
    assert set(result.method_share) == set(result.forecasters)
    assert 0 < result.acted_share <= 1


def test_a_stream_that_begins_late_is_forecast_from_then_on() -> None:
    values = counts(10, 20.0, 20.0)
    values[: 4 * DAY, 1] = HOLE
    found, trail = backtest(panel(values), Ask(horizons=(1,), score_from=3 * DAY, keep=True))
    assert trail is not None
    before, after = trail.q90[: DAY + 1, 1, 0], trail.q90[DAY + 1 :, 1, 0]
    assert np.isnan(before).all()
    assert np.isfinite(after).all()
    assert (trail.chosen[: DAY + 1, 1] == -1).all()
    assert (trail.chosen[DAY + 1 :, 1] >= 0).all()
    late = found.streams[1].horizons[0]
    assert late.score.n == 6 * DAY - 1
    assert late.score.pinball < 1.2 * found.streams[0].horizons[0].score.pinball
    assert late.acted_share > 0.3


@pytest.mark.parametrize(
    ("values", "score_from"),
    [
        (np.zeros((0, 1)), 0),
        (np.zeros((5, 0)), 0),
        (np.full((30, 1), 7.0), 30),
        (np.full((30, 1), 7.0), 99),
        (np.full((3, 1), 7.0), 0),
    ],
    ids=["no bins", "no streams", "nothing to score", "too late", "shorter than the horizon"],
)
def test_thin_data_have_scores_that_say_so(values: Floats, score_from: int) -> None:
    ask = Ask(horizons=(1, 9), score_from=score_from, keep=True)
    found, trail = backtest(panel(values), ask)
    assert len(found.streams) == values.shape[1]
    assert trail is not None
    assert len(trail.actual) == max(len(values) - score_from, 0)
    for stream in found.streams:
        assert stream.horizons[1].score.n == 0
        assert isnan(stream.horizons[1].score.pinball)


def test_zeros_of_weeks_are_forecast_as_zeros_and_cost_nothing() -> None:
    result = of(panel(np.zeros((20 * DAY, 1))), Ask(horizons=(1,), score_from=8 * DAY))
    assert result.score.n == 12 * DAY
    assert isnan(result.score.wape), "of nothing no share can be missed"
    assert result.acted_share == 1.0


def test_the_same_ask_finds_the_same() -> None:
    tried, ask = panel(counts(5, 6.0)), Ask(horizons=(1,), score_from=48, keep=True)
    assert np.array_equal(trail_of(tried, ask).q90, trail_of(tried, ask).q90)
    assert of(tried, ask).score.coverage_q90 == of(tried, ask).score.coverage_q90


def test_progress_is_told_as_it_goes() -> None:
    told = list[float]()
    backtest(panel(counts(8, 6.0)), Ask(horizons=(1,), score_from=48), told.append)
    assert told[0] == 0.0
    assert told == sorted(told)
    assert 0.5 < told[-1] < 1


# Clocks and events


def test_people_keep_their_hours_when_the_clock_is_changed() -> None:
    """Busy from nine to five by the clock on the wall, before the night of the change and after."""
    berlin = Calendar(MARCH_20_2026_US, HOUR_US, "Europe/Berlin")
    hours = np.array([berlin.local(at).second // 3600 for at in range(16 * DAY)])
    rates = np.where((hours >= 9) & (hours < 17), 200.0, 20.0)
    values = np.random.default_rng(6).poisson(rates).astype(float)[:, None]
    change = 9 * DAY - 1
    assert berlin.offset_us(berlin.at_us(change)) < berlin.offset_us(berlin.at_us(change + 4))
    ask = Ask(horizons=(1, 4), score_from=change + 4)  # the morning after
    aware, unaware = (
        backtest(panel(values, calendar=calendar), ask)[0].streams[0].horizons
        for calendar in (berlin, Calendar(MARCH_20_2026_US, HOUR_US))
    )
    for ours, theirs in zip(aware, unaware, strict=True):
        assert ours.score.wape < 0.1
        assert ours.score.pinball < theirs.score.pinball


def test_an_announced_event_is_forecast_before_anyone_has_seen_it() -> None:
    values = counts(9, 50.0)
    first, last = 8 * DAY, 8 * DAY + 6
    values[first:last] = np.random.default_rng(5).poisson(200, (6, 1))
    sale = DemandEvent(
        name="sale", start_us=first * HOUR_US, end_us=last * HOUR_US, uplift=4.0, models=("s0",)
    )
    told, untold = (
        trail_of(panel(values), Ask(horizons=(6,), score_from=DAY, keep=True, events=events))
        for events in ((sale,), ())
    )
    within, after = slice(first - DAY, last - DAY), slice(last - DAY, last - DAY + 6)
    assert told.q50[within] == pytest.approx(np.full((6, 1, 1), 200.0), rel=0.3)
    assert untold.q50[within] == pytest.approx(np.full((6, 1, 1), 50.0), rel=0.3)
    assert told.q50[after] == pytest.approx(np.full((6, 1, 1), 50.0), rel=0.3)


# Guests

STRANGERS = """
import numpy as np

class Rhyme:
    \"\"\"Knows a rhyme that nobody else knows: five bins, over and over.\"\"\"
    def __init__(self, setting):
        self.horizons = np.array(setting.horizons)
    def update(self, past):
        pass
    def points(self, past):
        return np.array([1.0, 60.0, 4.0, 90.0, 30.0])[(past.now + self.horizons) % 5][None]

class Wrong:
    def __init__(self, setting):
        self.shape = len(setting.streams), len(setting.horizons), len(setting.levels)
        self.told = 0
    def fit(self, past):
        raise RuntimeError("not to be called")
    def update(self, values):
        self.told += 1
        if self.told % 7 == 0:
            raise ValueError("seven is too many")
    def predict(self):
        return np.full(self.shape, 1e200 if self.told % 2 else 11.0)
"""
ENTRIES = """
[warmtide.forecasters]
rhyme = bard:Rhyme
wrong = bard:Wrong
"""


@pytest.fixture
def _bard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with installed(tmp_path, monkeypatch, "bard", STRANGERS, ENTRIES):
        yield


@pytest.mark.usefixtures("_bard")
def test_forecasters_of_other_packages_take_part() -> None:
    rhyme = np.resize([1.0, 60.0, 4.0, 90.0, 30.0], 8 * DAY)
    values = np.random.default_rng(7).poisson(rhyme).astype(float)[:, None]
    alone = of(panel(values), Ask(horizons=(1, 2), score_from=4 * DAY))
    ask = Ask(horizons=(1, 2), score_from=4 * DAY, forecasters=("rhyme", "wrong", "day"))
    found, _ = backtest(panel(values), ask)
    for result in found.streams[0].horizons:
        assert result.method_share["rhyme"] > 0.8
        assert result.method_share["wrong"] < 0.01
        assert isfinite(result.forecasters["wrong"].pinball)
        assert result.score.pinball < 0.8 * alone.score.pinball
        assert result.forecasters["rhyme"].n == result.score.n
    assert set(found.troubles) == {"wrong"}
    assert found.staleness_s["rhyme"] == 0


def test_one_that_is_not_known_is_named_before_anything_runs() -> None:
    told = list[float]()
    ask = Ask(horizons=(1,), score_from=24, forecasters=("pythia",))
    with pytest.raises(UnknownForecasterError, match="no forecaster is called 'pythia'"):
        backtest(panel(counts(3, 5.0)), ask, told.append)
    assert told == []


@pytest.mark.heavy
def test_prophet_competes_with_what_it_was_fitted_on_at_night() -> None:
    at = np.arange(6 * DAY)
    rates = 100 - 60 * np.cos(2 * np.pi * at / DAY)
    values = np.random.default_rng(8).poisson(rates).astype(float)[:, None]
    ask = Ask(horizons=(1, 4), score_from=4 * DAY, forecasters=("prophet",))
    found, _ = backtest(panel(values), ask)
    assert found.troubles == {}
    assert found.fit_s["prophet"] > 0
    # A fit is made on its second midnight and then in the fourth hour of every night.
    assert 6 < found.staleness_s["prophet"] / 3600 < 24
    for result in found.streams[0].horizons:
        prophet, last = (result.forecasters[name] for name in ("prophet", "last_value"))
        assert prophet.n == last.n == 2 * DAY
        assert prophet.pinball < last.pinball
        assert 0 <= result.method_share["prophet"] < 1
