"""What fits where: bytes reserved, bytes free, GPU sets that nest.

In: replicas (rung and target), models, nodes. Out: byte counts
and `Shortage`s. Ledger and controller count with the same functions, so a plan that
fits here is refused only if the world moved. Never: awaits, reads a clock, changes its input.

**Capacity.** Sums of reservations stay below `constants.USABLE_HBM` of a GPU: the rest belongs to
the driver, to fragmentation, and to what a measurement may be off.

**In transition.** A replica between two rungs reserves the larger of both ends, a starting one its
whole footprint. A promotion with victims is one transaction in two stages (victims step down, then
the promoted one climbs) and reserves the larger of the two stages, so nobody takes its room
between them.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping

import msgspec

from placement import constants as c
from placement.catalog import Frozen, ModelSpec, NodeSpec
from placement.edges import (
    footprint_bytes,
    gpu_bytes,
    host_bytes,
    memo,
    power_of_two_above,
    shared_copies,
)
from placement.plan import RefusalCode
from placement.snapshot import GpuState, NodeState, Phase, ReplicaState, Rung

Pair = tuple[ReplicaState, ModelSpec]
Bytes = Callable[[ReplicaState, ModelSpec, Rung], int]


class Shortage(Frozen, frozen=True, kw_only=True):
    """Why something does not fit: what it needs and what is there, both in bytes."""

    code: RefusalCode
    message: str
    need_bytes: int = 0
    free_bytes: int = 0


class Reserved(Frozen, frozen=True, kw_only=True):
    """Bytes promised to replicas and to their running transitions."""

    gpu_bytes: dict[int, int]
    host_bytes: int


@memo
def usable_hbm_bytes(hbm_bytes: int) -> int:
    """What reservations on one GPU may add up to."""
    return int(hbm_bytes * c.USABLE_HBM.value)


def ending(replica: ReplicaState) -> bool:
    """Its engine is being ended: an action is at work on it that leads to no rung."""
    return bool(replica.action_id) and replica.target is None


def frees_memory(replica: ReplicaState) -> bool:
    """A transition is at work that may give GPU memory back before it ends."""
    return ending(replica) or (replica.target is not None and replica.target < replica.rung)


def replica_host_bytes(replica: ReplicaState, spec: ModelSpec, rung: Rung) -> int:
    """Host memory this replica holds, or would hold, on `rung`.

    Once parked, it keeps its pinned blocks until its engine ends: parking it again costs nothing.
    """
    return host_bytes(spec, Rung.PARKED if replica.pinned else rung)


def replica_gpu_bytes(replica: ReplicaState, spec: ModelSpec, rung: Rung) -> int:
    """Bytes this replica holds on each of its GPUs, or would hold, on `rung`.

    What it has given away while it drained (world W) it never holds again as long as it serves.
    """
    held = gpu_bytes(spec, rung)
    return held - replica.released_bytes if rung is Rung.SERVING else held


def reserved(node_spec: NodeSpec, pairs: Iterable[Pair]) -> Reserved:
    """Bytes reserved on each GPU and on the host, by the rules in this module's header."""
    per_gpu, host = dict.fromkeys(range(node_spec.gpus), 0), 0
    for group in _moving_together(pairs):
        for gpu_id in {g for replica, _ in group for g in replica.gpu_ids}:
            if gpu_id in per_gpu:
                here = [p for p in group if gpu_id in p[0].gpu_ids]
                per_gpu[gpu_id] += _most(here, replica_gpu_bytes)
        host += _most(group, replica_host_bytes)
    return Reserved(gpu_bytes=per_gpu, host_bytes=host)


