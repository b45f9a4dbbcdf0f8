"""Who may act: costs worked out by hand, the day's trial, losing the right and getting it back."""

from collections.abc import Sequence

import numpy as np
import pytest

from prewarm.scoring import newsvendor
from prewarm.selection.gate import Gate
from prewarm.series import Floats
from tests.prewarm.said import HOLE, HOUR_US, setting

LEVELS = (0.5, 0.9, 0.99)
DAY = 24
PRICE = 8.0
"""A quarter of it is 2, four times it is 32."""
LATE = 0.5 ** (1 / (3 * DAY))
"""What an hour leaves of a cost: half in three days."""


class Tried:
    """The gate at one stream, an hour ahead; forecasters are named by their quantiles."""

    def __init__(self, price: float = PRICE) -> None:
        told = setting(width_us=HOUR_US, levels=LEVELS)
        self.gate = Gate(2, told, price)
        self._now = 0

    def hour(self, value: float, last: Floats | float, ours: Floats | float) -> bool:
        """Both forecast, then the value comes. Out: whether ours may act from then on."""
        told = np.zeros((2, 1, 1, len(LEVELS)))
        told[0], told[1] = last, ours
        self.gate.tell(self._now, told)
        self._now += 1
        self.gate.learn(self._now, np.array([value]))
        return bool(self.gate.acts[0, 0])

    def hours(self, values: Sequence[float], last: float, ours: float) -> list[bool]:
        return [self.hour(value, last, ours) for value in values]

    def costs(self, place: int) -> list[float]:
        found: list[float] = self.gate.costs[place, 0, 0].tolist()
        return found


def test_a_price_is_a_quantile() -> None:
    assert [newsvendor(price) for price in (1.0, 3.0, 9.0)] == [0.5, 0.75, 0.9]


def test_costs_by_hand() -> None:
    """Quantiles 10, 14 and 15 at levels 0.5, 0.9 and 0.99; the last value says 10 at all of them.

    The prices 2, 8 and 32 buy the quantiles 2/3, 8/9 and 32/33:
      10 + 4 (2/3 - 0.5) / 0.4 = 11.6667,  10 + 4 (8/9 - 0.5) / 0.4 = 13.8889,
      14 + 1 (32/33 - 0.9) / 0.09 = 14.7744.
    Twelve are asked. Of the last value's 10 two are short: 2 * 2, 8 * 2, 32 * 2. Of ours a third is
    short at the lowest price, 2 * 0.3333, and 1.8889 and 2.7744 are idle at the others.
    """
    tried = Tried()
    tried.hour(12.0, last=10.0, ours=np.array([10.0, 14.0, 15.0]))
    assert tried.costs(0) == pytest.approx([4.0, 16.0, 64.0])
    assert tried.costs(1) == pytest.approx([2 / 3, 17 / 9, 2.774411], rel=1e-6)
    # Then nine are asked: one of the last value's is idle, and 2.6667, 4.8889, 5.7744 of ours.
    tried.hour(9.0, last=10.0, ours=np.array([10.0, 14.0, 15.0]))
    assert tried.costs(0) == pytest.approx([4 * LATE + 1, 16 * LATE + 1, 64 * LATE + 1])
    assert tried.costs(1) == pytest.approx(
        [2 / 3 * LATE + 8 / 3, 17 / 9 * LATE + 44 / 9, 2.774411 * LATE + 5.774411], rel=1e-6
    )


def test_nobody_acts_before_a_day_was_tried() -> None:
    acted = Tried().hours([20.0] * (DAY + 2), last=10.0, ours=20.0)
    assert acted == [False] * (DAY - 1) + [True] * 3


def test_a_hole_is_no_trial_and_costs_nothing() -> None:
    tried = Tried()
    tried.hours([20.0] * (DAY - 1), last=10.0, ours=20.0)
    before = tried.costs(0)
    assert tried.hours([HOLE] * 10, last=10.0, ours=20.0) == [False] * 10
    assert tried.costs(0) == pytest.approx([cost * LATE**10 for cost in before])
    assert tried.hour(20.0, last=10.0, ours=20.0)


