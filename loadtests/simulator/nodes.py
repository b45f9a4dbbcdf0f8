"""What a simulated node offers and what it is given, whichever world's physics it has.

In: nothing. Out: the `Node` port, the `Site` that nodes are built on. Never: moves anything.
"""

from collections.abc import Callable
from typing import Protocol

from loadtests.simulator.agenda import Agenda
from loadtests.simulator.engine import Engine, Listener
from loadtests.simulator.meter import Meter
from placement.catalog import ModelSpec, NodeId, NodeSpec
from placement.edges import Edge, Link
from placement.plan import Action, Answer, Fetch, Outcome, OutcomeStatus
from placement.snapshot import NodeState


class Gone(Listener, Protocol):
    """Who also hears of engines that are no more."""

    def on_gone(self, engine: Engine) -> None:
        """Its requests, if it had any, go elsewhere."""


class Site:
    """What all nodes share: the agenda, the meter, whoever listens, names that nobody else has."""

    def __init__(self, agenda: Agenda, meter: Meter, hear: Gone) -> None:
        self.agenda = agenda
        self.meter = meter
        self.engines: dict[str, Engine] = {}
        """Of all nodes, by replica."""
        self.settle: Callable[[str], None] = lambda _: None
        """Tells the fleet that a node has changed by itself."""
        self._hear = hear
        self._ports = 0

    def open(self, replica_id: str, spec: ModelSpec, gpu_type: str) -> Engine:
        engine = Engine(replica_id, spec, gpu_type, self.agenda, self._hear)
        self.engines[replica_id] = engine
        return engine

    def close(self, engine: Engine) -> None:
        """It is no more, and whoever was on it has to go elsewhere."""
        del self.engines[engine.replica_id]
        self._hear.on_gone(engine)

    def endpoint(self, node_id: str) -> str:
        """An address that a routing table tells from all others; nothing listens there."""
        self._ports += 1
        return f"{node_id}:{self._ports}"


class Node(Protocol):
    """One node: takes actions, ends them later. Calls come in order of time."""

    spec: NodeSpec
    engines: dict[str, Engine]

    @property
    def seq(self) -> int:
        """Grows with every change that others may see."""

    def submit(self, action: Action, now_us: int) -> Answer: ...
    def next_us(self) -> int | None:
        """When something here ends next, if nothing else begins."""

    def advance(self, now_us: int) -> list[Outcome]:
        """All that has ended by now, with what ended at once when it was asked for."""

    def runs(self, action_id: str) -> bool: ...
    def expire(self, action_id: str, now_us: int) -> None:
        """The action's deadline has come and it still runs: it fails."""

    def end(self, now_us: int) -> list[Outcome]:
        """The node is gone, and with it all that runs: every action under way fails."""

    def state(self) -> NodeState: ...
    def held_bytes(self) -> tuple[list[int], int]:
        """What is physically held now, on each GPU and on the host. For the laws."""

    def flows(self) -> dict[Link, float]:
        """Bytes per second that cross each kind of link now. For the laws."""

    def check(self) -> None:
        """Assert what this node's world promises beyond bytes."""


def outcome_of(
    action: Action,
    model_id: str,
    began_us: int,
    now_us: int,
    status: OutcomeStatus,
    message: str = "",
) -> Outcome:
    return Outcome(
        action_id=action.action_id,
        verb=type(action).__name__.lower(),
        node_id=NodeId(action.node_id),
        replica_id="" if isinstance(action, Fetch) else action.replica_id,
        model_id=model_id,
        status=status,
        began_us=began_us,
        ended_us=now_us,
        message=message,
    )


def to_gpus(edge: Edge) -> int:
    """Bytes of an edge that cross a link to a GPU."""
    crossing = edge.bytes_by_link
    return crossing.get(Link.LOADER, 0) + crossing.get(Link.H2D, 0)
