"""What holds for every residency plan, whatever exists and whatever is expected."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.catalog import Catalog, World
from placement.feasibility import gpu_sets
from placement.planning.draft import Facts
from placement.planning.paths import DemandPaths
from placement.planning.residency import plan_residency
from placement.snapshot import Phase, ReplicaState, Rung
from tests.builders import GB
from tests.planning.residencies import applied, cases, facts, fits, placed, sleeps

CLOSE = 1e-6


@st.composite
def situations(draw: st.DrawFn) -> tuple[Catalog, DemandPaths, list[ReplicaState]]:
    """Some engines stand somewhere already, each where it could have been started."""
    whole, paths = draw(cases(nodes=2, models=4, copies=2))
    found: list[ReplicaState] = []
    for spec in whole.models:
        for n in whole.nodes:
            for gpus in gpu_sets(n, spec.gpus):
                if draw(st.integers(0, 3)) == 0:
                    rung = draw(st.sampled_from([Rung.PARKED, Rung.SHED, Rung.SERVING]))
                    found.append(sleeps(f"r{len(found)}", spec.id, gpus, rung, n.id))
    return whole, paths, found


def before(whole: Catalog, found: list[ReplicaState]) -> Facts | None:
    """None where so much could not stand there."""
    now = facts(whole, *found)
    for node in now.snapshot.nodes:
        if node.host_reserved_bytes > node.host_bytes:
            return None
        if any(g.reserved_bytes > 0.9 * g.hbm_bytes for g in node.gpus):
            return None
    return now


@settings(max_examples=150)
@given(situations())
def test_sets_nest_or_are_disjoint_and_no_model_stands_twice_on_one(
    case: tuple[Catalog, DemandPaths, list[ReplicaState]],
) -> None:
    whole, paths, found = case
    residents = plan_residency(facts(whole, *found), paths).residents
    places = [(r.model_id, r.node_id, r.gpu_ids) for r in residents]
    assert len(set(places)) == len(places)
    for a in residents:
        for b in residents:
            mine, theirs = set(a.gpu_ids), set(b.gpu_ids)
            if a.node_id == b.node_id:
                assert mine <= theirs or theirs <= mine or mine.isdisjoint(theirs)


@settings(max_examples=150)
@given(situations())
def test_nothing_is_overcommitted_beyond_what_is(
    case: tuple[Catalog, DemandPaths, list[ReplicaState]],
) -> None:
    """Those at work are counted at the rung on which they can rest; where not even that has room,
    nothing is added on that node."""
    whole, paths, found = case
    if before(whole, found) is None:
        return
    plan = plan_residency(facts(whole, *found), paths)
    there = {(r.model_id, r.node_id, r.gpu_ids) for r in found}
    whole_plan = placed(whole, plan)
    for n in whole.nodes:
        mine = [e for e in whole_plan if e.node_id == n.id]
        new = [e for e in mine if (e.spec.id, e.node_id, e.gpu_ids) not in there]
        alone = msgspec.structs.replace(whole, nodes=(n,))
        assert not new or fits(alone, mine)


@settings(max_examples=100)
@given(situations())
def test_no_model_has_more_engines_than_its_maximum_but_for_those_at_work(
    case: tuple[Catalog, DemandPaths, list[ReplicaState]],
) -> None:
    whole, paths, found = case
    residents = plan_residency(facts(whole, *found), paths).residents
    for spec in whole.models:
        at_work = sum(r.model_id == spec.id and r.rung is Rung.SERVING for r in found)
        mine = sum(r.model_id == spec.id for r in residents)
        assert mine <= max(spec.max_replicas, at_work)


@settings(max_examples=100)
@given(situations(), st.sampled_from([Phase.READY, Phase.DRAINING]))
def test_whoever_is_at_work_stays(
    case: tuple[Catalog, DemandPaths, list[ReplicaState]], phase: Phase
) -> None:
    whole, paths, found = case
    found = [
        msgspec.structs.replace(r, phase=phase) if r.rung is Rung.SERVING else r for r in found
    ]
    residents = plan_residency(facts(whole, *found), paths).residents
    stay = {(r.model_id, r.node_id, r.gpu_ids) for r in residents}
    for replica in found:
        if replica.rung is Rung.SERVING:
            assert (replica.model_id, replica.node_id, replica.gpu_ids) in stay


@settings(max_examples=150)
@given(cases(nodes=2, models=4, copies=2))
def test_a_plan_that_came_true_is_planned_again(case: tuple[Catalog, DemandPaths]) -> None:
    whole, paths = case
    first = plan_residency(facts(whole), paths)
    again = plan_residency(facts(whole, *applied(whole, first), residency=first), paths)
    once, twice = (
        sorted((r.model_id, r.node_id, r.gpu_ids, r.rests) for r in plan.residents)
        for plan in (first, again)
    )
    assert once == twice
    assert again.value >= first.value - CLOSE


@settings(max_examples=150)
@given(cases(nodes=1, models=4, copies=2), st.integers(0, 60), st.integers(1, 60))
def test_more_host_memory_never_makes_the_value_worse(
    case: tuple[Catalog, DemandPaths], few_gb: int, more_gb: int
) -> None:
    """On one node, where host memory is what is scarce: whom a greedy choice by value per byte
    passes over for want of room is worth more than all whom it then takes in the same room."""
    whole, paths = case
    values = []
    for host_gb in (few_gb, few_gb + more_gb):
        node = msgspec.structs.replace(whole.nodes[0], host_bytes=host_gb * GB)
        there = msgspec.structs.replace(whole, nodes=(node,))
        values.append(plan_residency(facts(there), paths).value)
    assert values[1] >= values[0] - CLOSE


@given(cases())
def test_where_an_engine_is_nothing_that_has_to_exist_there_is_no_plan(
    case: tuple[Catalog, DemandPaths],
) -> None:
    whole, paths = case
    shared = [
        msgspec.structs.replace(m, mechanism=msgspec.structs.replace(m.mechanism, world=World.W))
        for m in whole.models
    ]
    plan = plan_residency(facts(msgspec.structs.replace(whole, models=tuple(shared))), paths)
    assert not plan.residents
    assert not plan.wants
    assert (plan.value, plan.bound) == (0.0, 0.0)
