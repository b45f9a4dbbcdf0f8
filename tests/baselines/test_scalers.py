"""Policies that start on demand: kept alive until another needs the room, and KEDA on queues."""

from typing import Any

from loadtests.baselines.keepalive import KeepAlive
from loadtests.baselines.scalers import POLL_US, QueueScaler, Scale
from placement.catalog import Catalog, ModelId, World
from placement.plan import Plan
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot, Rung
from prewarm.controller import Controller, Observed
from tests.baselines.hand import HandCluster, replica, told
from tests.baselines.small import nodes, served
from tests.builders import catalog, model

US = 1_000_000


def fleet(gpus: int = 2, world: World = World.W) -> Catalog:
    return catalog(*(served(m, world) for m in ("a", "b", "c")), nodes=nodes(1, gpus))


def asked(model_id: str, **facts: Any) -> ModelDemand:
    return ModelDemand(model_id=ModelId(model_id), **facts)


def planned(
    brain: Controller,
    snapshot: ClusterSnapshot,
    at_s: float,
    *demand: ModelDemand,
    in_flight: dict[str, int] | None = None,
) -> list[str]:
    plan: Plan | None = brain.step(
        Observed(
            at_us=round(at_s * US), snapshot=snapshot, demand=demand, in_flight=in_flight or {}
        )
    )
    assert plan is not None
    return [told(action) for action in plan.actions]


def keepalive(gpus: int = 2, world: World = World.W) -> Controller:
    return Controller(fleet(gpus, world), "t", KeepAlive().decide)


def up(name: str, model_id: str, gpu: int) -> Any:
    return replica(name, model_id, (gpu,), Rung.SERVING)


# --- keepalive-lru


def test_a_held_request_starts_a_replica_on_free_gpus_once() -> None:
    brain, cluster = keepalive(), HandCluster(gpus=2, specs=fleet().models)
    held = asked("a", held=1, oldest_held_us=1)
    assert planned(brain, cluster.snapshot(), 0, held) == ["start a on [0] to serving"]
    assert planned(brain, cluster.snapshot(), 1, held) == []  # it is coming
    # 33 wait and one is coming, with 32 slots: one more.
    assert planned(brain, cluster.snapshot(), 2, asked("a", held=33)) == [
        "start a on [1] to serving"
    ]


def test_an_idle_replica_stays_for_hours_while_nobody_needs_the_room() -> None:
    brain, cluster = keepalive(), HandCluster(gpus=2, specs=fleet().models)
    cluster.put(up("a-1", "a", 0))
    assert planned(brain, cluster.snapshot(), 0) == []
    assert planned(brain, cluster.snapshot(), 36_000) == []


def test_the_least_recently_used_idle_replica_makes_room() -> None:
    brain = keepalive(world=World.S)
    cluster = HandCluster(gpus=2, specs=fleet(world=World.S).models)
    cluster.put(up("a-1", "a", 0), up("b-1", "b", 1))
    planned(brain, cluster.snapshot(), 1, in_flight={"a-1": 1, "b-1": 1})
    planned(brain, cluster.snapshot(), 9, in_flight={"a-1": 1})  # b was last used at 1 s
    held = asked("c", held=1, oldest_held_us=10 * US)
    assert planned(brain, cluster.snapshot(), 10, held) == ["evict b-1"]
    assert planned(brain, cluster.snapshot(), 11, held) == []  # it ends, which takes a while
    assert planned(brain, cluster.gone("b-1"), 12, held) == ["start c on [1] to serving"]


def test_busy_replicas_keep_their_place() -> None:
    brain, cluster = keepalive(gpus=1), HandCluster(gpus=1, specs=fleet().models)
    cluster.put(up("a-1", "a", 0))
    held = asked("c", held=1, oldest_held_us=1)
    assert planned(brain, cluster.snapshot(), 9, held, in_flight={"a-1": 1}) == []


# --- queue-scaler


