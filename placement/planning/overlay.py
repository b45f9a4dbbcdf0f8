"""Pending actions laid over a snapshot: the world as it is about to be. Pure.

In: a snapshot, actions that agents have been asked for and may not show yet. Out: a snapshot on
which they are under way, so that the next plan neither repeats nor contradicts them.
"""

from collections.abc import Iterable, Mapping

import msgspec

from placement.catalog import Catalog, Frozen, ModelSpec
from placement.edges import shared_copies
from placement.feasibility import recounted
from placement.plan import (
    Action,
    Drain,
    Evict,
    Fetch,
    Promote,
    Restore,
    Start,
    stepping_down,
    target_rung,
)
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung


class Pending(Frozen, frozen=True, kw_only=True):
    """An action that was handed out and has not ended, and when it is expected to."""

    action: Action
    eta_us: int = 0


def overlay(
    snapshot: ClusterSnapshot,
    pending: Iterable[Pending],
    models: Mapping[str, ModelSpec],
    catalog: Catalog,
) -> ClusterSnapshot:
    """The snapshot with these actions under way on it; itself, where it shows them all already."""
    nodes = {n.node_id: n for n in snapshot.nodes}
    changed = False
    for one in pending:
        node_id = one.action.node_id
        node, spec = nodes.get(node_id), catalog.node(node_id)
        if node is not None and spec is not None:
            replicas = _with_action(node, one, models)
            if replicas is not node.replicas:
                nodes[node_id] = recounted(node, replicas, spec, models)
                changed = True
    if not changed:
        return snapshot
    return ClusterSnapshot(version=snapshot.version, nodes=tuple(nodes.values()))


def _with_action(
    node: NodeState, one: Pending, models: Mapping[str, ModelSpec]
) -> tuple[ReplicaState, ...]:
    action = one.action
    if action.action_id in node.action_ids or isinstance(action, Fetch):
        return node.replicas
    if isinstance(action, Start):
        if action.replica_id in node.replica_ids or action.model_id not in models:
            return node.replicas
        return (*node.replicas, starting(action, one.eta_us))
    named = {action.replica_id, *stepping_down(action)}
    if named.isdisjoint(node.replica_ids):
        return node.replicas
    if isinstance(action, Evict) and _ends_at_once(node, action, models):
        return tuple(r for r in node.replicas if r.replica_id != action.replica_id)
    after = tuple(_moved(r, one) if r.replica_id in named else r for r in node.replicas)
    same = all(a is b for a, b in zip(after, node.replicas, strict=True))
    return node.replicas if same else after


def _ends_at_once(node: NodeState, action: Evict, models: Mapping[str, ModelSpec]) -> bool:
    """World W: no process has to end, so what it held is free the moment it is asked for."""
    replica = next(r for r in node.replicas if r.replica_id == action.replica_id)
    spec = models.get(replica.model_id)
    return spec is not None and shared_copies(spec)


def starting(action: Start, eta_us: int, since_us: int = 0) -> ReplicaState:
    """The replica that an action starts, as it looks from then on."""
    return ReplicaState(
        replica_id=action.replica_id,
        model_id=action.model_id,
        node_id=action.node_id,
        gpu_ids=action.gpu_ids,
        rung=action.to,
        phase=Phase.STARTING,
        action_id=action.action_id,
        target=action.to,
        since_us=since_us,
        eta_us=eta_us,
    )


def _moved(replica: ReplicaState, one: Pending) -> ReplicaState:
    """What an action makes of a replica that it names, the promoted one or a victim."""
    action = one.action
    assert not isinstance(action, Start | Fetch), "those name no replica that is there"
    if replica.action_id and not replica.loading:
        return replica
    if isinstance(action, Drain | Restore):
        phase = Phase.DRAINING if isinstance(action, Drain) else Phase.READY
        if replica.phase is phase:
            return replica
        return msgspec.structs.replace(replica, phase=phase)
    target: Rung | None = None
    if isinstance(action, Promote) and replica.replica_id != action.replica_id:
        target = next(v.to for v in action.victims if v.replica_id == replica.replica_id)
        return msgspec.structs.replace(replica, action_id=action.action_id, target=target)
    if not isinstance(action, Evict):
        target = target_rung(action)
    return msgspec.structs.replace(
        replica, action_id=action.action_id, target=target, eta_us=one.eta_us
    )
