"""What a simulated decision was made from. Pure.

In: a `Setup`, a policy, a time. Out: the `Facts` of the first round from then on. Never: decides:
the brain behind it does, and its plans are handed on as they are.
"""

import dataclasses

from loadtests.simulator.port import Policy, Setup
from loadtests.simulator.world import Progress, simulate
from placement.plan import Plan
from placement.planning.draft import Facts
from prewarm.controller import Controller, Event, Observed


class NoFactsError(Exception):
    """The facts of no round can be had: the text says why."""


class _SeenError(Exception):
    """Ends the run: what it was started for is there."""


class Witness:
    """A brain that looks over another's shoulder."""

    def __init__(self, brain: Controller, at_us: int) -> None:
        self._brain = brain
        self._at_us = at_us
        self.facts: Facts | None = None

    def step(self, event: Event) -> Plan | None:
        plan = self._brain.step(event)
        if isinstance(event, Observed) and event.at_us >= self._at_us:
            self.facts = self._brain.decided_on
            raise _SeenError
        return plan

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        return self._brain.eta_us(model_id, now_us)


def facts_at(setup: Setup, policy: Policy, at_us: int, progress: Progress | None = None) -> Facts:
    """Of the first round at or after this moment of the simulation. Raises `NoFactsError`."""
    if not isinstance(policy.brain, Controller):
        raise NoFactsError("it does not decide by our facts: record those of another policy")
    witness = Witness(policy.brain, at_us)
    try:
        run = simulate(setup, dataclasses.replace(policy, brain=witness), progress)
    except _SeenError:
        assert witness.facts is not None, "a controller that has planned knows what from"
        return witness.facts
    raise NoFactsError(f"the run ends after {run.ended_us / 1e6:g} s: ask for an earlier round")
