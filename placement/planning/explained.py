"""A decision on recorded facts, with all that explains it. Pure.

In: `Facts` and a policy's plan function. Out: `Explained`: the plan, its actions and wants in
words, the GPUs before and after. Ids are made up in a fixed way, so the same facts give the same
document, byte for byte. Never: draws a picture, reads a file.
"""

from collections.abc import Callable, Mapping
from itertools import count

from placement.catalog import Frozen
from placement.plan import (
    Action,
    Fetch,
    NodeChange,
    Plan,
    Promote,
    Reason,
    Start,
    Victim,
    Want,
    stepping_down,
)
from placement.planning.draft import Facts, Room
from placement.planning.pictured import Marks, NodePicture, Presence, not_there, picture
from placement.planning.reactive import plan_reactive
from placement.planning.rungs import plan_rungs
from placement.planning.told import told, told_numbers
from placement.planning.writing import Decision, Ids
from placement.snapshot import ClusterSnapshot, NodeState, ReplicaState

Decide = Callable[[Facts, Ids], Decision]
PLANS: dict[str, Decide] = {"warmtide": plan_rungs, "reactive": plan_reactive}
"""The plan functions that need nothing but facts, by the names of their policies."""


class ToldAction(Frozen, frozen=True, kw_only=True):
    """One action. `number` is its place in the plan, from 1 on: pictures mark it so."""

    number: int
    verb: str
    action_id: str
    node_id: str
    model_id: str
    replica_id: str = ""
    gpu_ids: tuple[int, ...] = ()
    victims: tuple[Victim, ...] = ()
    takes_us: int = 0
    """Until its replica serves, where that is what it is for."""
    reason: Reason
    why: str


class ToldWant(Frozen, frozen=True, kw_only=True):
    model_id: str
    why: str
    eta_us: int = 0


class ToldChange(Frozen, frozen=True, kw_only=True):
    """Of nodes."""

    change: str
    node_id: str
    reason: Reason
    why: str


class Explained(Frozen, frozen=True, kw_only=True):
    """`before`: as the facts show the cluster, what is under way included; `after`: with the plan's
    actions under way as well. `nodes` is None where the policy does not decide about nodes."""

    policy: str
    now_us: int
    snapshot_version: int
    plan: Plan
    actions: tuple[ToldAction, ...]
    wants: tuple[ToldWant, ...]
    nodes: tuple[ToldChange, ...] | None
    before: tuple[NodePicture, ...]
    after: tuple[NodePicture, ...]


def explained(facts: Facts, decide: Decide, policy: str) -> Explained:
    """What `decide` makes of these facts. Whatever it raises is raised."""
    decision = decide(facts, fixed_ids(facts.snapshot))
    plan = decision.plan
    marks = _marks(plan.actions)
    before: dict[str, NodeState] = {n.node_id: n for n in facts.snapshot.nodes}
    after = {**before, **decision.draft.nodes}
    return Explained(
        policy=policy,
        now_us=facts.now_us,
        snapshot_version=facts.snapshot.version,
        plan=plan,
        actions=tuple(_told(facts, decision, at, a) for at, a in enumerate(plan.actions, 1)),
        wants=tuple(_want(want) for want in plan.wants),
        nodes=None if plan.nodes is None else tuple(_change(facts, one) for one in plan.nodes),
        before=_pictures(facts, before, facts.rooms, marks),
        after=_pictures(facts, after, decision.rooms, marks),
    )


def fixed_ids(snapshot: ClusterSnapshot) -> Ids:
    """The same ids for the same decisions: ordinals, past those of the replicas that are there."""
    living = {r.replica_id for n in snapshot.nodes for r in n.replicas}
    ordinals: dict[str, int] = {}
    actions = count(1)

    def action() -> str:
        return f"action-{next(actions)}"

    def replica(model_id: str) -> str:
        while True:
            ordinals[model_id] = ordinals.get(model_id, 0) + 1
            name = f"{model_id.replace('/', '--')}-{ordinals[model_id]}"
            if name not in living:
                return name

    return Ids(action, replica)


# --- actions


def _told(facts: Facts, decision: Decision, number: int, action: Action) -> ToldAction:
    replica_id = "" if isinstance(action, Fetch) else action.replica_id
    replica = decision.draft.find(replica_id) or facts.snapshot.replica(replica_id)
    eta_us = decision.eta_us.get(action.action_id)
    return ToldAction(
        number=number,
        verb=type(action).__name__.lower(),
        action_id=action.action_id,
        node_id=action.node_id,
        model_id=_model_of(action, replica),
        replica_id=replica_id,
        gpu_ids=replica.gpu_ids if replica is not None else (),
        victims=action.victims if isinstance(action, Promote) else (),
        takes_us=eta_us - facts.now_us if eta_us is not None else 0,
        reason=action.why,
        why=told(action.why, _futures(facts)),
    )


def _model_of(action: Action, replica: ReplicaState | None) -> str:
    if isinstance(action, Start | Fetch):
        return action.model_id
    return replica.model_id if replica is not None else ""


def _want(want: Want) -> ToldWant:
    numbers = told_numbers(want.numbers)
    why = f"{want.why}; {numbers}" if numbers else want.why
    return ToldWant(model_id=want.model_id, why=why, eta_us=want.eta_us)


def _change(facts: Facts, change: NodeChange) -> ToldChange:
    return ToldChange(
        change=type(change).__name__.removesuffix("Node").lower(),
        node_id=change.node_id,
        reason=change.why,
        why=told(change.why, _futures(facts)),
    )


def _futures(facts: Facts) -> int:
    return facts.outlook.paths if facts.outlook is not None else 0


def _marks(actions: tuple[Action, ...]) -> Marks:
    """By replica: which actions concern it, as the one acted on or as a victim."""
    found: dict[str, tuple[int, ...]] = {}
    for number, action in enumerate(actions, 1):
        own = [] if isinstance(action, Fetch) else [action.replica_id]
        for replica_id in dict.fromkeys([*own, *stepping_down(action)]):
            found[replica_id] = (*found.get(replica_id, ()), number)
    return found


# --- pictures


def _pictures(
    facts: Facts, there: Mapping[str, NodeState], rooms: Mapping[str, Room], marks: Marks
) -> tuple[NodePicture, ...]:
    """All nodes of the catalog, in its order. Of the others we know no GPU."""
    coming = facts.elastic.coming if facts.elastic is not None else {}
    found = []
    for spec in facts.catalog.nodes:
        node = there.get(spec.id)
        if node is None:
            presence = Presence.COMING if spec.id in coming else Presence.ABSENT
            found.append(not_there(spec, presence))
        else:
            promised = _promised(spec.id, rooms)
            found.append(picture(node, spec, facts.models, marks, promised))
    return tuple(found)


def _promised(node_id: str, rooms: Mapping[str, Room]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for model_id, room in sorted(rooms.items()):
        for gpu_id in room.gpu_ids if room.node_id == node_id else ():
            found[gpu_id] = (*found.get(gpu_id, ()), model_id)
    return found
