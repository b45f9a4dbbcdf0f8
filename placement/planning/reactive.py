"""The reactive policy: climb when somebody waits, step down when nobody asks. A pure function.

In: `Facts` and sources of fresh ids. Out: a `Decision`: actions with reasons, wants it could not
grant. Never: forecasts, awaits, reads a clock. It is the path that is always there beside a
forecast, and the `reactive` baseline of the simulator.
"""

from collections.abc import Callable
from math import ceil
from typing import TypeAlias

from placement.catalog import ModelSpec
from placement.edges import climb_us, legal, resting_rungs
from placement.feasibility import room_for_step
from placement.plan import Reason, ReasonCode
from placement.planning.climbs import Climb, climbs, ever_fits, free_climb, need_on
from placement.planning.demand import ModelDemand
from placement.planning.draft import Draft, Facts, Room, sets_for
from placement.planning.ranks import serves_or_will
from placement.planning.victims import to_drain
from placement.planning.writing import Decision, Ids, Planning
from placement.snapshot import Phase, ReplicaState, Rung, WeightsAt

US = 1_000_000
Rest: TypeAlias = Callable[[Planning, ReplicaState, ModelSpec], None]
"""Where a drained replica goes."""
PATIENCE_US = 10 * US
"""Held this long without any climb open, a request may cost busy neighbours their place."""
SETTLE_US = 30 * US
"""A replica serves, and a model has one too many, at least this long before it is drained."""


def plan_reactive(facts: Facts, ids: Ids) -> Decision:
    """Most important and longest-waiting models first; then whoever has too much."""
    planning = Planning(facts, ids)
    leaving = {
        m.id for m in facts.models.values() if not _in_catalog(facts, m) and not _asked(facts, m)
    }
    needy = [s for s in facts.models.values() if s.managed and s.id not in leaving]
    needy = [s for s in needy if s.min_replicas or _asked(facts, s)]
    for spec in sorted(needy, key=lambda s: _urgency(facts, s)):
        _serve(planning, spec)
    for replica in facts.snapshot.replicas():
        spec_of = facts.models.get(replica.model_id)
        stays = spec_of is not None and spec_of.managed and spec_of.id not in leaving
        if stays and replica.rung is not Rung.SERVING and replica.phase is not Phase.FAILED:
            continue  # below serving there is nothing to settle
        current = planning.draft.find(replica.replica_id)
        if current is None:
            continue  # it made room just now
        if spec_of is not None and stays:
            _settle(planning, current, spec_of)
        else:
            end(planning, current)
    return planning.decision()


def wanted_replicas(spec: ModelSpec, demand: ModelDemand, load_per_slot: float) -> int:
    """Enough slots for what is asked at this load, between the model's minimum and maximum."""
    needed = ceil(demand.asked / (spec.max_num_seqs * load_per_slot)) if demand.asked else 0
    return min(max(needed, spec.min_replicas), spec.max_replicas)


