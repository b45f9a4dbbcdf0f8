"""What a node of world W refuses, and why: GPUs that serve are owned wholly, bytes are bytes.

In: an action, the replicas that stand on the node. Out: the first `Shortage`, or None. Pure.
Never: changes anything, reads a clock.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from placement import feasibility as fit
from placement.catalog import ModelSpec, NodeSpec
from placement.edges import footprint_bytes, gpu_bytes, legal_starts
from placement.feasibility import Shortage
from placement.plan import (
    Action,
    Drain,
    Evict,
    Fetch,
    Park,
    Promote,
    RefusalCode,
    Restore,
    Shed,
    Start,
    Warm,
)
from placement.snapshot import Phase, Rung


class Standing(Protocol):
    """What the rules look at of a replica."""

    replica_id: str
    spec: ModelSpec
    gpu_ids: tuple[int, ...]
    rung: Rung
    phase: Phase
    action_id: str
    target: Rung | None

    @property
    def busy(self) -> bool: ...
    @property
    def released_bytes(self) -> int: ...


def owns(replica: Standing) -> bool:
    """It serves, or is going to without another word: its GPUs are its own."""
    return Rung.SERVING in (replica.rung, replica.target)


def held_bytes(replica: Standing) -> int:
    """On each of its GPUs."""
    rung = Rung.SERVING if owns(replica) else Rung.WARM
    return gpu_bytes(replica.spec, rung) - replica.released_bytes


def obstacle(
    action: Action,
    node: NodeSpec,
    models: Mapping[str, ModelSpec],
    replicas: Mapping[str, Standing],
) -> Shortage | None:
    """Everything that stands in the way."""
    match action:
        case Fetch():
            return None if action.model_id in models else _unknown_model(action.model_id)
        case Start():
            return _start_obstacle(action, node, models, replicas)
        case Promote():
            return _promote_obstacle(action, node, replicas)
        case Warm():
            return _serving(action.replica_id, replicas) or _unbusy(replicas[action.replica_id])
        case Evict():
            return _droppable(action.replica_id, replicas)
        case Drain():
            return _serving(action.replica_id, replicas)
        case Restore():
            return _serving(action.replica_id, replicas) or _whole(replicas[action.replica_id])
        case Park() | Shed():
            message = f"world W has no rung below warm: {action.replica_id} can be evicted"
            return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)


def _start_obstacle(
    action: Start,
    node: NodeSpec,
    models: Mapping[str, ModelSpec],
    replicas: Mapping[str, Standing],
) -> Shortage | None:
    spec = models.get(action.model_id)
    if spec is None:
        return _unknown_model(action.model_id)
    if action.replica_id in replicas:
        message = f"{action.replica_id} exists already; give a new replica a new name"
        return Shortage(code=RefusalCode.DUPLICATE_REPLICA, message=message)
    if action.to not in legal_starts(spec):
        message = f"a start of {spec.id} cannot end {action.to.name}"
        return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)
    if (wrong := fit.wrong_gpu_set(spec, node, action.gpu_ids)) is not None:
        return wrong
    if action.to is Rung.SERVING:
        return _room_to_serve(spec, node, action.gpu_ids, replicas.values())
    return room_to_load(spec, node, action.gpu_ids, replicas.values())


def room_to_load(
    spec: ModelSpec, node: NodeSpec, gpu_ids: tuple[int, ...], replicas: Iterable[Standing]
) -> Shortage | None:
    """Weights fit beside others' weights, and into what a draining replica has given away."""
    here = list(replicas)
    need = spec.weights_per_gpu_bytes
    for gpu_id in gpu_ids:
        on_it = [r for r in here if gpu_id in r.gpu_ids]
        owner = next((r for r in on_it if owns(r)), None)
        total = fit.usable_hbm_bytes(node.hbm_bytes) if owner is None else owner.released_bytes
        free = total - sum(held_bytes(r) for r in on_it if r is not owner)
        if need > free:
            return Shortage(
                code=RefusalCode.NO_ROOM_GPU,
                need_bytes=need,
                free_bytes=max(free, 0),
                message=f"needs {need} bytes on GPU {gpu_id} of {node.id}, {max(free, 0)} are free",
            )
    return None


