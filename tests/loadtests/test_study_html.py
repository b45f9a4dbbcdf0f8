"""The report with plots: one file that fetches nothing, and hides no cell that is lost."""

import re

from loadtests.simulator.port import Moment
from loadtests.study.cells import Cell
from loadtests.study.document import document
from loadtests.study.html import cost_points, report_html
from loadtests.study.plots import Point, pareto_front
from loadtests.study.sketch import Sketch, sketch_of
from tests.loadtests.pages import Parsed
from tests.loadtests.runs import cell, run_of


def sketch(*waits_ms: int) -> Sketch:
    run = run_of(*((0, wait, 1) for wait in waits_ms))
    for at in range(10):
        run.timeline.append(
            Moment(
                at_us=at * 60_000_000,
                gpus_there=16,
                gpus_serving=at,
                hbm_idle_bytes=0,
                held=at % 3,
                in_flight=1,
                rungs=(4, 3, at % 5),
            )
        )
    return sketch_of(run)


def report(*cells: Cell) -> str:
    drawn = [(one, sketch(10, 20, 300)) for one in cells]
    return report_html(document("small", "who <waits>?", list(cells), "azure"), drawn)


def test_the_file_is_whole_in_itself() -> None:
    Parsed(report(cell("reactive", 100.0), cell("warmserve", 10.0))).check_whole()


def test_there_is_every_plot_and_each_names_its_world() -> None:
    text = report(cell("reactive", 100.0), cell("warmserve", 10.0))
    for title in ("Time to first token", "Cost against waiting", "GPUs over time", "Rungs, react"):
        assert re.search(rf"<h3>{title}[^<]*simulated, world W", text), title
    # A distribution, a front, GPUs of one place, and a map for each of two policies.
    assert Parsed(text).tags.count("svg") == 5


def test_a_cell_that_a_policy_loses_is_marked() -> None:
    text = report(
        cell("reactive", 100.0),
        cell("warmserve", 10.0),
        cell("reactive", 100.0, seed=1),
        cell("warmserve", 400.0, seed=1),
    )
    assert Parsed(text).lost == 1
    assert "0.25× loses" in text


def test_words_of_a_scenario_are_shown_as_text() -> None:
    assert "who &lt;waits&gt;?" in report(cell("reactive", 1.0))


def test_equal_comparisons_are_equal_files() -> None:
    assert report(cell("reactive", 100.0)) == report(cell("reactive", 100.0))


def test_the_front_holds_whom_nobody_beats_in_both() -> None:
    points = {
        "cheap": Point(1.0, 900.0),
        "fast": Point(9.0, 10.0),
        "between": Point(5.0, 100.0),
        "beaten": Point(6.0, 100.0),
        "twice beaten": Point(9.5, 950.0),
    }
    assert pareto_front(points) == ["cheap", "between", "fast"]


def test_on_a_fixed_cluster_serving_gpus_are_the_cost_else_those_paid() -> None:
    fixed = [cell("a", 10.0, gpu_hours_serving=2.0), cell("b", 40.0, gpu_hours_serving=6.0)]
    points, name = cost_points(fixed)
    assert (name, points["a"].cost, points["b"].cost) == ("GPU hours serving", 2.0, 6.0)
    elastic = [cell("a", 10.0, gpu_hours=4.0), cell("b", 40.0, gpu_hours=8.0)]
    points, name = cost_points(elastic)
    assert (name, points["b"]) == ("GPU hours paid", Point(8.0, 40.0))
