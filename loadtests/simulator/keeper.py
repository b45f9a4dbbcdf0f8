"""Whether to launch a node or to give one back, for policies that do not say so themselves. Pure.

In: what the last plan could not grant, a snapshot, the time. Out: node ids. Never: touches a node
on which anything serves, starts or moves.
"""

from collections.abc import Container
from typing import NamedTuple

from loadtests.simulator.port import Elastic
from placement.catalog import Catalog
from placement.plan import Plan
from placement.snapshot import ClusterSnapshot, nothing_runs

WANT_US = 5_000_000
"""So long is something wanted in vain before a node is launched for it, and before the next."""


class Changes(NamedTuple):
    launch: str = ""
    give_back: str = ""


class Keeper:
    """Remembers since when somebody waits in vain, and since when each node has been idle."""

    def __init__(self, elastic: Elastic, catalog: Catalog) -> None:
        self._elastic = elastic
        self._all = tuple(node.id for node in catalog.nodes)
        self._unmet_since_us = -1
        self._idle_since_us: dict[str, int] = {}

    def step(
        self, plan: Plan, snapshot: ClusterSnapshot, coming: Container[str], now_us: int
    ) -> Changes:
        """At most one node comes and one goes; `coming` have been launched and are not there."""
        self._note_idle(snapshot, now_us)
        return Changes(
            self._to_launch(plan, snapshot, coming, now_us), self._to_give_back(snapshot, now_us)
        )

    def _to_launch(
        self, plan: Plan, snapshot: ClusterSnapshot, coming: Container[str], now_us: int
    ) -> str:
        # A want with an ETA has room being made for it.
        unmet = {want.model_id for want in plan.wants if not want.eta_us}
        if not unmet:
            self._unmet_since_us = -1
            return ""
        if self._unmet_since_us < 0:
            self._unmet_since_us = now_us
        there = {node.node_id for node in snapshot.nodes}
        on_their_way = sum(node_id in coming for node_id in self._all)
        if now_us < self._unmet_since_us + WANT_US or on_their_way >= len(unmet):
            return ""
        self._unmet_since_us = now_us
        absent = (i for i in self._all if i not in there and i not in coming)
        return next(absent, "")

    def _note_idle(self, snapshot: ClusterSnapshot, now_us: int) -> None:
        idle = [node.node_id for node in snapshot.nodes if nothing_runs(node)]
        self._idle_since_us = {i: self._idle_since_us.get(i, now_us) for i in idle}

    def _to_give_back(self, snapshot: ClusterSnapshot, now_us: int) -> str:
        """The last of those idle for long, down to the fewest that are kept."""
        if len(snapshot.nodes) <= self._elastic.nodes_min:
            return ""
        since = self._idle_since_us
        long_idle = [
            i for i in self._all if i in since and since[i] + self._elastic.idle_us <= now_us
        ]
        return long_idle[-1] if long_idle else ""
