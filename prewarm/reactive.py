"""The reactive policy: climb when somebody waits, step down when nobody asks. A pure function.

In: `Facts` and sources of fresh ids. Out: a `Plan`: actions with reasons, wants it could not
grant. Never: forecasts, awaits, reads a clock. It is the path that is always there beside a
forecast, and the `reactive` baseline of the simulator.
"""

from collections.abc import Callable
from math import ceil
from typing import TypedDict

import msgspec

from placement.catalog import ModelSpec, NodeId, ReplicaId
from placement.edges import climb_us
from placement.feasibility import room_for_step
from placement.plan import (
    Action,
    Drain,
    Evict,
    Park,
    Plan,
    Promote,
    Reason,
    ReasonCode,
    Restore,
    Shed,
    Start,
    Want,
    Warm,
)
from placement.snapshot import Phase, ReplicaState, Rung, WeightsAt
from prewarm.climbs import Climb, Draft, Facts, climbs, ever_fits
from prewarm.demand import ModelDemand

US = 1_000_000
PATIENCE_US = 10 * US
"""Held this long without any climb open, a request may cost a busy neighbour its place."""
DEADLINE_FACTOR = 4
DEADLINE_US_MIN = 60 * US
SETTLE_US = 30 * US
"""A replica serves, and a model has one too many, at least this long before it is drained."""


class _Base(TypedDict):
    """The fields that every action has."""

    action_id: str
    snapshot_version: int
    deadline_us: int
    node_id: NodeId
    why: Reason


def plan_reactive(
    facts: Facts, action_id: Callable[[], str], replica_id: Callable[[str], str]
) -> Plan:
    """Longest-waiting and most important models first; then whoever has too much."""
    planner = _Planner(facts, action_id, replica_id)
    removed = {
        model_id
        for model_id in facts.models
        if facts.catalog.model(model_id) is None and not _asked(facts, model_id)
    }

    def urgency(spec: ModelSpec) -> tuple[int, int, str]:
        demand = facts.demand.get(spec.id)
        waiting_since_us = demand.oldest_held_us if demand is not None and demand.held else 1 << 62
        return (-spec.priority, waiting_since_us, spec.id)

    for spec in sorted(facts.models.values(), key=urgency):
        if spec.managed and spec.id not in removed:
            planner.serve(spec, facts.demand.get(spec.id, ModelDemand(model_id=spec.id)))
    for replica in facts.snapshot.replicas():
        current = planner.draft.replica(replica.replica_id)
        spec_of = facts.models.get(replica.model_id)
        planner.settle(current, spec_of, removed=replica.model_id in removed)
    return Plan(actions=tuple(planner.actions), wants=tuple(planner.wants))


def wanted_replicas(spec: ModelSpec, demand: ModelDemand, load_per_slot: float) -> int:
    """Enough slots for what is asked at this load, between the model's minimum and maximum."""
    needed = ceil(demand.asked / (spec.max_num_seqs * load_per_slot)) if demand.asked else 0
    return min(max(needed, spec.min_replicas), spec.max_replicas)


