"""The report of the planner: runs what is missing, writes docs/reports/planner.md. An edge.

`make plan-report`, or `python -m loadtests.plan_report --report FILE`. Cells that were run before
are found in the cache, so it can be stopped and goes on where it was; `--quick` runs a small
version, `--policy` reports on another policy than `warmtide`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.baselines.plugins import policy_names
from loadtests.scenarios.names import shipped
from loadtests.scenarios.shape import ScenarioFile
from loadtests.study.asked import Study
from loadtests.study.parts import Facts
from loadtests.study.planner.ideas import IDEAS
from loadtests.study.planner.rates import Highest
from loadtests.study.planner.report import Findings, markdown
from loadtests.study.planner.search import Search, column_of, ladder, within
from loadtests.study.reporting import (
    Asked,
    Runner,
    Written,
    asked_of,
    facts_of,
    options,
    written,
)
from loadtests.study.task import Task
from loadtests.study.variants import at_rate, fixed_fleet, gpus_of, other_time, room_for_all
from loadtests.trace_places import GENERATED

GRID, MANY, ELASTIC, WRONG = "warmserve16", "many-models", "elastic", "wrong-forecast"
RIVALS = "reactive,static,warmserve,oracle"
IDEA_SCENARIOS = ("flash-crowd", "level-shift", "long-tail", MANY, "new-model", "node-loss")
FEW_SEEDS = 3
UNSEEN_DAY, UNSEEN_HOUR = 11, 15
SHORT = {"long-tail": "20m"}
"""Two hundred models take their time."""
QUICK_SHORT = dict.fromkeys((MANY, ELASTIC, "long-tail"), "10m")
"""Where a load is aimed at. A rate is meant over an hour, so others are not cut."""


class Wanted(NamedTuple):
    """Whom the report is about, and how long a day is."""

    subject: str
    day: str


class Tasks(NamedTuple):
    """All cells but those of the rates, which ask for one after the other. Long ones first."""

    many: Study
    floor: list[Task]
    elastic: Study
    fixed: dict[int, list[Task]]
    ideas: dict[str, list[Task]]
    brief: dict[str, Study]
    unseen: dict[str, list[Task]]
    wrong: list[Task]
    grid: Study
    split: list[Task]
    """The grid for WarmServe behind our gateway, which is told apart."""
    stock: list[Task]

    def all(self) -> list[Task]:
        grouped = (self.floor, self.wrong, self.grid.tasks, self.split, self.stock)
        named = (*self.fixed.values(), *self.ideas.values(), *self.unseen.values())
        studies = (self.many, self.elastic, *self.brief.values())
        return [
            *(task for one in studies for task in one.tasks),
            *(task for tasks in (*named, *grouped) for task in tasks),
        ]


def findings(asked: Asked, wanted: Wanted) -> tuple[Findings, Facts]:
    runner = Runner(asked)
    tasks = _tasks(runner, wanted)
    ran = runner.run(f"cells about {wanted.subject}", tasks.all())
    rates, failed = _rates(runner, wanted.subject)
    found = Findings(
        subject=wanted.subject,
        grid=ran.of([*tasks.grid.tasks, *tasks.split]),
        stock=ran.of(tasks.stock),
        rates=rates,
        slo_ms=_slo_ms(tasks.grid.scenario.file),
        many=ran.of(tasks.many.tasks),
        floor=ran.of(tasks.floor),
        floor_gpus=gpus_of(tasks.floor[0].file),
        elastic=ran.of(tasks.elastic.tasks),
        fixed={nodes: ran.of(own) for nodes, own in tasks.fixed.items()},
        wrong=ran.of(tasks.wrong),
        ideas={name: ran.of(own) for name, own in tasks.ideas.items()},
        brief={name: ran.of(one.tasks) for name, one in tasks.brief.items()},
        unseen={name: ran.of(own) for name, own in tasks.unseen.items()},
        questions={name: one.scenario.file.question for name, one in tasks.brief.items()}
        | dict.fromkeys(tasks.unseen, "What comes of it where nobody looked before?"),
        failed=[*ran.failed, *failed],
    )
    return found, facts_of(tasks.grid, asked)


def _slo_ms(file: ScenarioFile) -> float:
    return file.slo.ttft / 1000


def _tasks(runner: Runner, wanted: Wanted) -> Tasks:
    subject, quick, seeds = wanted.subject, runner.asked.quick, runner.asked.seeds
    rivals = _with(subject, RIVALS)
    day = wanted.day or (QUICK_SHORT[MANY] if quick else "")
    many = runner.study(MANY, rivals, "W", 1, duration=day)
    elastic = runner.study(ELASTIC, subject, "W", 1, duration=day)
    return Tasks(
        many=many,
        floor=[_served(task) for task in many.tasks[:1]],
        elastic=elastic,
        fixed=_fixed(elastic),
        ideas=_ideas(runner, subject),
        brief={name: _short(runner, name, rivals) for name in shipped() if name != WRONG},
        unseen=_unseen(runner, rivals),
        wrong=_wrong(runner, subject),
        grid=runner.study(GRID, rivals, "W", seeds, quick=quick),
        split=runner.study(GRID, "warmserve+gateway", "W", 1, quick=quick).tasks,
        stock=runner.study(GRID, rivals, "S", 1, quick=quick).tasks,
    )


def _with(subject: str, others: str) -> str:
    return ",".join(dict.fromkeys([subject, *others.split(",")]))


def _served(task: Task) -> Task:
    """The same demand where every replica that a model may have is there from the start."""
    return dataclasses.replace(task, policy="static", file=room_for_all(task.file))


def _fixed(elastic: Study) -> dict[int, list[Task]]:
    whole = sum(node.count or 1 for node in elastic.scenario.file.nodes)
    return {
        nodes: [dataclasses.replace(t, file=fixed_fleet(t.file, nodes)) for t in elastic.tasks]
        for nodes in range(1, whole + 1)
    }


def _wrong(runner: Runner, subject: str) -> list[Task]:
    quick, policies = runner.asked.quick, _with(subject, "reactive")
    return [
        *runner.study(WRONG, policies, "W", 1 if quick else FEW_SEEDS, quick=quick).tasks,
        *runner.study(WRONG, policies, "S", 1, quick=quick).tasks,
    ]


def _short(runner: Runner, scenario: str, policies: str, *, trace: Path | None = None) -> Study:
    """One seed, in both worlds, of the scenario's handful of cells and quick size."""
    span = (QUICK_SHORT if runner.asked.quick else SHORT).get(scenario, "")
    return runner.study(scenario, policies, "S,W", 1, quick=True, duration=span, trace=trace)


