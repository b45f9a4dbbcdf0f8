"""The highest rates with the P99 inside the SLO, side by side. Pure.

In: `Highest` rates by column of the grid and policy. Out: Markdown and targets.
Never: compares rates of different columns, or divides by a rate that was not found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.scenarios.shape import CellEntry
from loadtests.study.excess import ORACLE
from loadtests.study.lines import heads, row, shown
from loadtests.study.planner.targets import Target, at_least

OVER = {"static": 2.5, "warmserve": 1.15}
"""How many times a rival's rate was promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Highest:
    """What one policy takes on one column: a cell whose rate is left open."""

    column: CellEntry
    world: str
    policy: str
    seeds: int
    rps: float | None
    """None: not even the lowest rate that was tried."""
    at_the_top: bool = False
    """The highest that was tried passed: it may take more."""

    @property
    def told(self) -> str:
        return "none" if self.rps is None else f"{self.rps:g}{'+' if self.at_the_top else ''}"


def rate_section(found: Sequence[Highest], subject: str, slo_ms: float) -> Iterator[str]:
    if not found:
        return
    yield "## The highest rate with the P99 inside the SLO"
    yield ""
    yield f"Requests a second at which the P99 of all requests is at most {slo_ms:g} ms, in the"
    yield f"median over {found[0].seeds} seeds; found by halves on a ladder of 5 % steps (30 % in"
    yield "a quick version). Whoever is refused counts 999 s, so one in a hundred refused is out."
    yield "`oracle` bounds what any policy can take; `none`: not even the lowest rung; `+`: the"
    yield "ladder's top."
    yield ""
    policies = list(dict.fromkeys(one.policy for one in found))
    over = [rival for rival in (*OVER, ORACLE) if rival in policies]
    heading = ("world", "alpha", "cv", "hour", *policies, *(f"÷ {rival}" for rival in over))
    yield from heads(heading)
    for column in _columns(found):
        rates = {one.policy: one for one in column}
        cell = column[0].column
        ratios = [shown(_ratio(rates, subject, rival)) for rival in over]
        place = [column[0].world, shown(cell.alpha), shown(cell.cv), shown(cell.hour)]
        yield row([*place, *(rates[p].told if p in rates else "–" for p in policies), *ratios])
    yield ""


def _columns(found: Sequence[Highest]) -> Iterator[list[Highest]]:
    keys = dict.fromkeys((one.world, _key(one.column)) for one in found)
    for world, key in keys:
        yield [one for one in found if (one.world, _key(one.column)) == (world, key)]


def _key(cell: CellEntry) -> tuple[object, ...]:
    return (cell.alpha, cell.cv, cell.hour)


def _ratio(rates: dict[str, Highest], policy: str, rival: str) -> float | None:
    mine, theirs = rates.get(policy), rates.get(rival)
    if mine is None or theirs is None or mine.rps is None or theirs.rps is None:
        return None
    return mine.rps / theirs.rps


def rate_targets(found: Sequence[Highest], subject: str) -> list[Target]:
    """Judged in W by the median over the columns; the bound's own ratio says what is possible."""
    columns = [{one.policy: one for one in own} for own in _columns(found) if own[0].world == "W"]
    return [_target(columns, subject, rival, times) for rival, times in OVER.items()]


def _target(
    columns: Sequence[dict[str, Highest]], subject: str, rival: str, times: float
) -> Target:
    mine = _ratios(columns, subject, rival)
    bound = _ratios(columns, ORACLE, rival)
    none = sum(rival in c and c[rival].rps is None for c in columns)
    why = f"{shown(min(mine, default=None))} to {shown(max(mine, default=None))} by column; the"
    why += f" oracle's median is {shown(median(bound) if bound else None)}"
    why += f"; in {none} columns `{rival}` takes no rate at all" if none else ""
    name = f"highest rate inside the SLO ÷ `{rival}`'s, median over {len(columns)} columns"
    return at_least(name, times, median(mine) if mine else None, why=why)


def _ratios(columns: Sequence[dict[str, Highest]], policy: str, rival: str) -> list[float]:
    found = (_ratio(column, policy, rival) for column in columns)
    return [ratio for ratio in found if ratio is not None]
