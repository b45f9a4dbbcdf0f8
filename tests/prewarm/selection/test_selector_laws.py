"""What holds of the selector whatever it is shown: it cannot peek, streams do not meet, bounds."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prewarm.forecast import Setting
from prewarm.selection.members import Members
from prewarm.selection.selector import FIT_STEP
from prewarm.series import Floats
from tests.prewarm.said import HOLE, panel, setting
from tests.prewarm.selection.hearing import cells, heard, selector

HORIZONS = (1, 2, 5)
BINS = 30
"""Of a quarter of a day: a week and a bit."""


def demand(streams: int) -> st.SearchStrategy[Floats]:
    """A day that repeats, with cells that do not."""
    return st.tuples(
        arrays(np.float64, (4, streams), elements=cells),
        arrays(np.float64, (BINS, streams), elements=cells),
        arrays(np.bool_, (BINS, streams), elements=st.booleans()),
    ).map(lambda drawn: np.where(drawn[2], drawn[1], np.resize(drawn[0], (BINS, streams))))


def told(streams: int, *, whole: bool = True) -> Setting:
    plain = setting(streams=streams, horizons=HORIZONS)
    return Setting(calendar=plain.calendar, streams=plain.streams, horizons=HORIZONS, whole=whole)


@settings(max_examples=20, deadline=None)
@given(values=demand(2), others=demand(2), first=st.integers(1, BINS - 1))
def test_what_comes_later_changes_nothing_that_was_said(
    values: Floats, others: Floats, first: int
) -> None:
    other = np.concatenate([values[:first], others[first:]])
    one, two = selector(told(2)), selector(told(2))
    said, said_too = heard(one, values[:first]), heard(two, other)[:first]
    assert np.array_equal(said, said_too, equal_nan=True)
    # Nor does it keep an eye on the arrays that it was handed.
    one_more, fresh = selector(told(2)), values.copy()
    again = []
    for at in range(first):
        again.append(heard(one_more, fresh[at : at + 1])[0])
        fresh[at] = 77.0
    assert np.array_equal(said, np.array(again).reshape(said.shape), equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(values=demand(2))
def test_forecasts_are_sound_and_there_from_the_first_value_on(values: Floats) -> None:
    said = heard(selector(told(2)), values)
    seen = np.logical_or.accumulate(~np.isnan(values), axis=0)
    known = ~np.isnan(said)
    assert np.array_equal(known, np.broadcast_to(seen[:, :, None, None], known.shape))
    assert np.all(~known | ((said >= 0) & (said < np.inf)))
    assert np.all(~known[..., 1:] | (np.diff(said, axis=-1) >= 0))


@settings(max_examples=15, deadline=None)
@given(values=demand(2), first=st.integers(0, BINS))
def test_a_past_fitted_and_a_past_lived_through_are_one(values: Floats, first: int) -> None:
    """While it fits it forecasts only now and then, so that is when the other one is asked too."""
    fitted, lived = selector(told(2)), selector(told(2))
    fitted.fit(panel(values[:first], told(2)))
    for at, value in enumerate(values[:first]):
        lived.update(value)
        if at % FIT_STEP == 0:
            lived.predict(FIT_STEP)
    assert np.array_equal(
        heard(fitted, values[first:]), heard(lived, values[first:]), equal_nan=True
    )
    assert np.array_equal(fitted.weights, lived.weights)
    assert np.array_equal(fitted.acts, lived.acts)


def three_streams(seed: int) -> Floats:
    """Of other sizes and habits, with holes; none is a count, and none is ever 0."""
    rng = np.random.default_rng(seed)
    at = np.arange(160)[:, None]
    shape = np.exp(np.sin(at * np.pi / 2) * [1.0, 0.2, 0.0])
    values: Floats = shape * rng.gamma([9.0, 2.0, 0.5], [5.0, 300.0, 1.0], (160, 3))
    values[rng.random(values.shape) < 0.1] = HOLE
    values[70:90, 1] = HOLE
    return values


@pytest.mark.parametrize("seed", [1, 2])
def test_members_forecast_each_stream_as_if_it_were_alone(seed: int) -> None:
    """The members: a step of the correction is shared by all streams, and meant to be."""
    values = three_streams(seed)
    together = said_by_members(values, told(3))
    for stream in range(3):
        alone = said_by_members(values[:, [stream]], told(1))
        assert together[:, :, [stream]] == pytest.approx(alone, rel=1e-6, nan_ok=True)


def said_by_members(values: Floats, asked: Setting) -> Floats:
    """Shape T x E x S x H x L."""
    members, said = Members(asked), []
    for value in values:
        members.update(value)
        said.append(members.quantiles())
    return np.array(said)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1)])
def test_the_order_of_streams_does_not_matter(order: tuple[int, ...]) -> None:
    """Of what is no count and never 0: no draws are needed for it, and draws go by place."""
    values, places = three_streams(3), list(order)
    said = heard(selector(told(3, whole=False)), values)
    otherwise = heard(selector(told(3, whole=False)), values[:, places])
    assert otherwise == pytest.approx(said[:, places], rel=1e-6, nan_ok=True)


def test_the_correction_alone_is_shared() -> None:
    """Two calm streams, next to a third that is calm or wild: the same members, other bands."""
    rng = np.random.default_rng(1)
    values = rng.poisson(20, (200, 3)).astype(float)
    wild = values.copy()
    wild[100:, 2] = np.exp(rng.normal(3, 2, 100)).round()
    one, two = selector(told(3)), selector(told(3))
    said, beside_a_wild_one = heard(one, values), heard(two, wild)
    assert np.array_equal(one.each[:, :2], two.each[:, :2])
    assert np.array_equal(one.weights[:, :2], two.weights[:, :2])
    assert np.array_equal(said[:100], beside_a_wild_one[:100])
    off = np.abs(beside_a_wild_one[-1, :2] / said[-1, :2] - 1)
    assert 0 < off.max() < 0.5


def test_asked_twice_it_says_the_same_and_learns_nothing_from_being_asked() -> None:
    values = np.random.default_rng(2).poisson(9, (120, 2)).astype(float)
    once, twice = selector(told(2)), selector(told(2))
    for value in values:
        once.update(value)
        twice.update(value)
        first = once.predict()
        assert np.array_equal(first, twice.predict())
        assert np.array_equal(first, twice.predict())
    assert np.array_equal(once.acts, twice.acts)


# What people and broken counters hand in

STORIES: dict[str, Callable[[], list[float]]] = {
    "nothing but holes": lambda: [HOLE] * 60,
    "a constant": lambda: [5.0] * 60,
    "a lone point": lambda: [*[HOLE] * 10, 5.0, *[HOLE] * 60],
    "sixty days of zeros": lambda: [0.0] * 240,
    "huge ones": lambda: (np.random.default_rng(3).poisson(9, 60) * 1e14).tolist(),
    "a huge one": lambda: [*[5.0] * 40, 1e15, *[5.0] * 40],
    "all of a sudden a world of them": lambda: [*[0.0] * 40, *[1e15] * 40, *[0.0] * 40],
    "negative ones": lambda: [5.0, -3.0, -1e300] * 20,
    "no numbers at all": lambda: [5.0, HOLE, np.inf, -np.inf] * 15,
    "beyond reason": lambda: [5.0, 1e16, 1e300] * 20,
    "next to nothing": lambda: [1e-300, 5e-324, 1e-9] * 20,
    "a hole of weeks": lambda: [*[5.0] * 30, *[HOLE] * 100, *[5.0] * 10],
}


@pytest.mark.parametrize("story", STORIES)
def test_whatever_is_handed_in_the_answer_is_a_sound_one(story: str) -> None:
    values = STORIES[story]()
    # Beside it a stream of good manners, which must not notice.
    well = np.random.default_rng(4).poisson(20, len(values)).astype(float)
    said = heard(selector(told(2)), np.column_stack([values, well]))
    possible = [0 <= value <= 1e15 for value in values]
    first = possible.index(True) if any(possible) else len(values)
    assert np.isnan(said[:first, 0]).all()
    assert np.all((said[first:, 0] >= 0) & (said[first:, 0] < np.inf))
    assert np.all((said[:, 1] >= 0) & (said[:, 1] < 200))


@pytest.mark.parametrize("level", [0.0, 5.0, 1e9])
def test_what_never_changes_is_forecast_to_stay(level: float) -> None:
    one = selector(told(1))
    said = heard(one, np.full((240, 1), level))
    assert said[-1] == pytest.approx(np.full(said.shape[1:], level), rel=1e-5, abs=1e-6)
    assert one.acts.all(), "to be right is not to be dearer than the last value"


def test_impossible_values_are_holes() -> None:
    values = np.random.default_rng(5).poisson(20, (100, 1)).astype(float)
    holes, nonsense = values.copy(), values.copy()
    holes[::9] = HOLE
    nonsense[::9] = np.resize([-1.0, np.inf, 1e16, -np.inf, 1e300], (len(values[::9]), 1))
    said, said_too = heard(selector(told(1)), holes), heard(selector(told(1)), nonsense)
    assert np.array_equal(said, said_too, equal_nan=True)


def test_without_a_bin_or_a_stream_there_is_an_answer_of_the_right_shape() -> None:
    assert np.isnan(selector(told(2)).predict()).all()
    assert heard(selector(told(0)), np.zeros((9, 0))).shape == (9, 0, 3, 14)
