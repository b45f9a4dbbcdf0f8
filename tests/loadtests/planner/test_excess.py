"""Excess over the oracle: worked out by hand, floors told, nobody paired across places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.study.cells import Cell
from loadtests.study.excess import duels, excess_summary, geometric_mean
from loadtests.study.summary import summary
from tests.loadtests.runs import cell


def trio(mine: float, rival: float, bound: float, **place: object) -> list[Cell]:
    return [
        cell("warmtide", mine, **place),
        cell("warmserve", rival, **place),
        cell("oracle", bound, **place),
    ]


def test_excess_is_what_lies_above_the_oracle_of_the_same_place_and_seed() -> None:
    cells = [*trio(150.0, 300.0, 100.0), *trio(400.0, 900.0, 200.0, seed=1)]
    found = duels(cells, "warmtide", "warmserve")
    assert [duel.mine.excess_ms for duel in found] == [50.0, 200.0]
    assert [duel.rival.excess_ms for duel in found] == [200.0, 700.0]
    # 50 of 200, 200 of 700.
    assert [duel.ratio() for duel in found] == pytest.approx([0.25, 2 / 7])


def test_an_excess_below_the_floor_counts_as_the_floor() -> None:
    [duel] = duels(trio(100.0, 200.0, 100.0), "warmtide", "warmserve")
    assert duel.ratio() == 1 / 100
    assert duel.ratio(10.0) == 10 / 100


def test_a_rival_at_the_bound_leaves_nothing_to_gain() -> None:
    near, far = duels(
        [*trio(108.0, 150.0, 100.0), *trio(111.0, 150.0, 100.0, seed=1)], "warmtide", "warmserve"
    )
    # The rival's excess is 50 ms, not above; 8 ms of one's own are near, 11 are not.
    assert (near.apart, near.near) == (False, True)
    assert (far.apart, far.near) == (False, False)


def test_the_summary_parts_what_is_apart_from_what_is_near() -> None:
    cells = [
        *trio(110.0, 140.0, 100.0),
        *trio(120.0, 149.0, 100.0, seed=1),
        *trio(120.0, 180.0, 100.0, seed=2),
        *trio(400.0, 200.0, 100.0, seed=3),
    ]
    # Apart are seeds 2 and 3: 20 of 80 is a quarter, 300 of 100 three times.
    assert excess_summary(duels(cells, "warmtide", "warmserve")) == {
        "compared": 4,
        "apart": 2,
        "geometric_mean": pytest.approx((0.25 * 3) ** 0.5),
        "median": pytest.approx(1.625),
        "worst": pytest.approx(3.0),
        "elsewhere_near_the_bound": 1,
        "elsewhere": 2,
    }
    told = summary(cells)["W"]["policies"]
    assert told["warmtide"]["excess_ratio_to_warmserve"]["apart"] == 2
    assert told["warmserve"]["excess_ratio_to_warmserve"]["worst"] == 1.0


def test_where_nothing_can_be_compared_nothing_is_said() -> None:
    assert excess_summary(duels([cell("warmtide", 1.0)], "warmtide", "warmserve")) is None
    without_bound = [cell("warmtide", 1.0), cell("warmserve", 2.0)]
    assert duels(without_bound, "warmtide", "warmserve") == []


def test_worlds_meet_by_place_and_seed_each_over_its_own_bound() -> None:
    stock = [cell("warmtide", 500.0, world="S"), cell("oracle", 400.0, world="S")]
    theirs = [cell("warmserve", 300.0), cell("oracle", 250.0), cell("warmserve", 1.0, seed=7)]
    [duel] = duels(stock, "warmtide", "warmserve", beside=theirs)
    # 100 ms over the bound of S, 50 over that of W.
    assert duel.ratio() == 2.0
    assert duel.p99_ratio == pytest.approx(5 / 3)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), st.floats(0.1, 10.0))
def test_a_geometric_mean_lies_within_and_scales(values: list[float], times: float) -> None:
    mean = geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert geometric_mean([times * value for value in values]) == pytest.approx(times * mean)