def eta_us(facts: Facts, model_id: str) -> int | None:
    """Estimated microseconds until a replica of this model serves; None: none ever will."""
    spec = facts.models.get(model_id)
    if spec is None or not spec.managed:
        return None
    draft = Draft(facts)
    mine = draft.of_model(model_id)
    if any(r.serving for r in mine):
        return 0
    coming = [r.eta_us for r in mine if _serves_or_will(r) and r.action_id]
    if coming:
        return max(min(coming) - facts.now_us, US // 10)
    options = climbs(draft, spec)
    if options:
        return options[0].takes_us
    if not ever_fits(draft, spec):
        return None
    return climb_us(spec, WeightsAt.HOST) + PATIENCE_US


def _asked(facts: Facts, model_id: str) -> bool:
    """A model that left the catalog still serves whoever waited for it."""
    demand = facts.demand.get(model_id)
    return demand is not None and demand.asked > 0


def _serves_or_will(replica: ReplicaState) -> bool:
    return replica.serving or (bool(replica.action_id) and replica.target is Rung.SERVING)


def _reason_to_climb(spec: ModelSpec, demand: ModelDemand, coming: int) -> Reason:
    numbers = {"held": float(demand.held), "in_flight": float(demand.in_flight)}
    if coming == 0 and demand.asked:
        return Reason(code=ReasonCode.HELD_REQUESTS, numbers=numbers)
    if coming < spec.min_replicas:
        return Reason(
            code=ReasonCode.MIN_REPLICAS, numbers={"min_replicas": float(spec.min_replicas)}
        )
    numbers["slots"] = float(coming * spec.max_num_seqs)
    return Reason(code=ReasonCode.SATURATED, numbers=numbers)


class _Planner:
    """One planning pass. Mutable while it runs, gone afterwards."""

    def __init__(
        self, facts: Facts, action_id: Callable[[], str], replica_id: Callable[[str], str]
    ) -> None:
        self.facts = facts
        self.draft = Draft(facts)
        self.next_action_id = action_id
        self.next_replica_id = replica_id
        self.actions: list[Action] = []
        self.wants: list[Want] = []

    # --- who needs more

    def serve(self, spec: ModelSpec, demand: ModelDemand) -> None:
        """Climb until what is asked fits what serves or soon will."""
        mine = self.draft.of_model(spec.id)
        coming = sum(_serves_or_will(r) for r in mine)
        target = wanted_replicas(spec, demand, self.facts.catalog.policy.scale_out_load)
        short = target - coming
        for _ in range(short):
            options = climbs(self.draft, spec)
            if not options:
                self._want(spec, demand, nothing_serves=coming == 0)
                return
            self._take(spec, options[0], _reason_to_climb(spec, demand, coming))
            coming += 1

    def _take(self, spec: ModelSpec, climb: Climb, why: Reason) -> None:
        if climb.restore:
            assert climb.replica is not None
            self._add(
                Restore(replica_id=climb.replica.replica_id, **self._base(climb.node_id, why))
            )
            self._put(climb.replica, phase=Phase.READY)
        elif climb.replica is not None:
            self._promote(climb, climb.replica, why)
        elif climb.victims:
            self._make_room(spec, climb)
        else:
            self._start(spec, climb, why)

    def _promote(self, climb: Climb, replica: ReplicaState, why: Reason) -> None:
        base = self._base(climb.node_id, why, takes_us=climb.takes_us)
        self._add(Promote(replica_id=replica.replica_id, victims=climb.victims, **base))
        action_id = base["action_id"]
        for victim in climb.victims:
            self._put(self.draft.replica(victim.replica_id), action_id=action_id, target=victim.to)
        self._put(replica, action_id=action_id, target=Rung.SERVING)

    def _make_room(self, spec: ModelSpec, climb: Climb) -> None:
        """A start needs its room free before it begins: neighbours step down first."""
        for victim in climb.victims:
            replica = self.draft.replica(victim.replica_id)
            numbers = {"loss_s": climb.loss_us / US}
            why = Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model=spec.id)
            self.step_down(replica, victim.to, why)
        message = f"{len(climb.victims)} neighbours step down on {climb.node_id} first"
        self.wants.append(Want(model_id=spec.id, why=message, eta_us=climb.takes_us))

    def _start(self, spec: ModelSpec, climb: Climb, why: Reason) -> None:
        replica_id = ReplicaId(self.next_replica_id(spec.id))
        base = self._base(climb.node_id, why, takes_us=climb.takes_us)
        self._add(Start(replica_id=replica_id, model_id=spec.id, gpu_ids=climb.gpu_ids, **base))
        self.draft.put(
            ReplicaState(
                replica_id=replica_id,
                model_id=spec.id,
                node_id=NodeId(climb.node_id),
                gpu_ids=climb.gpu_ids,
                rung=Rung.SERVING,
                phase=Phase.STARTING,
                action_id=base["action_id"],
                target=Rung.SERVING,
                since_us=self.facts.now_us,
                eta_us=self.facts.now_us + climb.takes_us,
            )
        )

    def _want(self, spec: ModelSpec, demand: ModelDemand, *, nothing_serves: bool) -> None:
        """No climb is open. After some patience a busy neighbour is drained for the waiting one."""
        if not ever_fits(self.draft, spec):
            self.wants.append(Want(model_id=spec.id, why="no living node is large enough"))
            return
        self.wants.append(Want(model_id=spec.id, why="every GPU set that fits is busy"))
        waited_us = self.facts.now_us - demand.oldest_held_us if demand.held else 0
        clearing = spec.id in self.draft.cleared_for.values()
        if nothing_serves and waited_us >= PATIENCE_US and not clearing:
            self._drain_a_busy_one(spec)

    def _drain_a_busy_one(self, spec: ModelSpec) -> None:
        """The replica whose model asks least per slot gives way; ties by id."""
        candidates = []
        for node in self.draft.nodes.values():
            for replica in node.replicas:
                settled = replica.since_us + PATIENCE_US <= self.facts.now_us
                wide_enough = len(replica.gpu_ids) >= spec.gpus
                if replica.serving and settled and wide_enough and replica.model_id != spec.id:
                    load = self.facts.in_flight.get(replica.replica_id, 0)
                    candidates.append((load, replica.replica_id, replica))
        if candidates:
            load, _, replica = min(candidates)
            self.draft.cleared_for[replica.replica_id] = spec.id
            numbers = {"in_flight": float(load), "waiting_gpus": float(spec.gpus)}
            self._drain(
                replica,
                Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model=spec.id),
            )

    # --- who needs less

    def settle(self, replica: ReplicaState, spec: ModelSpec | None, *, removed: bool) -> None:
        """Carry a drained replica down, and drain one that nobody asks for."""
        if replica.action_id or replica.phase is Phase.STARTING:
            return
        idle = not self.draft.busy(replica)
        if removed or spec is None:
            why = Reason(code=ReasonCode.REMOVED_FROM_CATALOG)
            if replica.serving:
                self._drain(replica, why)
            elif idle:
                self.step_down(replica, None, why)
            return
        if replica.phase is Phase.FAILED:
            self.step_down(replica, None, Reason(code=ReasonCode.FAILED_REPLICA))
        elif replica.phase is Phase.DRAINING and idle and replica.rung is Rung.SERVING:
            if replica.replica_id not in self.draft.cleared_for:
                self._park_or_shed(replica, spec)
        elif replica.serving and idle and self._unasked(replica, spec):
            self._drain(replica, Reason(code=ReasonCode.IDLE))

    def _unasked(self, replica: ReplicaState, spec: ModelSpec) -> bool:
        """Idle long enough, above the minimum, and on a GPU: only those cost anything to keep."""
        policy, now_us = self.facts.catalog.policy, self.facts.now_us
        demand = self.facts.demand.get(spec.id, ModelDemand(model_id=spec.id))
        serving = [r for r in self.draft.of_model(spec.id) if r.serving]
        settled = replica.since_us + SETTLE_US <= now_us
        if not spec.on_gpu or demand.held or not settled or len(serving) <= spec.min_replicas:
            return False
        quiet_since_us = max(demand.last_arrival_us, replica.since_us)
        if quiet_since_us + policy.idle_park_us <= now_us and demand.in_flight == 0:
            return True
        excess_since_us = self.facts.excess_since_us.get(spec.id, now_us)
        enough = wanted_replicas(spec, demand, policy.scale_in_load)
        return len(serving) > max(enough, 1) and excess_since_us + SETTLE_US <= now_us

    def _park_or_shed(self, replica: ReplicaState, spec: ModelSpec) -> None:
        if not spec.on_gpu:
            return
        node = self.draft.nodes[replica.node_id]
        to = Rung.PARKED
        if room_for_step(spec, node, replica, to) is not None:
            to = Rung.SHED
        if room_for_step(spec, node, replica, to) is None:
            self.step_down(replica, to, Reason(code=ReasonCode.IDLE))

    # --- writing it down

    def step_down(self, replica: ReplicaState, to: Rung | None, why: Reason) -> None:
        base = self._base(replica.node_id, why)
        replica_id = replica.replica_id
        match to:
            case None:
                self._add(Evict(replica_id=replica_id, **base))
            case Rung.SHED:
                self._add(Shed(replica_id=replica_id, **base))
            case Rung.PARKED:
                self._add(Park(replica_id=replica_id, **base))
            case Rung.WARM | Rung.SERVING:
                self._add(Warm(replica_id=replica_id, **base))
        self._put(replica, action_id=base["action_id"], target=to)

    def _drain(self, replica: ReplicaState, why: Reason) -> None:
        self._add(Drain(replica_id=replica.replica_id, **self._base(replica.node_id, why)))
        self._put(replica, phase=Phase.DRAINING)

    def _base(self, node_id: str, why: Reason, takes_us: int = 0) -> "_Base":
        deadline_us = self.facts.now_us + max(DEADLINE_US_MIN, DEADLINE_FACTOR * takes_us)
        return _Base(
            action_id=self.next_action_id(),
            snapshot_version=self.facts.snapshot.version,
            deadline_us=deadline_us,
            node_id=NodeId(node_id),
            why=why,
        )

    def _add(self, action: Action) -> None:
        self.actions.append(action)

    def _put(self, replica: ReplicaState, **changes: object) -> None:
        self.draft.put(msgspec.structs.replace(replica, **changes))
