"""A node of emulated engines: stock vLLM's traps as stories, memory as laws."""

from hypothesis import given, settings
from hypothesis import strategies as st

from placement import edges
from placement.catalog import Faults, ModelSpec, NodeSpec
from placement.engines.emulated import (
    DeedEnded,
    EmulatedNode,
    Exited,
    NodeEvent,
    Ready,
    ReplicaRequest,
    Verdict,
)
from placement.engines.emulated_batch import Sequence
from placement.engines.emulated_replica import EmulatedReplica, Weights
from placement.snapshot import Rung, WeightsAt
from tests.builders import GB, model, node

US = 1_000_000
OK = Verdict(200)


class World:
    """A node and its time, for stories."""

    def __init__(self, spec: NodeSpec | None = None, seed: int = 0) -> None:
        self.node = EmulatedNode(spec or node(), seed)
        self.now_us = 0

    def run(self) -> list[NodeEvent]:
        """Until nothing is under way."""
        events = self.node.advance(self.now_us)
        while (next_us := self.node.next_us()) is not None:
            self.now_us = next_us
            events += self.node.advance(next_us)
        return events

    def begin(self, replica_id: str, spec: ModelSpec | None = None, gpu: int = 0) -> None:
        spec = spec or model(replica_id)
        gpu_ids = tuple(range(gpu, gpu + spec.gpus))
        request = ReplicaRequest(replica_id=replica_id, model=spec, gpu_ids=gpu_ids)
        self.node.start(request, self.now_us)

    def up(self, replica_id: str, spec: ModelSpec | None = None, gpu: int = 0) -> EmulatedReplica:
        self.begin(replica_id, spec, gpu)
        self.run()
        replica = self.node.replicas[replica_id]
        assert replica.state == "ready", replica.exit_message
        return replica

    def verdict(self, answer: Verdict | None) -> Verdict:
        """Of a deed: at once, or when it ended."""
        if answer is not None:
            return answer
        return next(e.verdict for e in self.run() if isinstance(e, DeedEnded))

    def sleep(self, replica_id: str, level: int) -> Verdict:
        self.node.pause(replica_id, "wait")
        return self.verdict(self.node.sleep(replica_id, level, self.now_us))

    def wake(self, replica_id: str, *tags: str) -> Verdict:
        return self.verdict(self.node.wake(replica_id, tags, self.now_us))

    def used(self, gpu: int = 0) -> int:
        return self.node.memory.gpu_used(gpu)


def test_a_start_takes_as_long_as_the_edge_table_says_and_holds_its_footprint_meanwhile() -> None:
    world, spec = World(), model("a")
    world.begin("a", spec)
    world.node.advance(1)
    assert world.used() == edges.footprint_bytes(spec)
    assert world.run() == [Ready("a", world.now_us)]
    expected_us = edges.climb_us(spec, WeightsAt.HOST)
    assert abs(world.now_us - expected_us) <= 2
    assert world.used() == edges.gpu_bytes(spec, Rung.SERVING)


def test_a_start_without_its_whole_footprint_free_exits_as_vllm_does() -> None:
    world = World()
    world.up("a", model("a", kv_cache_bytes=50 * GB))
    before = world.used()
    world.begin("b")
    events = world.run()
    assert [type(e) for e in events] == [Exited]
    assert "Free memory on startup" in world.node.replicas["b"].exit_message
    assert world.used() == before


def test_two_starts_on_one_gpu_do_not_go_together() -> None:
    world = World()
    world.begin("a", model("a", kv_cache_bytes=2 * GB))
    world.begin("b", model("b", kv_cache_bytes=2 * GB))
    world.run()
    assert world.node.replicas["a"].state == "ready"
    assert "Start one at a time" in world.node.replicas["b"].exit_message


def test_a_neighbour_that_frees_memory_while_a_start_profiles_trips_its_assertion() -> None:
    world = World()
    small = {"kv_cache_bytes": 4 * GB}
    world.up("a", model("a", **small))
    world.begin("b", model("b", **small))
    world.now_us = world.node.next_us() or 0
    while not world.node.replicas["b"].profiling:
        world.node.advance(world.now_us)
        world.now_us = world.node.next_us() or 0
    world.node.end("a", world.now_us - 1)
    world.run()
    assert "AssertionError: Error in memory profiling" in world.node.replicas["b"].exit_message
    assert world.used() == 0


