"""What exists now: nodes, their GPUs, the replicas on them and the rung each stands on.

Facts only, frozen, versioned. Built by agents (inventory) and by the simulator; read by everyone.
What is looked up often is indexed once, when it is first asked for, and kept with the record.
"""

from enum import IntEnum, StrEnum
from functools import cached_property
from operator import attrgetter

import msgspec

from placement.catalog import Frozen, ModelId, NodeId, ReplicaId


class Rung(IntEnum):
    """How near a replica is to serving. The order is the order of nearness, not a line of edges."""

    SHED = 1
    PARKED = 2
    WARM = 3
    SERVING = 4


class Phase(StrEnum):
    """Whether a replica may be used as its rung says."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class WeightsAt(IntEnum):
    """Where a model's weights lie on a node when no engine holds them."""

    OBJECT = 0
    DISK = 1
    HOST = 2


class Lack(Frozen, frozen=True, kw_only=True):
    """A step that one engine does not offer, and why: engines differ by version and device."""

    at: Rung
    to: Rung
    why: str


class ReplicaState(Frozen, frozen=True, kw_only=True):
    """A placed copy of a model. `endpoint` is `host:port` once its engine listens.

    While a transition runs, `action_id` names it, `target` is where it leads and `eta_us` when.
    """

    replica_id: ReplicaId
    model_id: ModelId
    node_id: NodeId
    gpu_ids: tuple[int, ...]
    rung: Rung
    phase: Phase
    endpoint: str = ""
    slots: int = 0
    since_us: int = 0
    action_id: str = ""
    target: Rung | None = None
    eta_us: int = 0
    pinned: bool = False
    """It was parked once: its pinned host memory is kept on every rung, until its engine ends."""
    role: str = "both"
    """What it does of a request: `prefill`, `decode`, or `both`."""
    lacks: tuple[Lack, ...] = ()
    """Steps of the rung graph that its engine turned out not to offer."""
    released_bytes: int = 0
    """World W: KV cache that a draining replica has given away for good, on each of its GPUs."""

    @property
    def loading(self) -> bool:
        """World W: weights on their way to a GPU. It can be launched or ended at any moment."""
        return self.phase is Phase.STARTING and self.target is Rung.WARM

    @property
    def serving(self) -> bool:
        """Takes new requests now."""
        return self.rung is Rung.SERVING and self.phase is Phase.READY and not self.action_id


class GpuState(Frozen, frozen=True, kw_only=True):
    gpu_id: int
    hbm_bytes: int
    reserved_bytes: int = 0
    """By the agent's ledger: what its replicas hold, and what running transitions may come to."""


class NodeState(Frozen, frozen=True, kw_only=True, dict=True):
    """One node as its agent last reported it. `alive` is the fleet's word, not the agent's."""

    node_id: NodeId
    alive: bool
    gpus: tuple[GpuState, ...]
    host_bytes: int
    host_reserved_bytes: int
    replicas: tuple[ReplicaState, ...] = ()
    weights_at: dict[str, WeightsAt] = msgspec.field(default_factory=dict)
    seq: int = 0
    """Sequence number of the agent's last event in this state."""

    def on(self, gpu_ids: tuple[int, ...]) -> tuple[ReplicaState, ...]:
        """Replicas that stand on any of these GPUs, in their own order."""
        found = self._on.get(gpu_ids)
        if found is None:
            wanted = set(gpu_ids)
            found = tuple(r for r in self.replicas if not wanted.isdisjoint(r.gpu_ids))
            self._on[gpu_ids] = found
        return found

    @cached_property
    def starting_gpus(self) -> frozenset[int]:
        """GPUs on which an engine starts."""
        starting = [r for r in self.replicas if r.phase is Phase.STARTING and not r.loading]
        return frozenset(g for r in starting for g in r.gpu_ids)

    @cached_property
    def asleep(self) -> tuple[ReplicaState, ...]:
        """At rest below serving, beside nobody who starts."""
        busy = self.starting_gpus
        return tuple(
            r
            for r in self.replicas
            if r.rung is not Rung.SERVING
            and not r.action_id
            and r.phase in (Phase.READY, Phase.DRAINING)
            and busy.isdisjoint(r.gpu_ids)
        )

    @cached_property
    def awake(self) -> tuple[ReplicaState, ...]:
        """Not `asleep`: they serve, or something is at work on them or beside them."""
        asleep = set(map(id, self.asleep))
        return tuple(r for r in self.replicas if id(r) not in asleep)

    @cached_property
    def action_ids(self) -> frozenset[str]:
        """Actions that it shows at work."""
        return frozenset(r.action_id for r in self.replicas if r.action_id)

    @cached_property
    def replica_ids(self) -> frozenset[str]:
        return frozenset(r.replica_id for r in self.replicas)

    @cached_property
    def _on(self) -> dict[tuple[int, ...], tuple[ReplicaState, ...]]:
        return {}


def nothing_runs(node: NodeState) -> bool:
    """Nothing serves, starts or moves there: nobody loses anything by its end but nearness."""
    return all(r.rung is not Rung.SERVING and not r.action_id for r in node.replicas)


class ClusterSnapshot(Frozen, frozen=True, kw_only=True, dict=True):
    """What a plan believes. Versions only grow."""

    version: int
    nodes: tuple[NodeState, ...] = ()

    def replicas(self) -> list[ReplicaState]:
        """Replicas of living nodes, ordered by id."""
        return list(self._by_id.values())

    def node(self, node_id: str) -> NodeState | None:
        return next((n for n in self.nodes if n.node_id == node_id), None)

    def replica(self, replica_id: str) -> ReplicaState | None:
        return self._by_id.get(replica_id)

    @cached_property
    def _by_id(self) -> dict[str, ReplicaState]:
        found = [r for n in self.nodes if n.alive for r in n.replicas]
        return {r.replica_id: r for r in sorted(found, key=attrgetter("replica_id"))}
