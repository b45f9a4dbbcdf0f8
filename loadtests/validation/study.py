"""All published results that we hold ourselves to, in one list.

In: the studies. Out: figures in a fixed order, for the report and its tests. Never: picks.
"""

from loadtests.validation.figures import Figure, Verdict
from loadtests.validation.llmux import llmux_figures
from loadtests.validation.service import answer_figures, splitwise_figures, throughput_figures
from loadtests.validation.transitions import transition_figures, turn_figures


def figures() -> list[Figure]:
    return [
        *transition_figures(),
        *turn_figures(),
        *llmux_figures(),
        *splitwise_figures(),
        *answer_figures(),
        *throughput_figures(),
    ]


def reproduced(found: list[Figure]) -> list[Figure]:
    """Those that count: within the tolerance, and no constant was fitted on them."""
    return [f for f in found if f.verdict is Verdict.REPRODUCED]
