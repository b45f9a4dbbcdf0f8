"""Where one policy gains on another, and where it loses: sections of the written reports. Pure.

In: pairs of cells on the same places, all of the same two policies. Out: Markdown.
Never: leaves a loss out.
"""

from collections.abc import Iterator, Sequence

from loadtests.study.cells import Cell
from loadtests.study.lines import heads, row, seconds, shown
from loadtests.study.summary import Pair, ratios

LOST_SHOWN = 12
AXES = ("rps", "alpha", "cv", "hour")
FAR = 20.0
"""The gain that was aimed at for the best cell."""

_TOLD = (("worst", "at worst"), ("median", "in the median"), ("best", "at best"))


def gain_by_place(compared: Sequence[Pair]) -> Iterator[str]:
    """Where on the grid the gains lie."""
    if not compared:
        return
    yield f"Gain of {_names(compared)}, worst / median / best, along each axis:"
    yield ""
    yield from heads(("axis", "value", "gain", "cells", "lost"))
    for axis in AXES:
        values = {getattr(pair.cell, axis) for pair in compared}
        for value in sorted(values, key=in_order):
            here = ratios(pair for pair in compared if getattr(pair.cell, axis) == value)
            if value is not None and here:
                gain = " / ".join(f"{here[key]:.3g}" for key in ("worst", "median", "best"))
                yield row([axis, shown(value), gain, str(here["compared"]), str(here["lost"])])
    yield ""


def _names(compared: Sequence[Pair]) -> str:
    return f"`{compared[0].cell.policy}` over `{compared[0].beside.policy}`"


def place_told(cell: Cell) -> str:
    """Where on the grid, and with which seed."""
    labels = [f"{axis} {shown(getattr(cell, axis))}" for axis in AXES if getattr(cell, axis)]
    return ", ".join([*labels, f"seed {cell.seed}"])


def in_order(value: float | str | None) -> tuple[int, float | str]:
    """Nothing, then words, then numbers."""
    return (0, "") if value is None else (1 + isinstance(value, float), value)


def where_all_were_served(compared: Sequence[Pair]) -> Iterator[str]:
    """One refusal in a hundred makes a P99 of 999 s, and a gain out of it that says little."""
    served = [pair for pair in compared if all(one.served == one.requests for one in pair)]
    gain = ratios(served)
    if gain is None:
        return
    best = max(served, key=lambda pair: pair.ratio or 0.0)
    far = sum((pair.ratio or 0.0) >= FAR for pair in served)
    yield f"Where both served everybody ({len(served)} of {len(compared)} pairs) the gain is"
    figures = [f"{gain[key]:.3g} {told}" for key, told in _TOLD]
    yield f"{', '.join(figures)} ({place_told(best.cell)});"
    yield f"{far} pairs have {FAR:g} or more."
    yield ""


def lost(compared: Sequence[Pair]) -> Iterator[str]:
    """The cells it loses, worst first."""
    losses = sorted(
        (pair for pair in compared if pair.ratio is not None and pair.ratio < 1),
        key=lambda pair: pair.ratio or 0.0,
    )
    if not losses:
        return
    policy, beside = losses[0].cell.policy, losses[0].beside.policy
    yield f"`{policy}` loses {len(losses)} of {len(compared)} cells; the worst of them:"
    yield ""
    yield from heads((*AXES, "seed", "its P99 s", f"{beside}'s", "gain"))
    for pair in losses[:LOST_SHOWN]:
        place = [shown(getattr(pair.cell, axis)) for axis in AXES]
        times = [seconds(one.ttft_ms.p99) for one in pair]
        yield row([*place, str(pair.cell.seed), *times, f"{pair.ratio:.3g}"])
    yield ""
