"""The facts of one simulated round as a file, for `warmtide plan --explain`. An edge.

In: what was asked of `simulate`, a time, a file. Out: the file, and a sentence about it. Never: a
cell: the round is played up to, and no further.
"""

from pathlib import Path

from loadtests.baselines.plugins import policy_named
from loadtests.errors import AskedError
from loadtests.plans.asking import keep_record
from loadtests.scenarios.setups import Wanted, build
from loadtests.simulator.port import Policy
from loadtests.simulator.witness import NoFactsError, facts_at
from loadtests.spans import span_us
from loadtests.study.asked import Options, study
from loadtests.study.task import Task
from placement.planning.draft import Facts
from placement.planning.recorded import recorded


def record_facts(asked: Options, at: str, path: Path | None) -> list[str]:
    """Sentences for whoever waited; none where no facts were asked for."""
    if not at and path is None:
        return []
    if path is None or not at:
        raise AskedError("--facts FILE says where, and --facts-at 10m of when: give both")
    if not path.absolute().parent.is_dir():
        raise AskedError(f"{path}: there is no such folder; make it, or name another place")
    task = study(asked, Path.cwd(), one=True).tasks[0]
    facts = _facts(task, span_us(at, "--facts-at"))
    source = f"a simulation of {task.scenario}, {task.told()}"
    keep_record(path, recorded(facts, source=source, policy=task.policy))
    when = f"the round at {facts.now_us / 1e6:.2f} s of the simulation"
    return [f"wrote {path}: {when}; `warmtide plan --explain {path}` explains it"]


def _facts(task: Task, at_us: int) -> Facts:
    wanted = Wanted(cell=task.cell, world=task.world, seed=task.seed)
    setup = build(task.scenario, task.file, task.traced, wanted).setup
    policy = policy_named(task.policy)(setup)
    if not isinstance(policy, Policy):
        raise AskedError(f"--facts of {task.policy}: it is a bound, and decides nothing")
    try:
        return facts_at(setup, policy, at_us)
    except NoFactsError as error:
        raise AskedError(f"--facts of {task.policy}: {error}") from None
