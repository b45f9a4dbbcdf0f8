"""The blend of members by what they lost lately: who wins, who fades, who is let in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prewarm.selection.blend import BETTER, Blend
from prewarm.series import Bools, Floats
from tests.prewarm.said import HOLE, HOUR_US, setting

LEVELS = (0.1, 0.5, 0.9)
MEDIAN = 1
DAY = 24
GUEST = float("nan")
"""In place of a share."""


class Table:
    """Members that each say one number, or one for each level, an hour ahead of one stream."""

    def __init__(self, *shares: float) -> None:
        told = setting(width_us=HOUR_US, levels=LEVELS)
        self.blend = Blend(np.array(shares), told)
        self._members = len(shares)
        self._now = 0

    def hour(self, value: float, *said: float | list[float]) -> Floats:
        """Out: what the blend said of this hour."""
        told = np.empty((self._members, 1, 1, len(LEVELS)))
        for at, quantiles in enumerate(said):
            told[at] = quantiles
        mixed: Floats = self.blend.mix(self._now, told)[0, 0]
        self._now += 1
        self.blend.learn(self._now, np.array([value]), np.ones(1))
        return mixed

    def hours(self, count: int, value: float, *said: float | list[float]) -> None:
        for _ in range(count):
            self.hour(value, *said)

    def weights(self, *said: float | list[float]) -> Floats:
        """Of what is said now. E x L."""
        self.hour(HOLE, *said)
        found: Floats = self.blend.weights[:, 0, 0]
        return found

    @property
    def joined(self) -> list[bool]:
        members: Bools = self.blend.members[:, 0, 0]
        return members.tolist()  # type: ignore[no-any-return]


def test_before_anything_tells_them_apart_their_shares_do() -> None:
    table = Table(3.0, 1.0)
    assert table.weights(8.0, 16.0) == pytest.approx(np.array([[0.75] * 3, [0.25] * 3]))
    assert table.hour(HOLE, 8.0, 16.0) == pytest.approx([10.0] * 3), "3/4 of 8 and 1/4 of 16"


def test_the_best_of_them_wins_within_a_day() -> None:
    table = Table(1.0, 1.0, 1.0)
    table.hours(DAY, 10.0, 10.0, 14.0, 20.0)
    assert (table.weights(10.0, 14.0, 20.0)[0] > 0.99).all()
    assert table.hour(10.0, 10.0, 14.0, 20.0) == pytest.approx([10.0] * 3, abs=0.01)


def test_who_turned_bad_is_left_after_a_day() -> None:
    """A day after the turn half of the old loss is forgotten, and as much of the new one is there.

    While 10 are asked the second loses all; then 14 are asked, and the first loses as much an hour.
    With a half-life of one day their losses are even after a day of a long past. So it is at the
    median; at other levels it costs more to be off to one side than to the other.
    """
    table = Table(1.0, 1.0)
    table.hours(20 * DAY, 10.0, 10.0, 14.0)
    table.hours(18, 14.0, 10.0, 14.0)
    assert table.weights(10.0, 14.0)[0, MEDIAN] > 0.9
    table.hours(12, 14.0, 10.0, 14.0)
    assert table.weights(10.0, 14.0)[0, MEDIAN] < 0.1


def test_of_far_horizons_it_takes_longer_to_learn() -> None:
    """Half of a loss is forgotten in twelve horizons, where that is more than a day."""
    far = Blend(np.ones(1), setting(width_us=HOUR_US, horizons=(1, 4), levels=LEVELS))
    far.losses[:] = 1.0
    for now in range(2 * DAY):
        far.learn(now, np.array([HOLE]), np.ones(1))
    assert far.losses[0, 0, 0] == pytest.approx([0.25] * 3), "two half-lives of a day"
    assert far.losses[0, 0, 1] == pytest.approx([0.5] * 3), "one of 48 hours"


def test_each_level_has_its_own_best() -> None:
    """Three quarters of the hours are quiet. One knows the usual, the other how high it can be."""
    table = Table(1.0, 1.0)
    usual, bursts = [0.0, 0.0, 0.0], [12.0, 12.0, 40.0]
    for at in range(4 * DAY):
        table.hour(40.0 if at % 4 == 0 else 0.0, usual, bursts)
    weights = table.weights(usual, bursts)
    assert weights[0, 0] > 0.9
    assert weights[1, 2] > 0.9


def test_a_hole_tells_nobody_apart() -> None:
    table = Table(1.0, 1.0)
    table.hours(DAY, 10.0, 10.0, 10.5)
    before = table.blend.losses.copy()
    table.hour(HOLE, 10.0, 99.0)
    assert table.blend.losses == pytest.approx(before * 0.5 ** (1 / DAY))


def test_a_stream_that_nothing_was_said_of_starts_as_if_new() -> None:
    table = Table(3.0, 1.0)
    table.hours(5, 10.0, HOLE, HOLE)
    assert table.weights(8.0, 16.0) == pytest.approx(np.array([[0.75] * 3, [0.25] * 3]))


# Guests


def test_a_guest_is_let_in_where_it_is_better_by_a_tenth() -> None:
    """The core is off by 2. Of that one guest saves three quarters of a tenth, the other one and a
    half."""
    near = 12.0 - 2 * (1 - BETTER) * 0.75
    far = 12.0 - 2 * (1 - BETTER) * 1.5
    table = Table(1.0, GUEST, GUEST)
    table.hours(3 * DAY, 10.0, 12.0, near, far)
    assert table.joined == [True, False, True]
    weights = table.weights(12.0, near, far)
    assert (weights[1] == 0).all()
    assert (weights[2] > 0.9).all()


def test_a_guest_that_is_no_better_weighs_nothing() -> None:
    table = Table(1.0, 1.0, GUEST)
    table.hours(3 * DAY, 10.0, 10.0, 12.0, 11.0)
    assert table.joined == [True, True, False]
    assert table.hour(10.0, 10.0, 12.0, 11.0) == pytest.approx([10.0] * 3, abs=0.01)


def test_a_guest_that_turned_bad_loses_its_weight_in_a_day_and_its_seat_in_days() -> None:
    table = Table(1.0, GUEST)
    table.hours(5 * DAY, 10.0, 12.0, 10.0)
    assert table.joined == [True, True]
    table.hours(2 * DAY, 12.0, 12.0, 10.0)
    assert table.weights(12.0, 10.0)[1, MEDIAN] < 0.1
    table.hours(8 * DAY, 12.0, 12.0, 10.0)
    assert table.joined == [True, False]
    table.hours(20 * DAY, 10.0, 12.0, 10.0)
    assert table.joined == [True, True], "and it may come again"


def test_the_core_is_never_let_out() -> None:
    table = Table(1.0, GUEST)
    table.hours(10 * DAY, 10.0, 99.0, 10.0)
    assert table.joined == [True, True]
    assert table.hour(10.0, 99.0, 10.0) == pytest.approx([10.0] * 3, abs=0.1)


# Laws

amounts = st.one_of(st.just(0.0), st.floats(0, 100), st.floats(0, 1e15))
values_of = st.one_of(st.just(HOLE), amounts)


@given(st.data())
def test_weights_are_shares_and_the_blend_lies_among_its_members_in_order(
    data: st.DataObject,
) -> None:
    members, bins = data.draw(st.integers(1, 4)), 10
    guests = data.draw(st.integers(0, 3))
    table = Table(*[1.0] * members, *[GUEST] * guests)
    said = data.draw(arrays(np.float64, (bins, members + guests, len(LEVELS)), elements=amounts))
    values = data.draw(st.lists(values_of, min_size=bins, max_size=bins))
    for value, quantiles in zip(values, np.sort(said, axis=-1), strict=True):
        mixed = table.hour(value, *quantiles.tolist())
        weights = table.blend.weights[:, 0, 0]
        assert weights.sum(axis=0) == pytest.approx(np.ones(len(LEVELS)))
        assert ((weights >= 0) & (weights <= 1)).all()
        assert (np.diff(mixed) >= 0).all()
        assert mixed.min() >= quantiles.min() * (1 - 1e-9) - 1e-300
        assert mixed.max() <= quantiles.max() * (1 + 1e-9)
