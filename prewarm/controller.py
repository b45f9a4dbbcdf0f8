"""Events in, plans out, one door. Holds what must be remembered between two decisions.

In: what the fleet and the gateway observed, answers and outcomes of actions, the time. Out: plans.
Never: awaits, reads a clock, sends anything.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from placement.catalog import Catalog, Frozen, ModelSpec
from placement.feasibility import recounted
from placement.plan import (
    Action,
    Drain,
    Fetch,
    Outcome,
    OutcomeStatus,
    Plan,
    Promote,
    ReasonCode,
    Refused,
    Restore,
    Start,
)
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung
from prewarm.climbs import Facts
from prewarm.demand import ModelDemand
from prewarm.reactive import eta_us, plan_reactive, wanted_replicas

US = 1_000_000
BACKOFF_FIRST_US = US
BACKOFF_MAX_US = 60 * US
FORGET_MARGIN_US = 30 * US


class Observed(Frozen, frozen=True, kw_only=True, tag="observed"):
    """The world as the edge sees it now."""

    at_us: int
    snapshot: ClusterSnapshot
    demand: tuple[ModelDemand, ...] = ()
    in_flight: dict[str, int] = msgspec.field(default_factory=dict)


class Answered(Frozen, frozen=True, kw_only=True, tag="refused"):
    """An agent would not take an action, or the edge skipped it as stale."""

    at_us: int
    refused: Refused


class Ended(Frozen, frozen=True, kw_only=True, tag="ended"):
    at_us: int
    outcome: Outcome


class Reloaded(Frozen, frozen=True, kw_only=True, tag="reloaded"):
    """The catalog changed. Models that left it are drained and ended."""

    at_us: int
    catalog: Catalog


Event: TypeAlias = Observed | Answered | Ended | Reloaded


class Controller:
    """`prefix` makes ids unique across restarts: the edge hands in the time it started."""

    def __init__(self, catalog: Catalog, prefix: str) -> None:
        self.catalog = catalog
        self._prefix = prefix
        self._ids = 0
        self._models: dict[str, ModelSpec] = {m.id: m for m in catalog.models}
        self._ordinals: dict[str, int] = {}
        self._pending: dict[str, Action] = {}
        self._excess_since_us: dict[str, int] = {}
        self._failures: dict[tuple[str, str], tuple[int, int]] = {}
        self._cleared_for: dict[str, str] = {}
        self._last: Observed | None = None

    def step(self, event: Event) -> Plan | None:
        """Take in one event; a plan comes back from those that call for one."""
        match event:
            case Observed():
                self._last = event
                return self._plan(event)
            case Answered(at_us=at_us, refused=refused):
                action = self._pending.pop(refused.action_id, None)
                if action is not None:
                    self._on_failure(action, at_us)
                return None
            case Ended(at_us=at_us, outcome=outcome):
                self._on_outcome(outcome, at_us)
                return None
            case Reloaded(catalog=catalog):
                self.catalog = catalog
                self._models.update({m.id: m for m in catalog.models})
                return None

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        """Estimated wait for a model, from the newest observation."""
        if self._last is None:
            return None
        fresh = msgspec.structs.replace(self._last, at_us=now_us)
        return eta_us(self._facts(fresh), model_id)

    def pending(self) -> tuple[Action, ...]:
        return tuple(self._pending.values())

    def _plan(self, seen: Observed) -> Plan:
        self._forget(seen)
        self._note_excess(seen)
        plan = plan_reactive(self._facts(seen), self._next_action_id, self._next_replica_id)
        for action in plan.actions:
            self._pending[action.action_id] = action
            if isinstance(action, Drain) and action.why.code is ReasonCode.MAKE_ROOM:
                self._cleared_for[action.replica_id] = action.why.for_model
        return plan

    def _facts(self, seen: Observed) -> Facts:
        snapshot = overlay(seen.snapshot, self._pending.values(), self._models, self.catalog)
        return Facts(
            snapshot=snapshot,
            catalog=self.catalog,
            models=self._models,
            demand={d.model_id: d for d in seen.demand},
            in_flight=seen.in_flight,
            blocked_until_us={pair: until for pair, (_, until) in self._failures.items()},
            cleared_for=self._cleared_for,
            excess_since_us=self._excess_since_us,
            now_us=seen.at_us,
        )

    def _forget(self, seen: Observed) -> None:
        """Drop what time or the world has settled."""
        late = [
            a for a, x in self._pending.items() if x.deadline_us + FORGET_MARGIN_US < seen.at_us
        ]
        for action_id in late:
            del self._pending[action_id]
        draining = {r.replica_id for r in seen.snapshot.replicas() if r.phase is Phase.DRAINING}
        draining |= {a.replica_id for a in self._pending.values() if isinstance(a, Drain)}
        waiting = {d.model_id for d in seen.demand if d.held}
        self._cleared_for = {
            r: m for r, m in self._cleared_for.items() if r in draining and m in waiting
        }
        living = {r.model_id for r in seen.snapshot.replicas()}
        for model_id in [m for m in self._models if m not in living]:
            if self.catalog.model(model_id) is None:
                del self._models[model_id]

    def _note_excess(self, seen: Observed) -> None:
        """Since when each model has had more replicas than it needs, without a break."""
        demand = {d.model_id: d for d in seen.demand}
        for model_id, spec in self._models.items():
            replicas = [r for r in seen.snapshot.replicas() if r.model_id == model_id]
            asked = demand.get(spec.id, ModelDemand(model_id=spec.id))
            enough = wanted_replicas(spec, asked, self.catalog.policy.scale_in_load)
            if sum(r.serving for r in replicas) > max(enough, 1):
                self._excess_since_us.setdefault(model_id, seen.at_us)
            else:
                self._excess_since_us.pop(model_id, None)

    def _on_outcome(self, outcome: Outcome, at_us: int) -> None:
        action = self._pending.pop(outcome.action_id, None)
        pair = (outcome.model_id, outcome.node_id)
        if outcome.status is OutcomeStatus.DONE:
            self._failures.pop(pair, None)
        elif action is not None:
            self._on_failure(action, at_us)

    def _on_failure(self, action: Action, at_us: int) -> None:
        """Elsewhere first: this pair of model and node rests, longer each time."""
        model_id = self._model_of(action)
        if model_id is None or not isinstance(action, Start | Promote):
            return
        pair = (model_id, action.node_id)
        failures = self._failures.get(pair, (0, 0))[0] + 1
        rest_us = min(BACKOFF_FIRST_US * 2 ** (failures - 1), BACKOFF_MAX_US)
        self._failures[pair] = (failures, at_us + rest_us)

    def _model_of(self, action: Action) -> str | None:
        if isinstance(action, Start | Fetch):
            return action.model_id
        if self._last is None:
            return None
        replica = self._last.snapshot.replica(action.replica_id)
        return None if replica is None else replica.model_id

    def _next_action_id(self) -> str:
        self._ids += 1
        return f"action-{self._prefix}-{self._ids}"

    def _next_replica_id(self, model_id: str) -> str:
        """A plain ordinal per model: the same story names its replicas alike in every run."""
        living = {r.replica_id for r in self._last.snapshot.replicas()} if self._last else set()
        while True:
            self._ordinals[model_id] = self._ordinals.get(model_id, 0) + 1
            name = f"{model_id.replace('/', '--')}-{self._ordinals[model_id]}"
            if name not in living:
                return name


def overlay(
    snapshot: ClusterSnapshot,
    pending: Iterable[Action],
    models: Mapping[str, ModelSpec],
    catalog: Catalog,
) -> ClusterSnapshot:
    """The snapshot with actions on it that agents have been asked for but do not show yet."""
    nodes = {n.node_id: n for n in snapshot.nodes}
    for action in pending:
        node, spec = nodes.get(action.node_id), catalog.node(action.node_id)
        if node is not None and spec is not None:
            replicas = _with_action(node, action, models)
            nodes[action.node_id] = recounted(node, replicas, spec, models)
    return ClusterSnapshot(version=snapshot.version, nodes=tuple(nodes.values()))


def _with_action(
    node: NodeState, action: Action, models: Mapping[str, ModelSpec]
) -> tuple[ReplicaState, ...]:
    shown = any(r.action_id == action.action_id for r in node.replicas)
    if shown or isinstance(action, Fetch):
        return node.replicas
    if isinstance(action, Start):
        if action.model_id not in models or any(
            r.replica_id == action.replica_id for r in node.replicas
        ):
            return node.replicas
        starting = ReplicaState(
            replica_id=action.replica_id,
            model_id=action.model_id,
            node_id=action.node_id,
            gpu_ids=action.gpu_ids,
            rung=Rung.SERVING,
            phase=Phase.STARTING,
            action_id=action.action_id,
            target=Rung.SERVING,
            eta_us=action.deadline_us,
        )
        return (*node.replicas, starting)
    return tuple(_moved(r, action) for r in node.replicas)


def _moved(replica: ReplicaState, action: Action) -> ReplicaState:
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
    target = _TARGETS.get(type(action).__name__)
    return msgspec.structs.replace(replica, action_id=action.action_id, target=target)


_TARGETS = {
    "Park": Rung.PARKED,
    "Shed": Rung.SHED,
    "Warm": Rung.WARM,
    "Promote": Rung.SERVING,
    "Evict": None,
}