def test_each_rung_holds_what_the_edge_table_says() -> None:
    world, spec = World(), model("a")
    world.up("a", spec)
    assert world.sleep("a", 1) == OK
    assert world.used() == edges.gpu_bytes(spec, Rung.PARKED)
    assert world.wake("a", "weights") == OK
    assert world.used() == edges.gpu_bytes(spec, Rung.WARM)
    assert world.wake("a", "kv_cache") == OK
    assert world.used() == edges.gpu_bytes(spec, Rung.SERVING)
    assert world.sleep("a", 2) == OK
    assert world.used() == edges.gpu_bytes(spec, Rung.SHED)


def test_steps_take_as_long_as_the_edge_table_says() -> None:
    world, spec = World(), model("a")
    world.up("a", spec)
    began_us = world.now_us
    world.sleep("a", 1)
    parked_us = edges.edge_us(edges.step_edge(spec, Rung.SERVING, Rung.PARKED))
    assert abs(world.now_us - began_us - parked_us) <= 2
    began_us = world.now_us
    world.wake("a")
    assert abs(world.now_us - began_us - edges.climb_us(spec, Rung.PARKED)) <= 2
    world.sleep("a", 2)
    began_us = world.now_us
    world.wake("a", "weights")
    world.verdict(world.node.reload_weights("a", world.now_us))
    world.wake("a", "kv_cache")
    assert abs(world.now_us - began_us - edges.climb_us(spec, Rung.SHED)) <= 4


def test_level_1_to_level_2_is_a_silent_no_op_that_the_metric_believes() -> None:
    world = World()
    replica = world.up("a")
    world.sleep("a", 1)
    host_before, began_us = world.node.memory.host_used(), world.now_us
    assert world.sleep("a", 2) == OK
    assert world.now_us == began_us
    assert world.node.memory.host_used() == host_before
    assert replica.sleep_word == "level1"
    assert replica.sleep_echo == "discard_all"


def test_a_wake_that_names_an_awake_tag_is_ignored_with_200() -> None:
    world = World()
    replica = world.up("a")
    world.sleep("a", 0)
    assert world.wake("a", "weights") == OK
    assert replica.status == "sleeping", "still paused: that tag was awake already"
    assert world.wake("a", "scheduling") == OK
    assert replica.status == "awake"


def test_scheduling_resumes_only_when_all_memory_is_resident() -> None:
    world = World()
    replica = world.up("a")
    world.sleep("a", 1)
    seen = []
    for tag in ("scheduling", "weights", "kv_cache"):
        world.wake("a", tag)
        seen.append((replica.batch.paused, replica.status, replica.sleep_echo))
    echo = "weights_offloaded"  # the metric echoes the last sleep
    assert seen[:2] == [(True, "sleeping", echo), (True, "sleeping", echo)]
    assert seen[2] == (False, "awake", "awake")


def test_level_2_without_a_reload_answers_garbage_until_the_weights_are_loaded() -> None:
    world = World()
    replica = world.up("a")
    world.sleep("a", 2)
    assert world.node.reload_weights("a", world.now_us) is not None, "nothing mapped: 500"
    assert world.wake("a") == OK
    answers = [replica.garbage]
    assert world.verdict(world.node.reload_weights("a", world.now_us)) == OK
    assert [*answers, replica.garbage] == [True, False]


def test_kv_is_released_only_after_a_completed_pause_without_requests() -> None:
    world = World()
    replica = world.up("a")
    early = world.node.release_kv("a", world.now_us)
    assert early is not None
    assert early.status == 500
    world.node.pause("a", "wait")
    replica.batch.add(Sequence(1, 10, 10, world.now_us))
    busy = world.node.release_kv("a", world.now_us)
    assert busy is not None
    assert busy.status == 500
    replica.batch.cancel(1)
    assert world.verdict(world.node.release_kv("a", world.now_us)) == OK
    assert world.used() == edges.gpu_bytes(replica.spec, Rung.WARM)
    assert replica.sleep_word == "kv_released"
    assert replica.sleep_echo == ""


def test_every_park_copies_the_weights_out_again() -> None:
    world = World()
    world.up("a")
    spans = []
    for _ in range(2):
        began_us = world.now_us
        world.sleep("a", 1)
        spans.append(world.now_us - began_us)
        world.wake("a")
    assert abs(spans[0] - spans[1]) <= 2


def test_pinned_memory_is_a_power_of_two_and_is_never_given_back() -> None:
    world, spec = World(), model("a")
    world.up("a", spec)
    serving = world.node.memory.host_used()
    assert serving == edges.host_bytes(spec, Rung.SERVING)
    world.sleep("a", 1)
    assert world.node.memory.host_used() == edges.host_bytes(spec, Rung.PARKED)
    world.wake("a")
    assert world.node.memory.host_used() == edges.host_bytes(spec, Rung.PARKED)
    world.node.end("a", world.now_us)
    assert world.node.memory.host_used() == 0


