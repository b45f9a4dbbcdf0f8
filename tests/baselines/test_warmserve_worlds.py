"""What WarmServe's verbs become in world S, and its gateway between snapshots and outcomes."""

from pathlib import Path
from typing import Any

from loadtests.baselines.registry import POLICIES
from loadtests.baselines.warmserve.books import Doing, book_of
from loadtests.baselines.warmserve.brain import WarmServe
from loadtests.baselines.warmserve.flags import AS_RELEASED, Flags
from loadtests.baselines.warmserve.forecast import Seen
from loadtests.baselines.warmserve.front import OwnGateway
from loadtests.baselines.warmserve.launch import choose, steps_down
from loadtests.scenarios.files import load_scenario
from loadtests.scenarios.setups import Wanted, build
from loadtests.scenarios.shape import CellEntry
from loadtests.scenarios.traced import traced
from loadtests.simulator.world import simulate
from loadtests.trace_places import traces_folder
from placement.catalog import ModelId, ModelSpec, World
from placement.planning.demand import ModelDemand
from placement.snapshot import Phase, ReplicaState, Rung
from prewarm.controller import Observed
from tests.baselines.hand import HandCluster, HandStage, finish, replica, request, told
from tests.baselines.small import nodes, served
from tests.builders import catalog

US = 1_000_000
NO_LOADS = Flags(prewarm=False)


def stock(*models: str) -> dict[str, ModelSpec]:
    """Weights 16, KV cache 30, activations 1.5 and residue 1 GB: 48.5 of 72 usable."""
    return {m: served(m, World.S) for m in models}


def brain_of(specs: dict[str, ModelSpec], usual: float, flags: Flags = AS_RELEASED) -> WarmServe:
    made = catalog(*specs.values(), nodes=nodes(1))
    return WarmServe(made, flags, {m: [Seen(usual, usual)] for m in specs})


def step(brain: WarmServe, cluster: HandCluster, at_us: int) -> list[str]:
    plan = brain.step(Observed(at_us=at_us, snapshot=cluster.snapshot()))
    assert plan is not None
    return [told(action) for action in plan.actions]


def test_a_load_is_a_start_that_steps_down_to_warm_when_it_is_up() -> None:
    cluster, brain = HandCluster(gpus=1), brain_of(stock("a"), usual=1)
    brain.see(cluster.snapshot())
    plan = brain.pass_at(0)
    assert [told(a) for a in plan.actions] == ["start a on [0] to serving"]
    begun = plan.actions[0]
    starts: dict[str, Any] = {"phase": Phase.STARTING, "target": Rung.SERVING}
    cluster.put(replica("a-1", "a", (0,), Rung.SERVING, action_id=begun.action_id, **starts))
    assert step(brain, cluster, 9 * US) == []
    assert brain.instances.of("a") == []  # nobody asked for it: it is no instance
    cluster.put(replica("a-1", "a", (0,), Rung.SERVING))
    finish(brain, begun)
    assert step(brain, cluster, 30 * US) == ["warm a-1"]


def test_a_load_wakes_an_engine_that_sleeps_there_and_needs_no_more_than_its_weights() -> None:
    specs = stock("a", "b")
    cluster = HandCluster(gpus=1)
    cluster.put(replica("a-1", "a", (0,), Rung.SHED), replica("b-1", "b", (0,)))
    brain = brain_of(specs, usual=1)
    brain.see(cluster.snapshot())
    assert [told(a) for a in brain.pass_at(0).actions] == ["warm a-1"]


def test_a_launch_sheds_warm_neighbours_and_ends_engines_only_where_room_is_short() -> None:
    specs = stock("a", "b", "c")
    cluster = HandCluster(gpus=1)

    def steps_with(*others: ReplicaState) -> dict[str, Rung | None] | None:
        cluster.replicas.clear()
        snapshot = cluster.put(replica("a-1", "a", (0,)), *others)
        book = book_of(snapshot.nodes[0], specs)
        own = next(c for c in book.copies if c.replica_id == "a-1")
        return steps_down(book, specs, specs["a"], own)

    # a grows from 17 to 48.5; b's 17 of 72 become 1.
    assert steps_with(replica("b-1", "b", (0,))) == {"b-1": Rung.SHED}
    # 24 sleeping engines of 1 GB each beside it: 48.5 + 24 is half a GB too much. One ends.
    asleep = [replica(f"c-{i:02}", "c", (0,), Rung.SHED) for i in range(24)]
    assert steps_with(*asleep) == {"c-00": None}