def _room_to_serve(
    spec: ModelSpec, node: NodeSpec, gpu_ids: tuple[int, ...], replicas: Iterable[Standing]
) -> Shortage | None:
    """Whoever is to serve needs its GPUs large enough, and empty of everybody else."""
    need, usable = footprint_bytes(spec), fit.usable_hbm_bytes(node.hbm_bytes)
    if need > usable:
        return Shortage(
            code=RefusalCode.NO_ROOM_GPU,
            need_bytes=need,
            free_bytes=usable,
            message=f"{spec.id} needs {need} bytes on each GPU, those of {node.id} have {usable}",
        )
    for replica in replicas:
        if not set(gpu_ids).isdisjoint(replica.gpu_ids):
            message = f"{replica.replica_id} stands on GPUs {list(replica.gpu_ids)}: drop it first"
            return Shortage(code=RefusalCode.NO_ROOM_GPU, message=message)
    return None


def _promote_obstacle(
    action: Promote, node: NodeSpec, replicas: Mapping[str, Standing]
) -> Shortage | None:
    climber = replicas.get(action.replica_id)
    if climber is None:
        return _unknown(action.replica_id)
    if owns(climber):
        message = f"{climber.replica_id} serves already, or is going to"
        return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)
    names = [v.replica_id for v in action.victims]
    if action.replica_id in names or len(set(names)) != len(names):
        message = "a replica is named twice in one promotion"
        return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)
    for victim in action.victims:
        if victim.to is not None:
            message = f"victim {victim.replica_id} must be dropped, for it keeps a whole GPU busy"
            return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)
        if (fixed := _droppable(victim.replica_id, replicas)) is not None:
            return fixed
    others = [r for n, r in replicas.items() if n != action.replica_id and n not in names]
    return _room_to_serve(climber.spec, node, climber.gpu_ids, others)


def _droppable(replica_id: str, replicas: Mapping[str, Standing]) -> Shortage | None:
    """Weights and loads can go at any time; who is being launched, or has work, cannot."""
    replica = replicas.get(replica_id)
    if replica is None:
        return _unknown(replica_id)
    if replica.target is Rung.SERVING:
        message = f"{replica_id} is busy with action {replica.action_id}"
        return Shortage(code=RefusalCode.IN_TRANSITION, message=message)
    return _unbusy(replica)


def _serving(replica_id: str, replicas: Mapping[str, Standing]) -> Shortage | None:
    replica = replicas.get(replica_id)
    if replica is None:
        return _unknown(replica_id)
    if replica.action_id:
        message = f"{replica_id} is busy with action {replica.action_id}"
        return Shortage(code=RefusalCode.IN_TRANSITION, message=message)
    if replica.rung is not Rung.SERVING:
        message = f"{replica_id} does not serve"
        return Shortage(code=RefusalCode.ILLEGAL_EDGE, message=message)
    return None


def _unbusy(replica: Standing) -> Shortage | None:
    if not replica.busy:
        return None
    message = f"{replica.replica_id} has running requests; drain it and wait"
    return Shortage(code=RefusalCode.BUSY, message=message)


def _whole(replica: Standing) -> Shortage | None:
    if not replica.released_bytes:
        return None
    message = f"{replica.replica_id} has given KV cache away for good: it can only drain"
    return Shortage(code=RefusalCode.UNSUPPORTED, message=message)


def _unknown(replica_id: str) -> Shortage:
    return Shortage(code=RefusalCode.UNKNOWN_REPLICA, message=f"no replica {replica_id} here")


def _unknown_model(model_id: str) -> Shortage:
    message = f"{model_id} is not in the catalog"
    return Shortage(code=RefusalCode.UNKNOWN_MODEL, message=message)