def eta_us(draft: Draft, model_id: str, now_us: int) -> int | None:
    """Estimated microseconds until a replica of this model serves; None: none ever will."""
    spec = draft.facts.models.get(model_id)
    if spec is None or not spec.managed:
        return None
    mine = draft.of_model(model_id)
    if any(r.serving for r in mine):
        return 0
    coming = [r.eta_us for r in mine if serves_or_will(r) and r.action_id]
    if coming:
        return max(min(coming) - now_us, US // 10)
    options = climbs(draft, spec)
    if options:
        return options[0].takes_us
    if not ever_fits(draft, spec):
        return None
    return climb_us(spec, WeightsAt.HOST) + PATIENCE_US


# --- who needs more


def _serve(planning: Planning, spec: ModelSpec) -> None:
    """Climb until what is asked fits what serves or soon will."""
    draft = planning.draft
    demand = _demand(planning.facts, spec)
    coming = sum([serves_or_will(r) for r in draft.of_model(spec.id)])
    target = wanted_replicas(spec, demand, planning.facts.catalog.policy.scale_out_load)
    room = draft.rooms.get(spec.id)
    if room is not None and coming < target:
        coming += use_room(planning, spec, room, _why(spec, demand, coming))
    while coming < target:
        options = [c for c in climbs(draft, spec) if _worth(c, demand, coming)]
        if not options:
            _do_without(planning, spec, nothing_serves=coming == 0)
            return
        planning.take(spec, options[0], _why(spec, demand, coming))
        coming += 1


def use_room(
    planning: Planning,
    spec: ModelSpec,
    room: Room,
    why: Reason,
    better: Callable[[Climb], bool] = lambda _: True,
) -> bool:
    """Climb in the room that was made, or wait until it is free; whether one is coming. Whoever
    finds room elsewhere meanwhile takes it, if that is `better` than to wait."""
    draft = planning.draft
    free = free_climb(draft, spec)
    if free is not None and (room.meets(free.node_id, free.gpu_ids) or better(free)):
        del draft.rooms[spec.id]
        planning.take(spec, free, why)
        return True
    node = draft.nodes.get(room.node_id)
    if node is not None and planning.facts.now_us < room.until_us:
        inside = node.on(room.gpu_ids)
        if any(r.action_id or _still_drains(draft, r, spec) for r in inside):
            return True
    del draft.rooms[spec.id]  # it is made, or came to nothing: plan anew
    return False


def _still_drains(draft: Draft, replica: ReplicaState, spec: ModelSpec) -> bool:
    return draft.cleared_for.get(replica.replica_id) == spec.id and draft.busy(replica)


def _worth(climb: Climb, demand: ModelDemand, coming: int) -> bool:
    """The first replica is worth any price; a further one only what its queue saves by it."""
    return coming == 0 or climb.loss_us <= demand.held * climb.takes_us


def _do_without(planning: Planning, spec: ModelSpec, *, nothing_serves: bool) -> None:
    """No climb is open. After some patience busy neighbours are drained for the waiting model."""
    draft = planning.draft
    if not ever_fits(draft, spec):
        planning.want(spec, "no living node is large enough")
        return
    planning.want(spec, "every place that fits is busy, resting after a failure, or promised")
    if nothing_serves:
        clear_for(planning, spec)


def clear_for(planning: Planning, spec: ModelSpec) -> None:
    """For a model that nothing serves: busy neighbours drain once it has waited long enough."""
    demand = _demand(planning.facts, spec)
    waited_us = planning.facts.now_us - demand.oldest_held_us if demand.held else 0
    if waited_us >= PATIENCE_US and spec.id not in planning.draft.cleared_for.values():
        _drain_for(planning, spec)


def _drain_for(planning: Planning, spec: ModelSpec) -> None:
    """Clear the GPU set whose busy replicas that stand in the way have the least to do."""
    draft, options = planning.draft, []
    for node in draft.nodes.values():
        for gpus in sets_for(spec, draft.spec_of(node)):
            in_the_way = not node.starting_gpus.isdisjoint(gpus)
            if in_the_way or draft.promised_to_another(spec, node.node_id, gpus):
                continue
            busy = to_drain(draft, spec, node, gpus, need_on(spec, node, gpus))
            if busy:
                options.append((sum(map(draft.load, busy)), node.node_id, gpus, busy))
    if not options:
        return
    _, node_id, gpus, busy = min(options, key=lambda o: o[:3])
    planning.promise(spec, node_id, gpus, spec.deadline_us)
    for replica in busy:
        numbers = {"in_flight": float(draft.load(replica)), "waiting_gpus": float(spec.gpus)}
        planning.drain(
            replica, Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model=spec.id)
        )


def _why(spec: ModelSpec, demand: ModelDemand, coming: int) -> Reason:
    numbers = {"held": float(demand.held), "in_flight": float(demand.in_flight)}
    if coming == 0 and demand.asked:
        return Reason(code=ReasonCode.HELD_REQUESTS, numbers=numbers)
    if coming < spec.min_replicas:
        numbers = {"min_replicas": float(spec.min_replicas)}
        return Reason(code=ReasonCode.MIN_REPLICAS, numbers=numbers)
    numbers["slots"] = float(coming * spec.max_num_seqs)
    return Reason(code=ReasonCode.SATURATED, numbers=numbers)