def test_nothing_is_launched_beside_a_transition_that_cannot_be_cancelled() -> None:
    specs = stock("a", "b")
    cluster = HandCluster(gpus=1)
    snapshot = cluster.put(
        replica("a-1", "a", (0,)),
        replica("b-1", "b", (0,), Rung.SHED, action_id="x", target=Rung.WARM),
    )
    assert choose({"n0": book_of(snapshot.nodes[0], specs)}, specs["a"], specs) is None


def test_a_sleeping_engine_of_the_model_is_preferred_to_a_start() -> None:
    specs = stock("a", "b")
    cluster = HandCluster(gpus=2)
    snapshot = cluster.put(replica("a-1", "a", (1,), Rung.PARKED))
    chosen = choose({"n0": book_of(snapshot.nodes[0], specs)}, specs["a"], specs)
    assert chosen is not None
    assert (chosen.gpu_ids, chosen.copy and chosen.copy.doing) == ((1,), Doing.ASLEEP)


def test_no_kv_is_released_in_world_s() -> None:
    specs = stock("a")
    brain, cluster = brain_of(specs, 0, NO_LOADS), HandCluster(gpus=1)
    brain.on_concurrency("a", 1, 0)
    brain.on_concurrency("a", 0, US)
    brain.see(cluster.put(replica("a-1", "a", (0,), Rung.SERVING)))
    assert [told(a) for a in brain.pass_at(7 * US).actions] == ["drain a-1"]


def test_without_unified_memory_a_drained_instance_keeps_no_weights() -> None:
    flags = Flags(prewarm=False, keep_weights=False)
    drains = replica("a-1", "a", (0,), Rung.SERVING, phase=Phase.DRAINING)
    found = {}
    for world in World:
        brain, cluster = brain_of({"a": served("a", world)}, 0, flags), HandCluster(gpus=1)
        cluster.put(drains)
        found[world] = step(brain, cluster, 0)
    assert found[World.W] == ["evict a-1"]
    assert len(found[World.S]) == 1
    assert "Shed" in found[World.S][0]


# --- its own gateway


def test_an_instance_opens_though_its_snapshot_comes_before_its_outcome() -> None:
    specs = {"a": served("a", World.W)}
    cluster, stage = HandCluster(gpus=1), HandStage()
    brain = brain_of(specs, 0, NO_LOADS)
    front = OwnGateway(stage, brain)
    front.on_snapshot(cluster.put(replica("a-1", "a", (0,))))
    front.arrive(request(0, specs["a"]))
    (promote,) = stage.submitted
    assert told(promote) == "promote a-1 over []"
    front.on_snapshot(cluster.put(replica("a-1", "a", (0,), Rung.SERVING)))
    finish(brain, promote)
    stage.until(50_000)
    assert stage.sent == [(0, "a-1")]


def test_whoever_waited_for_an_instance_that_is_gone_asks_again_after_a_second() -> None:
    specs = {"a": served("a", World.W)}
    cluster, stage = HandCluster(gpus=2), HandStage()
    brain = brain_of(specs, 0, NO_LOADS)
    front = OwnGateway(stage, brain)
    front.on_snapshot(cluster.snapshot())
    front.arrive(request(0, specs["a"]))
    (start,) = stage.submitted
    finish(brain, start)  # its node shows nothing: it failed
    front.on_snapshot(cluster.snapshot())
    assert brain.instances.of("a") == []
    stage.until(US - 1)
    assert len(stage.submitted) == 1
    stage.until(US)
    assert len(stage.submitted) == 2


def test_our_gateway_gets_one_creation_at_a_time_for_held_requests() -> None:
    specs = {"a": served("a", World.W)}
    brain, cluster = brain_of(specs, 0, Flags(own_gateway=False, prewarm=False)), HandCluster()
    waiting = (ModelDemand(model_id=ModelId("a"), held=50),)
    for at_us, expected in ((0, ["start a on [0] to serving"]), (US, [])):
        seen = Observed(at_us=at_us, snapshot=cluster.snapshot(), demand=waiting)
        plan = brain.step(seen)
        assert plan is not None
        assert [told(a) for a in plan.actions] == expected


def test_an_instance_whose_gpus_cannot_be_cleared_is_not_registered_a_second_time() -> None:
    """A found case: two creations of one pass chose the same sleeper, the first in vain. Requests
    were then given to an instance that had gone."""
    found = load_scenario("warmserve16").file
    folder = traces_folder(None, Path.cwd())
    demand = traced(found.demand.source, len(found.models), folder, None)
    cell = CellEntry(rps=20.0, alpha=1.0, cv=4.0, hour="busiest")
    setup = build("warmserve16", found, demand, Wanted(cell=cell, world=World.S, seed=0)).setup
    run = simulate(setup, POLICIES["warmserve"](setup))
    assert len(run.ending) == sum(len(chunk) for chunk in setup.demand.chunks())
