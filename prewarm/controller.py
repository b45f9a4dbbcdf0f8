"""Events in, plans out, one door. Holds what must be remembered between two decisions.

In: what the fleet and the gateway observed, answers and outcomes of actions, the time. Out: plans.
Never: awaits, reads a clock, sends anything.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

import msgspec

from placement.catalog import Catalog, Frozen, ModelSpec
from placement.plan import (
    Action,
    Drain,
    Fetch,
    Outcome,
    OutcomeStatus,
    Plan,
    Promote,
    RefusalCode,
    Refused,
    Start,
)
from placement.planning.demand import ModelDemand
from placement.planning.draft import Draft, Elastic, Facts, Going, Room
from placement.planning.outlook import Outlook
from placement.planning.overlay import Pending, overlay
from placement.planning.paths import DemandPaths
from placement.planning.reactive import eta_us, plan_reactive, wanted_replicas
from placement.planning.residency import plan_residency
from placement.planning.resident import Residency
from placement.planning.writing import Decision, Ids
from placement.snapshot import ClusterSnapshot, Phase

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
    elastic: Elastic | None = None
    """Where nodes may be launched and given back."""


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
Decide: TypeAlias = Callable[[Facts, Ids], Decision]


class Foresight(Protocol):
    """Who forecasts: it sees every observation, and says what is expected."""

    @abstractmethod
    def see(self, seen: Observed) -> None: ...

    @abstractmethod
    def outlook(self, now_us: int) -> Outlook: ...

    @abstractmethod
    def paths(self, now_us: int) -> DemandPaths | None:
        """Fresh joint paths where a new residency plan is due, else None."""


class Controller:
    """`prefix` makes action ids unique across restarts: the edge hands in the time it started.

    `decide` is the policy; what it needs remembered between two rounds is remembered here.
    """

    def __init__(
        self,
        catalog: Catalog,
        prefix: str,
        decide: Decide = plan_reactive,
        foresight: Foresight | None = None,
    ) -> None:
        self.catalog = catalog
        self._decide = decide
        self._foresight = foresight
        self._residency: Residency | None = None
        self._prefix = prefix
        self._ids = Ids(self._next_action_id, self._next_replica_id)
        self._actions = 0
        self._ordinals: dict[str, int] = {}
        self._models: dict[str, ModelSpec] = {m.id: m for m in catalog.models}
        self._pending: dict[str, Pending] = {}
        self._unheard: dict[str, int] = {}
        self._failures: dict[tuple[str, str], tuple[int, int]] = {}
        self._cleared_for: dict[str, str] = {}
        self._rooms: dict[str, Room] = {}
        self._excess_since_us: dict[str, int] = {}
        self._going = Going()
        self._last: Observed | None = None
        self.decided_on: Facts | None = None
        """What the newest plan was made from; None before the first."""
        self._draft: Draft | None = None

    def step(self, event: Event) -> Plan | None:
        """Take in one event; a plan comes back from those that call for one."""
        self._draft = None
        match event:
            case Observed():
                self._last = event
                return self._plan(event)
            case Answered(at_us=at_us, refused=refused):
                self._on_refused(refused, at_us)
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
        if self._draft is None:
            self._draft = Draft(self._facts(self._last))
        return eta_us(self._draft, model_id, now_us)

    def pending(self) -> tuple[Action, ...]:
        """Actions that agents have been asked for and that have not ended."""
        return tuple(pending.action for pending in self._pending.values())

    def with_leaving_models(self) -> Catalog:
        """The catalog, and the models of earlier ones that are still placed or asked for."""
        return msgspec.structs.replace(self.catalog, models=tuple(self._models.values()))

    # --- planning

    def _plan(self, seen: Observed) -> Plan:
        self._forget(seen)
        self._note_excess(seen)
        self.decided_on = self._foreseen(seen)
        decision = self._decide(self.decided_on, self._ids)
        for action in decision.plan.actions:
            expected_us = decision.eta_us.get(action.action_id, 0)
            self._pending[action.action_id] = Pending(action=action, eta_us=expected_us)
        self._cleared_for = dict(decision.cleared_for)
        self._rooms = dict(decision.rooms)
        self._going = decision.going
        self._draft = decision.draft
        return decision.plan

    def _foreseen(self, seen: Observed) -> Facts:
        """The facts; with a new residency plan where whoever forecasts says that one is due."""
        if self._foresight is None:
            return self._facts(seen)
        self._foresight.see(seen)
        facts, paths = self._facts(seen), self._foresight.paths(seen.at_us)
        if paths is None:
            return facts
        self._residency = plan_residency(facts, paths)
        return replace(facts, residency=self._residency)

    def _facts(self, seen: Observed) -> Facts:
        pending, foresight = self._pending.values(), self._foresight
        return Facts(
            snapshot=overlay(seen.snapshot, pending, self._models, self.catalog),
            catalog=self.catalog,
            models=dict(self._models),
            demand={d.model_id: d for d in seen.demand},
            in_flight=seen.in_flight,
            blocked_until_us={pair: until for pair, (_, until) in self._failures.items()},
            cleared_for=self._cleared_for,
            rooms=self._rooms,
            excess_since_us=self._excess_since_us,
            outlook=foresight.outlook(seen.at_us) if foresight is not None else None,
            residency=self._residency,
            elastic=seen.elastic,
            going=self._going,
            now_us=seen.at_us,
        )

    # --- memory

    def _forget(self, seen: Observed) -> None:
        """Drop what time or the world has settled."""
        for action_id, pending in list(self._pending.items()):
            late = pending.action.deadline_us + FORGET_MARGIN_US < seen.at_us
            if late or self._was_not_taken(action_id, pending.action, seen.snapshot):
                del self._pending[action_id]
                self._unheard.pop(action_id, None)
        if self._cleared_for:
            self._cleared_for = self._still_cleared(seen)
        left = [m for m in self._models if self.catalog.model(m) is None]
        if left:
            living = {r.model_id for r in seen.snapshot.replicas()}
            living |= {d.model_id for d in seen.demand if d.asked}
            for model_id in left:
                if model_id not in living:
                    del self._models[model_id]
        self._rooms = {m: room for m, room in self._rooms.items() if m in self._models}

    def _still_cleared(self, seen: Observed) -> dict[str, str]:
        """Replicas that drain for a model for which somebody waits."""
        draining = {r.replica_id for r in seen.snapshot.replicas() if r.phase is Phase.DRAINING}
        draining |= {a.replica_id for a in self.pending() if isinstance(a, Drain)}
        waiting = {d.model_id for d in seen.demand if d.held}
        return {r: m for r, m in self._cleared_for.items() if r in draining and m in waiting}

    def _was_not_taken(self, action_id: str, action: Action, snapshot: ClusterSnapshot) -> bool:
        """An agent that could not be reached has spoken again, or its node is given up."""
        if action_id not in self._unheard:
            return False
        node = snapshot.node(action.node_id)
        return node is None or not node.alive or node.seq != self._unheard[action_id]

    def _note_excess(self, seen: Observed) -> None:
        """Since when each model has had more replicas than it needs, without a break."""
        serving: dict[str, int] = {}
        for replica in seen.snapshot.replicas():
            if replica.serving:
                serving[replica.model_id] = serving.get(replica.model_id, 0) + 1
        demand = {d.model_id: d for d in seen.demand}
        load = self.catalog.policy.scale_in_load
        excess: dict[str, int] = {}
        for model_id, count in serving.items():
            spec = self._models.get(model_id)
            if count > 1 and spec is not None:
                asked = demand.get(spec.id) or ModelDemand(model_id=spec.id)
                if count > wanted_replicas(spec, asked, load):
                    excess[model_id] = self._excess_since_us.get(model_id, seen.at_us)
        self._excess_since_us = excess

    # --- what became of actions

    def _on_outcome(self, outcome: Outcome, at_us: int) -> None:
        pending = self._pending.pop(outcome.action_id, None)
        self._unheard.pop(outcome.action_id, None)
        if outcome.status is OutcomeStatus.DONE:
            self._failures.pop((outcome.model_id, outcome.node_id), None)
        elif pending is not None and outcome.status is OutcomeStatus.FAILED:
            self._on_failure(pending.action, at_us)  # stale: something else took its place

    def _on_refused(self, refused: Refused, at_us: int) -> None:
        pending = self._pending.get(refused.action_id)
        if pending is None:
            return
        unheard = refused.reason_code is RefusalCode.NODE_UNREACHABLE
        if unheard and not isinstance(pending.action, Start):
            # The agent may have taken it before it fell silent. A second start would do no harm; a
            # replica that steps down while requests are sent to it would.
            node = self._last.snapshot.node(pending.action.node_id) if self._last else None
            self._unheard[refused.action_id] = node.seq if node is not None else -1
            return
        del self._pending[refused.action_id]
        self._on_failure(pending.action, at_us)

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

    # --- names

    def _next_action_id(self) -> str:
        self._actions += 1
        return f"action-{self._prefix}-{self._actions}"

    def _next_replica_id(self, model_id: str) -> str:
        """A plain ordinal per model: the same story names its replicas alike in every run."""
        living = {r.replica_id for r in self._last.snapshot.replicas()} if self._last else set()
        while True:
            self._ordinals[model_id] = self._ordinals.get(model_id, 0) + 1
            name = f"{model_id.replace('/', '--')}-{self._ordinals[model_id]}"
            if name not in living:
                return name