def _ideas(runner: Runner, subject: str) -> dict[str, list[Task]]:
    """The planner, and as many of its ablations as there are."""
    known = policy_names()
    ablations = [name for idea in IDEAS if (name := f"{subject}-{idea}") in known]
    policies = ",".join(dict.fromkeys([subject, *ablations, "reactive"]))
    seeds = 1 if runner.asked.quick else FEW_SEEDS
    grid = {GRID: runner.study(GRID, policies, "W,S", seeds, quick=True).tasks}
    if runner.asked.quick:
        return grid
    return grid | {name: _short(runner, name, policies).tasks for name in IDEA_SCENARIOS}


def _unseen(runner: Runner, policies: str) -> dict[str, list[Task]]:
    """Nothing was tuned on these."""
    grid, many = (_short(runner, name, policies) for name in (GRID, MANY))
    generated = Path(GENERATED)
    return {
        f"{GRID}, day {UNSEEN_DAY}": _moved(grid, day=UNSEEN_DAY),
        f"{MANY}, hour {UNSEEN_HOUR}": _moved(many, hour=UNSEEN_HOUR),
        **{
            f"{name}, generated": _short(runner, name, policies, trace=generated).tasks
            for name in (GRID, MANY)
        },
    }


def _moved(study: Study, *, day: int | None = None, hour: int | None = None) -> list[Task]:
    return [
        dataclasses.replace(task, file=other_time(task.file, day=day, hour=hour))
        for task in study.tasks
    ]


# --- the highest rates


def _rates(runner: Runner, subject: str) -> tuple[list[Highest], list[str]]:
    """All searches go on side by side, so that every core has work."""
    seeds = 1 if runner.asked.quick else FEW_SEEDS
    columns = runner.study(GRID, _with(subject, RIVALS), "W", seeds, quick=True)
    slo_ms = _slo_ms(columns.scenario.file)
    groups: dict[tuple[object, ...], list[Task]] = {}
    for task in columns.tasks:
        groups.setdefault(column_of(task), []).append(task)
    searches = dict.fromkeys(groups, Search.over(ladder()))
    failed = []
    while asks := {key: rate for key, one in searches.items() if (rate := one.asks) is not None}:
        tasks = {key: [at_rate(t, rate) for t in groups[key]] for key, rate in asks.items()}
        ran = runner.run(f"highest rates, {len(asks)} searches", _flat(tasks.values()))
        failed += ran.failed
        for key, rate in asks.items():
            passed = within(ran.of(tasks[key]), slo_ms)
            searches[key] = searches[key].told(rate, passed=passed)
    return [_highest(groups[key], one) for key, one in searches.items()], failed


def _flat(groups: Iterable[Sequence[Task]]) -> list[Task]:
    return [task for tasks in groups for task in tasks]


def _highest(tasks: Sequence[Task], search: Search) -> Highest:
    first = tasks[0]
    return Highest(
        column=first.cell,
        world=first.world.value,
        policy=first.policy,
        seeds=len(tasks),
        rps=search.highest,
        at_the_top=search.at_the_top,
    )


def _parser() -> argparse.ArgumentParser:
    parser = options(__doc__)
    parser.add_argument("--policy", default="warmtide", help="which policy is reported on")
    parser.add_argument("--day", default="", help="length of many-models and elastic, as 12h")
    return parser


def main() -> int:
    given = _parser().parse_args()

    def write() -> Written:
        found, facts = findings(asked_of(given), Wanted(given.policy, given.day))
        return Written(markdown(found, facts), found.failed)

    return written("plan-report", given.report, write)


if __name__ == "__main__":
    sys.exit(main())
