"""The highest rate: halves over a ladder find the rung at which it turns."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtests.study.planner.search import Search, ladder, within
from tests.loadtests.runs import cell


def searched(rates: tuple[float, ...], bound: float) -> tuple[Search, int]:
    search, asked = Search.over(rates), 0
    while (rate := search.asks) is not None:
        search, asked = search.told(rate, passed=rate <= bound), asked + 1
    return search, asked


def test_the_ladder_rises_by_about_a_twentieth() -> None:
    rates = ladder()
    assert (rates[0], rates[1]) == (1.0, 1.05)
    assert 114 < rates[-1] <= 120
    assert all(1.04 <= high / low <= 1.06 for low, high in pairwise(rates))


@given(st.floats(0.1, 200.0))
def test_it_finds_the_highest_rate_that_passes(bound: float) -> None:
    rates = ladder()
    search, asked = searched(rates, bound)
    assert search.highest == max((rate for rate in rates if rate <= bound), default=None)
    assert search.at_the_top == (rates[-1] <= bound)
    # 98 rungs and what lies below them: seven halves.
    assert asked <= 7


def test_of_three_seeds_the_middle_decides_and_a_refusal_is_a_long_wait() -> None:
    served = [cell("warmtide", ms, seed=seed) for seed, ms in enumerate((100.0, 400.0))]
    assert within([*served, cell("warmtide", 999_000.0, seed=2)], 500.0)
    assert not within([*served, cell("warmtide", 999_000.0, seed=2)], 399.0)
    assert not within([], 500.0)
