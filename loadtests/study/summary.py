"""What a comparison comes to: policies against reactive, against the oracle, and in order. Pure.

In: cells. Out: the `summary` of the JSON. Cells are compared in pairs: same world, place on the
grid and seed. A ratio is reactive ÷ policy of the P99 time to first token: above 1 it gains.
Never: averages over what was not run, leaves out the cells that a policy loses.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from loadtests.study.cells import Cell
from loadtests.study.excess import ORACLE, duels, excess_summary
from loadtests.validation.figures import T6, T7, Claim, Ordering

BASELINE = "reactive"
RIVAL = "warmserve"
SLACK_MS = 0.001
"""A microsecond: what rounding may put between equal times."""

# Published orderings of the share under 100 ms, and which policy is which variant of theirs.
CLAIMS: dict[str, tuple[Claim, dict[str, str]]] = {
    "T6": (T6, {name: name for name in T6.best_first}),
    "T7": (
        T7,
        {"5 min": "warmserve", "3 min": "warmserve-3min", "40 min": "warmserve-40min"},
    ),
}


class Pair(NamedTuple):
    """A policy's cell beside another's on the same place."""

    cell: Cell
    beside: Cell

    @property
    def ratio(self) -> float | None:
        """How many times lower this cell's P99 is."""
        mine, theirs = self.cell.ttft_ms.p99, self.beside.ttft_ms.p99
        return theirs / mine if mine and theirs is not None else None

    @property
    def times(self) -> float | None:
        """The same the other way: this cell's P99 ÷ the other's."""
        return 1 / self.ratio if self.ratio else None


def summary(cells: Sequence[Cell]) -> dict[str, Any]:
    """Per world and policy: ratios to reactive, the oracle's bound, and orderings."""
    return {
        world: {
            "policies": {p: _policy(p, inside) for p in _names(inside)},
            "ordering_under_100ms": ordering(inside),
            "claims": {
                name: {"holds": one.holds, "share_under_100ms": dict(one.ours)}
                for name, one in orderings(inside).items()
            },
        }
        for world, inside in _by_world(cells).items()
    }


def _by_world(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    worlds = sorted({cell.world for cell in cells})
    return {world: [cell for cell in cells if cell.world == world] for world in worlds}


def _names(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.policy for cell in cells))


def pairs(cells: Iterable[Cell], policy: str, beside: str) -> list[Pair]:
    """The policy's cells that have one of the other policy on the same place."""
    places = {cell.place: cell for cell in cells if cell.policy == beside}
    return [
        Pair(cell, places[cell.place])
        for cell in cells
        if cell.policy == policy and cell.place in places
    ]


def _policy(policy: str, cells: list[Cell]) -> dict[str, Any]:
    own = [cell for cell in cells if cell.policy == policy]
    return {
        "cells": len(own),
        "p99_ratio_to_reactive": ratios(pairs(cells, policy, BASELINE)),
        "oracle": against_oracle(pairs(cells, policy, ORACLE)),
        "excess_ratio_to_warmserve": excess_summary(duels(cells, policy, RIVAL)),
        "share_under_100ms": _mean(cell.share_under_100ms for cell in own),
        "share_under_slo": _mean(cell.share_under_slo for cell in own),
        "gpu_hours": _mean(cell.gpu_hours for cell in own),
        "gpu_hours_serving": _mean(cell.gpu_hours_serving for cell in own),
        "hbm_gb_hours_idle": _mean(cell.hbm_gb_hours_idle for cell in own),
    }


def ratios(compared: Iterable[Pair]) -> dict[str, Any] | None:
    """The range of gains, and how many cells are lost. None where nothing can be compared."""
    found = [pair.ratio for pair in compared if pair.ratio is not None]
    if not found:
        return None
    return {
        "worst": min(found),
        "median": median(found),
        "best": max(found),
        "compared": len(found),
        "lost": sum(ratio < 1 for ratio in found),
    }


def against_oracle(compared: Sequence[Pair]) -> dict[str, Any] | None:
    """How often a policy came out below the bound: never, or something is wrong with the bound."""
    if not compared:
        return None
    times = [pair.times for pair in compared if pair.times is not None]
    return {
        "compared": len(compared),
        "violations": sum(below_bound(pair) for pair in compared),
        "p99_times_oracle_median": median(times) if times else None,
    }


def below_bound(pair: Pair) -> bool:
    """Whether any percentile of the policy lies under the oracle's."""
    mine, bound = pair.cell.ttft_ms, pair.beside.ttft_ms
    return any(
        (own := getattr(mine, name)) is not None
        and (least := getattr(bound, name)) is not None
        and own < least - SLACK_MS
        for name in ("p50", "p95", "p99")
    )


def ordering(cells: Sequence[Cell]) -> list[str]:
    """Policies by their mean share under 100 ms over the cells that all of them ran, best first."""
    shares = common_shares(cells, _names(cells))
    return sorted(shares, key=lambda name: (-shares[name], name))


def common_shares(cells: Sequence[Cell], policies: Sequence[str]) -> dict[str, float]:
    """The mean share under 100 ms of each policy, over places that all of them ran."""
    places = [{c.place for c in cells if c.policy == policy} for policy in policies]
    common = set.intersection(*places) if places else set()
    found = {}
    for policy in policies:
        mean = _mean(c.share_under_100ms for c in cells if c.policy == policy and c.place in common)
        if mean is not None:
            found[policy] = mean
    return found


def orderings(cells: Sequence[Cell]) -> dict[str, Ordering]:
    """Published orderings beside ours, as far as all of their variants ran."""
    found = {}
    for name, (claim, policies) in CLAIMS.items():
        shares = common_shares(cells, list(policies.values()))
        if len(shares) == len(policies):
            ours = {variant: shares[policy] for variant, policy in policies.items()}
            found[name] = Ordering(claim=claim, ours=ours)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
