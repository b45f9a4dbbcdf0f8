"""Which cells are run: one, a handful, the grid, or what the command narrowed it to."""

import pytest

from loadtests.errors import AskedError
from loadtests.scenarios.files import load_scenario
from loadtests.scenarios.shape import CellEntry
from loadtests.study.grid import Narrowed, cells, one_cell, resized
from prewarm.traces.records import DAY_US, HOUR_US

WARMSERVE16 = load_scenario("warmserve16").file
MANY = load_scenario("many-models").file


def test_the_grid_is_every_value_with_every_other() -> None:
    found = cells(WARMSERVE16, Narrowed(), quick=False)
    assert len(found) == len(set(found)) == 5 * 3 * 4 * 2


def test_a_handful_is_what_the_scenario_says() -> None:
    assert cells(WARMSERVE16, Narrowed(), quick=True) == WARMSERVE16.quick
    assert cells(MANY, Narrowed(), quick=True) == [CellEntry()]


def test_one_cell_is_the_default_with_what_was_asked_instead() -> None:
    assert one_cell(WARMSERVE16, Narrowed()) == WARMSERVE16.cell
    asked = one_cell(WARMSERVE16, Narrowed(rps=(25.0,), cv=(4.0,)))
    assert (asked.rps, asked.cv, asked.alpha, asked.hour) == (25.0, 4.0, 0.5, "busiest")


def test_a_grid_can_be_narrowed_to_some_values() -> None:
    found = cells(WARMSERVE16, Narrowed(rps=(5.0, 7.5), hour=("quietest",)), quick=False)
    assert len(found) == 2 * 3 * 4
    assert {cell.rps for cell in found} == {5.0, 7.5}


def test_what_a_scenario_does_not_vary_cannot_be_asked() -> None:
    with pytest.raises(AskedError, match="--rps: this scenario does not say its rps; it varies no"):
        cells(MANY, Narrowed(rps=(5.0,)), quick=False)


def test_a_size_changes_nodes_rate_and_length() -> None:
    steady = load_scenario("steady").file
    full = resized(steady, "full", None)
    assert (full.nodes[0].count, full.cell.rps, full.slice.duration) == (25, 231.5, DAY_US)
    assert resized(full, None, HOUR_US).slice.duration == HOUR_US
    with pytest.raises(AskedError, match="--size vast: the scenario has full"):
        resized(steady, "vast", None)


def test_quick_takes_the_quick_size_where_there_is_one() -> None:
    assert resized(MANY, None, None, quick=True).slice.duration == HOUR_US
    assert resized(WARMSERVE16, None, None, quick=True) == WARMSERVE16
