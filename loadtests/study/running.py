"""One task, run: its policy is looked up, its setup built, its figures taken. An edge.

In: a `Task`. Out: a `Cell` and a `Sketch`; names of policies, and what a plug-in's code is. An edge
only because policies of other packages are found by entry points; a run itself touches nothing.
Never: reads a trace, keeps a cell.
"""

import hashlib
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from loadtests.baselines.plugins import GROUP, UnknownPolicyError, policy_named, policy_names
from loadtests.baselines.registry import POLICIES, RELAXATIONS
from loadtests.errors import AskedError, no_such
from loadtests.scenarios.setups import Wanted, build
from loadtests.simulator.port import Policy, Run, Setup
from loadtests.simulator.world import simulate
from loadtests.study.cells import Cell, cell_of
from loadtests.study.sketch import Sketch, sketch_of
from loadtests.study.task import Task


def known_policy(name: str) -> str:
    """The name, if it is one that can be run."""
    if name not in (names := policy_names()):
        raise AskedError(no_such("policy", name, names))
    try:
        policy_named(name)
    except UnknownPolicyError as error:
        raise AskedError(str(error)) from None
    return name


def plugin_digest(policy: str) -> str:
    """What a policy of another package depends on beside our code: its version and its module."""
    if policy in POLICIES or policy in RELAXATIONS:
        return ""
    digest = hashlib.sha256()
    for entry in entry_points(group=GROUP, name=policy):
        found = find_spec(entry.module)
        source = Path(found.origin).read_bytes() if found and found.origin else b""
        digest.update(f"{entry.value} {entry.dist.version if entry.dist else ''}\0".encode())
        digest.update(source)
    return digest.hexdigest()


def run_task(task: Task, progress: Callable[[float], None]) -> tuple[Cell, Sketch]:
    wanted = Wanted(cell=task.cell, world=task.world, seed=task.seed)
    built = build(task.scenario, task.file, task.traced, wanted)
    run = _run(task.policy, built.setup, progress)
    cell = cell_of(
        built.setup, run, task.policy, task.traced.told, level=built.level, notes=built.notes
    )
    return cell, sketch_of(run)


def _run(name: str, setup: Setup, progress: Callable[[float], None]) -> Run:
    made = policy_named(name)(setup)
    return simulate(setup, made, progress) if isinstance(made, Policy) else made
