"""What holds for every plan, of either policy, in either world, whatever the cluster looks like."""

import random
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.catalog import World
from placement.edges import legal_steps, shared_copies
from placement.feasibility import gpu_sets, reserved, usable_hbm_bytes
from placement.plan import (
    Action,
    Drain,
    Evict,
    Fetch,
    Park,
    Promote,
    Restore,
    Shed,
    Start,
    Warm,
    stepping_down,
    target_rung,
)
from placement.planning.draft import Facts
from placement.planning.explained import PLANS, fixed_ids
from placement.planning.overlay import Pending, overlay
from placement.planning.writing import Decision, Ids
from placement.snapshot import ClusterSnapshot, Rung
from tests.planning.clusters import clusters

CASES = [(policy, world) for policy in PLANS for world in World]
every_policy = pytest.mark.parametrize(("policy", "world"), CASES)
searching = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decided(facts: Facts, policy: str, ids: Ids | None = None) -> Decision:
    return PLANS[policy](facts, ids or fixed_ids(facts.snapshot))


def taken_up(facts: Facts, made: Decision) -> Facts:
    """The same moment, with the plan's actions under way and what is remembered of it."""
    pending = [Pending(action=a, eta_us=made.eta_us.get(a.action_id, 0)) for a in made.plan.actions]
    snapshot = overlay(facts.snapshot, pending, facts.models, facts.catalog)
    return replace(
        facts, snapshot=snapshot, cleared_for=dict(made.cleared_for), rooms=dict(made.rooms)
    )


def drawn(data: st.DataObject, policy: str, world: World) -> Facts:
    return data.draw(clusters(world, forecast=policy != "reactive"))


@every_policy
@searching
@given(data=st.data())
def test_gpu_sets_nest_or_are_disjoint(data: st.DataObject, policy: str, world: World) -> None:
    facts = drawn(data, policy, world)
    made = decided(facts, policy)
    for action in made.plan.actions:
        if isinstance(action, Start):
            node = facts.catalog.node(action.node_id)
            assert node is not None
            assert action.gpu_ids in gpu_sets(node, facts.models[action.model_id].gpus)
    for node_state in taken_up(facts, made).snapshot.nodes:
        sets = {frozenset(r.gpu_ids) for r in node_state.replicas}
        for one in sets:
            for other in sets:
                assert one <= other or other <= one or not one & other


@every_policy
@searching
@given(data=st.data())
def test_nothing_is_overcommitted(data: st.DataObject, policy: str, world: World) -> None:
    """Counted anew from every replica, by the rules that agents count by."""
    facts = drawn(data, policy, world)
    for node in taken_up(facts, decided(facts, policy)).snapshot.nodes:
        spec = facts.catalog.node(node.node_id)
        assert spec is not None
        found = reserved(spec, [(r, facts.models[r.model_id]) for r in node.replicas])
        assert max(found.gpu_bytes.values()) <= usable_hbm_bytes(spec.hbm_bytes)
        assert found.host_bytes <= spec.host_bytes
        counted = {gpu.gpu_id: gpu.reserved_bytes for gpu in node.gpus}
        assert counted == found.gpu_bytes, "the books that the next plan reads say the same"


@every_policy
@searching
@given(data=st.data())
def test_who_is_busy_stays(data: st.DataObject, policy: str, world: World) -> None:
    facts = drawn(data, policy, world)
    for action in decided(facts, policy).plan.actions:
        for replica_id in stepping_down(action):
            replica = facts.snapshot.replica(replica_id)
            assert replica is not None
            assert not facts.in_flight.get(replica_id), f"{replica_id} is busy: {action}"
            assert not replica.action_id or replica.loading, f"{replica_id} moves: {action}"


@every_policy
@searching
@given(data=st.data())
def test_every_step_is_an_edge_of_the_graph(data: st.DataObject, policy: str, world: World) -> None:
    facts = drawn(data, policy, world)
    for action in decided(facts, policy).plan.actions:
        steps = []
        if isinstance(action, Park | Shed | Warm | Promote):
            steps.append((action.replica_id, target_rung(action)))
        if isinstance(action, Promote):
            steps += [(v.replica_id, v.to) for v in action.victims if v.to is not None]
        for replica_id, to in steps:
            replica = facts.snapshot.replica(replica_id)
            assert replica is not None
            assert (replica.rung, to) in legal_steps(facts.models[replica.model_id])


