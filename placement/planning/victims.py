"""Who makes room: idle neighbours that step down, parked engines that end, busy ones to drain.

In: a draft, the model that needs room, a GPU set and bytes. Out: victims, the cheapest that
suffice. Never: touches a busy replica, a model's minimum, or a place promised to another model.
"""

from collections.abc import Container, Iterable, Mapping

from placement.catalog import ModelSpec, ReplicaId
from placement.edges import edge_us, gpu_bytes, legal, step_edge
from placement.feasibility import replica_gpu_bytes, replica_host_bytes, room_for_step
from placement.plan import Victim
from placement.planning.draft import Draft
from placement.snapshot import NodeState, ReplicaState, Rung

Steps = dict[ReplicaId, Rung | None]


def choose_victims(
    draft: Draft, for_model: str, node: NodeState, gpus: tuple[int, ...], need: int, low: Rung
) -> tuple[Victim, ...]:
    """Idle neighbours that step down so that each GPU gets `need` bytes; empty if none suffice.

    Gentlest step first (KV cache only), then `low`, then ending engines; cheapest loss first.
    """
    if not covers(draft.bytes_on(node).most, gpus, need):
        return ()
    idle = [r for r in node.on(gpus) if may_step_down(draft, r, for_model)]
    ranked = sorted(idle, key=lambda r: (draft.loss_us(r, None), r.replica_id))
    free = draft.bytes_on(node).free
    lacking = {g: need - free[g] for g in gpus}
    steps: Steps = {}
    for wanted in (Rung.WARM, low, None):
        for replica in ranked:
            to = _reachable(draft, node, replica, wanted)
            at = steps.get(replica.replica_id, replica.rung)
            if at is None or (to is not None and to >= at):
                continue
            more = _given(draft, replica, to)
            if replica.replica_id in steps:
                more -= _given(draft, replica, at)
            steps[replica.replica_id] = to
            _give(lacking, replica, more)
            if max(lacking.values()) <= 0:
                return _pruned(draft, lacking, steps)
    return ()


def host_given(draft: Draft, victims: Iterable[Victim]) -> int:
    """Host memory that these give back: those that end, all of theirs."""
    ending = [draft.replica(v.replica_id) for v in victims if v.to is None]
    return sum(replica_host_bytes(r, draft.facts.models[r.model_id], r.rung) for r in ending)


def host_victims(
    draft: Draft, for_model: str, node: NodeState, need: int, spared: Container[str] = ()
) -> tuple[Victim, ...]:
    """Engines that end so that the host gets `need` bytes more; empty if none suffice.

    Those that sleep; on the CPU also idle ones that serve, for there a sleep gives nothing back.
    """
    asleep = [
        r
        for r in node.replicas
        if r.replica_id not in spared
        and may_step_down(draft, r, for_model)
        and (r.rung is not Rung.SERVING or draft.facts.models[r.model_id].on_cpu)
    ]
    chosen: list[Victim] = []
    for replica in sorted(asleep, key=lambda r: (draft.loss_us(r, None), r.replica_id)):
        if host_given(draft, chosen) >= need:
            break
        chosen.append(Victim(replica_id=replica.replica_id, to=None))
    return tuple(chosen) if host_given(draft, chosen) >= need else ()


def to_drain(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...], need: int
) -> tuple[ReplicaState, ...]:
    """Busy neighbours whose end of work would make room, least loaded first; empty if none would.

    Only those that settled, matter no more than the waiting model, and leave their own model its
    minimum.
    """
    neighbours = node.on(gpus)
    steps: Steps = {
        r.replica_id: None for r in neighbours if may_step_down(draft, r, for_model=spec.id)
    }
    busy = [r for r in neighbours if _may_be_drained(draft, r, spec)]
    chosen: list[ReplicaState] = []
    for replica in sorted(busy, key=lambda r: (draft.load(r), r.replica_id)):
        if enough(draft, node, gpus, need, steps):
            break
        steps[replica.replica_id] = None
        chosen.append(replica)
    if not enough(draft, node, gpus, need, steps):
        return ()
    for replica in list(chosen):
        spared = {k: v for k, v in steps.items() if k != replica.replica_id}
        if enough(draft, node, gpus, need, spared):
            steps = spared
            chosen.remove(replica)
    return tuple(chosen)


