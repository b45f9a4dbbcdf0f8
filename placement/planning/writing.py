"""Writing a plan down: each action with its reason, and its effect on the draft at once. Pure.

In: a policy's decisions, one at a time. Out: a `Decision`: the plan, and what the controller must
remember of it. Never: decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec

from placement.catalog import ModelSpec, NodeId, ReplicaId
from placement.edges import shared_copies
from placement.plan import (
    Action,
    Drain,
    Evict,
    NodeChange,
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
from placement.planning.climbs import Climb
from placement.planning.draft import Draft, Facts, Going, Room
from placement.planning.overlay import starting
from placement.snapshot import Phase, ReplicaState, Rung

US = 1_000_000
DEADLINE_FACTOR = 4
DEADLINE_US_MIN = 60 * US
ROOM_US = 20 * US
"""Room that is being made stays promised this long beyond the time that the steps down take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A plan and what to remember: who is drained for whom, which room is promised, when each
    climb is expected to end. `draft` is the cluster as the plan leaves it."""

    plan: Plan
    draft: Draft
    cleared_for: Mapping[str, str]
    rooms: Mapping[str, Room]
    eta_us: Mapping[str, int]
    going: Going = field(default_factory=Going)


class Ids:
    """Fresh ids, handed in: `action()` and `replica(model_id)`."""

    def __init__(self, action: Callable[[], str], replica: Callable[[str], str]) -> None:
        self.action = action
        self.replica = replica


class _Base(TypedDict):
    """The fields that every action has."""

    action_id: str
    snapshot_version: int
    deadline_us: int
    node_id: NodeId
    why: Reason


class Planning:
    """One round of planning. Mutable while it runs, gone afterwards."""

    def __init__(self, facts: Facts, ids: Ids) -> None:
        self.facts = facts
        self.draft = Draft(facts)
        self._ids = ids
        self._actions: list[Action] = []
        self._wants: list[Want] = []
        self._eta_us: dict[str, int] = {}
        self._nodes: tuple[NodeChange, ...] | None = None
        self._going = Going()

    @property
    def wants(self) -> tuple[Want, ...]:
        """So far."""
        return tuple(self._wants)

    def decision(self) -> Decision:
        return Decision(
            plan=Plan(actions=tuple(self._actions), wants=tuple(self._wants), nodes=self._nodes),
            draft=self.draft,
            cleared_for=self.draft.cleared_for,
            rooms=self.draft.rooms,
            eta_us=self._eta_us,
            going=self._going,
        )

    def change_nodes(self, changes: tuple[NodeChange, ...], going: Going) -> None:
        """Which nodes come and which one goes."""
        self._nodes, self._going = changes, going

    def want(self, spec: ModelSpec, why: str, eta_us: int = 0) -> None:
        """Something that cannot be granted now."""
        self._wants.append(Want(model_id=spec.id, why=why, eta_us=eta_us))

    def take(self, spec: ModelSpec, climb: Climb, why: Reason) -> None:
        """Go up this way; a start that needs room has its room made first."""
        if climb.restore:
            assert climb.replica is not None
            self._restore(climb.replica)
        elif climb.replica is not None:
            self._promote(climb, climb.replica, why)
        elif climb.victims and not shared_copies(spec):
            self._make_room(spec, climb)
        else:
            self._start(spec, climb, why)

    def step_down(self, replica: ReplicaState, to: Rung | None, why: Reason) -> None:
        base = self._base(replica.node_id, why)
        replica_id = replica.replica_id
        match to:
            case None:
                self._actions.append(Evict(replica_id=replica_id, **base))
            case Rung.SHED:
                self._actions.append(Shed(replica_id=replica_id, **base))
            case Rung.PARKED:
                self._actions.append(Park(replica_id=replica_id, **base))
            case Rung.WARM | Rung.SERVING:
                self._actions.append(Warm(replica_id=replica_id, **base))
        spec = self.facts.models.get(replica.model_id)
        if to is None and spec is not None and shared_copies(spec):
            self.draft.drop(replica)
        else:
            self._put(replica, action_id=base["action_id"], target=to)

    def drain(self, replica: ReplicaState, why: Reason) -> None:
        """No new requests; for whose sake, if it makes room, is remembered."""
        base = self._base(replica.node_id, why)
        self._actions.append(Drain(replica_id=replica.replica_id, **base))
        if why.for_model:
            self.draft.cleared_for[replica.replica_id] = why.for_model
        self._put(replica, phase=Phase.DRAINING)

    def promise(self, spec: ModelSpec, node_id: str, gpus: tuple[int, ...], takes_us: int) -> None:
        """Nobody else may take this GPU set while its room is being made."""
        until_us = self.facts.now_us + takes_us + ROOM_US
        self.draft.rooms[spec.id] = Room(node_id=node_id, gpu_ids=gpus, until_us=until_us)

    def _restore(self, replica: ReplicaState) -> None:
        why = Reason(code=ReasonCode.DEMAND_RETURNED)
        base = self._base(replica.node_id, why)
        self._actions.append(Restore(replica_id=replica.replica_id, **base))
        self._put(replica, phase=Phase.READY)

    def _promote(self, climb: Climb, replica: ReplicaState, why: Reason) -> None:
        base = self._base(climb.node_id, why, takes_us=climb.takes_us)
        action_id = base["action_id"]
        self._actions.append(Promote(replica_id=replica.replica_id, victims=climb.victims, **base))
        for victim in climb.victims:
            self._put(self.draft.replica(victim.replica_id), action_id=action_id, target=victim.to)
        eta_us = self.facts.now_us + climb.takes_us
        self._put(replica, action_id=action_id, target=Rung.SERVING, eta_us=eta_us)
        self._eta_us[action_id] = eta_us

    def _make_room(self, spec: ModelSpec, climb: Climb) -> None:
        """A start needs its room free before it begins: neighbours step down first."""
        self.promise(spec, climb.node_id, climb.gpu_ids, climb.takes_us)
        self._clear(spec, climb)
        message = f"{len(climb.victims)} engines on {climb.node_id} make room first"
        self.want(spec, message, climb.takes_us)

    def _clear(self, spec: ModelSpec, climb: Climb) -> None:
        for victim in climb.victims:
            replica = self.draft.replica(victim.replica_id)
            numbers = {"loss_s": climb.loss_us / US}
            why = Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model=spec.id)
            self.step_down(replica, victim.to, why)

    def _start(self, spec: ModelSpec, climb: Climb, why: Reason) -> None:
        """In world W victims are gone at once, so that their room is there in the same plan."""
        self._clear(spec, climb)
        replica_id = ReplicaId(self._ids.replica(spec.id))
        base = self._base(climb.node_id, why, takes_us=climb.takes_us)
        eta_us = self.facts.now_us + climb.takes_us
        start = Start(replica_id=replica_id, model_id=spec.id, gpu_ids=climb.gpu_ids, **base)
        self._actions.append(start)
        self._eta_us[start.action_id] = eta_us
        self.draft.rooms.pop(spec.id, None)
        self.draft.put(starting(start, eta_us, since_us=self.facts.now_us))

    def load(
        self, spec: ModelSpec, node_id: str, gpus: tuple[int, ...], takes_us: int, why: Reason
    ) -> None:
        """World W: weights to these GPUs, and no engine yet."""
        replica_id = ReplicaId(self._ids.replica(spec.id))
        base = self._base(node_id, why, takes_us=takes_us)
        start = Start(replica_id=replica_id, model_id=spec.id, gpu_ids=gpus, to=Rung.WARM, **base)
        self._actions.append(start)
        eta_us = self.facts.now_us + takes_us
        self._eta_us[start.action_id] = eta_us
        self.draft.put(starting(start, eta_us, since_us=self.facts.now_us))

    def warm(self, replica: ReplicaState, takes_us: int, why: Reason) -> None:
        """Weights back to the GPU, and no KV cache yet."""
        base = self._base(replica.node_id, why, takes_us=takes_us)
        self._actions.append(Warm(replica_id=replica.replica_id, **base))
        eta_us = self.facts.now_us + takes_us
        self._eta_us[base["action_id"]] = eta_us
        self._put(replica, action_id=base["action_id"], target=Rung.WARM, eta_us=eta_us)

    def _base(self, node_id: str, why: Reason, takes_us: int = 0) -> _Base:
        deadline_us = self.facts.now_us + max(DEADLINE_US_MIN, DEADLINE_FACTOR * takes_us)
        return _Base(
            action_id=self._ids.action(),
            snapshot_version=self.facts.snapshot.version,
            deadline_us=deadline_us,
            node_id=NodeId(node_id),
            why=why,
        )

    def _put(self, replica: ReplicaState, **changes: object) -> None:
        self.draft.put(msgspec.structs.replace(replica, **changes))
