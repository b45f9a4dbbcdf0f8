"""One cell to run: what it depends on, and how it is run. Pure.

In: a scenario, a cell, a policy, a world, a seed, the traced demand. Out: a `Cell` and a `Sketch`.
Never: reads a file; whoever makes a task has read the trace.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.scenarios.demand import Traced
from loadtests.scenarios.setups import Wanted, build
from loadtests.scenarios.shape import CellEntry, ScenarioFile
from loadtests.study.cells import Cell, cell_of
from loadtests.study.policies import run_policy
from loadtests.study.sketch import Sketch, sketch_of
from placement.catalog import World

# Keys of a scenario's file that no run of a given cell depends on.
_BESIDE = {"question", "cell", "grid", "quick", "sizes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    scenario: str
    file: ScenarioFile
    traced: Traced
    cell: CellEntry
    policy: str
    world: World
    seed: int

    def identity(self) -> str:
        """Everything that the outcome depends on, except the code."""
        file = self.file.model_dump(mode="json", exclude=_BESIDE)
        parts = (
            self.scenario,
            file,
            self.traced.digest,
            self.traced.told,
            self.cell.model_dump(mode="json"),
            self.policy,
            self.world.value,
            self.seed,
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def told(self) -> str:
        """For people: which cell this is."""
        labels = self.cell.model_dump(exclude_none=True)
        place = ", ".join(f"{key} {value}" for key, value in labels.items())
        return f"{self.policy} in world {self.world}, seed {self.seed}" + (place and f", {place}")


def run_task(task: Task, progress: Callable[[float], None]) -> tuple[Cell, Sketch]:
    wanted = Wanted(cell=task.cell, world=task.world, seed=task.seed)
    built = build(task.scenario, task.file, task.traced, wanted)
    run = run_policy(task.policy, built.setup, progress)
    cell = cell_of(
        built.setup, run, task.policy, task.traced.told, level=built.level, notes=built.notes
    )
    return cell, sketch_of(run)
