"""World W: loads in turn, launches, take-overs, cancelled loads, KV pages given away."""

from typing import Any

import msgspec

from loadtests.simulator.port import Ending, Policy, Run
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, Mechanism, ModelSpec, ReplicaId, World
from placement.constants import ACTIVATIONS_BYTES
from placement.feasibility import usable_hbm_bytes
from placement.plan import (
    Drain,
    Evict,
    OutcomeStatus,
    Promote,
    RefusalCode,
    Restore,
    Victim,
    Warm,
)
from placement.snapshot import Rung
from prewarm.controller import Controller
from tests.builders import GB, catalog, model, node
from tests.simulator.scripts import Script, on, start
from tests.simulator.worlds import Ask, asked, reactive, setup

US = 1_000_000
LAUNCH_US = 650_000
USABLE = usable_hbm_bytes(80 * GB)


def shared(model_id: str, **changes: Any) -> ModelSpec:
    """A model of 22 GB on one GPU: a second of its link, alone. Its KV cache fills the GPU."""
    changes = {"weights_bytes": 22 * GB, "mechanism": Mechanism(world=World.W), **changes}
    spec = model(model_id, **changes)
    room = USABLE - spec.weights_per_gpu_bytes - int(ACTIVATIONS_BYTES.value)
    return msgspec.structs.replace(spec, kv_cache_bytes=room)


def cluster(*models: ModelSpec, gpus: int = 2) -> Catalog:
    links = node().links
    return catalog(*models, nodes=(node(gpus=gpus, host_bytes=1000 * GB, links=links),))


def played(whole: Catalog, script: Script, *asks: Ask, duration_s: float = 20) -> Run:
    demand = asked([m.id for m in whole.models], *asks, duration_s=duration_s)
    policy = Policy(brain=script)
    return simulate(setup(whole, demand, world=World.W), policy, checked=True)


def promote(replica_id: str, *victims: str) -> Promote:
    dropped = tuple(Victim(replica_id=ReplicaId(v), to=None) for v in victims)
    return on(Promote, replica_id, victims=dropped)


def test_weights_are_loaded_and_a_launch_then_takes_two_thirds_of_a_second() -> None:
    script = Script((1, start("r", "a", to=Rung.WARM)), (5, promote("r")))
    run = played(cluster(shared("a")), script, Ask(5.1, "a"))
    assert script.took_us("r", "start") == US
    assert script.took_us("r", "promote") == LAUNCH_US
    assert run.loads_bytes == 22 * GB
    assert (run.prewarm_hits, run.prewarm_misses) == (1, 0)


def test_a_start_up_to_serving_loads_first_and_is_a_miss_for_who_waited() -> None:
    script = Script((1, start("r", "a")))
    run = played(cluster(shared("a")), script, Ask(0.5, "a"))
    assert script.took_us("r", "start") == US + LAUNCH_US
    assert (run.prewarm_hits, run.prewarm_misses) == (0, 1)


def test_loads_take_turns_on_a_gpu_and_share_the_link_between_gpus() -> None:
    """22 GB/s a stream, 44 GB/s a node: two GPUs at full speed; two loads on one, one by one."""
    script = Script(
        (1, start("a0", "a", 0, to=Rung.WARM)),
        (1, start("b0", "b", 0, to=Rung.WARM)),
        (1, start("c1", "c", 1, to=Rung.WARM)),
    )
    played(cluster(shared("a"), shared("b"), shared("c")), script)
    took = {o.replica_id: o.ended_us - o.began_us for o in script.outcomes}
    assert took == {"a0": US, "b0": 2 * US, "c1": US}


def test_a_promotion_of_what_still_loads_takes_over() -> None:
    script = Script((1, start("r", "a", to=Rung.WARM)), (1.5, promote("r")))
    played(cluster(shared("a")), script)
    status = {o.verb: o.status for o in script.outcomes}
    assert status == {"start": OutcomeStatus.STALE, "promote": OutcomeStatus.DONE}
    began_us, ended_us = script.span_us("r", "promote")
    assert 1_500_000 <= began_us < 1_600_000
    assert ended_us == 2 * US + LAUNCH_US, "the load began at 1 s and takes a second"


def test_victims_and_evictions_cancel_loads_and_the_next_in_the_queue_goes_on() -> None:
    script = Script(
        (1, start("a0", "a", 0, to=Rung.WARM)),
        (1, start("b0", "b", 0, to=Rung.WARM)),
        (1.5, on(Evict, "a0")),
    )
    run = played(cluster(shared("a"), shared("b")), script)
    dropped_us = script.span_us("a0", "evict")[1]
    assert script.span_us("a0", "start")[1] == dropped_us
    assert script.span_us("b0", "start")[1] == dropped_us + US
    assert {o.replica_id for o in script.outcomes if o.status is OutcomeStatus.STALE} == {"a0"}
    assert run.evictions == 1