@every_policy
@searching
@given(data=st.data())
def test_no_replica_is_named_by_two_actions(data: st.DataObject, policy: str, world: World) -> None:
    named = [
        name for a in decided(drawn(data, policy, world), policy).plan.actions for name in names(a)
    ]
    assert len(named) == len(set(named))


def names(action: Action) -> set[str]:
    """The replicas that it acts on, victims included."""
    own = set() if isinstance(action, Fetch) else {action.replica_id}
    return own | set(stepping_down(action))


@every_policy
@searching
@given(data=st.data())
def test_a_plan_applied_twice_changes_nothing(
    data: st.DataObject, policy: str, world: World
) -> None:
    """A plan of the same moment has nothing to add, unless the first one had an effect at once, or
    brought weights nearer, for whose sake others are worth less. Then it may go on from there, but
    it takes nothing back, and soon comes to rest."""
    facts = drawn(data, policy, world)
    ids, drained, acted = fixed_ids(facts.snapshot), set[str](), set[str]()
    rest = False
    for _ in range(ROUNDS_MAX):
        made = decided(facts, policy, ids)
        actions = made.plan.actions
        assert not (rest and actions), "nothing has changed since the plan before"
        for action in actions:
            assert names(action).isdisjoint(acted), f"acts again on whom it has moved: {action}"
            assert not isinstance(action, Restore) or action.replica_id not in drained, action
        drained |= {a.replica_id for a in actions if isinstance(a, Drain)}
        acted |= {n for a in actions if not opens_ways(facts, a) for n in names(a)} - drained
        rest = not any(opens_ways(facts, a) for a in actions)
        facts = taken_up(facts, made)
        if not actions:
            return
    raise AssertionError(f"has something to add in each of {ROUNDS_MAX} rounds of one moment")


ROUNDS_MAX = 6
"""Drain, step down, start in that room; and once more for whoever comes after."""


def opens_ways(facts: Facts, action: Action) -> bool:
    """Whether a plan of the same moment may see more after it than it itself."""
    if isinstance(action, Evict):
        replica = facts.snapshot.replica(action.replica_id)
        assert replica is not None
        return shared_copies(facts.models[replica.model_id])
    if isinstance(action, Start):
        return action.to is Rung.WARM
    return isinstance(action, Warm | Drain | Restore)


def shuffled(facts: Facts, rng: random.Random) -> Facts:
    """The same facts in another order: of nodes, of replicas on them, of models, of everything."""

    def mixed(items: Iterable[object]) -> list[object]:
        found = list(items)
        rng.shuffle(found)
        return found

    nodes = [
        msgspec.structs.replace(node, replicas=tuple(mixed(node.replicas)))
        for node in facts.snapshot.nodes
    ]
    snapshot = ClusterSnapshot(version=facts.snapshot.version, nodes=tuple(mixed(nodes)))  # type: ignore[arg-type]
    catalog = msgspec.structs.replace(
        facts.catalog,
        models=tuple(mixed(facts.catalog.models)),
        nodes=tuple(mixed(facts.catalog.nodes)),
    )
    outlook = facts.outlook
    if outlook is not None:
        outlook = msgspec.structs.replace(outlook, models=dict(mixed(outlook.models.items())))  # type: ignore[arg-type]
    return replace(
        facts,
        snapshot=snapshot,
        catalog=catalog,
        models=dict(mixed(facts.models.items())),  # type: ignore[arg-type]
        demand=dict(mixed(facts.demand.items())),  # type: ignore[arg-type]
        outlook=outlook,
    )


@every_policy
@searching
@given(data=st.data(), seed=st.integers(0, 1000))
def test_the_order_of_what_is_known_changes_nothing(
    data: st.DataObject, seed: int, policy: str, world: World
) -> None:
    facts = drawn(data, policy, world)
    other = shuffled(facts, random.Random(seed))
    assert decided(other, policy).plan == decided(facts, policy).plan
