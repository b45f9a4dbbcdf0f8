"""Nodes that are paid for: there from the start, launched, lost, given back.

In: what a setup says of nodes, what plans say of them. Out: nodes that join and leave the fleet,
the meter told what they cost. Never: decides: where a plan says nothing, a `Keeper` does.
"""

from functools import partial

from loadtests.simulator.agenda import Agenda
from loadtests.simulator.fleet import SimFleet
from loadtests.simulator.keeper import Keeper
from loadtests.simulator.meter import Meter
from loadtests.simulator.port import Elastic, NodeEvent, NodeEventKind, Setup
from placement.catalog import Catalog
from placement.plan import LaunchNode, NodeChange, Plan
from placement.planning.draft import Elastic as Offered
from placement.snapshot import nothing_runs

US = 1_000_000
KEEP_US = US


class Rented:
    """Which nodes there are at any moment, and since when."""

    def __init__(
        self, setup: Setup, catalog: Catalog, agenda: Agenda, meter: Meter, fleet: SimFleet
    ) -> None:
        self._catalog = catalog
        self._agenda = agenda
        self._meter = meter
        self._fleet = fleet
        self._elastic = setup.elastic
        self._events = sorted(setup.node_events, key=lambda e: e.at_us)
        self._coming: dict[str, int] = {}
        """Nodes that have been launched, and when each will be there."""
        self._since_us: dict[str, int] = {}
        self._plan = Plan()

    def begin(self) -> None:
        first_event = {event.node_id: event.kind for event in reversed(self._events)}
        late = {node_id for node_id, kind in first_event.items() if kind is NodeEventKind.JOIN}
        first = [node.id for node in self._catalog.nodes if node.id not in late]
        if self._elastic is not None:
            first = first[: self._elastic.nodes_min]
            keeper = Keeper(self._elastic, self._catalog)
            self._agenda.at(KEEP_US, partial(self._keep, self._elastic, keeper))
        for node_id in first:
            self._join(node_id)
        for event in self._events:
            self._agenda.at(event.at_us, partial(self._happen, event))

    def offered(self) -> Offered | None:
        """What a plan may ask for."""
        if self._elastic is None:
            return None
        return Offered(
            lead_us=self._elastic.lead_us,
            nodes_min=self._elastic.nodes_min,
            coming=dict(self._coming),
            since_us=dict(self._since_us),
        )

    def act(self, plan: Plan) -> None:
        """Carry out what a plan says of nodes. A node that is in use meanwhile stays."""
        self._plan = plan
        for change in plan.nodes or ():
            self._change(change)

    def _change(self, change: NodeChange) -> None:
        assert self._elastic is not None, f"{change.node_id}: no node can be launched or given back"
        if isinstance(change, LaunchNode):
            self._launch(change.node_id, self._elastic)
            return
        node = self._fleet.snapshot.node(change.node_id)
        if node is not None and nothing_runs(node):
            engines = self._fleet.nodes[change.node_id].engines.values()
            assert not any(e.requests for e in engines), f"{change.node_id} is in use"
            self._leave(change.node_id)

    def _launch(self, node_id: str, elastic: Elastic) -> None:
        if node_id in self._since_us:
            return
        self._coming[node_id] = there_us = self._agenda.now_us + elastic.lead_us
        self._pay(node_id)
        self._agenda.at(there_us, partial(self._arrived, node_id))

    def _arrived(self, node_id: str) -> None:
        if self._coming.get(node_id) == self._agenda.now_us:  # else it was lost on its way
            del self._coming[node_id]
            self._fleet.join(node_id)

    def _keep(self, elastic: Elastic, keeper: Keeper) -> None:
        """For policies that say nothing of nodes."""
        now_us = self._agenda.now_us
        if self._plan.nodes is None:
            changes = keeper.step(self._plan, self._fleet.snapshot, self._coming, now_us)
            if changes.launch:
                self._launch(changes.launch, elastic)
            if changes.give_back:
                self._leave(changes.give_back)
        self._agenda.at(now_us + KEEP_US, partial(self._keep, elastic, keeper))

    def _happen(self, event: NodeEvent) -> None:
        node_id, there = event.node_id, event.node_id in self._fleet.nodes
        if event.kind is NodeEventKind.LOST:
            if there:
                self._leave(node_id)
            elif self._coming.pop(node_id, None) is not None:
                self._return(node_id)
        elif not there and node_id not in self._coming:
            self._join(node_id)

    def _join(self, node_id: str) -> None:
        self._pay(node_id)
        self._fleet.join(node_id)

    def _pay(self, node_id: str) -> None:
        spec = self._catalog.node(node_id)
        assert spec is not None, f"{node_id} is not in the catalog"
        self._since_us[node_id] = self._agenda.now_us
        self._meter.paid(spec, self._agenda.now_us)

    def _leave(self, node_id: str) -> None:
        self._fleet.leave(node_id)
        self._return(node_id)

    def _return(self, node_id: str) -> None:
        del self._since_us[node_id]
        self._meter.returned(node_id, self._agenda.now_us)
