"""What to do about it: one closed union of actions, their reasons and their outcomes.

Actions are the node agent's verbs. They are *submitted* (accepted or refused); how they ended
comes back later as an `Outcome`, so a start of half a minute never blocks a short promotion.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from placement.catalog import Frozen, ModelId, NodeId, ReplicaId
from placement.snapshot import Rung, WeightsAt


class ReasonCode(StrEnum):
    """Why an action was planned."""

    HELD_REQUESTS = "held_requests"
    SATURATED = "saturated"
    MIN_REPLICAS = "min_replicas"
    MAKE_ROOM = "make_room"
    IDLE = "idle"
    EXCESS = "excess"
    DEMAND_RETURNED = "demand_returned"
    REMOVED_FROM_CATALOG = "removed_from_catalog"
    FAILED_REPLICA = "failed_replica"
    OPERATOR = "operator"
    FORECAST = "forecast"
    """Expected demand is worth more than what it takes."""
    PREWARM = "prewarm"
    """Nearer to serving, for it may be needed soon."""
    STALE_PREWARM = "stale_prewarm"
    """Something else is worth more in its place."""
    RESIDENCY = "residency"
    """The residency plan wants this engine to exist, or to end."""


class Reason(Frozen, frozen=True, kw_only=True):
    """A code for machines and the numbers behind it for people."""

    code: ReasonCode
    numbers: dict[str, float] = msgspec.field(default_factory=dict)
    for_model: str = ""
    """Whose need it serves, where that is another model than the one acted on."""


class ActionBase(Frozen, frozen=True, kw_only=True, tag_field="verb"):
    action_id: str
    snapshot_version: int
    deadline_us: int
    """Trace time by which it must have ended; afterwards the agent reports it failed."""
    node_id: NodeId
    why: Reason


class Fetch(ActionBase, frozen=True, kw_only=True, tag="fetch"):
    """Bring a model's weights nearer: object store → disk → host page cache."""

    model_id: ModelId
    to: WeightsAt


class Start(ActionBase, frozen=True, kw_only=True, tag="start"):
    """Start an engine on these GPUs; it ends serving. Needs its whole footprint free.

    In world W `to` may be `WARM`: the weights are loaded, and no engine is attached yet.
    """

    replica_id: ReplicaId
    model_id: ModelId
    gpu_ids: tuple[int, ...]
    to: Rung = Rung.SERVING


class ReplicaAction(ActionBase, frozen=True, kw_only=True):
    replica_id: ReplicaId


class Park(ReplicaAction, frozen=True, kw_only=True, tag="park"):
    """Weights to pinned host memory, KV cache dropped (level-1 sleep). From warm or serving."""


class Shed(ReplicaAction, frozen=True, kw_only=True, tag="shed"):
    """Weights dropped, engine process kept (level-2 sleep). From warm or serving."""


class Warm(ReplicaAction, frozen=True, kw_only=True, tag="warm"):
    """Weights on the GPU without KV cache: up from parked or shed, down from serving."""


class Victim(Frozen, frozen=True, kw_only=True):
    """A neighbour that steps down to make room; `to=None` ends its engine."""

    replica_id: ReplicaId
    to: Rung | None


class Promote(ReplicaAction, frozen=True, kw_only=True, tag="promote"):
    """To serving, as one transaction: victims step down, wake, verify; else end a victim."""

    victims: tuple[Victim, ...] = ()


class Drain(ReplicaAction, frozen=True, kw_only=True, tag="drain"):
    """No new requests. What runs goes on.

    In world W `release_kv` gives KV pages away for good as requests end, down to the share that the
    remaining ones of a full batch need.
    """

    release_kv: bool = False


class Restore(ReplicaAction, frozen=True, kw_only=True, tag="restore"):
    """Take back a drain: it may serve again."""


class Evict(ReplicaAction, frozen=True, kw_only=True, tag="evict"):
    """End the engine and free all it holds."""


Action: TypeAlias = Fetch | Start | Park | Shed | Warm | Promote | Drain | Restore | Evict


StepAction: TypeAlias = Park | Shed | Warm | Promote


def target_rung(action: StepAction) -> Rung:
    """Where a step leads."""
    match action:
        case Park():
            return Rung.PARKED
        case Shed():
            return Rung.SHED
        case Warm():
            return Rung.WARM
        case Promote():
            return Rung.SERVING


def stepping_down(action: Action) -> tuple[ReplicaId, ...]:
    """The replicas that an action takes down a rung, or to their end: they must be without work."""
    match action:
        case Park() | Shed() | Warm() | Evict():
            return (action.replica_id,)
        case Promote():
            return tuple(victim.replica_id for victim in action.victims)
        case Fetch() | Start() | Drain() | Restore():
            return ()


class RefusalCode(StrEnum):
    """Why an agent would not take an action."""

    NO_ROOM_GPU = "no_room_gpu"
    NO_ROOM_HOST = "no_room_host"
    START_IN_PROGRESS = "start_in_progress"
    BUSY = "busy"
    ILLEGAL_EDGE = "illegal_edge"
    UNKNOWN_REPLICA = "unknown_replica"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_GPU = "unknown_gpu"
    DUPLICATE_REPLICA = "duplicate_replica"
    IN_TRANSITION = "in_transition"
    UNSUPPORTED = "unsupported"
    NODE_UNREACHABLE = "node_unreachable"


class Accepted(Frozen, frozen=True, kw_only=True, tag="accepted", tag_field="answer"):
    action_id: str


class Refused(Frozen, frozen=True, kw_only=True, tag="refused", tag_field="answer"):
    action_id: str
    reason_code: RefusalCode
    need_bytes: int = 0
    free_bytes: int = 0
    message: str = ""


Answer: TypeAlias = Accepted | Refused


class OutcomeStatus(StrEnum):
    DONE = "done"
    FAILED = "failed"
    STALE = "stale"


class Outcome(Frozen, frozen=True, kw_only=True):
    """How an accepted action ended, with what was measured."""

    action_id: str
    verb: str
    node_id: NodeId
    replica_id: str
    model_id: str
    status: OutcomeStatus
    began_us: int
    ended_us: int
    message: str = ""


class Want(Frozen, frozen=True, kw_only=True):
    """Something the plan could not grant, and why."""

    model_id: ModelId
    why: str
    eta_us: int = 0
    numbers: dict[str, float] = msgspec.field(default_factory=dict)


class LaunchNode(Frozen, frozen=True, kw_only=True, tag="launch", tag_field="change"):
    """A node of the catalog that is absent is asked for."""

    node_id: NodeId
    why: Reason


class ReturnNode(Frozen, frozen=True, kw_only=True, tag="return", tag_field="change"):
    """A node on which nothing serves or moves is given back."""

    node_id: NodeId
    why: Reason


NodeChange: TypeAlias = LaunchNode | ReturnNode


class Plan(Frozen, frozen=True, kw_only=True):
    actions: tuple[Action, ...] = ()
    wants: tuple[Want, ...] = ()
    nodes: tuple[NodeChange, ...] | None = None
    """None: this policy does not decide about nodes."""