# --- who needs less


def _settle(planning: Planning, replica: ReplicaState, spec: ModelSpec) -> None:
    """Carry a drained replica down, and drain one that its model can do without."""
    if replica.serving and spec.on_gpu:
        code = _too_many(planning, replica, spec)
        if code is not None:
            planning.drain(replica, Reason(code=code))
    else:
        settle_rest(planning, replica, spec, _rest)


def settle_rest(planning: Planning, replica: ReplicaState, spec: ModelSpec, rest: Rest) -> None:
    """End a replica that failed; let one rest that has drained."""
    draft = planning.draft
    if replica.action_id or replica.phase is Phase.STARTING or draft.beside_a_start(replica):
        return
    if replica.phase is Phase.FAILED:
        planning.step_down(replica, None, Reason(code=ReasonCode.FAILED_REPLICA))
    elif replica.phase is Phase.DRAINING:
        cleared = replica.replica_id in draft.cleared_for
        if not cleared and spec.on_gpu and not draft.busy(replica):
            rest(planning, replica, spec)


def end(planning: Planning, replica: ReplicaState) -> None:
    """Its model left the catalog: drain, then end."""
    why, draft = Reason(code=ReasonCode.REMOVED_FROM_CATALOG), planning.draft
    if replica.serving:
        planning.drain(replica, why)
    elif not (replica.action_id or draft.busy(replica) or draft.beside_a_start(replica)):
        planning.step_down(replica, None, why)


def _too_many(planning: Planning, replica: ReplicaState, spec: ModelSpec) -> ReasonCode | None:
    """Why this replica is one too many: its model is idle for long, or has had excess for a while.

    Of several the least loaded one goes. It drains softly: if demand returns it is taken back.
    """
    facts = planning.facts
    policy, demand = facts.catalog.policy, _demand(facts, spec)
    if demand.held or replica.since_us + SETTLE_US > facts.now_us:
        return None
    serving = [r for r in planning.draft.of_model(spec.id) if r.serving]
    if len(serving) <= spec.min_replicas:
        return None
    quiet_since_us = max(demand.last_arrival_us, replica.since_us)
    if demand.in_flight == 0 and quiet_since_us + policy.idle_park_us <= facts.now_us:
        return ReasonCode.IDLE
    lasting_us = facts.now_us - facts.excess_since_us.get(spec.id, facts.now_us)
    if lasting_us < SETTLE_US:
        return None
    enough = max(wanted_replicas(spec, demand, policy.scale_in_load), 1)
    least = min(serving, key=lambda r: (planning.draft.load(r), r.replica_id))
    return ReasonCode.EXCESS if len(serving) > enough and least is replica else None


def _rest(planning: Planning, replica: ReplicaState, spec: ModelSpec) -> None:
    node, why = planning.draft.nodes[replica.node_id], Reason(code=ReasonCode.IDLE)
    offered = [to for to in resting_rungs(spec) if legal(spec, replica, to)]
    if not offered:
        planning.step_down(replica, None, why)
        return
    for to in offered:
        if room_for_step(spec, node, replica, to) is None:
            planning.step_down(replica, to, why)
            return


# --- facts in short


def _in_catalog(facts: Facts, spec: ModelSpec) -> bool:
    return facts.catalog.model(spec.id) is not None


def _asked(facts: Facts, spec: ModelSpec) -> bool:
    """A model that left the catalog still serves whoever waited for it."""
    return _demand(facts, spec).asked > 0


def _demand(facts: Facts, spec: ModelSpec) -> ModelDemand:
    return facts.demand.get(spec.id) or ModelDemand(model_id=spec.id)


def _urgency(facts: Facts, spec: ModelSpec) -> tuple[int, int, str]:
    demand = _demand(facts, spec)
    waiting_since_us = demand.oldest_held_us if demand.held else 1 << 62
    return (-spec.priority, waiting_since_us, spec.id)
