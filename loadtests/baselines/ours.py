"""`warmtide` and its ablations: the same controller, with one idea less. Pure.

In: a `Setup`. Out: a `Policy`. Never: decides (`placement.planning` does), looks at the slice to
come, but for a forecast that is to be perfect.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from loadtests.foresights import learned, perfect
from loadtests.simulator.port import Demand, Policy, PolicyFactory, Setup
from placement.planning.outlook import Outlook
from placement.planning.paths import DemandPaths
from placement.planning.rungs import plan_rungs
from prewarm.controller import Controller, Decide, Foresight, Observed
from prewarm.foresight.options import Options, Together
from prewarm.traces.records import Requests

Foresees = Callable[[Setup], Foresight]


def asked_for(setup: Setup) -> Foresight:
    """As the scenario says: learned, unless it asks what forecasts are worth."""
    if setup.forecast == "perfect":
        return perfect(setup)
    return learned(setup, Options(inverted=setup.forecast == "inverted"))


def without_forecast(setup: Setup) -> Foresight:
    """Rates of the moment alone."""
    return learned(replace(setup, demand=_NoPast(setup.demand)))


@dataclass(frozen=True, slots=True)
class _NoPast:
    """A demand of which nothing is known beforehand."""

    demand: Demand
    past_days: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        return self.demand.models

    @property
    def start_us(self) -> int:
        return self.demand.start_us

    @property
    def duration_us(self) -> int:
        return self.demand.duration_us

    def chunks(self) -> Iterator[Requests]:
        return self.demand.chunks()

    def past(self, days_back: int) -> Iterator[Requests]:
        raise ValueError(f"no day {days_back} before the slice is known")


@dataclass(frozen=True, slots=True)
class _NoPaths:
    """A foresight without joint paths: no residency is planned."""

    foresight: Foresight

    def see(self, seen: Observed) -> None:
        self.foresight.see(seen)

    def outlook(self, now_us: int) -> Outlook:
        return self.foresight.outlook(now_us)

    def paths(self, now_us: int) -> DemandPaths | None:  # noqa: ARG002
        return None


def _policy(
    name: str, foresees: Foresees = asked_for, decide: Decide = plan_rungs
) -> PolicyFactory:
    def make(setup: Setup) -> Policy:
        return Policy(brain=Controller(setup.catalog, name, decide, foresees(setup)))

    return make


def _with(options: Options) -> Foresees:
    return lambda setup: learned(setup, options)


OURS: dict[str, PolicyFactory] = {
    "warmtide": _policy("warmtide"),
    "warmtide-independent": _policy("independent", _with(Options(together=Together.INDEPENDENT))),
    "warmtide-noresidency": _policy("noresidency", lambda setup: _NoPaths(learned(setup))),
    "warmtide-scattered": _policy("scattered", decide=partial(plan_rungs, apart=False)),
    "warmtide-point": _policy("point", _with(Options(together=Together.POINT))),
    "warmtide-reactive": _policy("reactive", without_forecast),
    "warmtide-perfect": _policy("perfect", perfect),
    "warmtide-inverted": _policy("inverted", _with(Options(inverted=True))),
}
