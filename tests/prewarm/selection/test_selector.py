"""The selector at work: announced events, new models, guests, its scoreboard."""

import numpy as np
import pytest

from placement.catalog import DemandEvent
from prewarm.events import Uplift
from prewarm.forecast import LEVELS
from prewarm.forecasters.guarded import Guarded
from prewarm.prior import Hints, Prior
from prewarm.selection.members import Guests
from prewarm.selection.selector import CORE, Selector
from prewarm.series import Floats, Panel
from tests.prewarm.said import HOLE, HOUR_US, setting
from tests.prewarm.selection.hearing import heard, selector

HOURLY = setting(streams=2, horizons=(1, 4), width_us=HOUR_US)
Q50, Q90 = LEVELS.index(0.5), LEVELS.index(0.9)
BINS = 240
FIRST, LAST = 200, 210
"""The event takes these bins, the last one left out."""


def counts(seed: int, level: float = 20.0, bins: int = BINS) -> Floats:
    """Two streams, without any rhyme."""
    found: Floats = np.random.default_rng(seed).poisson(level, (bins, 2)).astype(float)
    return found


# Announced events


def sale(uplift: float) -> Uplift:
    """Of the first stream alone."""
    event = DemandEvent(
        name="sale",
        models=("s0",),
        start_us=FIRST * HOUR_US,
        end_us=LAST * HOUR_US,
        uplift=uplift,
    )
    return Uplift(HOURLY.calendar, HOURLY.streams, [event])


def threefold() -> Floats:
    values = counts(1)
    values[FIRST:LAST, 0] = np.random.default_rng(2).poisson(60, LAST - FIRST)
    return values


def test_a_forecast_is_raised_within_the_event_and_not_after_it() -> None:
    said = heard(selector(HOURLY, uplift=sale(3.0)), threefold())
    for place, ahead in enumerate(HOURLY.horizons):
        medians = said[:, 0, place, Q50]
        within, after = medians[FIRST - ahead : LAST - ahead], medians[LAST - ahead : LAST]
        assert ((within > 40) & (within < 80)).all(), "from the first of its bins on"
        assert ((after > 10) & (after < 30)).all(), "and said before the event was over"
        other = said[FIRST - ahead : LAST, 1, place, Q50]
        assert ((other > 10) & (other < 30)).all()


def test_members_never_see_what_an_event_raised() -> None:
    """It is divided out of what they hear, by what was announced or learnt since."""
    values = threefold()
    one = selector(HOURLY, uplift=sale(3.0))
    heard(one, values[:LAST])
    usual = one.members.past.last(LAST - FIRST)
    assert 15 < usual[:, 0].mean() < 25
    assert (usual[:, 1] == values[FIRST:LAST, 1]).all()
    assert one.each[:, 0].max() < 60 <= values[FIRST:LAST, 0].max()
    unaware = selector(HOURLY)
    heard(unaware, values[:LAST])
    assert unaware.each[:, 0].max() > 60


@pytest.mark.parametrize("horizons", [(1, 4), (4, 8)])
def test_what_an_event_truly_did_is_learnt_during_it(horizons: tuple[int, int]) -> None:
    """Announced as a tenfold rush, it turns out to be a threefold one."""
    asked = setting(streams=2, horizons=horizons, width_us=HOUR_US)
    said = heard(selector(asked, uplift=sale(10.0)), threefold())[:, 0, 0, Q50]
    nearest = horizons[0]
    assert said[FIRST - nearest] > 150, "before anyone had seen any of it"
    assert said[LAST - nearest - 1] < 100
    assert 10 < said[LAST] < 30


# New models


def expected(per_bin: float) -> Prior:
    """Of the second stream; nothing is known of the first but its own past."""
    return Prior(HOURLY, Hints(np.array([HOLE, per_bin]), np.full(2, -1)))


def test_a_new_stream_has_quantiles_from_the_first_bin() -> None:
    newcomer = selector(HOURLY, prior=expected(50.0))
    values = counts(3)
    values[:, 1] = HOLE
    said = [newcomer.predict(), *heard(newcomer, values[:60])]
    for bands in said:
        assert np.isfinite(bands).all()
        assert (np.diff(bands, axis=-1) >= 0).all()
        assert (bands[1, :, Q50] < 50).all()
        assert (bands[1, :, Q90] > 50).all()
    assert np.isnan(heard(selector(HOURLY), values[:60])[:, 1]).all(), "but for what was expected"


def test_what_was_expected_gives_way_to_what_is_asked() -> None:
    values = counts(4)
    values[:100, 1] = HOLE
    said = heard(selector(HOURLY, prior=expected(500.0)), values)[:, 1, 0]
    assert said[99, Q90] > 500
    assert said[101, Q50] > said[150, Q50]
    assert 15 < said[-1, Q50] < 25
    assert said[-1, Q90] < 40