def scaled(spec_changes: dict[str, int], polls: list[tuple[int, bool]]) -> list[int]:
    """Wanted replicas after each poll, every 15 s from 0, of (queue, active)."""
    scale, spec = Scale(), model("a", **{"max_replicas": 100, **spec_changes})
    found = []
    for k, (queue, active) in enumerate(polls):
        scale.poll(spec, queue, active=active, now_us=k * POLL_US)
        found.append(scale.wanted)
    return found


def test_from_zero_to_one_whatever_the_queue_then_by_portions_of_five() -> None:
    # 1, then ceil(23 / 5) = 5; 27 / (5 · 5) is within a tenth of 1: it stays 5, not 6. 28 is not.
    assert scaled({}, [(23, True), (23, True), (27, True), (28, True)]) == [1, 5, 5, 6]


def test_up_by_four_pods_or_twice_as_many_in_a_poll() -> None:
    # A queue of 200 wants 40: 1, 1 + 4 = 5, 5 · 2 = 10, 20, 40.
    assert scaled({}, [(200, True)] * 5) == [1, 5, 10, 20, 40]
    assert scaled({"max_replicas": 8}, [(200, True)] * 3) == [1, 5, 8]


def test_down_to_the_highest_recommendation_of_five_minutes() -> None:
    # At 15 s 5 replicas are recommended, then 1. 300 s later, at the poll of 315 s, that is over.
    counts = scaled({}, [(23, True), (23, True)] + [(0, True)] * 21)
    assert counts[1:21] == [5] * 20  # up to 300 s
    assert counts[21] == 1  # 315 s


def test_to_zero_when_nothing_came_for_the_cooldown() -> None:
    # Active for the last time at 15 s; 360 s later is the poll of 375 s, the 25th from 0.
    counts = scaled({}, [(3, True), (0, True)] + [(0, False)] * 24)
    assert counts[:25] == [1] * 25
    assert counts[25] == 0
    kept = scaled({"min_replicas": 1}, [(3, True)] + [(0, False)] * 40)
    assert kept[-1] == 1


def test_a_request_for_a_model_at_zero_waits_for_the_next_poll() -> None:
    brain = Controller(fleet(), "t", QueueScaler().decide)
    cluster = HandCluster(gpus=2, specs=fleet().models)
    assert planned(brain, cluster.snapshot(), 0) == []
    held = asked("a", held=1, last_arrival_us=US)
    assert planned(brain, cluster.snapshot(), 1, held) == []
    assert planned(brain, cluster.snapshot(), 14.9, held) == []
    assert planned(brain, cluster.snapshot(), 15, held) == ["start a on [0] to serving"]


def test_a_pod_without_free_gpus_stays_pending_until_there_are() -> None:
    brain = Controller(fleet(1), "t", QueueScaler().decide)
    cluster = HandCluster(gpus=1, specs=fleet().models)
    cluster.put(up("b-1", "b", 0))
    facts = asked("a", held=1, last_arrival_us=0), asked("b", last_arrival_us=US, in_flight=1)
    busy = {"b-1": 1}
    assert planned(brain, cluster.snapshot(), 2, *facts, in_flight=busy) == []
    assert planned(brain, cluster.gone("b-1"), 3, *facts) == ["start a on [0] to serving"]


def test_one_too_many_drains_and_ends_when_its_requests_have() -> None:
    brain = Controller(fleet(), "t", QueueScaler().decide)
    cluster = HandCluster(gpus=2, specs=fleet().models)
    cluster.put(up("a-1", "a", 0))
    cluster.put(replica("a-2", "a", (1,), Rung.SERVING, since_us=5 * US))
    busy = {"a-1": 1, "a-2": 1}
    facts = asked("a", in_flight=2, last_arrival_us=US)
    # One is wanted; the newest goes.
    assert planned(brain, cluster.snapshot(), 9, facts, in_flight=busy) == ["drain a-2"]
    assert planned(brain, cluster.snapshot(), 10, facts, in_flight=busy) == []
    assert planned(brain, cluster.snapshot(), 11, facts, in_flight={"a-1": 1}) == ["evict a-2"]
