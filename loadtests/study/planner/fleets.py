"""Forty models: how near the bound the planner comes, and what following the day saves. Pure.

In: cells of `many-models` and `elastic`, and of the same demand before other fleets. Out: Markdown
and targets. Never: calls queueing inside engines a fault of planning: a fleet on which every model
always serves stands beside it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from loadtests.study.cells import Cell
from loadtests.study.excess import ORACLE
from loadtests.study.lines import heads, percent, row, seconds, shown
from loadtests.study.planner.targets import Target, at_least, at_most
from loadtests.study.summary import Pair, pairs

TIMES_ORACLE = 1.25
SAVED_PERCENT = 40.0
FLOOR = "always served"


# --- many-models


def many_section(
    cells: Sequence[Cell], floor: Sequence[Cell], gpus: int, span: str
) -> Iterator[str]:
    """`floor`: every replica that a model may have serves from the start, on `gpus` GPUs."""
    if not cells:
        return
    yield "## `many-models`: how near the bound"
    yield ""
    yield f"Run: {span}."
    yield ""
    yield f"Row `{FLOOR}`: the same demand on {gpus} GPUs, where every replica that any model may"
    yield "have serves from the first moment. What it has above the oracle is waiting inside"
    yield "engines, which no planning changes: the oracle gives each request a replica of its own."
    yield ""
    yield from heads(
        ("world", "seed", "policy", "requests", "P50 s", "P95 s", "P99 s", "P99 ÷ oracle's",
         f"P99 ÷ `{FLOOR}`'s", "TTFT in SLO", "not served", "GPU h paid")
    )  # fmt: skip
    for cell in (*cells, *floor):
        name = FLOOR if any(cell is one for one in floor) else f"`{cell.policy}`"
        yield _many_row(cell, name, cells, floor)
    yield ""


def _many_row(cell: Cell, name: str, cells: Sequence[Cell], floor: Sequence[Cell]) -> str:
    bound = next((one for one in cells if one.policy == ORACLE and one.place == cell.place), None)
    least = next((one for one in floor if one.place == cell.place), None)
    times = [shown(Pair(cell, one).times if one else None) for one in (bound, least)]
    tails = [seconds(ms) for ms in (cell.ttft_ms.p50, cell.ttft_ms.p95, cell.ttft_ms.p99)]
    return row(
        [
            cell.world,
            str(cell.seed),
            name,
            str(cell.requests),
            *tails,
            *times,
            percent([cell.share_under_slo]),
            str(cell.requests - cell.served),
            f"{cell.gpu_hours:.1f}",
        ]
    )


def many_target(cells: Sequence[Cell], floor: Sequence[Cell], subject: str) -> Target:
    inside = [cell for cell in cells if cell.world == "W"]
    bounds = [cell for cell in inside if cell.policy == ORACLE]
    mine = _times(pairs(inside, subject, ORACLE))
    least = _times(Pair(c, b) for c in floor for b in bounds if c.place == b.place)
    why = f"worst {shown(max(mine, default=None))}"
    why += f"; with every model always served it is {shown(median(least))}" if least else ""
    name = "`many-models` in W: P99 ÷ the oracle's, median over seeds"
    return at_most(name, TIMES_ORACLE, median(mine) if mine else None, why=why)


def _times(compared: Iterable[Pair]) -> list[float]:
    return [pair.times for pair in compared if pair.times is not None]


# --- elastic


def smallest_equal(elastic: Cell, fixed: Mapping[int, Cell]) -> int | None:
    """The fewest nodes, all the time, on which as many requests keep the SLO as with nodes that
    come and go. None: none of those tried does."""
    attained = elastic.share_under_slo or 0.0
    equal = [n for n, cell in fixed.items() if (cell.share_under_slo or 0.0) >= attained]
    return min(equal, default=None)


def elastic_section(
    elastic: Sequence[Cell], fixed: Mapping[int, Sequence[Cell]], span: str
) -> Iterator[str]:
    """`fixed`: the same policies and demand on so many nodes."""
    if not elastic:
        return
    yield "## `elastic`: what following the day saves"
    yield ""
    yield f"Run: {span}."
    yield ""
    yield "Nodes launched and given back, beside the same policy with the same demand on a fixed"
    yield "number of them. Compared is the smallest fixed fleet that keeps the SLO for at least as"
    yield "many requests."
    yield ""
    yield from heads(
        ("world", "seed", "policy", "nodes", "TTFT in SLO", "P99 s", "not served", "GPU h paid",
         "saved")
    )  # fmt: skip
    for cell in elastic:
        beside = _beside(cell, fixed)
        yield _elastic_row(cell, "come and go", percent([saved(cell, beside)]))
        smallest = smallest_equal(cell, beside)
        for nodes, one in sorted(beside.items()):
            yield _elastic_row(one, str(nodes), "smallest equal" if nodes == smallest else "")
    yield ""


def _beside(cell: Cell, fixed: Mapping[int, Sequence[Cell]]) -> dict[int, Cell]:
    return {
        nodes: one
        for nodes, cells in fixed.items()
        for one in cells
        if (one.policy, one.place) == (cell.policy, cell.place)
    }


def saved(elastic: Cell, fixed: Mapping[int, Cell]) -> float | None:
    """The share of the smallest equal fleet's GPU hours that was not paid."""
    smallest = smallest_equal(elastic, fixed)
    return None if smallest is None else 1 - elastic.gpu_hours / fixed[smallest].gpu_hours


def _elastic_row(cell: Cell, nodes: str, told: str) -> str:
    attained = f"{100 * (cell.share_under_slo or 0.0):.3f} %"
    missing = str(cell.requests - cell.served)
    figures = [attained, seconds(cell.ttft_ms.p99), missing, f"{cell.gpu_hours:.1f}", told]
    return row([cell.world, str(cell.seed), f"`{cell.policy}`", nodes, *figures])


def elastic_target(
    elastic: Sequence[Cell], fixed: Mapping[int, Sequence[Cell]], subject: str
) -> Target:
    own = [cell for cell in elastic if cell.policy == subject and cell.world == "W"]
    shares = [saved(cell, _beside(cell, fixed)) for cell in own]
    found = [100 * share for share in shares if share is not None]
    why = ""
    if own and not found:
        why = "no fixed fleet that was tried keeps the SLO as often"
    elif own and "mean_load" in own[0].level:
        level = own[0].level
        why = f"the demand's mean is {float(level['mean_load']):.2f} of all GPUs, its peak "
        why += f"{float(level['peak_load']):.2f}"
    name = "`elastic` in W: GPU hours below the smallest equal fixed fleet's"
    return at_least(name, SAVED_PERCENT, median(found) if found else None, unit=" %", why=why)