# Guests


class Oracle:
    """Knows what will come, and says so, or what it is made to say instead."""

    def __init__(self, values: Floats, instead: Floats | float | Exception | None = None) -> None:
        self._values = values
        self._now = -1
        self._instead = instead

    def fit(self, past: Panel) -> None:  # noqa: ARG002
        raise AssertionError("it is told bin by bin")

    def update(self, values: Floats) -> None:  # noqa: ARG002
        self._now += 1

    def predict(self) -> Floats:
        if isinstance(self._instead, Exception):
            raise self._instead
        shape = (2, len(HOURLY.horizons), len(LEVELS))
        if self._instead is not None:
            return np.broadcast_to(self._instead, shape).astype(float)
        ahead = np.minimum(self._now + np.array(HOURLY.horizons), len(self._values) - 1)
        return np.repeat(self._values[ahead].T[..., None], len(LEVELS), axis=-1)


def with_guest(values: Floats, instead: Floats | float | Exception | None = None) -> Selector:
    guest = Guarded("oracle", Oracle(values, instead), HOURLY)
    one = selector(HOURLY, guests=Guests(whole={"oracle": guest}))
    heard(one, values)
    return one


def test_a_guest_that_knows_better_is_listened_to() -> None:
    values = counts(5)
    one = with_guest(values[: BINS - 4])
    board = one.standings()
    assert (one.weights[one.names.index("oracle")] > 0.9).all()
    assert (board["oracle"].share > 0.9).all()
    assert (board["oracle"].cost < 0.1).all()
    assert board["oracle"].beats_last_value.all()
    oracle = one.each[one.names.index("oracle")]
    assert one.predict()[..., Q50] == pytest.approx(oracle[..., Q50], rel=0.1)


@pytest.mark.parametrize(
    "instead",
    [HOLE, 1e300, 1e17, -5.0, np.inf, ValueError("no idea"), np.arange(14.0)[::-1]],
    ids=["nothing", "1e300", "1e17", "negative", "infinite", "an exception", "crossing"],
)
def test_a_guest_cannot_poison_the_blend(instead: Floats | float | Exception) -> None:
    values = counts(6)
    one, alone = with_guest(values, instead), selector(HOURLY)
    heard(alone, values)
    # Where it says nothing it counts as the last value: a member whom it may cost a little to hear.
    assert one.predict() == pytest.approx(alone.predict(), rel=0.05)
    assert (one.weights[one.names.index("oracle")] < 0.01).all()
    assert np.isfinite(one.standings()["oracle"].loss).all()


def test_a_guest_may_come_to_its_senses() -> None:
    values = counts(7, bins=600)
    oracle = Oracle(values, 1e300)
    one = selector(HOURLY, guests=Guests(whole={"oracle": Guarded("oracle", oracle, HOURLY)}))
    heard(one, values[:100])
    oracle._instead = None
    heard(one, values[100:500])
    assert (one.weights[one.names.index("oracle")] > 0.9).all()


# The scoreboard


def test_everyone_stands_on_the_scoreboard() -> None:
    one = selector(HOURLY)
    heard(one, counts(8))
    board = one.standings()
    assert set(board) == {*one.names, "blend"}
    assert set(CORE) < set(board)
    assert sum(board[name].share for name in one.names) == pytest.approx(np.ones((2, 2)))
    last, ours = board["last_value"], board["blend"]
    assert last.loss == pytest.approx(np.ones((2, 2)))
    assert last.cost == pytest.approx(np.ones((2, 2, 3)))
    # Of what has no rhyme the last value is a poor forecast, and all the last days are a good one.
    assert (board["recent"].loss < 0.9).all()
    assert (board["recent"].share > last.share).all()
    assert (ours.cost < 0.95).all()
    assert ours.beats_last_value.all()
    assert one.acts.all()


def test_of_a_stream_that_only_repeats_itself_nobody_beats_the_last_value() -> None:
    """A walk: the best guess of where it will be is where it is."""
    steps = np.random.default_rng(9).normal(0, 10, (BINS, 2))
    one = selector(HOURLY)
    heard(one, np.maximum(1000 + np.cumsum(steps, axis=0), 0).round())
    board = one.standings()
    assert (board["week_mean"].loss > 1).all()
    assert not board["week_mean"].beats_last_value.any()
    assert (board["week_mean"].share < 0.05).all()


def test_a_shift_of_level_widens_the_bands_for_a_while() -> None:
    values = counts(10)
    values[200:] = np.random.default_rng(11).poisson(200, values[200:].shape)
    one = selector(HOURLY)
    heard(one, values[:200])
    calm = one.watch.widening()
    heard(one, values[200:202])
    assert (one.watch.widening() > calm + 0.1).all()
    heard(one, values[202:])
    assert (one.watch.widening() < 1.1).all()
