"""Writing down actions with fresh ids, for every baseline. Pure.

In: what is to be done, and why. Out: `Action`s that name the snapshot they believed. Never:
decides.
"""

from typing import TypedDict

from placement.catalog import ModelId, NodeId, ReplicaId
from placement.plan import Drain, Evict, Promote, Reason, ReasonCode, Shed, Start, Victim, Warm
from placement.snapshot import ClusterSnapshot, Rung

US = 1_000_000
DEADLINE_US = 900 * US
"""Long enough for any start in a simulated cluster: no published policy gives up on one."""


class Base(TypedDict):
    """The fields that every action has."""

    action_id: str
    snapshot_version: int
    deadline_us: int
    node_id: NodeId
    why: Reason


class Scribe:
    """Counts ids; `see` tells it what the next actions believe."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._actions = 0
        self._replicas: dict[str, int] = {}
        self._version = 0
        self._now_us = 0

    def see(self, snapshot: ClusterSnapshot, now_us: int) -> None:
        self._version, self._now_us = snapshot.version, now_us

    def new_replica(self, model_id: str) -> str:
        """A plain ordinal per model: the same story names its replicas alike in every run."""
        self._replicas[model_id] = self._replicas.get(model_id, 0) + 1
        return f"{model_id.replace('/', '--')}-{self._replicas[model_id]}"

    def base(self, node_id: str, code: ReasonCode) -> Base:
        self._actions += 1
        return Base(
            action_id=f"{self._prefix}-{self._actions}",
            snapshot_version=self._version,
            deadline_us=self._now_us + DEADLINE_US,
            node_id=NodeId(node_id),
            why=Reason(code=code),
        )

    def start(
        self,
        replica_id: str,
        model_id: str,
        node_id: str,
        gpu_ids: tuple[int, ...],
        code: ReasonCode,
        to: Rung = Rung.SERVING,
    ) -> Start:
        return Start(
            replica_id=ReplicaId(replica_id),
            model_id=ModelId(model_id),
            gpu_ids=gpu_ids,
            to=to,
            **self.base(node_id, code),
        )

    def promote(self, replica_id: str, node_id: str, victims: dict[str, Rung | None]) -> Promote:
        return Promote(
            replica_id=ReplicaId(replica_id),
            victims=tuple(Victim(replica_id=ReplicaId(r), to=to) for r, to in victims.items()),
            **self.base(node_id, ReasonCode.HELD_REQUESTS),
        )

    def evict(self, replica_id: str, node_id: str, code: ReasonCode) -> Evict:
        return Evict(replica_id=ReplicaId(replica_id), **self.base(node_id, code))

    def shed(self, replica_id: str, node_id: str, code: ReasonCode) -> Shed:
        return Shed(replica_id=ReplicaId(replica_id), **self.base(node_id, code))

    def warm(self, replica_id: str, node_id: str, code: ReasonCode) -> Warm:
        return Warm(replica_id=ReplicaId(replica_id), **self.base(node_id, code))

    def drain(self, replica_id: str, node_id: str, *, release_kv: bool = False) -> Drain:
        return Drain(
            replica_id=ReplicaId(replica_id),
            release_kv=release_kv,
            **self.base(node_id, ReasonCode.EXCESS),
        )
