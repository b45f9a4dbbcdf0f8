"""`warmtide` and its ablations: the same controller, with more or less foresight. Pure.

In: a `Setup`. Out: a `Policy`. Never: decides (`placement.planning` does), looks at the slice to
come, but for `warmtide-perfect`, which does nothing else.
"""

from collections.abc import Callable

from loadtests.foresights import learned, perfect
from loadtests.simulator.port import Policy, PolicyFactory, Setup
from placement.planning.rungs import plan_rungs
from prewarm.controller import Controller, Foresight
from prewarm.foresight.options import Options, Together

Foresees = Callable[[Setup], Foresight]


def _policy(name: str, foresees: Foresees) -> PolicyFactory:
    def make(setup: Setup) -> Policy:
        return Policy(brain=Controller(setup.catalog, name, plan_rungs, foresees(setup)))

    return make


def _with(options: Options) -> Foresees:
    return lambda setup: learned(setup, options)


OURS: dict[str, PolicyFactory] = {
    "warmtide": _policy("warmtide", learned),
    "warmtide-independent": _policy("independent", _with(Options(together=Together.INDEPENDENT))),
    "warmtide-point": _policy("point", _with(Options(together=Together.POINT))),
    "warmtide-inverted": _policy("inverted", _with(Options(inverted=True))),
    "warmtide-perfect": _policy("perfect", perfect),
}
