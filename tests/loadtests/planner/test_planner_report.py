"""The planner's report: figures worked out by hand, losses shown, misses called misses."""

from collections.abc import Sequence
from typing import Any

from loadtests.scenarios.shape import CellEntry
from loadtests.study.cells import Cell
from loadtests.study.planner.rates import Highest
from loadtests.study.planner.report import Findings, markdown
from tests.loadtests.planner.test_excess import trio
from tests.loadtests.runs import cell
from tests.loadtests.test_study_report import FACTS, rows

NOTHING: Sequence[Cell] = ()


def written(**found: Any) -> str:
    whole: dict[str, Any] = {
        "subject": "warmtide",
        "grid": NOTHING,
        "stock": NOTHING,
        "rates": (),
        "slo_ms": 500.0,
        "many": NOTHING,
        "floor": NOTHING,
        "floor_gpus": 400,
        "elastic": NOTHING,
        "fixed": {},
        "wrong": NOTHING,
        "ideas": {},
        "brief": {},
        "unseen": {},
        "questions": {},
        "failed": (),
    }
    return markdown(Findings(**(whole | found)), FACTS)


def target(text: str, start: str) -> list[str]:
    """Promised, found, verdict, why."""
    table = text.split("## Targets")[1].split("\n## ")[0]
    line = next(line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [value.strip() for value in line.strip("|").split("|")][1:]


def test_a_target_that_was_not_run_is_not_met() -> None:
    text = written()
    table = text.split("## Targets")[1]
    # A head, a rule, and twenty promises.
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 22
    assert all("| open |" in line for line in lines[2:])


def test_the_geometric_mean_of_excess_decides_and_the_losing_cells_are_listed() -> None:
    grid = [*trio(150.0, 300.0, 100.0, rps=5.0), *trio(900.0, 300.0, 100.0, rps=25.0)]
    text = written(grid=grid)
    # 50 of 200 is a quarter, 800 of 200 four times: one, in the geometric mean.
    promised, found, verdict, why = target(text, "excess ÷ `warmserve`'s where that is above")
    assert (promised, found, verdict) == ("at most 0.3x", "1x", "**missed**")
    assert "3.33 times what was promised" in why
    # 900 of 300 is three times.
    assert target(text, "no cell above 1.05x")[1:3] == ["1 of 2 do not", "**missed**"]
    assert ["25", "–", "–", "–", "0", "0.900", "0.300", "0.100", "3"] in rows(text, "25")
    assert "is above 1.05 times `warmserve`'s in 1 of\n2 pairs" in text


def test_what_refusals_make_of_a_mean_stands_beside_what_is_left_without_them() -> None:
    grid = [*trio(200.0, 600.0, 100.0), *trio(101.0, 999_000.0, 100.0, seed=1)]
    grid[4] = cell("warmserve", 999_000.0, seed=1, served=90, refused=10)
    text = written(grid=grid)
    # 100 of 500 is a fifth; the other is nearly nothing.
    assert rows(text, "both served everybody")[0][1:] == ["1", "1", "0.2", "0.2", "0.2"]
    assert "0.2 where both served everybody" in target(text, "excess")[3]
    assert target(text, "excess")[2] == "met"


def test_elsewhere_the_bound_is_ten_milliseconds_away_or_the_cell_is_listed() -> None:
    grid = [*trio(109.0, 120.0, 100.0), *trio(140.0, 120.0, 100.0, seed=1)]
    text = written(grid=grid)
    assert target(text, "elsewhere, W")[1:3] == ["1 of 2 do not", "**missed**"]
    assert "Elsewhere, 1 of 2 pairs are within 10 ms of" in text
    assert "farthest 40 ms: rps 5, seed 1" in text


def test_a_gain_of_refusals_is_not_the_best_cell() -> None:
    grid = [
        cell("reactive", 6_000.0),
        cell("warmtide", 100.0),
        cell("oracle", 50.0),
        cell("reactive", 999_000.0, rps=25.0, served=50),
        cell("warmtide", 100.0, rps=25.0),
        cell("oracle", 50.0, rps=25.0),
    ]
    text = written(grid=grid)
    # 60 where all were served; 9990 otherwise; the bound itself has 120.
    promised, found, verdict, why = target(text, "best cell over `reactive`")
    assert (promised, found, verdict) == ("at least 50.8x", "60x", "met")
    assert "9.99e+03 with refusals" in why
    assert "bound's own best is 120" in why


def test_costs_are_no_worse_in_the_mean_and_worse_pairs_are_counted() -> None:
    grid = [*trio(150.0, 300.0, 100.0), *trio(150.0, 300.0, 100.0, seed=1)]
    grid[0] = cell("warmtide", 150.0, gpu_hours_serving=2.0)
    grid[3] = cell("warmtide", 150.0, gpu_hours_serving=5.0, seed=1)
    text = written(grid=grid)
    # 2 and 5 are 3.5 in the mean, to 4 of the rival; the second is worse: 5 ÷ 4.
    row = target(text, "GPU hours serving, mean over the grid, W")
    assert row[1:] == ["3.5000 to 4.0000", "met", "worse in 1 of 2 pairs"]
    assert rows(text, "5")[-1][-3:] == ["5.0000", "4.0000", "1.25"]


def test_stock_engines_stand_against_the_mechanism() -> None:
    grid = trio(150.0, 300.0, 100.0)
    stock = [cell("warmtide", 240.0, world="S"), cell("oracle", 200.0, world="S")]
    text = written(grid=grid, stock=stock)
    # 40 over the bound of S, 200 over that of W.
    found = target(text, "excess ÷ `warmserve`'s where that is above 50 ms, geometric mean, S agai")
    assert found[1:3] == ["0.2x", "met"]
    assert "## `warmtide` in world S against `warmserve` in world W" in text


def highest(policy: str, rps: float | None, alpha: float = 0.5, **more: Any) -> Highest:
    column = CellEntry(alpha=alpha, cv=1.0, hour="busiest")
    return Highest(column=column, world="W", policy=policy, seeds=3, rps=rps, **more)


def test_rates_are_compared_column_by_column() -> None:
    rates = [
        *(highest(policy, rps) for policy, rps in (("warmtide", 30.0), ("static", 10.0))),
        *(highest(policy, rps) for policy, rps in (("warmserve", 25.0), ("oracle", 40.0))),
        highest("warmtide", 50.0, alpha=2.0, at_the_top=True),
        *(highest(p, rps, alpha=2.0) for p, rps in (("static", None), ("warmserve", 50.0))),
    ]
    text = written(rates=rates)
    # 30 of 10; in the other column static takes nothing. 30 of 25 and 50 of 50: 1.1 between.
    assert target(text, "highest rate inside the SLO ÷ `static`'s")[1:3] == ["3x", "met"]
    assert "in 1 columns `static` takes no rate at all" in text
    found = target(text, "highest rate inside the SLO ÷ `warmserve`'s")
    assert found[1:3] == ["1.1x", "**missed**"]
    assert "1 to 1.2 by column; the oracle's median is 1.6" in found[3]
    assert ["W", "2", "1", "busiest", "50+", "none", "50", "–", "–", "1", "–"] in rows(text, "W")


def test_what_no_planning_changes_stands_beside_the_bound() -> None:
    many = [cell("warmtide", 480.0), cell("oracle", 240.0)]
    text = written(many=many, floor=[cell("static", 360.0)])
    # 480 of 240 is twice; always served it would be one and a half times.
    row = target(text, "`many-models` in W")
    assert row[:3] == ["at most 1.25x", "2x", "**missed**"]
    assert "with every model always served it is 1.5" in row[3]
    [mine, _, floor] = rows(text, "W")
    assert (mine[2], mine[7], mine[8]) == ("`warmtide`", "2", "1.33")
    assert (floor[2], floor[7], floor[8]) == ("always served", "1.5", "1")


def test_elastic_stands_against_the_smallest_fleet_that_keeps_the_slo_as_often() -> None:
    def run(share: float, gpu_hours: float) -> list[Cell]:
        return [cell("warmtide", 1.0, share_under_slo=share, gpu_hours=gpu_hours)]

    fixed = {1: run(0.80, 8.0), 2: run(0.94, 16.0), 3: run(0.97, 24.0), 4: run(0.99, 32.0)}
    text = written(elastic=run(0.95, 12.0), fixed=fixed)
    # Three nodes are the fewest with 95 %; 12 of their 24 GPU hours is half saved.
    assert target(text, "`elastic` in W")[1:3] == ["50 %", "met"]
    assert [row[-1] for row in rows(text, "W")] == ["50.0 %", "", "", "smallest equal", ""]
    none = written(elastic=run(0.999, 12.0), fixed=fixed)
    assert target(none, "`elastic` in W")[1:3] == ["–", "open"]
    assert "no fixed fleet that was tried keeps the SLO as often" in none


def test_a_wrong_forecast_is_judged_by_its_worst_cell() -> None:
    wrong = [
        cell("reactive", 100.0),
        cell("warmtide", 104.0),
        cell("reactive", 100.0, seed=1),
        cell("warmtide", 120.0, seed=1),
    ]
    row = target(written(wrong=wrong), "`wrong-forecast` in W")
    assert row[1:] == ["1 of 2 do not", "**missed**", "worst 1.2: rps 5, seed 1"]
    assert target(written(wrong=wrong), "`wrong-forecast` in S")[2] == "open"


def test_an_ablation_that_does_better_is_shown_as_well() -> None:
    ideas = {
        "flash-crowd": [
            cell("warmtide", 200.0),
            cell("warmtide-point", 400.0),
            cell("warmtide-reactive", 100.0),
        ]
    }
    text = written(ideas=ideas)
    assert rows(text, "`warmtide-point`")[0][2] == "2"
    assert rows(text, "`warmtide-reactive`")[0][2] == "0.5"


def test_every_table_has_as_many_columns_in_each_row_as_in_its_head() -> None:
    grid = [
        *trio(900.0, 300.0, 100.0),
        *trio(140.0, 120.0, 100.0, seed=1),
        cell("reactive", 500.0),
        cell("static", 500.0),
    ]
    text = written(
        grid=grid,
        stock=[cell("warmtide", 240.0, world="S"), cell("oracle", 200.0, world="S")],
        rates=[highest("warmtide", 30.0), highest("static", 10.0)],
        many=grid,
        floor=[cell("static", 200.0)],
        elastic=[cell("warmtide", 1.0)],
        fixed={2: [cell("warmtide", 1.0)]},
        wrong=grid,
        ideas={"steady": grid},
        brief={"steady": grid},
        unseen={"another day": grid},
        questions={"steady": "why?", "another day": "and then?"},
        failed=["oracle: no memory"],
    )
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) > 20
    for head, rule, *body in tables:
        assert set(rule) <= set("|- ")
        assert {line.count("|") for line in (rule, *body)} == {head.count("|")}, head
