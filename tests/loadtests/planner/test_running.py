"""What a report is run with: equal tasks once, demand by name, findings from cells."""

from pathlib import Path

from rich.console import Console

from loadtests.plan_report import Wanted, tasks_of
from loadtests.scenarios.traced import traced
from loadtests.study.asked import Options, study
from loadtests.study.cache import Cells
from loadtests.study.comparison import run_cells
from loadtests.study.reporting import Asked, Ran, Runner
from loadtests.trace_places import GENERATED

NOWHERE = Path("/nowhere")


def test_equal_tasks_are_run_once_and_each_has_its_cell(tmp_path: Path) -> None:
    options = Options(
        scenario="steady",
        policies="oracle",
        worlds="W",
        seeds=(0,),
        duration="1m",
        traces=NOWHERE,
    )
    first, second = (study(options, Path.cwd(), one=True).tasks[0] for _ in range(2))
    done = run_cells([first, second], Cells(tmp_path), 2, Console(quiet=True))
    assert [task for task, _ in done.cells] == [first, second]
    assert len(list(tmp_path.rglob("*.plot.json.gz"))) == 1
    assert done.failures == []
    again = run_cells([first, second], Cells(tmp_path), 2, Console(quiet=True))
    assert again.reused == 1
    ran = Ran(done.cells, [])
    assert ran.of([second]) == ran.cells[1:]


def test_generated_demand_can_be_asked_for_by_name() -> None:
    named = traced("servegen m-large", 3, NOWHERE, Path(GENERATED))
    assert named.told == GENERATED
    assert named.counts.counts.shape[1] == 3
    # Where the trace is not at hand it serves unasked.
    assert traced("servegen m-large", 3, NOWHERE, None).digest == named.digest


def test_every_section_has_its_tasks_and_meets_the_same_demand(tmp_path: Path) -> None:
    asked = Asked(quick=True, seeds=1, jobs=1, cache=tmp_path, traces=NOWHERE)
    tasks = tasks_of(Runner(asked), Wanted("warmtide", whole_day=False))
    policies = {task.policy for task in tasks.grid.tasks}
    assert policies == {"warmtide", "reactive", "static", "warmserve", "oracle"}
    # Seven ideas, each taken away or exchanged, beside the whole and the baseline.
    assert len({task.policy for task in tasks.ideas["warmserve16"]}) == 9
    assert {task.file.forecast for task in tasks.wrong} == {"inverted"}
    # Six nodes of eight GPUs are what elastic may launch: its load is a share of these throughout.
    assert sorted(tasks.fixed) == [1, 2, 3, 4, 5, 6]
    loads = [task.file.demand.load for own in tasks.fixed.values() for task in own]
    assert {load.gpus for load in loads if load} == {48}
    hours = {task.file.slice.hour for task in (*tasks.many.tasks, *tasks.floor)}
    assert hours == {8}
    ids = [id(task) for task in tasks.all()]
    assert len(ids) == len(set(ids))
