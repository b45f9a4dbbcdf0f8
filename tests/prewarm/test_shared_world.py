"""The reactive policy in world W: a launch takes whole GPUs, and whoever stood there is gone.

GPUs of 80 GB have 72 to use. A model's KV cache fills what 1.5 GB of activations and its weights
leave of that.
"""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.catalog import Mechanism, ModelSpec, World
from placement.edges import footprint_bytes, legal_steps
from placement.feasibility import recounted, reserved, usable_hbm_bytes
from placement.plan import Action, Drain, Evict, Plan, Promote, Restore, Start, Warm
from placement.planning.overlay import Pending, overlay
from placement.snapshot import NodeState, Phase, ReplicaState, Rung
from prewarm.controller import Controller, Observed
from tests.builders import GB, catalog, model, node
from tests.prewarm.worlds import NOW_US, US, asked_of, asks, decide, fleet, seen, stands

USABLE = 72 * GB
ACTIVATIONS = 3 * GB // 2


def shared(model_id: str, weights_gb: int, gpus: int = 1) -> ModelSpec:
    weights = weights_gb * GB
    return model(
        model_id,
        weights_bytes=weights,
        gpus=gpus,
        kv_cache_bytes=USABLE - ACTIVATIONS - weights // gpus,
        mechanism=Mechanism(world=World.W),
    )


A, B, C = shared("a", 16), shared("b", 16), shared("c", 16)
WIDE = shared("wide", 60, gpus=2)
ONE = catalog(A, B, C, nodes=(node(gpus=1),))
TWO = catalog(A, B, C, WIDE, nodes=(node(gpus=2),))


def loads(replica: ReplicaState, eta_us: int) -> ReplicaState:
    return msgspec.structs.replace(
        replica,
        rung=Rung.WARM,
        phase=Phase.STARTING,
        action_id="a load",
        target=Rung.WARM,
        eta_us=eta_us,
    )


def test_a_model_of_this_world_fills_its_gpus() -> None:
    assert {footprint_bytes(m) for m in TWO.models} == {USABLE}


def test_a_drained_replica_ends_for_a_copy_stays_and_is_taken_back_when_asked_again() -> None:
    idle = asks("a", last_arrival_us=0)
    (drain,) = decide(ONE, [stands("a1", "a")], idle).actions
    assert isinstance(drain, Drain)
    draining = stands("a1", "a", phase=Phase.DRAINING)
    (end,) = decide(ONE, [draining], idle).actions
    assert isinstance(end, Evict)
    (back,) = decide(ONE, [draining], asks("a", held=1)).actions
    assert isinstance(back, Restore)


def test_a_hit_drops_the_other_weights_in_one_transaction() -> None:
    here = [stands(f"{m}1", m, Rung.WARM) for m in "abc"]
    (action,) = decide(ONE, here, asks("b", held=1)).actions
    assert isinstance(action, Promote)
    assert [(v.replica_id, v.to) for v in action.victims] == [("a1", None), ("c1", None)]


def test_a_miss_ends_whoever_is_there_and_starts_in_the_same_plan() -> None:
    here = [stands("a1", "a", Rung.WARM), stands("b1", "b", Rung.WARM)]
    plan = decide(ONE, here, asks("c", held=1))
    assert [type(a) for a in plan.actions] == [Evict, Evict, Start]
    assert not plan.wants
    controller = Controller(ONE, "t")
    observed = seen(ONE, here, asks("c", held=1))
    controller.step(observed)
    again = controller.step(observed)
    assert again is not None
    assert not again.actions, "all three are under way"


def test_an_idle_engine_ends_for_a_wide_model_and_a_busy_one_is_left_alone() -> None:
    here = [stands("a1", "a", gpus=(0,)), stands("b1", "b", gpus=(1,))]
    plan = decide(TWO, here, asks("wide", held=1))
    assert sorted(a.replica_id for a in plan.actions if isinstance(a, Evict)) == ["a1", "b1"]
    busy = decide(TWO, here, asks("wide", held=1), asks("a", in_flight=1), a1=1)
    assert not busy.actions


