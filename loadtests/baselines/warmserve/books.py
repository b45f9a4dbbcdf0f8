"""What the policy believes: which weights are resident or loading, where instances run, and how
many bytes of each GPU may be used for prewarming. Pure.

In: nodes as last seen, actions asked for that they may not show yet, what earlier drops left
booked. Out: `Books`. Never: decides.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum

from loadtests.baselines.warmserve.laminar import mask_of
from placement.catalog import ModelSpec, World
from placement.edges import gpu_bytes
from placement.feasibility import usable_hbm_bytes
from placement.plan import Action, Drain, Evict, Fetch, Promote, Restore, Start, target_rung
from placement.snapshot import NodeState, Phase, ReplicaState, Rung

PAGE_BYTES = 2 * 2**20


class Doing(Enum):
    LOADING = "loading"
    RESIDENT = "resident"
    RUNNING = "running"
    """An instance, up or on its way."""
    DRAINING = "draining"
    ASLEEP = "asleep"
    """World S: an engine without weights on its GPUs."""
    LEAVING = "leaving"
    """Its end is under way. World S: so may be a step down, and both take a while."""
    FAILED = "failed"


INSTANCE = (Doing.RUNNING, Doing.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One replica as the policy sees it."""

    replica_id: str
    model_id: str
    node_id: str
    gpu_ids: tuple[int, ...]
    mask: int
    doing: Doing
    holds: Rung | None
    """The rung whose bytes its GPUs hold for it now; None: a promise, nothing yet."""
    moving: bool = False
    """An action is at work on it."""
    serves: bool = False
    since_us: int = 0
    eta_us: int = 0
    released_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeBook:
    node_id: str
    copies: tuple[Copy, ...]
    """By GPU set, then name: lists are walked in this order."""
    free: tuple[int, ...]
    """Bytes of each GPU that prewarming may use: none where an instance runs."""
    room: tuple[int, ...]
    """Bytes of each GPU that nothing holds. World S: what a start or a step up may take."""

    def beside(self, replica_id: str, gpu_ids: Iterable[int]) -> list[Copy]:
        """Who overlaps these GPUs, but for one."""
        mask = mask_of(gpu_ids)
        return [c for c in self.copies if c.mask & mask and c.replica_id != replica_id]


Books = dict[str, NodeBook]
Leaks = Mapping[tuple[str, int], int]
"""Node and GPU: bytes that stay deducted after a multi-GPU replica was dropped (4.11, 2)."""
NO_LEAKS: Leaks = {}


