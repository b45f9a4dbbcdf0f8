"""What a policy does with its time: plans as they are carried out, in both worlds."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.baselines.registry import POLICIES
from loadtests.scenarios.files import load_scenario
from loadtests.scenarios.setups import Wanted, build
from loadtests.scenarios.traced import traced
from loadtests.simulator.port import Brain, Policy, Setup
from loadtests.simulator.world import simulate
from loadtests.study.grid import resized
from placement.catalog import World
from placement.plan import Action, Fetch, Plan, Refused, Start
from placement.planning.explained import PLANS
from prewarm.controller import Answered, Event, Observed
from tests.simulator.test_laws import drawn_catalog, drawn_demand
from tests.simulator.worlds import setup

US = 1_000_000
CASES = [(policy, world) for policy in PLANS for world in World]
every_policy = pytest.mark.parametrize(("policy", "world"), CASES)


class Watched:
    """A brain, and all that it asked for and was refused."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain
        self.asked: list[tuple[int, Action, str]] = []
        """When, what, and the model that it is about."""
        self.refused: list[Refused] = []

    def step(self, event: Event) -> Plan | None:
        plan = self._brain.step(event)
        if isinstance(event, Answered):
            self.refused.append(event.refused)
        if isinstance(event, Observed) and plan is not None:
            models = {r.replica_id: r.model_id for r in event.snapshot.replicas()}
            for action in plan.actions:
                if isinstance(action, Start | Fetch):
                    model_id: str = action.model_id
                else:
                    model_id = models.get(action.replica_id, "")
                self.asked.append((event.at_us, action, model_id))
        return plan

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        return self._brain.eta_us(model_id, now_us)


def watched(made: Setup, policy: str, *, checked: bool = True) -> Watched:
    """One run; `checked` asserts every law of the simulator at every event."""
    found = POLICIES[policy](made)
    brain = Watched(found.brain)
    simulate(made, Policy(brain=brain, tick_us=found.tick_us), checked=checked)
    return brain


@every_policy
@pytest.mark.parametrize("seed", range(3))
def test_who_plans_on_what_is_so_is_refused_nothing(seed: int, policy: str, world: World) -> None:
    """Planning takes no time here, so nothing has moved between the plan and its actions."""
    whole = drawn_catalog(seed, world)
    made = setup(whole, drawn_demand(whole, seed), world=world, warmup_us=10 * US)
    brain = watched(made, policy)
    assert brain.asked
    assert not brain.refused, brain.refused[0]


def drawn_digest(policy: str, world: World) -> str:
    """Over every fate and every action of a drawn run."""
    whole = drawn_catalog(3, world)
    made = setup(whole, drawn_demand(whole, 3), world=world)
    return simulate(made, POLICIES[policy](made)).digest


@every_policy
def test_plans_are_the_same_under_any_hash_seed(policy: str, world: World) -> None:
    code = (
        "from tests.planning.test_steady_plans import drawn_digest;"
        "from placement.catalog import World;"
        f"print(drawn_digest({policy!r}, World.{world.name}))"
    )
    for seed in ("0", "4711"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert told.strip() == drawn_digest(policy, world)


LEARNING_US, WATCHED_US = 600 * US, 1800 * US
CYCLES_MAX = 120
"""Of launch, drain and rest, for each model: one in a quarter of a minute."""


@pytest.mark.heavy
@every_policy
def test_under_an_even_demand_actions_are_bounded(policy: str, world: World) -> None:
    """`steady`: whoever has found its place may come and go with chance, but not all the time."""
    scenario = load_scenario("steady")
    file = resized(scenario.file, None, LEARNING_US + WATCHED_US, quick=False)
    fed = traced(file.demand.source, 8, Path("nowhere"), None)
    made = build("steady", file, fed, Wanted(cell=file.cell, world=world, seed=0)).setup
    asked = watched(made, policy, checked=False).asked
    later = [model for at, _, model in asked if at >= made.warmup_us + LEARNING_US]
    counts = Counter(later)
    assert all(count <= 3 * CYCLES_MAX for count in counts.values()), counts