def test_a_park_that_host_memory_cannot_take_is_a_500_and_changes_nothing() -> None:
    world = World(node(host_bytes=10 * GB))
    replica = world.up("a")
    assert world.sleep("a", 1).status == 500
    assert replica.sleep_word == "level0"
    assert world.used() == edges.footprint_bytes(replica.spec)


def test_a_wake_without_room_leaves_the_engine_broken() -> None:
    world = World()
    big = {"kv_cache_bytes": 40 * GB}
    replica = world.up("a", model("a", **big))
    world.sleep("a", 1)
    world.up("b", model("b", **big))
    failed = world.wake("a")
    assert failed.status == 500
    assert "out of memory" in failed.message
    assert world.wake("a", "weights").status == 500, "never retry in place"
    assert replica.is_sleeping


def test_a_failed_wake_is_a_500_that_leaves_it_half_awake() -> None:
    world = World()
    replica = world.up("a", model("a", faults=Faults(failed_wake=1.0)))
    world.sleep("a", 1)
    assert world.wake("a").status == 500
    assert replica.weights is Weights.RESIDENT
    assert not replica.kv_resident
    assert replica.sleep_word == "half_awake"


def test_memory_that_is_not_freed_hides_behind_a_200() -> None:
    world = World()
    replica = world.up("a", model("a", faults=Faults(memory_not_freed=1.0)))
    before = world.used()
    assert world.sleep("a", 1) == OK
    assert world.used() == before
    assert replica.sleep_word == "level1"
    assert world.wake("a") == OK
    assert world.used() == before


def test_a_slow_link_slows_this_model_only() -> None:
    slow, quick = World(), World()
    slow.begin("a", model("a", faults=Faults(link_slowdown=10.0)))
    quick.begin("a", model("a"))
    slow.run()
    quick.run()
    assert slow.now_us > quick.now_us + 10 * US


def test_faults_are_drawn_from_named_streams_and_so_are_the_same_for_a_seed() -> None:
    spec = model("a", faults=Faults(crash_per_request=0.3, hang_per_request=0.3))
    fates = [
        [EmulatedReplica("a", spec, (0,), "H100-80GB", seed).fate(100) for _ in range(50)]
        for seed in (1, 1, 2)
    ]
    assert fates[0] == fates[1]
    one = EmulatedReplica("a", spec, (0,), "H100-80GB", 1)
    kinds = {one.fate(100).kind for _ in range(100)}
    assert kinds == {"none", "crash", "hang"}


deeds = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "sleep1", "sleep2", "release", "wake", "weights", "kv"]),
        st.integers(0, 5),
        st.integers(0, 40 * US),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(day=deeds, faults=st.sampled_from([0.0, 0.5]))
def test_memory_is_never_overcommitted_and_all_of_it_comes_back(
    day: list[tuple[str, int, int]], faults: float
) -> None:
    world = World(node(host_bytes=80 * GB))
    broken = Faults(failed_wake=faults, memory_not_freed=faults)
    for deed, which, wait_us in day:
        world.now_us += wait_us
        world.node.advance(world.now_us)
        _do(world, deed, which, broken)
        memory = world.node.memory
        for gpu in range(memory.gpus):
            assert 0 <= memory.gpu_used(gpu) <= memory.hbm_bytes
        assert 0 <= memory.host_used() <= memory.host_total_bytes
    for replica_id in list(world.node.replicas):
        world.node.end(replica_id, world.now_us)
    world.run()
    assert [world.used(g) for g in range(2)] == [0, 0]
    assert world.node.memory.host_used() == 0


def _do(world: World, deed: str, which: int, faults: Faults) -> None:
    """One deed of a random day, where it is legal to ask."""
    key, now_us, host = f"r{which}", world.now_us, world.node
    replica = host.replicas.get(key)
    if deed == "start" and replica is None:
        spec = model(key, gpus=1 + which % 2, faults=faults, kv_cache_bytes=(which + 1) * 5 * GB)
        world.begin(key, spec, gpu=0 if spec.gpus == 2 else which % 2)
    elif deed == "end":
        host.end(key, now_us)
    elif replica is not None and replica.state == "ready" and not host.in_transition(key):
        host.pause(key, "abort")
        match deed:
            case "sleep1" | "sleep2":
                host.sleep(key, int(deed[-1]), now_us)
            case "release":
                host.release_kv(key, now_us)
            case "wake":
                host.wake(key, (), now_us)
            case "weights":
                host.wake(key, ("weights",), now_us)
            case _:
                host.wake(key, ("kv_cache",), now_us)
