"""Many models, too few places: who makes room for whom, and that nobody pays in vain."""

import msgspec

from placement.catalog import Catalog, EngineKind
from placement.edges import climb_us
from placement.plan import Drain, Evict, Park, ReasonCode, Shed, Start, Warm
from placement.snapshot import Phase, ReplicaState, Rung, WeightsAt
from prewarm.controller import Controller, Observed, Reloaded
from tests.builders import GB, catalog, model, node
from tests.prewarm.worlds import NOW_US, US, asks, decide, seen, stands

KV = 10 * GB
LONG_AGO_US = NOW_US - 60 * US


def stepped(controller: Controller, observed: Observed) -> list[str]:
    """The replicas that a round makes step down."""
    plan = controller.step(observed)
    assert plan is not None
    return [a.replica_id for a in plan.actions if isinstance(a, Park | Shed | Warm | Evict)]


def parking(replica: ReplicaState) -> ReplicaState:
    return msgspec.structs.replace(replica, action_id="someone's", target=Rung.PARKED)


def test_room_is_made_once_and_the_other_neighbours_go_on_serving() -> None:
    small = [model(f"m{i}", weights_bytes=40 * GB, kv_cache_bytes=KV) for i in range(5)]
    whole = catalog(*small, nodes=(node(gpus=4),))
    here = [stands(f"r{i}", f"m{i}", gpus=(i,)) for i in range(4)]
    controller = Controller(whole, "t")
    waiting = asks("m4", held=1)
    first = stepped(controller, seen(whole, here, waiting))
    assert len(first) == 1
    on_its_way = [parking(r) if r.replica_id in first else r for r in here]
    for later in range(1, 5):
        observed = seen(whole, on_its_way, waiting, at_us=NOW_US + later * US // 10)
        assert not stepped(controller, observed), "the room is being made already"


def test_the_room_goes_to_the_model_that_it_was_made_for() -> None:
    models = [model(f"m{i}", weights_bytes=40 * GB, kv_cache_bytes=KV) for i in range(3)]
    whole = catalog(*models, nodes=(node(gpus=1),))
    here = stands("r0", "m0")
    controller = Controller(whole, "t")
    assert stepped(controller, seen(whole, [here], asks("m1", held=1))) == ["r0"]
    parked = msgspec.structs.replace(here, rung=Rung.PARKED)
    crowd = (asks("m1", held=1), asks("m2", held=9, oldest_held_us=NOW_US - 99 * US))
    plan = controller.step(seen(whole, [parked], *crowd, at_us=NOW_US + 3 * US))
    assert plan is not None
    assert [a.model_id for a in plan.actions if isinstance(a, Start)] == ["m1"]


def busy_pair() -> tuple[Catalog, list[ReplicaState]]:
    ones = [model(f"one{i}", weights_bytes=40 * GB, kv_cache_bytes=KV) for i in range(2)]
    wide = model("wide", weights_bytes=80 * GB, kv_cache_bytes=KV, gpus=2)
    whole = catalog(*ones, wide, nodes=(node(gpus=2),))
    return whole, [stands(f"r{i}", f"one{i}", gpus=(i,)) for i in range(2)]


def test_a_wide_model_behind_busy_narrow_ones_has_its_whole_gpu_set_drained() -> None:
    whole, here = busy_pair()
    waiting = asks("wide", held=1, oldest_held_us=NOW_US - 20 * US)
    busy = (asks("one0", in_flight=3), asks("one1", in_flight=4))
    plan = decide(whole, here, waiting, *busy, r0=3, r1=4)
    assert sorted(a.replica_id for a in plan.actions if isinstance(a, Drain)) == ["r0", "r1"]
    assert all(a.why.for_model == "wide" for a in plan.actions)


def test_patience_comes_first() -> None:
    whole, here = busy_pair()
    busy = (asks("one0", in_flight=3), asks("one1", in_flight=4))
    assert not decide(whole, here, asks("wide", held=1), *busy, r0=3, r1=4).actions


def test_only_those_are_drained_whose_end_makes_room() -> None:
    tiny = model("tiny", weights_bytes=1 * GB, kv_cache_bytes=1 * GB)
    large, vast = model("large", kv_cache_bytes=KV), model("vast", weights_bytes=45 * GB)
    whole = catalog(tiny, large, vast, nodes=(node(gpus=1),))
    here = [stands("t", "tiny"), stands("l", "large")]
    waiting = asks("vast", held=1, oldest_held_us=NOW_US - 20 * US)
    busy = (asks("tiny", in_flight=1), asks("large", in_flight=9))
    plan = decide(whole, here, waiting, *busy, t=1, l=9)
    drained = {a.replica_id for a in plan.actions if isinstance(a, Drain)}
    assert drained == {"l"}, "the tiny one's few bytes would have helped nobody"


def test_a_more_important_model_and_a_minimum_are_not_drained() -> None:
    waiting = asks("wide", held=1, oldest_held_us=NOW_US - 20 * US)
    busy = (asks("one0", in_flight=3), asks("one1", in_flight=4))
    whole, here = busy_pair()
    for change in ({"priority": 1}, {"min_replicas": 1}):
        models = tuple(
            msgspec.structs.replace(m, **change) if m.id == "one0" else m for m in whole.models
        )
        guarded = msgspec.structs.replace(whole, models=models)
        plan = decide(guarded, here, waiting, *busy, r0=3, r1=4)
        assert not [a for a in plan.actions if isinstance(a, Drain)], change


def test_parked_engines_end_when_the_host_is_full_of_them() -> None:
    models = [model(f"m{i}", kv_cache_bytes=KV) for i in range(4)]
    whole = catalog(*models, nodes=(node(gpus=2, host_bytes=60 * GB),))
    here = [stands(f"r{i}", f"m{i}", Rung.PARKED, gpus=(i % 2,)) for i in range(3)]
    plan = decide(whole, here, asks("m3", held=1), asks("m1", rate_per_s=4.0))
    ended = [a.replica_id for a in plan.actions if isinstance(a, Evict)]
    assert ended
    assert "r1" not in ended, "the one that is asked for stays"


def test_the_estimated_wait_is_the_climbs_own_while_its_action_is_on_its_way() -> None:
    whole = catalog(model("a"), nodes=(node(gpus=1),))
    controller = Controller(whole, "t")
    alone = climb_us(model("a"), WeightsAt.HOST)
    controller.step(seen(whole, [], asks("a", held=1)))
    assert controller.pending()
    assert controller.eta_us("a", NOW_US) == alone
    assert controller.eta_us("a", NOW_US + 5 * US) == alone - 5 * US


def test_a_further_replica_does_not_rob_a_neighbour_in_use() -> None:
    a, b = model("a", weights_bytes=40 * GB), model("b", weights_bytes=40 * GB)
    whole = catalog(a, b, nodes=(node(gpus=2),))
    here = [stands("a0", "a", gpus=(0,)), stands("b0", "b", gpus=(1,))]
    near_full = asks("a", in_flight=27)
    plan = decide(whole, here, near_full, asks("b", rate_per_s=5.0), a0=27)
    assert not plan.actions
    queueing = asks("a", held=400, in_flight=32)
    plan = decide(whole, here, queueing, asks("b", rate_per_s=0.001), a0=32)
    assert plan.actions, "a long queue is worth an idle neighbour"


def test_lasting_excess_drains_the_least_loaded_replica_although_it_works() -> None:
    whole = catalog(model("a"), nodes=(node(gpus=2),))
    here = [stands("a0", "a", gpus=(0,)), stands("a1", "a", gpus=(1,))]
    quiet = asks("a", in_flight=3)
    controller = Controller(whole, "t")
    first = controller.step(seen(whole, here, quiet, a0=2, a1=1))
    assert first is not None
    assert not first.actions, "excess has to last"
    plan = controller.step(seen(whole, here, quiet, at_us=NOW_US + 31 * US, a0=2, a1=1))
    assert plan is not None
    (drain,) = plan.actions
    assert isinstance(drain, Drain)
    assert (drain.replica_id, drain.why.code) == ("a1", ReasonCode.EXCESS)


def test_who_waits_for_a_model_that_leaves_the_catalog_is_served_first() -> None:
    whole = catalog(model("a"), model("b"), nodes=(node(gpus=1),))
    controller = Controller(whole, "t")
    controller.step(
        Reloaded(at_us=NOW_US, catalog=msgspec.structs.replace(whole, models=(whole.models[1],)))
    )
    plan = controller.step(seen(whole, [], asks("a", held=1)))
    assert plan is not None
    assert [a.model_id for a in plan.actions if isinstance(a, Start)] == ["a"]
    assert {m.id for m in controller.with_leaving_models().models} == {"a", "b"}
    done = controller.step(seen(whole, [stands("a-1", "a")], asks("a"), at_us=NOW_US + 60 * US))
    assert done is not None
    assert [type(a) for a in done.actions] == [Drain]


def test_a_park_is_planned_for_an_idle_replica_that_was_drained() -> None:
    whole = catalog(model("a"), nodes=(node(gpus=1),))
    drained = stands("a0", "a", phase=Phase.DRAINING, since_us=LONG_AGO_US)
    (park,) = decide(whole, [drained], asks("a", last_arrival_us=0)).actions
    assert isinstance(park, Park)


def on_the_cpu(shares: int, host_gb: int) -> Catalog:
    """Two real models of 1 GB each; a share has room for one, a process takes 2.9 GB of host."""
    small = {"weights_bytes": GB // 2, "kv_cache_bytes": GB // 2, "on_cpu": True}
    models = [model(name, engine=EngineKind.VLLM, **small) for name in ("x", "y")]
    at = node(gpus=shares, gpu_type="CPU", hbm_bytes=3 * GB // 2, host_bytes=host_gb * GB)
    return catalog(*models, nodes=(at,))


def test_on_the_cpu_an_idle_engine_ends_for_another() -> None:
    """A sleep there would free nothing. What ends gives its share and its host memory together."""
    for host_gb in (4, 64):
        whole = on_the_cpu(1, host_gb)
        (evict,) = decide(whole, [stands("x1", "x")], asks("y", held=1)).actions
        assert isinstance(evict, Evict)


def test_on_the_cpu_host_memory_alone_can_be_what_is_short() -> None:
    whole = on_the_cpu(2, 4)
    (evict,) = decide(whole, [stands("x1", "x")], asks("y", held=1)).actions
    assert isinstance(evict, Evict)
    roomy = decide(on_the_cpu(2, 8), [stands("x1", "x")], asks("y", held=1)).actions
    assert [type(action) for action in roomy] == [Start]


def test_a_model_on_the_cpu_is_not_tried_on_gpus_nor_the_other_way_round() -> None:
    """Its bytes would fit; the agent would refuse."""
    small = {"weights_bytes": GB // 2, "kv_cache_bytes": GB // 2, "residue_bytes": 0}
    on_shares = model("x", engine=EngineKind.VLLM, on_cpu=True, **small)
    on_gpus = model("y", **small)
    shares = node("a-cpu", gpu_type="CPU", hbm_bytes=4 * GB, host_bytes=64 * GB)
    for whole in (
        catalog(on_shares, on_gpus, nodes=(shares, node("b"))),
        catalog(on_gpus, nodes=(shares,)),
    ):
        plan = decide(whole, [], *(asks(m.id, held=1) for m in whole.models))
        where = {a.model_id: a.node_id for a in plan.actions if isinstance(a, Start)}
        assert where == ({"x": "a-cpu", "y": "b"} if len(whole.models) == 2 else {})


def starting(replica: ReplicaState) -> ReplicaState:
    return msgspec.structs.replace(
        replica, phase=Phase.STARTING, action_id="someone's", target=Rung.SERVING
    )


def test_nobody_is_ended_beside_a_start_for_its_agent_would_refuse() -> None:
    """A sleeper on another GPU ends for its host memory, one beside a start does not."""
    models = [model(f"m{i}", kv_cache_bytes=KV) for i in range(4)]
    whole = catalog(*models, nodes=(node(gpus=2, host_bytes=43 * GB),))
    sleepers = [stands(f"r{i}", f"m{i}", Rung.PARKED, gpus=(i,)) for i in range(2)]
    busy = starting(stands("s", "m2", gpus=(0,)))
    plan = decide(whole, [*sleepers, busy], asks("m3", held=1), asks("m1", rate_per_s=4.0))
    assert [a.replica_id for a in plan.actions if isinstance(a, Evict)] == ["r1"]


def test_what_left_the_catalog_or_failed_ends_once_its_neighbour_has_started() -> None:
    whole = catalog(model("a", kv_cache_bytes=KV), model("b", kv_cache_bytes=KV))
    beside = starting(stands("b1", "b"))
    for gone in (
        stands("a1", "gone", Rung.PARKED),
        stands("a1", "a", phase=Phase.FAILED),
    ):
        assert not decide(whole, [gone, beside]).actions
        (evict,) = decide(whole, [gone]).actions
        assert isinstance(evict, Evict)
