"""What was promised of the planner, and what came of it. Pure.

In: a figure and its bound. Out: `Target`s, and their table. Never: calls a miss anything else, or a
target met that was not run.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from loadtests.study.lines import heads, row


class Target(NamedTuple):
    """One promise."""

    name: str
    goal: str
    found: str
    met: bool | None
    """None: nothing was run that could say."""
    why: str = ""
    """By how much it is missed and what stands in the way, or what to know of a hit."""


def at_most(
    name: str, bound: float, found: float | None, *, unit: str = "x", why: str = ""
) -> Target:
    goal = f"at most {bound:g}{unit}"
    if found is None:
        return Target(name, goal, "–", None, why)
    miss = f"{found / bound:.3g} times what was promised" if found > bound else ""
    return Target(name, goal, f"{found:.3g}{unit}", found <= bound, _told(miss, why))


def at_least(
    name: str, bound: float, found: float | None, *, unit: str = "x", why: str = ""
) -> Target:
    goal = f"at least {bound:g}{unit}"
    if found is None:
        return Target(name, goal, "–", None, why)
    miss = f"{found / bound:.3g} of what was promised" if found < bound else ""
    return Target(name, goal, f"{found:.3g}{unit}", found >= bound, _told(miss, why))


def none_of(name: str, goal: str, bad: int, compared: int, why: str = "") -> Target:
    """So many of so many break it; it is met where none does."""
    if not compared:
        return Target(name, goal, "–", None, why)
    return Target(name, goal, f"{bad} of {compared} do not", bad == 0, why)


def _told(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


_VERDICTS = {True: "met", False: "**missed**", None: "open"}


def target_table(targets: Iterable[Target]) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield from heads(("target", "promised", "found", "", "by how much, and why"))
    for one in targets:
        yield row([one.name, one.goal, one.found, _VERDICTS[one.met], one.why or "–"])
    yield ""