def test_a_replica_that_still_loads_can_be_launched() -> None:
    soon = loads(stands("a1", "a"), NOW_US + US // 10)
    (action,) = decide(ONE, [soon], asks("a", held=1)).actions
    assert isinstance(action, Promote)
    assert action.replica_id == "a1"
    whole = catalog(A, nodes=(node(gpus=2),))
    late = loads(stands("a1", "a"), NOW_US + 60 * US)
    (start,) = decide(whole, [late], asks("a", held=1)).actions
    assert isinstance(start, Start), "the other GPU is quicker"


def test_a_load_gives_way_to_whoever_waits() -> None:
    here = [loads(stands("a1", "a"), NOW_US + US), stands("b1", "b", Rung.WARM)]
    (action,) = decide(ONE, here, asks("b", held=1)).actions
    assert isinstance(action, Promote)
    assert [v.replica_id for v in action.victims] == ["a1"]


def test_who_has_given_room_away_is_not_taken_back() -> None:
    """20 GB were given away while it drained, and `b` loaded there."""
    draining = msgspec.structs.replace(
        stands("a1", "a", phase=Phase.DRAINING), released_bytes=20 * GB
    )
    guest = stands("b1", "b", Rung.WARM)
    plan = decide(ONE, [draining, guest], asks("a", held=1, in_flight=2), a1=2)
    assert not plan.actions
    (end,) = decide(ONE, [draining, guest], asks("a", last_arrival_us=0)).actions
    assert isinstance(end, Evict)


def test_a_guest_is_not_launched_before_the_drain_ends() -> None:
    draining = msgspec.structs.replace(
        stands("a1", "a", phase=Phase.DRAINING), released_bytes=20 * GB
    )
    guest = stands("b1", "b", Rung.WARM)
    waits = decide(ONE, [draining, guest], asks("b", held=1), asks("a", in_flight=2), a1=2)
    assert not waits.actions
    over = [stands("a1", "a", Rung.WARM), guest]
    (action,) = decide(ONE, over, asks("b", held=1)).actions
    assert isinstance(action, Promote)


def test_what_a_drain_gave_away_is_free_and_nothing_more() -> None:
    draining = msgspec.structs.replace(
        stands("a1", "a", phase=Phase.DRAINING), released_bytes=20 * GB
    )
    found = reserved(ONE.nodes[0], [(draining, A)])
    assert found.gpu_bytes == {0: USABLE - 20 * GB}
    assert found.host_bytes == 0


def test_serving_takes_all_of_a_gpu_although_the_model_would_leave_some() -> None:
    small = model("a", kv_cache_bytes=GB, mechanism=Mechanism(world=World.W))
    whole = catalog(small, B, nodes=(node(gpus=1),))
    plan = decide(whole, [stands("b1", "b", Rung.WARM)], asks("a", held=1))
    assert [type(a) for a in plan.actions] == [Evict, Start]


# --- laws

MODELS = [shared("m0", 5), shared("m1", 16), shared("m2", 40), shared("m3", 60, gpus=2)]
WORLD = catalog(*MODELS, nodes=(node("n0", gpus=2),))
SPECS: dict[str, ModelSpec] = {m.id: m for m in MODELS}


@st.composite
def situations(draw: st.DrawFn) -> Observed:
    """Replicas that may stand together: one that serves alone, or with guests in its released KV;
    else any that are warm or load."""
    replicas: list[ReplicaState] = []
    for i in range(draw(st.integers(0, 8))):
        spec = draw(st.sampled_from(MODELS))
        gpus = (0, 1) if spec.gpus == 2 else (draw(st.integers(0, 1)),)
        rung = draw(st.sampled_from([Rung.WARM, Rung.WARM, Rung.SERVING]))
        phase = Phase.READY
        if rung is Rung.SERVING:
            phase = draw(st.sampled_from([Phase.READY, Phase.DRAINING]))
        one = stands(f"r{i}", spec.id, rung, phase, gpus)
        if rung is Rung.WARM and draw(st.booleans()):
            one = loads(one, NOW_US + draw(st.integers(0, 5)) * US)
            one = msgspec.structs.replace(one, action_id=f"load-{i}")
        if phase is Phase.DRAINING:
            given_away = draw(st.integers(0, spec.kv_cache_bytes))
            one = msgspec.structs.replace(one, released_bytes=given_away)
        twin = any(r.model_id == spec.id and set(r.gpu_ids) & set(gpus) for r in replicas)
        if not twin and fits(fleet(WORLD, *replicas, one).nodes[0]):
            replicas.append(one)
    return draw(asked_of(WORLD, replicas))


def fits(there: NodeState) -> bool:
    """No GPU holds more than it has, nor two replicas that serve or are going to."""
    for gpu in there.gpus:
        here = [r for r in there.replicas if gpu.gpu_id in r.gpu_ids]
        owners = [r for r in here if Rung.SERVING in (r.rung, r.target)]
        if len(owners) > 1 or gpu.reserved_bytes > usable_hbm_bytes(gpu.hbm_bytes):
            return False
    return True


def dropped(action: Action) -> list[str]:
    if isinstance(action, Promote):
        assert all(v.to is None for v in action.victims), "there is no rung to step down to"
        return [v.replica_id for v in action.victims]
    return [action.replica_id] if isinstance(action, Evict | Warm) else []


def planned(observed: Observed) -> Plan:
    plan = Controller(WORLD, "t").step(observed)
    assert plan is not None
    return plan


@settings(max_examples=300)
@given(situations())
def test_no_plan_drops_a_busy_replica_or_puts_two_on_one_gpu(observed: Observed) -> None:
    plan = planned(observed)
    before = {r.replica_id: r for r in observed.snapshot.replicas()}
    for action in plan.actions:
        assert not [r for r in dropped(action) if observed.in_flight.get(r)], "busy"
        if isinstance(action, Warm):
            assert (before[action.replica_id].rung, Rung.WARM) in legal_steps(MODELS[0])
        if isinstance(action, Restore):
            assert not before[action.replica_id].released_bytes
    after = overlay(observed.snapshot, [Pending(action=a) for a in plan.actions], SPECS, WORLD)
    for count in range(len(plan.actions) + 1):
        pending = [Pending(action=a) for a in plan.actions[:count]]
        (there,) = overlay(observed.snapshot, pending, SPECS, WORLD).nodes
        there = without_victims(there, plan.actions[:count])
        assert fits(there), f"after {count} actions of {plan}"
    assert after.version == observed.snapshot.version


def without_victims(there: NodeState, actions: tuple[Action, ...]) -> NodeState:
    """Victims of a launch are gone at once; an overlay shows them until the node says so."""
    gone = {v.replica_id for a in actions if isinstance(a, Promote) for v in a.victims}
    left = tuple(r for r in there.replicas if r.replica_id not in gone)
    return recounted(there, left, WORLD.nodes[0], SPECS)


@given(situations())
def test_a_plan_taken_up_is_not_planned_again(observed: Observed) -> None:
    controller = Controller(WORLD, "t")
    first, second = controller.step(observed), controller.step(observed)
    assert first is not None
    assert second is not None
    moved = {(type(a), getattr(a, "replica_id", "")) for a in first.actions}
    assert not moved & {(type(a), getattr(a, "replica_id", "")) for a in second.actions}


@given(situations(), st.sampled_from(MODELS))
def test_who_waits_alone_among_the_idle_is_never_told_to_wait(
    observed: Observed, spec: ModelSpec
) -> None:
    """All that serve are idle and long settled, so that a climb of some kind is open."""
    at_ease = [r for r in observed.snapshot.replicas() if r.phase is not Phase.DRAINING]
    demand = (asks(spec.id, held=1),)
    plan = planned(seen(WORLD, at_ease, *demand))
    models = {r.replica_id: r.model_id for r in at_ease}
    serves = any(r.serving and r.model_id == spec.id for r in at_ease)
    comes = [
        a
        for a in plan.actions
        if (isinstance(a, Start) and a.model_id == spec.id)
        or (isinstance(a, Promote) and models[a.replica_id] == spec.id)
    ]
    assert not plan.wants
    assert len(comes) == (0 if serves else 1)


@pytest.mark.parametrize("spec", MODELS, ids=lambda m: m.id)
def test_every_model_is_as_large_as_its_gpus(spec: ModelSpec) -> None:
    assert footprint_bytes(spec) == usable_hbm_bytes(WORLD.nodes[0].hbm_bytes)
