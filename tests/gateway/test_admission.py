"""Admission and routing as stories and laws: order, slots, quotas, fences; nothing awaits."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.admission import Admission, Held, No, Ticket
from gateway.openai_api import Refusal
from gateway.routing import Lane, RoutingTable, pick
from placement.catalog import ModelSpec, NodeId, ReplicaId
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung, WeightsAt
from tests.builders import catalog, model

US = 1_000_000
SMALL = model("small", max_num_seqs=2)


class Asker(Ticket):
    """A request that notes where it was sent."""

    __slots__ = ("lane", "name")

    def __init__(self, name: int, deadline_us: int = 120 * US) -> None:
        self.name = name
        self.spec = SMALL
        self.tenant = None
        self.arrived_us = 0
        self.deadline_us = deadline_us
        self.held_since_us = 0
        self.cold = False
        self.excluded = frozenset()
        self.lane: Lane | None = None

    def go(self, lane: Lane) -> None:
        self.lane = lane


def replica(replica_id: str, rung: Rung = Rung.SERVING, phase: Phase = Phase.READY) -> ReplicaState:
    return ReplicaState(
        replica_id=ReplicaId(replica_id),
        model_id=SMALL.id,
        node_id=NodeId("n0"),
        gpu_ids=(0,),
        rung=rung,
        phase=phase,
        endpoint="127.0.0.1:1",
    )


def snapshot(*replicas: ReplicaState) -> ClusterSnapshot:
    node = NodeState(
        node_id=NodeId("n0"),
        alive=True,
        gpus=(),
        host_bytes=0,
        host_reserved_bytes=0,
        replicas=replicas,
        weights_at={"small": WeightsAt.DISK},
    )
    return ClusterSnapshot(version=1, nodes=(node,))


SPECS: dict[str, ModelSpec] = {"small": SMALL}


def test_the_least_loaded_replica_is_picked_and_the_id_closes_ties() -> None:
    lanes = [Lane(i, SMALL, "h", 1, "host") for i in ("b", "a", "c")]
    first = pick(lanes, frozenset(), 0)
    assert first is not None
    assert first.lane_id == "a"
    first.in_flight = 1
    second = pick(lanes, frozenset({"b"}), 0)
    assert second is not None
    assert second.lane_id == "c"


def test_a_lane_that_rests_or_is_full_is_not_picked() -> None:
    lane = Lane("a", SMALL, "h", 1, "host")
    lane.down_until_us = 10
    assert pick([lane], frozenset(), 9) is None
    assert pick([lane], frozenset(), 10) is lane
    lane.in_flight = lane.slots
    assert pick([lane], frozenset(), 10) is None


def test_a_fenced_replica_gets_nothing_until_the_fence_is_lifted() -> None:
    table = RoutingTable()
    table.update(snapshot(replica("a")), SPECS)
    assert table.fence(["a"])
    assert not table.has_open("small")
    assert table.update(snapshot(replica("a")), SPECS) == set(), "a snapshot does not lift it"
    table.unfence(["a"])
    assert table.update(snapshot(replica("a")), SPECS) == {"small"}


def test_a_busy_replica_cannot_be_fenced_and_nothing_changes() -> None:
    table = RoutingTable()
    table.update(snapshot(replica("a"), replica("b")), SPECS)
    next(x for x in table.lanes("small") if x.lane_id == "b").in_flight = 1
    assert not table.fence(["a", "b"])
    assert all(lane.open for lane in table.lanes("small"))


def test_a_lane_remembers_the_rung_its_replica_climbed_from() -> None:
    table = RoutingTable()
    table.update(snapshot(replica("a", Rung.PARKED), replica("b", phase=Phase.STARTING)), SPECS)
    table.update(snapshot(replica("a"), replica("b")), SPECS)
    assert {x.lane_id: x.climbed_from for x in table.lanes("small")} == {"a": "parked", "b": "disk"}


def test_who_was_refused_for_the_long_climb_is_remembered_as_demand() -> None:
    admission = Admission(RoutingTable(), lambda _: 26 * US, held_max=10)
    verdict = admission.arrive(Asker(1, deadline_us=2 * US), 0)
    assert verdict == No(Refusal.LOADING, verdict.message, 26 * US)  # type: ignore[union-attr]
    assert admission.wanted("small", 1)
    assert admission.wanted("small", 50 * US)
    assert not admission.wanted("small", 60 * US)


def test_a_start_is_cold_for_who_was_held_on_arrival_because_nothing_served() -> None:
    table = RoutingTable()
    admission = Admission(table, lambda _: 26 * US, held_max=10)
    refused, held, served = Asker(1, deadline_us=2 * US), Asker(2), Asker(3)
    assert isinstance(admission.arrive(refused, 0), No)
    assert not refused.cold, "it was not held"
    assert isinstance(admission.arrive(held, 0), Held)
    assert held.cold
    admission.leave(held)
    table.update(snapshot(replica("a")), SPECS)
    assert isinstance(admission.arrive(served, 0), Lane)
    table.update(snapshot(), SPECS)
    assert isinstance(admission.again(served, 0), Held)
    assert not served.cold, "a replica stood when it came; that one was lost is another matter"


def test_a_model_id_with_an_at_sign_is_no_external_lane() -> None:
    spec = model("small@q4")
    there = msgspec.structs.replace(replica("small@q4-1"), model_id=spec.id)
    table = RoutingTable()
    table.update(snapshot(there), {spec.id: spec})
    table.update_external(catalog(spec))
    assert table.has_open(spec.id), "a catalog without external models closes nothing"
    table.update(snapshot(), {spec.id: spec})
    assert not table.has_open(spec.id)
    assert not list(table.lanes(spec.id))


class Hall(RuleBasedStateMachine):
    """Requests come, end, leave; replicas open and close. A search over all orders of it."""

    @initialize(slots=st.integers(1, 3))
    def open_hall(self, slots: int) -> None:
        self.spec = model("small", max_num_seqs=slots)
        self.table = RoutingTable()
        self.admission = Admission(self.table, lambda _: US, held_max=4)
        self.running: list[Asker] = []
        self.held: list[Asker] = []
        self.names = 0

    def _collect(self) -> None:
        gone = [a for a in self.held if a.lane is not None]
        order = [a.name for a in gone]
        assert order == sorted(order), "first come, first served"
        self.held = [a for a in self.held if a.lane is None]
        self.running += gone

    @rule()
    def arrive(self) -> None:
        self.names += 1
        asker = Asker(self.names)
        asker.spec = self.spec
        verdict = self.admission.arrive(asker, 0)
        if isinstance(verdict, Lane):
            asker.lane = verdict
            self.running.append(asker)
        elif isinstance(verdict, Held):
            self.held.append(asker)
        else:
            assert len(self.held) == 4, "refused only when the queue is full"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        asker = data.draw(st.sampled_from(self.running))
        self.running.remove(asker)
        assert asker.lane is not None
        if self.admission.release(asker.lane):
            self.admission.wake("small", 0)
        self._collect()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        asker = data.draw(st.sampled_from(self.held))
        self.held.remove(asker)
        self.admission.leave(asker)

    @rule(present=st.sets(st.sampled_from(["a", "b", "c"])))
    def fleet_changes(self, present: set[str]) -> None:
        specs = {"small": self.spec}
        for gained in self.table.update(snapshot(*map(replica, sorted(present))), specs):
            self.admission.wake(gained, 0)
        self._collect()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "table"):
            return
        assert self.admission.held("small") == len(self.held)
        for lane in self.table.lanes("small"):
            mine = [a for a in self.running if a.lane is lane]
            assert lane.in_flight == len(mine)
            assert lane.in_flight <= lane.slots
        free = [x for x in self.table.lanes("small") if x.open and x.in_flight < x.slots]
        assert not (free and self.held), "nobody waits beside a free slot"


TestHall = Hall.TestCase


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_pick_never_chooses_a_lane_with_more_load_than_another(loads: list[int]) -> None:
    lanes = [Lane(f"{i}", model("m", max_num_seqs=6), "h", 1, "host") for i in range(len(loads))]
    for lane, load in zip(lanes, loads, strict=True):
        lane.in_flight = load
    chosen = pick(lanes, frozenset(), 0)
    assert chosen is not None
    assert chosen.in_flight == min(loads)
