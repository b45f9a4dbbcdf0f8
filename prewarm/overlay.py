"""Pending actions laid over a snapshot: the world as it is about to be. Pure.

In: a snapshot, actions that agents have been asked for and may not show yet. Out: a snapshot on
which they are under way, so that the next plan neither repeats nor contradicts them.
"""

from collections.abc import Iterable, Mapping

import msgspec

from placement.catalog import Catalog, Frozen, ModelSpec
from placement.feasibility import recounted
from placement.plan import Action, Drain, Evict, Fetch, Promote, Restore, Start, target_rung
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
    """The snapshot with these actions under way on it."""
    nodes = {n.node_id: n for n in snapshot.nodes}
    for one in pending:
        node_id = one.action.node_id
        node, spec = nodes.get(node_id), catalog.node(node_id)
        if node is not None and spec is not None:
            replicas = _with_action(node, one, models)
            nodes[node_id] = recounted(node, replicas, spec, models)
    return ClusterSnapshot(version=snapshot.version, nodes=tuple(nodes.values()))


def _with_action(
    node: NodeState, one: Pending, models: Mapping[str, ModelSpec]
) -> tuple[ReplicaState, ...]:
    action = one.action
    shown = any(r.action_id == action.action_id for r in node.replicas)
    if shown or isinstance(action, Fetch):
        return node.replicas
    if not isinstance(action, Start):
        return tuple(_moved(r, one) for r in node.replicas)
    known = any(r.replica_id == action.replica_id for r in node.replicas)
    if known or action.model_id not in models:
        return node.replicas
    return (*node.replicas, _starting(action, one.eta_us))


def _starting(action: Start, eta_us: int) -> ReplicaState:
    return ReplicaState(
        replica_id=action.replica_id,
        model_id=action.model_id,
        node_id=action.node_id,
        gpu_ids=action.gpu_ids,
        rung=Rung.SERVING,
        phase=Phase.STARTING,
        action_id=action.action_id,
        target=Rung.SERVING,
        eta_us=eta_us,
    )


def _moved(replica: ReplicaState, one: Pending) -> ReplicaState:
    action = one.action
    if isinstance(action, Start | Fetch) or replica.action_id:
        return replica
    if isinstance(action, Promote):
        for victim in action.victims:
            if victim.replica_id == replica.replica_id:
                return msgspec.structs.replace(
                    replica, action_id=action.action_id, target=victim.to
                )
    if action.replica_id != replica.replica_id:
        return replica
    if isinstance(action, Drain):
        return msgspec.structs.replace(replica, phase=Phase.DRAINING)
    if isinstance(action, Restore):
        return msgspec.structs.replace(replica, phase=Phase.READY)
    return msgspec.structs.replace(
        replica,
        action_id=action.action_id,
        target=None if isinstance(action, Evict) else target_rung(action),
        eta_us=one.eta_us,
    )