def test_whoever_serves_owns_its_gpu_wholly() -> None:
    script = Script(
        (1, start("a0", "a", 0)),
        (5, start("b0", "b", 0, to=Rung.WARM)),
        (5, start("c0", "c", 0)),
    )
    played(cluster(shared("a"), shared("b"), shared("c")), script)
    assert [r.reason_code for r in script.refused] == [RefusalCode.NO_ROOM_GPU] * 2


def test_a_promotion_drops_its_victims_at_once_and_needs_all_of_them() -> None:
    script = Script(
        (1, start("a0", "a", 0, to=Rung.WARM)),
        (1, start("b0", "b", 0, to=Rung.WARM)),
        (5, promote("a0")),
        (6, promote("a0", "b0")),
    )
    run = played(cluster(shared("a"), shared("b")), script)
    assert [r.reason_code for r in script.refused] == [RefusalCode.NO_ROOM_GPU]
    assert script.took_us("a0", "promote") == LAUNCH_US
    assert run.evictions == 1
    assert run.wasted_bytes == 22 * GB


def test_weights_stay_after_a_drain_and_the_next_launch_is_a_hit() -> None:
    script = Script(
        (1, start("r", "a")),
        (6, on(Drain, "r")),
        (7, on(Warm, "r")),
        (8, promote("r")),
    )
    run = played(cluster(shared("a")), script, Ask(0.5, "a"), Ask(8.1, "a"))
    assert list(run.ending) == [Ending.ANSWERED] * 2
    assert (run.prewarm_hits, run.prewarm_misses) == (1, 1)
    assert run.loads_bytes == 22 * GB
    assert script.took_us("r", "warm") == 0


def test_a_busy_replica_is_neither_dropped_nor_stepped_down() -> None:
    script = Script(
        (1, start("r", "a")),
        (6, on(Evict, "r")),
        (6, on(Warm, "r")),
    )
    run = played(cluster(shared("a")), script, Ask(5.9, "a", output_tokens=200))
    assert [r.reason_code for r in script.refused] == [RefusalCode.BUSY] * 2
    assert list(run.ending) == [Ending.ANSWERED]


def test_a_drain_gives_kv_pages_away_into_which_others_load() -> None:
    script = Script(
        (1, start("a0", "a", 0)),
        (6, on(Drain, "a0", release_kv=True)),
        (7, start("b0", "b", 0, to=Rung.WARM)),
        (8, on(Restore, "a0")),
        (8, promote("b0")),
    )
    long_answer = Ask(5.9, "a", output_tokens=1000)
    run = played(cluster(shared("a"), shared("b")), script, long_answer)
    released = [r.released_bytes for s in script.seen for r in s.replicas() if r.model_id == "a"]
    # One of 32 slots in use: all but its own tokens and a 32nd of the cache goes.
    kv_bytes = USABLE - 22 * GB - int(ACTIVATIONS_BYTES.value)
    first = next(filter(None, released))
    assert 0.9 * kv_bytes < first < kv_bytes * 31 / 32
    assert max(released) == kv_bytes, "nobody is left on it at the end"
    assert {o.verb for o in script.outcomes if o.status is OutcomeStatus.DONE} == {"start", "drain"}
    codes = [r.reason_code for r in script.refused]
    assert codes == [RefusalCode.UNSUPPORTED, RefusalCode.NO_ROOM_GPU]
    assert list(run.ending) == [Ending.ANSWERED]


def test_a_cache_that_is_given_away_leaves_the_longest_answer_its_room() -> None:
    """48.5 GB are 2,425 tokens; a 32nd of them and those in use would not hold 1,600."""
    tight = shared("a", kv_bytes_per_token=20_000_000)
    script = Script((1, start("a0", "a", 0)), (6, on(Drain, "a0", release_kv=True)))
    run = played(cluster(tight), script, Ask(5.9, "a", output_tokens=1500))
    released = [r.released_bytes for s in script.seen for r in s.replicas()]
    assert 0 < next(filter(None, released)) <= 825 * 20_000_000
    assert list(run.ending) == [Ending.ANSWERED]


def test_without_lazy_mapping_a_launch_waits_for_the_whole_cache() -> None:
    """80 GB x 0.9 - 22 GB - 1.5 GB = 48.5 GB, at 0.0178 s a GB."""
    eager = shared("a", mechanism=Mechanism(world=World.W, lazy_kv=False))
    script = Script((1, start("r", "a", to=Rung.WARM)), (5, promote("r")))
    played(cluster(eager), script)
    assert script.took_us("r", "promote") == LAUNCH_US + 863_300


def test_our_controller_serves_in_world_w() -> None:
    whole = cluster(*(shared(f"m{i}") for i in range(4)))
    asks = [Ask(i * 10 + 1, f"m{i % 4}") for i in range(12)]
    demand = asked([m.id for m in whole.models], *asks)
    run = simulate(setup(whole, demand, world=World.W), reactive(whole), checked=True)
    assert list(run.ending) == [Ending.ANSWERED] * 12
    assert max(run.ttft_us) < 3 * US
    assert isinstance(reactive(whole).brain, Controller)
