"""What a residency plan is worth: against the slow way, against the best, and its bound."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.catalog import Catalog
from placement.planning.paths import DemandPaths
from placement.planning.residency import plan_residency
from placement.planning.turns import GpuTurns, Part
from tests.planning.residencies import best, cases, facts, placed, worth

CLOSE = 1e-6
CELLS = 4


@st.composite
def parts(draw: st.DrawFn, count: int) -> list[Part]:
    """Engines on one GPU of 10 bytes, with bytes and savings that collide often."""
    found = []
    for i in range(count):
        cells = sorted(draw(st.sets(st.integers(0, CELLS - 1), min_size=1)))
        per_byte = draw(
            st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=len(cells), max_size=len(cells))
        )
        size = draw(st.sampled_from([2.0, 5.0, 7.0, 10.0]))
        found.append(
            Part(
                key=("m", i),
                cells=np.array(cells, np.int64),
                per_byte=np.array(per_byte),
                bytes=size,
            )
        )
    return found


def turns(of: list[Part]) -> GpuTurns:
    gpu = GpuTurns(10, CELLS)
    for part in of:
        gpu.put(part)
    return gpu


@given(parts(count=4))
def test_one_more_adds_what_the_values_differ_by_and_its_loss_is_the_same(of: list[Part]) -> None:
    *few, more = of
    added = turns(of).value - turns(few).value
    assert abs(turns(few).more(more) - added) < CLOSE
    assert abs(turns(of).loss(more.key) - added) < CLOSE


@given(parts(count=4))
def test_the_value_of_engines_on_a_gpu_is_monotone_and_submodular(of: list[Part]) -> None:
    first, second, third, more = of
    few, many = turns([first]).more(more), turns([first, second, third]).more(more)
    assert few >= many - CLOSE
    assert many >= -CLOSE


@settings(max_examples=60)
@given(cases())
def test_the_value_is_what_the_slow_way_finds(case: tuple[Catalog, DemandPaths]) -> None:
    whole, paths = case
    plan = plan_residency(facts(whole), paths)
    assert abs(plan.value - worth(whole, paths, placed(whole, plan))) < CLOSE


@settings(max_examples=40)
@given(cases())
def test_no_set_of_single_engines_is_worth_more_than_the_bound(
    case: tuple[Catalog, DemandPaths],
) -> None:
    whole, paths = case
    plan = plan_residency(facts(whole), paths)
    most = best(whole, paths)
    assert plan.value - CLOSE <= most <= plan.bound + CLOSE


@settings(max_examples=15)
@given(cases(models=2, copies=2))
def test_no_set_of_several_engines_each_is_worth_more_than_the_bound(
    case: tuple[Catalog, DemandPaths],
) -> None:
    whole, paths = case
    plan = plan_residency(facts(whole), paths)
    most = best(whole, paths)
    assert plan.value - CLOSE <= most <= plan.bound + CLOSE