def test_where_there_was_no_last_value_nobody_was_tried() -> None:
    tried = Tried()
    assert not any(tried.hours([20.0] * (2 * DAY), last=HOLE, ours=HOLE))
    assert tried.costs(0) == tried.costs(1) == [0.0] * 3
    assert tried.hours([20.0] * DAY, last=10.0, ours=20.0)[-1]


def test_cheaper_at_one_price_alone_is_not_enough() -> None:
    """Fifty are asked every third hour. The last value says 0 in vain; we hold all fifty always.

    Its cost of three hours is 50 times the price; ours is 100: dearer where the price is 2 / 4.
    """
    values = [50.0, 0.0, 0.0] * DAY
    assert Tried(price=4.0).hours(values, last=0.0, ours=50.0)[-1] is False
    assert Tried(price=16.0).hours(values, last=0.0, ours=50.0)[-1] is True


def test_the_last_value_is_neither_better_nor_worse_than_itself() -> None:
    tried, rng = Tried(), np.random.default_rng(1)
    acted = [tried.hour(value, 10.0, 10.0) for value in rng.poisson(10, 5 * DAY).astype(float)]
    assert tried.costs(0) == tried.costs(1)
    assert tried.gate.beats_last_value().all()
    assert acted == [False] * (DAY - 1) + [True] * (4 * DAY + 1)


def test_what_is_but_rounded_is_not_dearer() -> None:
    assert Tried().hours([10.0] * DAY, last=10.0, ours=float(np.float32(10.0) + np.float32(1e-6)))[
        -1
    ]
    assert not Tried().hours([10.0] * DAY, last=10.0, ours=10.01)[-1]


def test_it_takes_less_to_keep_the_right_than_to_get_it() -> None:
    """Twenty are asked and the last value is ten short. We say 9.9 and are a hundredth dearer."""
    values = [20.0] * (20 * DAY)
    assert not any(Tried().hours(values, last=10.0, ours=9.9))
    acting = Tried()
    acting.hours(values[:DAY], last=10.0, ours=10.0)
    assert all(acting.hours(values, last=10.0, ours=9.9))
    # At 9.7 we are three hundredths dearer. From 1.01 towards 1.03: 1.02 after one half-life.
    acted = acting.hours(values, last=10.0, ours=9.7)
    assert 2 * DAY < acted.index(False) < 4 * DAY
    assert not any(acted[acted.index(False) :])


def test_who_is_dearer_for_long_loses_the_right_and_gets_it_back() -> None:
    tried, rng = Tried(), np.random.default_rng(2)

    def days(count: int, ours: Floats | float) -> list[bool]:
        """Demand that nobody foretells; the last value is what it was an hour ago."""
        values = rng.poisson(100, count * DAY + 1).astype(float)
        pairs = zip(values[1:], values[:-1], strict=True)
        return [tried.hour(value, before, ours) for value, before in pairs]

    right = np.array([100.0, 113.0, 124.0])  # of Poisson(100): the quantiles 0.5, 0.9 and 0.99
    assert all(days(5, right)[DAY - 1 :])
    lost = days(5, 3 * right)
    assert lost[-1] is False
    assert lost.index(False) < DAY
    back = days(20, right)
    assert back[DAY] is False, "a day is not enough to be forgiven"
    assert back[-1] is True
    assert back == sorted(back), "once, and for good"


def test_streams_and_horizons_are_judged_each_by_its_own() -> None:
    told = setting(streams=2, horizons=(1, 3), width_us=HOUR_US, levels=LEVELS)
    gate = Gate(2, told, PRICE)
    good, bad = 20.0, 45.0
    for now in range(40):
        gate.learn(now, np.array([20.0, 20.0]))
        told_now = np.full((2, 2, 2, len(LEVELS)), 10.0)
        told_now[1] = np.array([[good, bad], [bad, good]])[..., None]
        gate.tell(now, told_now)
    assert gate.acts.tolist() == [[True, False], [False, True]]
