"""Policies by name, and how each is run. Pure.

In: a name, a `Setup`. Out: a `Run`. The oracle is no policy that decides: it is computed.
Never: knows how a policy decides.
"""

from collections.abc import Callable

from loadtests.baselines.oracle import oracle
from loadtests.baselines.registry import POLICIES
from loadtests.errors import AskedError
from loadtests.simulator.port import Run, Setup
from loadtests.simulator.world import simulate
from placement.catalog_problems import closest

ORACLE = "oracle"


def policy_names() -> list[str]:
    return [*POLICIES, ORACLE]


def known_policy(name: str) -> str:
    """The name, if it is one."""
    names = policy_names()
    if name not in names:
        near = closest(name, names)
        guess = f"did you mean {near}? " if near else ""
        raise AskedError(f"no policy {name!r}: {guess}there are {', '.join(names)}")
    return name


def run_policy(name: str, setup: Setup, progress: Callable[[float], None]) -> Run:
    if name == ORACLE:
        return oracle(setup)
    return simulate(setup, POLICIES[name](setup), progress)