def _moving_together(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Each replica at rest by itself; those that one action moves as one group."""
    actions: dict[str, list[Pair]] = {}
    for pair in pairs:
        action_id = pair[0].action_id
        if action_id:
            actions.setdefault(action_id, []).append(pair)
        else:
            yield [pair]
    yield from actions.values()


def _most(group: list[Pair], of: Bytes) -> int:
    """At rest what it holds; in an action the larger of its two stages."""
    stepping_down = climbing = 0
    for replica, spec in group:
        here = of(replica, spec, replica.rung)
        if not replica.action_id:
            return here
        there = of(replica, spec, replica.target) if replica.target is not None else 0
        climbs = replica.target is Rung.SERVING
        stepping_down += here if climbs else max(here, there)
        climbing += max(here, there) if climbs else there
    return max(stepping_down, climbing)


def recounted(
    node: NodeState,
    replicas: tuple[ReplicaState, ...],
    spec: NodeSpec,
    models: Mapping[str, ModelSpec],
) -> NodeState:
    """The node with these replicas instead: what a plan's next step will find.

    Counts the difference only, so what the agent alone knows (replicas of models that have left
    the catalog) stays counted; and only of those that differ, with whoever moves along with them.
    """
    there, wanted = set(map(id, node.replicas)), set(map(id, replicas))
    changed = [r for r in node.replicas if id(r) not in wanted]
    changed += [r for r in replicas if id(r) not in there]
    moving = {r.action_id for r in changed if r.action_id}
    before = _counted(node.replicas, wanted, moving, spec, models)
    after = _counted(replicas, there, moving, spec, models)
    gpus = tuple(
        g
        if after.gpu_bytes[g.gpu_id] == before.gpu_bytes[g.gpu_id]
        else GpuState(
            gpu_id=g.gpu_id,
            hbm_bytes=g.hbm_bytes,
            reserved_bytes=g.reserved_bytes
            + after.gpu_bytes[g.gpu_id]
            - before.gpu_bytes[g.gpu_id],
        )
        for g in node.gpus
    )
    host = node.host_reserved_bytes + after.host_bytes - before.host_bytes
    return msgspec.structs.replace(node, replicas=replicas, gpus=gpus, host_reserved_bytes=host)


def _counted(
    replicas: tuple[ReplicaState, ...],
    kept: Container[int],
    moving: Container[str],
    spec: NodeSpec,
    models: Mapping[str, ModelSpec],
) -> Reserved:
    """Of these replicas those not kept, and those in an action of theirs."""
    return reserved(
        spec,
        [
            (r, models[r.model_id])
            for r in replicas
            if (id(r) not in kept or r.action_id in moving) and r.model_id in models
        ],
    )


def gpu_free_bytes(node: NodeState, gpu_id: int) -> int:
    """Usable bytes of a GPU that nothing has reserved. Negative after a shrinking catalog."""
    gpu = node.gpus[gpu_id]
    return usable_hbm_bytes(gpu.hbm_bytes) - gpu.reserved_bytes


def host_free_bytes(node: NodeState) -> int:
    return node.host_bytes - node.host_reserved_bytes


def claim_bytes(spec: ModelSpec, node: NodeState) -> int:
    """What serving takes of each of its GPUs: its footprint, and in world W all that is usable."""
    if not node.gpus or not shared_copies(spec):
        return footprint_bytes(spec)
    return max(footprint_bytes(spec), usable_hbm_bytes(node.gpus[0].hbm_bytes))


def room_for_start(
    spec: ModelSpec, node: NodeState, node_spec: NodeSpec, gpu_ids: tuple[int, ...]
) -> Shortage | None:
    """None when an engine of this model can start on exactly these GPUs now."""
    return (
        wrong_gpu_set(spec, node_spec, gpu_ids)
        or start_in_the_way(node.on(gpu_ids), gpu_ids)
        or freeing_in_the_way(node.on(gpu_ids), gpu_ids)
        or lacking_gpu(node, gpu_ids, claim_bytes(spec, node))
        or lacking_host(node, host_bytes(spec, Rung.SERVING))
    )


def room_for_step(
    spec: ModelSpec, node: NodeState, replica: ReplicaState, to: Rung
) -> Shortage | None:
    """None when this replica can go to `to` now. Says nothing about the edge being legal."""
    gpu_then = claim_bytes(spec, node) if to is Rung.SERVING else gpu_bytes(spec, to)
    more_gpu = gpu_then - replica_gpu_bytes(replica, spec, replica.rung)
    host_now = replica_host_bytes(replica, spec, replica.rung)
    more_host = replica_host_bytes(replica, spec, to) - host_now
    return (
        (start_in_the_way(node.on(replica.gpu_ids), replica.gpu_ids) if to < replica.rung else None)
        or lacking_gpu(node, replica.gpu_ids, more_gpu)
        or lacking_host(node, more_host)
    )


@memo
def wrong_gpu_set(
    spec: ModelSpec, node_spec: NodeSpec, gpu_ids: tuple[int, ...]
) -> Shortage | None:
    """GPU ids must exist, be sorted and distinct, and as many as the model is sharded over."""
    wanted = spec.gpus if spec.on_gpu else 0
    if spec.on_gpu and spec.on_cpu != node_spec.on_cpu:
        return Shortage(code=RefusalCode.UNKNOWN_GPU, message=wrong_device(spec, node_spec))
    there = all(0 <= g < node_spec.gpus for g in gpu_ids)
    if there and len(gpu_ids) == wanted and list(gpu_ids) == sorted(set(gpu_ids)):
        return None
    return Shortage(
        code=RefusalCode.UNKNOWN_GPU,
        message=f"{spec.id} needs {wanted} GPUs by ascending id, of 0 to {node_spec.gpus - 1} "
        f"on {node_spec.id}; got {list(gpu_ids)}",
    )


def wrong_device(spec: ModelSpec, node_spec: NodeSpec) -> str:
    """Emulated GPUs and real ones are GPUs; a node of type CPU takes vLLM, and nothing else does
    once the fleet has one."""
    has = "shares of its memory" if node_spec.on_cpu else f"{node_spec.gpu_type} GPUs"
    wants = "a node of type CPU" if spec.on_cpu else "GPUs"
    return f"{spec.id} needs {wants}; {node_spec.id} has {has}"


def start_in_the_way(replicas: Iterable[ReplicaState], gpu_ids: tuple[int, ...]) -> Shortage | None:
    """One start per GPU at a time, and nobody frees memory beside it: its profiling would trip."""
    for replica in replicas:
        if replica.phase is not Phase.STARTING or replica.loading:
            continue
        if not set(gpu_ids).isdisjoint(replica.gpu_ids):
            return Shortage(
                code=RefusalCode.START_IN_PROGRESS,
                message=f"{replica.replica_id} is starting on GPUs {list(replica.gpu_ids)}; "
                "wait until it serves",
            )
    return None


def freeing_in_the_way(
    replicas: Iterable[ReplicaState], gpu_ids: tuple[int, ...]
) -> Shortage | None:
    """A start may not begin while a neighbour gives memory back."""
    for replica in replicas:
        if frees_memory(replica) and not set(gpu_ids).isdisjoint(replica.gpu_ids):
            return Shortage(
                code=RefusalCode.IN_TRANSITION,
                message=f"{replica.replica_id} is freeing memory on GPUs "
                f"{list(replica.gpu_ids)}; start when it is done",
            )
    return None


def lacking_gpu(node: NodeState, gpu_ids: tuple[int, ...], need: int) -> Shortage | None:
    """The tightest of these GPUs, if it has less than `need` bytes free."""
    if not gpu_ids or need <= 0:
        return None
    free, tightest = min((gpu_free_bytes(node, g), g) for g in gpu_ids)
    if need <= free:
        return None
    return Shortage(
        code=RefusalCode.NO_ROOM_GPU,
        need_bytes=need,
        free_bytes=max(free, 0),
        message=f"needs {need} bytes on each of GPUs {list(gpu_ids)}; "
        f"GPU {tightest} of {node.node_id} has {max(free, 0)} free",
    )


def lacking_host(node: NodeState, need: int) -> Shortage | None:
    free = host_free_bytes(node)
    if need <= max(free, 0):
        return None
    return Shortage(
        code=RefusalCode.NO_ROOM_HOST,
        need_bytes=need,
        free_bytes=max(free, 0),
        message=f"needs {need} bytes of host memory; {node.node_id} has {max(free, 0)} free",
    )


@memo
def gpu_sets(node_spec: NodeSpec, n: int) -> tuple[tuple[int, ...], ...]:
    """Aligned buddies of `n` GPUs: for powers of two, any two sets nest or are disjoint.

    Three GPUs are the first three of a buddy of four, and may straddle a pair.
    """
    if n == 0:
        return ((),)
    starts = range(0, node_spec.gpus - n + 1, power_of_two_above(n))
    return tuple(tuple(range(start, start + n)) for start in starts)
