"""The report of the simulations: runs what is missing, writes docs/reports/simulation.md. An edge.

`make sim-report`, or `python -m loadtests.sim_report --report FILE`. Cells that were run before are
found in the cache, so it can be stopped and goes on where it was; `--quick` runs a small version.
"""

import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path

from loadtests.arrivals import Caps
from loadtests.baselines.plugins import policy_names
from loadtests.errors import AskedError
from loadtests.scenarios.names import shipped
from loadtests.study.asked import Options, Study, study
from loadtests.study.cells import Cell, Place
from loadtests.study.parts import Facts
from loadtests.study.pool import Told, each_in_a_process
from loadtests.study.report import Findings, Speed, closest_places, markdown
from loadtests.study.reporting import (
    Asked,
    Runner,
    Written,
    asked_of,
    facts_of,
    options,
    written,
)
from loadtests.study.running import run_task
from loadtests.study.sides import Twin
from loadtests.study.task import Task
from loadtests.study.variants import gpus_of
from loadtests.trace_places import demo_trace
from loadtests.twin import CATALOG as TWIN_CATALOG
from loadtests.twin import twin
from loadtests.validation.study import figures
from loadtests.workload import Asked as Slice

MAIN = "reactive,static,warmserve,oracle"
GRID = "warmserve16"
CLOSE_PLACES, CLOSE_SEEDS, FEW_SEEDS = 12, 20, 3
SPEED_DURATION = "1h"
TWIN_DURATION, TWIN_REQUESTS = "5m", 1500


def findings(asked: Asked, *, full_speed: bool) -> tuple[Findings, Facts]:
    runner = Runner(asked)
    grid = runner.study(GRID, MAIN, "W", asked.seeds, quick=asked.quick)
    stock = runner.study(GRID, MAIN, "S", 1, quick=asked.quick)
    every = ",".join(policy_names())
    few = runner.study(GRID, every, "S,W", 1 if asked.quick else FEW_SEEDS, quick=True)
    others = {
        name: runner.study(name, MAIN, "S,W", 1, quick=True) for name in shipped() if name != GRID
    }
    main = runner.run("the grid of warmserve16", [*grid.tasks, *stock.tasks])
    ablations = runner.run("every policy on a few cells", few.tasks)
    close = runner.run("cells in which it is open who wins", _close(grid.tasks, main.cells, asked))
    brief = {name: runner.run(name, one.tasks) for name, one in others.items()}
    found = Findings(
        grid=main.cells,
        ablations=ablations.cells,
        close=close.cells,
        others={name: ran.cells for name, ran in brief.items()},
        questions={name: one.scenario.file.question for name, one in others.items()},
        figures=figures(),
        twins=twins(asked),
        speeds=speeds(runner, full_speed=full_speed),
        failed=[line for ran in (main, ablations, close, *brief.values()) for line in ran.failed],
    )
    return found, facts_of(grid, asked)


def _close(tasks: list[Task], cells: list[Cell], asked: Asked) -> list[Task]:
    """The two rivals on the cells nearest to a draw, with many seeds."""
    if asked.quick:
        return []
    places = closest_places([cell for cell in cells if cell.world == "W"], CLOSE_PLACES)
    first = {_place(task): task for task in tasks}
    return [
        dataclasses.replace(first[place], policy=policy, seed=seed)
        for place in places
        for seed in range(CLOSE_SEEDS)
        for policy in ("reactive", "warmserve")
    ]


def _place(task: Task) -> Place:
    """Where on the grid a task lies, as `Cell.place` says it, without the seed."""
    cell = task.cell
    return (task.world.value, cell.hour, cell.alpha, cell.rps, cell.cv)


def twins(asked: Asked) -> list[Twin]:
    """One slice of the grid's trace, live and simulated, at the clock's own pace and faster."""
    trace = demo_trace(asked.traces, Path.cwd())
    which = Slice(None, TWIN_DURATION, TWIN_REQUESTS, (), {}, 0, Caps())
    scales = (4.0,) if asked.quick else (1.0, 4.0)
    return [twin(trace, which, TWIN_CATALOG, scale) for scale in scales]


# --- speed


def speeds(runner: Runner, *, full_speed: bool) -> list[Speed]:
    """Measured anew each time, alone on the machine: a kept figure would be of another one."""
    sizes = [("", SPEED_DURATION)] + ([("full", "")] if full_speed else [])
    return [
        _speed(task)
        for size, duration in sizes
        for world in ("S", "W")
        for task in _steady(runner, world, size, duration).tasks
    ]


def _steady(runner: Runner, world: str, size: str, duration: str) -> Study:
    options = Options(
        scenario="steady",
        policies="reactive",
        worlds=world,
        seeds=(0,),
        size=size,
        duration=duration,
        traces=runner.asked.traces,
    )
    return study(options, Path.cwd(), one=True)


def _speed(task: Task) -> Speed:
    """In a process of its own, whose memory is nobody else's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures"
        for ended in each_in_a_process(_measure, [(task, file)], 1, lambda *_: None):
            if ended.error:
                raise AskedError(f"the speed could not be measured:\n{ended.error}")
        requests, wall_s, rss_mb = map(float, file.read_text().split())
    gpus = gpus_of(task.file)
    return Speed(
        policy=task.policy,
        world=task.world.value,
        gpus=gpus,
        simulated_h=task.file.slice.duration / 3_600_000_000,
        requests=int(requests),
        wall_s=wall_s,
        rss_mb=rss_mb,
    )


def _measure(item: tuple[Task, Path], told: Told) -> None:
    task, file = item
    began_s = time.perf_counter()
    cell, _ = run_task(task, told)
    wall_s = time.perf_counter() - began_s
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    file.write_text(f"{cell.requests} {wall_s} {rss_mb}")


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--full-speed", action="store_true", help="20 million requests, too")
    given = parser.parse_args()

    def write() -> Written:
        found, facts = findings(asked_of(given), full_speed=given.full_speed)
        return Written(markdown(found, facts), found.failed)

    return written("sim-report", given.report, write)


if __name__ == "__main__":
    sys.exit(main())
