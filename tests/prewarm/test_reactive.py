"""The reactive policy as stories and laws: who climbs, who steps down, who is left alone."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.edges import stock
from placement.feasibility import usable_hbm_bytes
from placement.plan import (
    Drain,
    Evict,
    Outcome,
    OutcomeStatus,
    Park,
    Promote,
    ReasonCode,
    RefusalCode,
    Refused,
    Restore,
    Shed,
    Start,
    Warm,
)
from placement.planning.demand import RateMeter
from placement.planning.overlay import Pending, overlay
from placement.snapshot import (
    Lack,
    Phase,
    ReplicaState,
    Rung,
)
from prewarm.controller import Answered, Controller, Ended, Observed, Reloaded
from tests.builders import GB, catalog, model, node
from tests.prewarm.worlds import NOW_US, US, asked_of, asks, decide, fleet, seen, stands

KV = 10 * GB
A, B = model("a", kv_cache_bytes=KV), model("b", kv_cache_bytes=KV)
BIG = model("big", weights_bytes=26 * GB, kv_cache_bytes=KV)
# Of 72 usable GB, `a` and `b` take 28.5 each while they serve and `big` 38.5: any two fit.
ONE_GPU = catalog(A, B, BIG, nodes=(node(gpus=1),))


def test_a_held_request_starts_an_engine_where_none_is() -> None:
    (action,) = decide(ONE_GPU, [], asks("a", held=3)).actions
    assert isinstance(action, Start)
    assert action.model_id == "a"
    assert (action.why.code, action.why.numbers["held"]) == (ReasonCode.HELD_REQUESTS, 3)


def test_the_quickest_rung_is_climbed() -> None:
    both = [stands("p", "a", Rung.PARKED), stands("w", "a", Rung.WARM, gpus=(1,))]
    whole = catalog(A, nodes=(node(gpus=2),))
    (action,) = decide(whole, both, asks("a", held=1)).actions
    assert isinstance(action, Promote)
    assert action.replica_id == "w"


def test_an_idle_neighbour_makes_room_and_a_busy_one_is_left_alone() -> None:
    here = [stands("a1", "a"), stands("b1", "b"), stands("g", "big", Rung.PARKED)]
    (action,) = decide(ONE_GPU, here, asks("big", held=1), asks("a", in_flight=1), a1=1).actions
    assert isinstance(action, Promote)
    assert [v.replica_id for v in action.victims] == ["b1"]
    busy = decide(
        ONE_GPU,
        here,
        asks("big", held=1),
        asks("a", in_flight=1),
        asks("b", in_flight=1),
        a1=1,
        b1=1,
    )
    assert not busy.actions
    assert busy.wants[0].model_id == "big"


def test_the_neighbour_that_is_asked_least_steps_down_first() -> None:
    here = [stands("a1", "a"), stands("b1", "b"), stands("g", "big", Rung.PARKED)]
    plan = decide(
        ONE_GPU, here, asks("big", held=1), asks("a", rate_per_s=0.001), asks("b", rate_per_s=5.0)
    )
    (action,) = plan.actions
    assert isinstance(action, Promote)
    assert [v.replica_id for v in action.victims] == ["a1"]


def test_on_a_promotion_neighbours_step_down_without_copying() -> None:
    here = [stands("a1", "a"), stands("b1", "b"), stands("g", "big", Rung.PARKED)]
    (action,) = decide(ONE_GPU, here, asks("big", held=1)).actions
    assert isinstance(action, Promote)
    assert all(v.to in (Rung.WARM, Rung.SHED) for v in action.victims)


def test_a_start_waits_until_its_room_is_free_and_neighbours_park_first() -> None:
    here = [stands("a1", "a"), stands("b1", "b")]
    plan = decide(ONE_GPU, here, asks("big", held=1))
    assert plan.actions
    assert all(isinstance(a, Park | Warm | Shed) for a in plan.actions)
    assert plan.actions[0].why.for_model == "big"


def test_a_second_round_does_not_repeat_what_is_under_way() -> None:
    controller = Controller(ONE_GPU, "t")
    first = controller.step(seen(ONE_GPU, [], asks("a", held=3)))
    again = controller.step(seen(ONE_GPU, [], asks("a", held=5), at_us=NOW_US + US))
    assert first is not None
    assert again is not None
    assert len(first.actions) == 1
    assert not again.actions


def test_scale_out_when_what_is_asked_fills_the_slots() -> None:
    whole = catalog(A, nodes=(node(gpus=2),))
    plan = decide(whole, [stands("a1", "a")], asks("a", in_flight=30), a1=30)
    (action,) = plan.actions
    assert isinstance(action, Start)
    assert action.why.code is ReasonCode.SATURATED


def test_scale_out_stops_at_the_maximum() -> None:
    whole = catalog(model("a", max_replicas=1), nodes=(node(gpus=2),))
    assert not decide(whole, [stands("a1", "a")], asks("a", in_flight=300), a1=32).actions


def lacking(replica: ReplicaState, *steps: tuple[Rung, Rung]) -> ReplicaState:
    lacks = tuple(Lack(at=at, to=to, why="an old server") for at, to in steps)
    return msgspec.structs.replace(replica, lacks=lacks)


def test_a_victim_takes_the_next_step_that_its_engine_has() -> None:
    two, waiting = [stands("a1", "a"), stands("b1", "b")], asks("big", held=1)
    gentle = decide(ONE_GPU, two, waiting).actions
    assert gentle
    assert not [a for a in gentle if isinstance(a, Evict)]
    bare = [lacking(r, *((Rung.SERVING, to) for to in Rung)) for r in two]
    (evict,) = decide(ONE_GPU, bare, waiting).actions
    assert isinstance(evict, Evict)


def test_an_idle_engine_that_cannot_sleep_is_ended() -> None:
    draining = stands("a1", "a", phase=Phase.DRAINING)
    bare = lacking(draining, (Rung.SERVING, Rung.PARKED), (Rung.SERVING, Rung.SHED))
    (evict,) = decide(ONE_GPU, [bare], asks("a", last_arrival_us=0)).actions
    assert isinstance(evict, Evict)


def test_an_idle_model_is_drained_then_parked_and_taken_back_when_asked_again() -> None:
    idle = asks("a", last_arrival_us=0)
    (drain,) = decide(ONE_GPU, [stands("a1", "a")], idle).actions
    assert isinstance(drain, Drain)
    draining = [stands("a1", "a", phase=Phase.DRAINING)]
    (park,) = decide(ONE_GPU, draining, idle).actions
    assert isinstance(park, Park)
    (back,) = decide(ONE_GPU, draining, asks("a", held=1)).actions
    assert isinstance(back, Restore)


def test_a_minimum_is_kept_and_started_without_being_asked() -> None:
    whole = catalog(model("a", min_replicas=1), nodes=(node(gpus=1),))
    (action,) = decide(whole, []).actions
    assert isinstance(action, Start)
    assert action.why.code is ReasonCode.MIN_REPLICAS
    assert not decide(whole, [stands("a1", "a")], asks("a", last_arrival_us=0)).actions


def test_a_model_that_left_the_catalog_is_drained_then_ended() -> None:
    controller = Controller(ONE_GPU, "t")
    without = msgspec.structs.replace(ONE_GPU, models=(B, BIG))
    controller.step(Reloaded(at_us=NOW_US, catalog=without))
    plan = controller.step(seen(ONE_GPU, [stands("a1", "a")]))
    assert plan is not None
    assert [type(a) for a in plan.actions] == [Drain]
    controller = Controller(ONE_GPU, "t")
    controller.step(Reloaded(at_us=NOW_US, catalog=without))
    plan = controller.step(seen(ONE_GPU, [stands("a1", "a", phase=Phase.DRAINING)]))
    assert plan is not None
    assert [type(a) for a in plan.actions] == [Evict]


def test_a_long_wait_behind_busy_neighbours_drains_one_and_keeps_its_place() -> None:
    controller = Controller(ONE_GPU, "t")
    here = [stands("a1", "a"), stands("b1", "b")]
    waiting = asks("big", held=1, oldest_held_us=NOW_US - 30 * US)
    crowd = (waiting, asks("a", in_flight=9), asks("b", in_flight=3))
    plan = controller.step(seen(ONE_GPU, here, *crowd, a1=9, b1=3))
    assert plan is not None
    (drain,) = plan.actions
    assert isinstance(drain, Drain)
    assert (drain.replica_id, drain.why.for_model) == ("b1", "big")
    drained = [here[0], msgspec.structs.replace(here[1], phase=Phase.DRAINING)]
    again = controller.step(
        seen(ONE_GPU, drained, waiting, asks("a", in_flight=9), asks("b", held=4), a1=9, b1=1)
    )
    assert again is not None
    assert not any(isinstance(a, Restore) for a in again.actions), "the place is big's now"


def test_what_failed_on_a_node_rests_there_and_is_tried_elsewhere() -> None:
    whole = catalog(A, nodes=(node("n0", gpus=1), node("n1", gpus=1)))
    controller = Controller(whole, "t")
    plan = controller.step(seen(whole, [], asks("a", held=1)))
    assert plan is not None
    (first,) = plan.actions
    controller.step(
        Answered(
            at_us=NOW_US,
            refused=Refused(action_id=first.action_id, reason_code=RefusalCode.NO_ROOM_GPU),
        )
    )
    plan = controller.step(seen(whole, [], asks("a", held=1), at_us=NOW_US + 1))
    assert plan is not None
    (second,) = plan.actions
    assert second.node_id != first.node_id
    controller.step(
        Ended(
            at_us=NOW_US,
            outcome=Outcome(
                action_id=second.action_id,
                verb="start",
                node_id=second.node_id,
                replica_id="x",
                model_id="a",
                status=OutcomeStatus.FAILED,
                began_us=0,
                ended_us=1,
            ),
        )
    )
    plan = controller.step(seen(whole, [], asks("a", held=1), at_us=NOW_US + 2))
    assert plan is not None
    assert not plan.actions, "both nodes rest"
    plan = controller.step(seen(whole, [], asks("a", held=1), at_us=NOW_US + 2 * US))
    assert plan is not None
    assert plan.actions, "and are tried again"


def test_the_estimated_wait_follows_the_climb_under_way() -> None:
    controller = Controller(ONE_GPU, "t")
    starting = msgspec.structs.replace(
        stands("a1", "a", phase=Phase.STARTING),
        action_id="x",
        target=Rung.SERVING,
        eta_us=NOW_US + 7 * US,
    )
    controller.step(seen(ONE_GPU, [starting], asks("a", held=1)))
    assert controller.eta_us("a", NOW_US) == 7 * US
    assert controller.eta_us("nobody", NOW_US) is None
    assert controller.eta_us("b", NOW_US) is not None


def test_a_rate_fades_by_half_in_its_half_life() -> None:
    meter = RateMeter(half_life_us=100 * US)
    for at_s in range(1000):
        meter.arrive("a", at_s * US)
        meter.rate_per_s("a", at_s * US)
    steady = meter.rate_per_s("a", 999 * US)
    assert 0.9 < steady < 1.1
    assert abs(meter.rate_per_s("a", 1099 * US) - steady / 2) < 0.01
    assert meter.rate_per_s("b", 0) == 0.0


# --- laws

MODELS = [
    model(f"m{i}", weights_bytes=w * GB, gpus=g)
    for i, (w, g) in enumerate([(5, 1), (16, 1), (40, 1), (60, 2)])
]
WORLD = catalog(*MODELS, nodes=(node("n0", gpus=2),))


@st.composite
def situations(draw: st.DrawFn) -> Observed:
    replicas: list[ReplicaState] = []
    for i in range(draw(st.integers(0, 6))):
        spec = draw(st.sampled_from(MODELS))
        gpus = (0, 1) if spec.gpus == 2 else (draw(st.integers(0, 1)),)
        phase = draw(st.sampled_from([Phase.READY, Phase.READY, Phase.DRAINING]))
        one = stands(f"r{i}", spec.id, draw(st.sampled_from(list(Rung))), phase, gpus)
        trial = fleet(WORLD, *replicas, one).nodes[0]
        twin = any(r.model_id == spec.id and r.gpu_ids == gpus for r in replicas)
        if not twin and all(g.reserved_bytes <= usable_hbm_bytes(g.hbm_bytes) for g in trial.gpus):
            replicas.append(one)
    return draw(asked_of(WORLD, replicas))


@settings(max_examples=300)
@given(situations())
def test_no_plan_overfills_a_gpu_or_moves_a_busy_replica(seen_: Observed) -> None:
    controller = Controller(WORLD, "t")
    plan = controller.step(seen_)
    assert plan is not None
    before = {r.replica_id: r for r in seen_.snapshot.replicas()}
    for action in plan.actions:
        stepping = {}
        if isinstance(action, Promote):
            stepping = {v.replica_id: v.to for v in action.victims}
        elif isinstance(action, Park | Shed | Warm | Evict):
            down = {Park: Rung.PARKED, Shed: Rung.SHED, Warm: Rung.WARM, Evict: None}
            stepping = {action.replica_id: down[type(action)]}
        for replica_id, to in stepping.items():
            assert not seen_.in_flight.get(replica_id), "busy"
            assert to is None or (before[replica_id].rung, to) in stock.STEPS
    after = overlay(
        seen_.snapshot, [Pending(action=a) for a in plan.actions], {m.id: m for m in MODELS}, WORLD
    )
    for gpu in after.nodes[0].gpus:
        assert gpu.reserved_bytes <= usable_hbm_bytes(gpu.hbm_bytes), plan


@given(situations())
def test_the_same_observation_gives_the_same_plan(seen_: Observed) -> None:
    assert Controller(WORLD, "t").step(seen_) == Controller(WORLD, "t").step(seen_)


@given(situations())
def test_a_plan_taken_up_is_not_planned_again(seen_: Observed) -> None:
    controller = Controller(WORLD, "t")
    first, second = controller.step(seen_), controller.step(seen_)
    assert first is not None
    assert second is not None
    moved = {(type(a), getattr(a, "replica_id", "")) for a in first.actions}
    assert not moved & {(type(a), getattr(a, "replica_id", "")) for a in second.actions}
