"""Parts that the written reports of simulations share. Pure.

In: cells, the machine, a scenario's question. Out: Markdown. Never: runs anything, leaves a cell
out of a mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtests.study.cells import Cell
from loadtests.study.gains import place_told
from loadtests.study.lines import heads, mean, percent, row, seconds, shown
from loadtests.study.summary import BASELINE, pairs, ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where and on what the report was made."""

    cpu: str
    cores: int
    python: str
    version: str
    demand: str
    lengths: str
    quick: bool


def made_of(facts: Facts) -> Iterator[str]:
    """What demand and which machine."""
    yield f"Demand: {facts.demand}; lengths: {facts.lengths}. Made by Warmtide {facts.version} on"
    yield f"{facts.cores} cores ({facts.cpu}), Python {facts.python}."
    if facts.quick:
        yield ""
        yield "**A quick version**: a handful of cells and one seed. Do not quote it."
    yield ""


def policies_table(cells: Sequence[Cell]) -> Iterator[str]:
    yield from heads(_POLICY_HEADS)
    for policy in dict.fromkeys(cell.policy for cell in cells):
        own = [cell for cell in cells if cell.policy == policy]
        gain = ratios(pairs(cells, policy, BASELINE))
        gains = [f"{gain[key]:.3g}" for key in ("worst", "median", "best")] if gain else ["–"] * 3
        told = [
            f"`{policy}`",
            str(len(own)),
            *gains,
            str(gain["lost"]) if gain else "–",
            *(percent([getattr(cell, share) for cell in own]) for share in _SHARES),
            str(sum(cell.requests - cell.served for cell in own)),
            *(mean([getattr(cell, cost) for cell in own]) for cost in _COSTS),
        ]
        yield row(told)
    yield ""


_POLICY_HEADS = (
    "policy", "cells", "gain worst", "median", "best", "lost", "< 100 ms", "TTFT in SLO",
    "ITL in SLO", "not served", "GPU h serving", "idle GB h",
)  # fmt: skip
_OTHER_HEADS = (
    "world", "cell", "policy", "requests", "P50 s", "P95 s", "P99 s", "gain", "TTFT in SLO",
    "not served", "GPU h paid", "GPU h serving",
)  # fmt: skip
_SHARES = ("share_under_100ms", "share_under_slo", "itl_attainment")
_COSTS = ("gpu_hours_serving", "hbm_gb_hours_idle")


def in_brief(others: Mapping[str, Sequence[Cell]], questions: Mapping[str, str]) -> Iterator[str]:
    """Of each scenario its question, how its demand was thinned, and every cell."""
    for scenario, cells in others.items():
        yield f"### `{scenario}`"
        yield ""
        yield " ".join(questions[scenario].split())
        yield ""
        notes = dict.fromkeys(note for cell in cells for note in _told_of(cell))
        yield from (f"- {note}" for note in notes)
        if notes:
            yield ""
        yield from heads(_OTHER_HEADS)
        yield from (_other_row(cell, cells) for cell in cells)
        yield ""


def _told_of(cell: Cell) -> Iterator[str]:
    if "factor" in cell.level:
        level = cell.level
        yield (
            f"thinned by {shown(level['factor'])}, bound by the {level['binding']}: mean load "
            f"{shown(level['mean_load'])}, peak {shown(level['peak_load'])} of serving capacity"
        )
    yield from cell.notes


def _other_row(cell: Cell, cells: Sequence[Cell]) -> str:
    beside = next((p for p in pairs([*cells], cell.policy, BASELINE) if p.cell is cell), None)
    gain = beside.ratio if beside else None
    times = (cell.ttft_ms.p50, cell.ttft_ms.p95, cell.ttft_ms.p99)
    return row(
        [
            cell.world,
            place_told(cell),
            f"`{cell.policy}`",
            str(cell.requests),
            *map(seconds, times),
            "–" if gain is None else f"{gain:.3g}",
            percent([cell.share_under_slo]),
            str(cell.requests - cell.served),
            f"{cell.gpu_hours:.1f}",
            f"{cell.gpu_hours_serving:.1f}",
        ]
    )


def not_run(failed: Sequence[str]) -> Iterator[str]:
    if failed:
        yield "## Not run"
        yield ""
        yield from (f"- {one}" for one in failed)


def by_world(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    for world in sorted({cell.world for cell in cells}, reverse=True):
        yield world, [cell for cell in cells if cell.world == world]
