"""All nodes of a simulated cluster: which are there, what they look like, what ends when.

In: actions, nodes that come and go. Out: answers at once; snapshots and outcomes, told to a
listener as a live fleet tells them. Never: plans, knows a request.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from loadtests.simulator.nodes import Node, Site
from placement.catalog import Catalog
from placement.plan import Accepted, Action, Answer, Outcome, RefusalCode, Refused
from placement.snapshot import ClusterSnapshot, NodeState

MakeNode = Callable[[str], Node]


class FleetListener(Protocol):
    def on_changed(self, snapshot: ClusterSnapshot) -> None: ...
    def on_outcome(self, outcome: Outcome) -> None: ...


class SimFleet:
    """Nodes by id. A node's next end has one live entry in the agenda; others are void."""

    def __init__(self, catalog: Catalog, site: Site, make: MakeNode, hear: FleetListener) -> None:
        self.nodes: dict[str, Node] = {}
        self.snapshot = ClusterSnapshot(version=0)
        self._order = {spec.id: i for i, spec in enumerate(catalog.nodes)}
        self._site = site
        self._agenda = site.agenda
        self._make = make
        self._hear = hear
        self._states: dict[str, NodeState] = {}
        self._due_us: dict[str, int] = {}
        site.settle = self.settle

    def join(self, node_id: str) -> None:
        """It takes actions from now on."""
        assert node_id not in self.nodes, f"{node_id} is there already"
        self.nodes[node_id] = self._make(node_id)
        self._publish(node_id)

    def leave(self, node_id: str) -> None:
        """It is gone, with all that runs on it."""
        node = self.nodes.pop(node_id)
        del self._states[node_id]
        self._due_us.pop(node_id, None)
        outcomes = node.end(self._agenda.now_us)
        self._show()
        for outcome in outcomes:
            self._tell(outcome)

    def submit(self, action: Action) -> Answer:
        node = self.nodes.get(action.node_id)
        if node is None:
            return Refused(
                action_id=action.action_id,
                reason_code=RefusalCode.NODE_UNREACHABLE,
                message=f"no node {action.node_id} is there now",
            )
        answer = node.submit(action, self._agenda.now_us)
        if isinstance(answer, Accepted):
            if node.runs(action.action_id):
                self._agenda.at(action.deadline_us, partial(self._expire, node, action.action_id))
            self._settle(action.node_id, node)
        return answer

    def settle(self, node_id: str) -> None:
        """Something moved on a node that no action of ours moved."""
        self._settle(node_id, self.nodes[node_id])

    def _expire(self, node: Node, action_id: str) -> None:
        node_id = node.spec.id
        if self.nodes.get(node_id) is node and node.runs(action_id):
            node.expire(action_id, self._agenda.now_us)
            self._settle(node_id, node)

    def _settle(self, node_id: str, node: Node) -> None:
        """Show what changed, and be there when the next thing ends."""
        due_us = node.next_us()
        if node.seq != self._states[node_id].seq and due_us != self._agenda.now_us:
            self._publish(node_id)
        if due_us is not None and due_us != self._due_us.get(node_id):
            self._due_us[node_id] = due_us
            self._agenda.at(due_us, partial(self._on_due, node_id, node))

    def _on_due(self, node_id: str, node: Node) -> None:
        now_us = self._agenda.now_us
        if self.nodes.get(node_id) is not node or self._due_us.get(node_id) != now_us:
            return
        del self._due_us[node_id]
        outcomes = node.advance(now_us)
        if node.seq != self._states[node_id].seq:
            self._publish(node_id)
        for outcome in outcomes:
            self._tell(outcome)
        if self.nodes.get(node_id) is node:
            self._settle(node_id, node)

    def _publish(self, node_id: str) -> None:
        state = self.nodes[node_id].state()
        self._states[node_id] = state
        self._site.meter.node(state, self._agenda.now_us)
        self._show()

    def _show(self) -> None:
        states = sorted(self._states.values(), key=lambda s: self._order[s.node_id])
        self.snapshot = ClusterSnapshot(version=self.snapshot.version + 1, nodes=tuple(states))
        self._hear.on_changed(self.snapshot)

    def _tell(self, outcome: Outcome) -> None:
        self._site.meter.deed(outcome)
        self._hear.on_outcome(outcome)
