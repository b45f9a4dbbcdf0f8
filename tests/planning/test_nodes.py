"""Nodes as part of a plan, one behaviour each, and what holds for all of them."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.catalog import Catalog, ModelId, NodeId, ReplicaId, World
from placement.plan import Drain, LaunchNode, Plan, Promote, ReasonCode, ReturnNode, Start, Warm
from placement.planning.demand import ModelDemand
from placement.planning.draft import Elastic, Facts, Going
from placement.planning.explained import fixed_ids
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.rungs import plan_rungs
from placement.planning.writing import Decision
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung, nothing_runs
from tests.builders import catalog, model, node
from tests.planning.clusters import clusters
from tests.prewarm.worlds import NOW_US, fleet

US = 1_000_000
LEAD_US = 240 * US
HORIZONS_US = (10 * US, 60 * US, 300 * US, 1800 * US)
FOREVER_US = NOW_US - 36_000 * US
NODES = tuple(node(f"n{i}", gpus=8) for i in range(4))
SMALL = model("small", max_replicas=32)


def at_once(now: int, lead: int, later: int = 0, paths: int = 10) -> tuple[tuple[int, ...], ...]:
    """GPUs needed now, once a launched node could serve, and half an hour on, in all futures."""
    return tuple((gpus,) * paths for gpus in (now, now, lead, later or lead))


def serves(node_id: str, *gpus: int, model_id: str = "small") -> ReplicaState:
    return ReplicaState(
        replica_id=ReplicaId(f"{model_id}-{node_id}-{gpus[0]}"),
        model_id=ModelId(model_id),
        node_id=NodeId(node_id),
        gpu_ids=gpus,
        rung=Rung.SERVING,
        phase=Phase.READY,
        since_us=FOREVER_US,
    )


def facts(
    gpus: tuple[tuple[int, ...], ...],
    *replicas: ReplicaState,
    there: int = 1,
    whole: Catalog | None = None,
    asked: dict[str, int] | None = None,
    nodes_min: int = 1,
    **changes: Any,
) -> Facts:
    """The first nodes of the catalog are there, and have been for hours."""
    whole = whole or catalog(SMALL, nodes=NODES)
    snapshot = fleet(whole, *replicas)
    nodes = snapshot.nodes[:there]
    asked = asked or {}
    running: dict[str, int] = {
        r.replica_id: asked[r.model_id] for r in replicas if r.model_id in asked
    }
    demand = {
        m: ModelDemand(model_id=ModelId(m), in_flight=n, last_arrival_us=NOW_US)
        for m, n in asked.items()
    }
    models: dict[str, ModelOutlook] = {
        m.id: ModelOutlook(model_id=m.id, rate_per_s=asked.get(m.id, 0) / 5, service_s=5.0, slots=8)
        for m in whole.models
    }
    defaults: dict[str, Any] = {
        "elastic": Elastic(
            lead_us=LEAD_US,
            nodes_min=nodes_min,
            since_us={n.node_id: FOREVER_US for n in nodes},
        ),
    }
    return Facts(
        snapshot=msgspec.structs.replace(snapshot, nodes=nodes),
        catalog=whole,
        models={m.id: m for m in whole.models},
        demand=demand,
        in_flight=running,
        outlook=Outlook(made_us=NOW_US, horizons_us=HORIZONS_US, models=models, gpus=gpus),
        now_us=NOW_US,
        **{**defaults, **changes},
    )


def decided(now: Facts) -> Decision:
    return plan_rungs(now, fixed_ids(now.snapshot))


def changes(plan: Plan) -> list[tuple[str, str]]:
    assert plan.nodes is not None
    return [(type(change).__name__, change.node_id) for change in plan.nodes]


# --- coming


def test_a_ramp_that_is_foretold_is_met_a_lead_time_ahead() -> None:
    plan = decided(facts(at_once(now=4, lead=14))).plan
    assert changes(plan) == [("LaunchNode", "n1")]
    assert plan.nodes is not None
    why = plan.nodes[0].why
    assert why.code is ReasonCode.FORECAST
    assert why.numbers["gpus_there"] == 8
    assert why.numbers["used"] == 6, "of the 14 that are needed 8 are there"
    assert why.numbers["worth_gpus"] == 9 * 6
    assert why.numbers["costs_gpus"] == 8


def test_what_comes_later_than_a_launch_takes_is_not_launched_for_yet() -> None:
    assert changes(decided(facts(at_once(now=4, lead=4, later=30))).plan) == []


def test_a_steep_ramp_is_met_with_several_nodes_at_once() -> None:
    plan = decided(facts(at_once(now=4, lead=20))).plan
    assert changes(plan) == [("LaunchNode", "n1"), ("LaunchNode", "n2")]


@pytest.mark.parametrize(("price", "launched"), [(9.9, False), (10.0, True)])
def test_a_standby_node_is_kept_for_as_much_as_its_use_is_worth(
    price: float, launched: bool
) -> None:
    """In one future of ten the eight GPUs beyond those there are needed: 0.8 in the mean, worth the
    eight that they cost from a price of ten on."""
    lead = (8,) * 9 + (16,)
    whole = catalog(SMALL, nodes=NODES)
    whole = msgspec.structs.replace(
        whole, policy=msgspec.structs.replace(whole.policy, waiting_to_idle=price)
    )
    now = facts(((8,) * 10, (8,) * 10, lead, lead), whole=whole)
    assert changes(decided(now).plan) == ([("LaunchNode", "n1")] if launched else [])


def test_who_is_on_its_way_is_not_launched_again() -> None:
    elastic = Elastic(lead_us=LEAD_US, nodes_min=1, coming={"n1": NOW_US + 60 * US})
    assert changes(decided(facts(at_once(now=4, lead=14), elastic=elastic)).plan) == []


def test_fewer_than_are_to_be_kept_are_made_up_for() -> None:
    assert changes(decided(facts(at_once(0, 0), nodes_min=2)).plan) == [("LaunchNode", "n1")]


def test_a_model_that_fits_nowhere_gets_the_first_node_on_which_it_does() -> None:
    wide = model("wide", gpus=8, weights_bytes=300 * 10**9)
    whole = catalog(wide, nodes=(node("n0"), node("n1", gpus=4), node("n2", gpus=8)))
    now = facts(at_once(0, 0), whole=whole)
    demand = {"wide": ModelDemand(model_id=wide.id, held=1, oldest_held_us=NOW_US)}
    assert changes(decided(replace(now, demand=demand)).plan) == [("LaunchNode", "n2")]


def test_without_forecasts_nodes_follow_what_is_asked_now() -> None:
    """Seventy requests at once take nine replicas of eight slots at least; eight GPUs are there."""
    now = facts((), *(serves("n0", g) for g in range(8)), asked={"small": 70})
    assert changes(decided(now).plan) == [("LaunchNode", "n1")]


# --- going


def going(now: Facts) -> Going:
    """What is remembered once there have been too many nodes for as long as a launch takes."""
    before = replace(now, going=Going(too_many_since_us=NOW_US - LEAD_US))
    return decided(before).going


def test_a_node_too_many_goes_only_after_a_launch_time() -> None:
    now = facts(at_once(4, 4), serves("n0", 0), there=2, asked={"small": 4})
    first = decided(now)
    assert first.going == Going(too_many_since_us=NOW_US)
    early = replace(now, going=Going(too_many_since_us=NOW_US - LEAD_US + US))
    assert not decided(early).going.node_id
    assert changes(decided(replace(now, going=Going(too_many_since_us=NOW_US - LEAD_US))).plan) == [
        ("ReturnNode", "n1")
    ]


def test_the_one_goes_whose_emptying_costs_least() -> None:
    busy = [serves("n1", g) for g in range(2)]
    now = facts(at_once(3, 3), serves("n0", 0), *busy, there=2, asked={"small": 4})
    plan = decided(replace(now, going=Going(too_many_since_us=NOW_US - LEAD_US)))
    assert plan.going.node_id == "n0"


def test_a_node_that_has_only_just_come_stays() -> None:
    elastic = Elastic(
        lead_us=LEAD_US, nodes_min=1, since_us={"n0": FOREVER_US, "n1": NOW_US - LEAD_US - US}
    )
    now = facts(at_once(4, 4), serves("n0", 0), there=2, asked={"small": 4}, elastic=elastic)
    assert going(now).node_id != "n1"


def test_whoever_serves_there_is_replaced_before_it_drains() -> None:
    """Its model climbs on a node that stays; meanwhile it serves on."""
    now = facts(
        at_once(2, 2),
        serves("n1", 0),
        there=2,
        asked={"small": 4},
        going=Going(node_id="n1", since_us=NOW_US),
    )
    first = decided(now)
    (start,) = first.plan.actions
    assert isinstance(start, Start)
    assert start.node_id == "n0"
    assert changes(first.plan) == []
    moved = replace(now, snapshot=_with(now.snapshot, serves("n0", 0)))
    second = decided(moved)
    assert [(type(a), a.node_id) for a in second.plan.actions] == [(Drain, "n1")]
    assert changes(second.plan) == [], "it still serves"


def test_a_node_is_given_back_once_nothing_runs_there() -> None:
    asleep = msgspec.structs.replace(serves("n1", 0), rung=Rung.PARKED)
    now = facts(
        at_once(2, 2),
        serves("n0", 0),
        asleep,
        there=2,
        asked={"small": 4},
        going=Going(node_id="n1", since_us=NOW_US),
    )
    assert changes(decided(now).plan) == [("ReturnNode", "n1")]


def test_demand_that_returns_takes_the_node_back_instead_of_a_launch() -> None:
    now = facts(
        at_once(2, 14),
        serves("n0", 0),
        there=2,
        asked={"small": 4},
        going=Going(node_id="n1", since_us=NOW_US),
    )
    made = decided(now)
    assert changes(made.plan) == []
    assert made.going == Going()


@pytest.mark.parametrize(("least", "goes"), [(0, "n1"), (1, "n0")])
def test_a_pinned_model_keeps_the_only_node_that_is_large_enough(least: int, goes: str) -> None:
    wide = model("wide", gpus=4, min_replicas=least, weights_bytes=150 * 10**9)
    whole = catalog(SMALL, wide, nodes=(node("n0"), node("n1", gpus=8)))
    now = facts(
        at_once(1, 1),
        serves("n0", 0),
        serves("n1", 0, 1, 2, 3, model_id="wide"),
        there=2,
        whole=whole,
        asked={"small": 4},
    )
    assert going(now).node_id == goes


def _with(snapshot: ClusterSnapshot, replica: ReplicaState) -> ClusterSnapshot:
    nodes = tuple(
        msgspec.structs.replace(n, replicas=(*n.replicas, replica))
        if n.node_id == replica.node_id
        else n
        for n in snapshot.nodes
    )
    return msgspec.structs.replace(snapshot, nodes=nodes)


# --- laws


@st.composite
def moments(draw: st.DrawFn) -> Facts:
    """Any cluster of which some nodes are absent, on their way, or about to go."""
    found: Facts = draw(clusters(draw(st.sampled_from(list(World)))))
    there = found.snapshot.nodes[: draw(st.integers(1, len(found.snapshot.nodes)))]
    absent = [n.id for n in found.catalog.nodes[len(there) :]]
    coming: dict[str, int] = {
        name: found.now_us + 60 * US for name in absent if draw(st.booleans())
    }
    leaving = draw(st.sampled_from(["", *(n.node_id for n in there)]))
    assert found.outlook is not None
    gpus = draw(st.lists(st.integers(0, 12), min_size=4, max_size=4))
    return replace(
        found,
        snapshot=msgspec.structs.replace(found.snapshot, nodes=there),
        outlook=msgspec.structs.replace(found.outlook, gpus=(tuple(gpus),) * 3),
        elastic=Elastic(
            lead_us=LEAD_US, nodes_min=draw(st.integers(1, 2)), coming=coming, since_us={}
        ),
        going=Going(too_many_since_us=0, node_id=leaving, since_us=found.now_us),
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(now=moments())
def test_nothing_is_lost_by_a_removal_and_enough_nodes_stay(now: Facts) -> None:
    made = decided(now)
    assert made.plan.nodes is not None
    assert now.elastic is not None
    there: dict[str, NodeState] = {n.node_id: n for n in now.snapshot.nodes}
    returned = [c.node_id for c in made.plan.nodes if isinstance(c, ReturnNode)]
    launched = [c.node_id for c in made.plan.nodes if isinstance(c, LaunchNode)]
    assert len(returned) <= 1
    assert all(nothing_runs(there[name]) for name in returned)
    assert all(nothing_runs(made.draft.nodes[name]) for name in returned)
    assert set(launched).isdisjoint({*there, *now.elastic.coming})
    left = len(there) - len(returned)
    assert left >= min(now.elastic.nodes_min, len(there))
    assert left + len(now.elastic.coming) + len(launched) >= min(
        now.elastic.nodes_min, len(now.catalog.nodes)
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(now=moments())
def test_nobody_climbs_on_a_node_that_goes(now: Facts) -> None:
    for action in decided(now).plan.actions:
        if isinstance(action, Start | Promote | Warm) and action.node_id == now.going.node_id:
            replica = now.snapshot.replica(getattr(action, "replica_id", ""))
            assert replica is not None, "a start"
            assert isinstance(action, Warm), "a climb"
            assert replica.rung is Rung.SERVING, "a climb"