def may_step_down(draft: Draft, replica: ReplicaState, for_model: str) -> bool:
    """Whether it may make room for this model: it can be spared, or was cleared for it."""
    if replica.model_id == for_model:
        return False
    if draft.spare(replica):
        return True
    return draft.cleared_for.get(replica.replica_id) == for_model and draft.at_rest(replica)


def price(draft: Draft, node: NodeState, victims: Iterable[Victim]) -> tuple[int, float]:
    """How long the victims take to step down (they do it side by side), and their loss."""
    takes_us, loss = 0, 0.0
    links = draft.spec_of(node).links
    for victim in victims:
        replica = draft.replica(victim.replica_id)
        if victim.to is not None:
            spec = draft.facts.models[replica.model_id]
            takes_us = max(takes_us, edge_us(step_edge(spec, replica.rung, victim.to), links))
        loss += draft.loss_us(replica, victim.to)
    return takes_us, loss


def enough(
    draft: Draft,
    node: NodeState,
    gpus: tuple[int, ...],
    need: int,
    steps: Mapping[ReplicaId, Rung | None],
) -> bool:
    """Whether each GPU has `need` bytes once these replicas have stepped down."""
    free = draft.bytes_on(node).free
    if not steps:
        return covers(free, gpus, need)
    lacking = {g: need - free[g] for g in gpus}
    for replica_id, to in steps.items():
        replica = draft.replica(replica_id)
        _give(lacking, replica, _given(draft, replica, to))
    return max(lacking.values(), default=0) <= 0


def _given(draft: Draft, replica: ReplicaState, to: Rung | None) -> int:
    """Bytes that its step down gives back on each of its GPUs."""
    spec = draft.facts.models[replica.model_id]
    held = replica_gpu_bytes(replica, spec, replica.rung)
    return held if to is None else held - gpu_bytes(spec, to)


def _give(lacking: dict[int, int], replica: ReplicaState, more: int) -> None:
    for g in replica.gpu_ids:
        if g in lacking:
            lacking[g] -= more


def covers(room: tuple[int, ...], gpus: tuple[int, ...], need: int) -> bool:
    """Whether each of these GPUs has `need` bytes, of the bytes that each GPU of the node has."""
    for g in gpus:  # noqa: SIM110 a generator would take twice as long, and this is asked of all
        if room[g] < need:
            return False
    return True


def _may_be_drained(draft: Draft, replica: ReplicaState, waiting: ModelSpec) -> bool:
    spec = draft.facts.models.get(replica.model_id)
    if spec is None or not replica.serving or replica.model_id == waiting.id:
        return False
    if spec.priority > waiting.priority or draft.is_minimum(replica):
        return False
    return draft.settled(replica)


def _reachable(
    draft: Draft, node: NodeState, replica: ReplicaState, to: Rung | None
) -> Rung | None:
    """The rung that a step down to `to` leads to; the replica's own where there is no such step."""
    if to is None:
        return None
    spec = draft.facts.models[replica.model_id]
    if to is Rung.PARKED and legal(spec, replica, to):
        to = to if room_for_step(spec, node, replica, to) is None else Rung.SHED
    return to if legal(spec, replica, to) and to < replica.rung else replica.rung


def _pruned(draft: Draft, lacking: dict[int, int], steps: Steps) -> tuple[Victim, ...]:
    """Spare whoever need not move after all, the dearest first."""
    dearest = sorted(steps, key=lambda r: (-draft.loss_us(draft.replica(r), steps[r]), r))
    for replica_id in dearest:
        replica = draft.replica(replica_id)
        less = _given(draft, replica, steps[replica_id])
        needless = all(lacking[g] + less <= 0 for g in replica.gpu_ids if g in lacking)
        if needless and len(steps) > 1:
            _give(lacking, replica, -less)
            del steps[replica_id]
    return tuple(Victim(replica_id=k, to=v) for k, v in sorted(steps.items()))