def share_bytes(spec: ModelSpec) -> int:
    """w: weight bytes per GPU, in whole pages."""
    return -(-spec.weights_per_gpu_bytes // PAGE_BYTES) * PAGE_BYTES


def book_of(
    node: NodeState,
    specs: Mapping[str, ModelSpec],
    asked: Iterable[Action] = (),
    claims: Iterable[Copy] = (),
    ahead: Set[str] = frozenset(),
    leaks: Leaks = NO_LEAKS,
) -> NodeBook:
    """One node, with the actions and claims that are its own. `claims`: instances whose GPUs are
    still being cleared. `ahead`: world S, replicas that were started only to rest warm."""
    mine = (r for r in node.replicas if r.model_id in specs)
    copies: dict[str, Copy] = {r.replica_id: _copy(r, ahead) for r in mine}
    for action in asked:
        _lay(copies, action, ahead)
    for promised in claims:
        there = copies.get(promised.replica_id, promised)
        copies[promised.replica_id] = replace(there, doing=Doing.RUNNING)
    return _book(node, copies.values(), specs, leaks)


def claim(replica_id: str, model_id: str, node_id: str, gpu_ids: tuple[int, ...]) -> Copy:
    """A GPU set that is promised to an instance."""
    return Copy(
        replica_id=replica_id,
        model_id=model_id,
        node_id=node_id,
        gpu_ids=gpu_ids,
        mask=mask_of(gpu_ids),
        doing=Doing.RUNNING,
        holds=None,
    )


def _copy(replica: ReplicaState, ahead: Set[str]) -> Copy:
    return Copy(
        replica_id=replica.replica_id,
        model_id=replica.model_id,
        node_id=replica.node_id,
        gpu_ids=replica.gpu_ids,
        mask=mask_of(replica.gpu_ids),
        doing=_doing(replica, ahead),
        holds=max(replica.rung, replica.target or replica.rung),
        moving=bool(replica.action_id),
        serves=replica.serving,
        since_us=replica.since_us,
        eta_us=replica.eta_us,
        released_bytes=replica.released_bytes,
    )


def _doing(replica: ReplicaState, ahead: Set[str]) -> Doing:
    if replica.phase is Phase.FAILED:
        return Doing.FAILED
    if replica.action_id:
        return _doing_towards(replica.target, ahead=replica.replica_id in ahead)
    if replica.rung is Rung.SERVING:
        if replica.phase is Phase.DRAINING:
            return Doing.DRAINING
        return Doing.LOADING if replica.replica_id in ahead else Doing.RUNNING
    return Doing.RESIDENT if replica.rung is Rung.WARM else Doing.ASLEEP


def _doing_towards(target: Rung | None, *, ahead: bool) -> Doing:
    if target is Rung.SERVING:
        return Doing.LOADING if ahead else Doing.RUNNING
    return Doing.LOADING if target is Rung.WARM else Doing.LEAVING


def _lay(here: dict[str, Copy], action: Action, ahead: Set[str]) -> None:
    """An action that was asked for, as it will look."""
    match action:
        case Start():
            if action.replica_id not in here:
                names = (action.replica_id, action.model_id, action.node_id, action.gpu_ids)
                doing = _doing_towards(action.to, ahead=action.replica_id in ahead)
                here[action.replica_id] = replace(
                    claim(*names), doing=doing, holds=action.to, moving=True
                )
        case Promote():
            for victim in action.victims:
                _move(here, victim.replica_id, victim.to, Doing.LEAVING)
            _move(here, action.replica_id, Rung.SERVING, Doing.RUNNING)
        case Evict():
            _move(here, action.replica_id, None, Doing.LEAVING)
        case Drain():
            copy = here.get(action.replica_id)
            if copy is not None and copy.doing is Doing.RUNNING:
                here[copy.replica_id] = replace(copy, doing=Doing.DRAINING, serves=False)
        case Restore() | Fetch():
            pass
        case _:
            to = target_rung(action)
            _move(here, action.replica_id, to, _doing_towards(to, ahead=False))


def _move(here: dict[str, Copy], replica_id: str, to: Rung | None, doing: Doing) -> None:
    copy = here.get(replica_id)
    if copy is not None:
        holds = max(copy.holds or 0, to or 0)
        here[replica_id] = replace(copy, doing=doing, holds=Rung(holds), moving=True, serves=False)


def _book(
    node: NodeState, copies: Iterable[Copy], specs: Mapping[str, ModelSpec], leaks: Leaks
) -> NodeBook:
    listed = sorted(copies, key=lambda c: (c.gpu_ids, c.replica_id))
    free = [usable_hbm_bytes(gpu.hbm_bytes) for gpu in node.gpus]
    room = list(free)
    for copy in listed:
        if copy.doing in INSTANCE:  # what it gave away while draining may be used, nothing else
            for g in copy.gpu_ids:
                free[g] = copy.released_bytes if copy.doing is Doing.DRAINING else 0
    for copy in listed:
        held = _held_bytes(specs[copy.model_id], copy)
        for g in copy.gpu_ids:
            room[g] -= held
            free[g] -= 0 if copy.doing in INSTANCE else held
    booked = [max(f - leaks.get((node.node_id, g), 0), 0) for g, f in enumerate(free)]
    return NodeBook(node.node_id, tuple(listed), tuple(booked), tuple(room))


def _held_bytes(spec: ModelSpec, copy: Copy) -> int:
    if copy.holds is None:
        return 0
    if spec.mechanism.world is World.W and copy.holds is Rung.WARM:
        return share_bytes(spec)
    return gpu_bytes(spec, copy.holds)
