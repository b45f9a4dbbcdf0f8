"""One cell that is to be run, with everything that its outcome depends on except code. Pure.

In: a scenario, a cell, a policy, a world, a seed, the traced demand. Out: an identity, a name.
Never: reads a file; whoever makes a task has read the trace.
"""

import hashlib
import json
from dataclasses import dataclass

from loadtests.scenarios.demand import Traced
from loadtests.scenarios.shape import CellEntry, ScenarioFile
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
