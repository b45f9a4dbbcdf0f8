"""The ledger's stories, and the laws that hold whatever is asked of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from placement import feasibility as fit
from placement.agent.book import Book
from placement.agent.ledger import Ledger
from placement.agent.obstacles import disturbed
from placement.catalog import EngineKind, NodeId
from placement.edges import climb_us, footprint_bytes, gpu_bytes, host_bytes, stock
from placement.plan import (
    Accepted,
    Action,
    Drain,
    Evict,
    Fetch,
    Outcome,
    OutcomeStatus,
    Park,
    Promote,
    Reason,
    ReasonCode,
    RefusalCode,
    Refused,
    Restore,
    Shed,
    Start,
    Victim,
    Warm,
    target_rung,
)
from placement.snapshot import Lack, Phase, Rung, WeightsAt
from tests.builders import GB, model, node

SMALL = model("small")
BIG = model("big", weights_bytes=40 * GB)
WIDE = model("wide", gpus=2, weights_bytes=60 * GB)
TINY = model("tiny", engine=EngineKind.LLAMACPP, weights_bytes=GB // 10)
REAL = model("real", engine=EngineKind.EXTERNAL)
MODELS = (SMALL, BIG, WIDE, TINY, REAL)
NODE = node(host_bytes=120 * GB)
NOW_US = 1_000_000


class Desk:
    """Asks a ledger in short sentences."""

    def __init__(self) -> None:
        self.ledger = Ledger(NODE, MODELS)
        self.asked = 0

    def order(self, verb: type[Any], **what: Any) -> Any:
        self.asked += 1
        return verb(
            action_id=f"a{self.asked}",
            snapshot_version=1,
            deadline_us=NOW_US * 100,
            node_id=NodeId("n0"),
            why=Reason(code=ReasonCode.OPERATOR),
            **what,
        )

    def ask(self, verb: type[Any], *busy: str, **what: Any) -> Accepted | Refused:
        return self.ledger.admit(self.order(verb, **what), NOW_US, frozenset(busy))

    def done(self, answer: Accepted | Refused) -> None:
        """Everything an action set out to do has happened."""
        assert isinstance(answer, Accepted), answer
        for held in self.ledger.moved_by(answer.action_id):
            if held.state.target is None:
                self.ledger.gone(held.state.replica_id)
            else:
                self.ledger.landed(held.state.replica_id, held.state.target, NOW_US)
        finish(self.ledger, answer.action_id)

    def start(self, name: str, spec: str = "small", gpu_ids: tuple[int, ...] = (0,)) -> None:
        self.done(self.ask(Start, replica_id=name, model_id=spec, gpu_ids=gpu_ids))

    def refusal(self, verb: type[Any], *busy: str, **what: Any) -> RefusalCode:
        before = self.ledger.book()
        answer = self.ask(verb, *busy, **what)
        assert isinstance(answer, Refused), answer
        assert answer.message
        after = self.ledger.book()
        assert msgspec.structs.replace(after, answers=before.answers) == before
        return answer.reason_code

    def phase(self, name: str) -> Phase:
        return self.ledger.held[name].state.phase

    def rung(self, name: str) -> Rung:
        return self.ledger.held[name].state.rung


def finish(ledger: Ledger, action_id: str, status: OutcomeStatus = OutcomeStatus.DONE) -> None:
    ledger.finish(
        Outcome(
            action_id=action_id,
            verb="?",
            node_id=NodeId("n0"),
            replica_id="",
            model_id="",
            status=status,
            began_us=NOW_US,
            ended_us=NOW_US,
        )
    )


def test_a_start_reserves_its_footprint_from_the_first_moment() -> None:
    desk = Desk()
    answer = desk.ask(Start, replica_id="r0", model_id="small", gpu_ids=(0,))
    state = desk.ledger.state()
    assert state.gpus[0].reserved_bytes == footprint_bytes(SMALL)
    assert state.replicas[0].phase is Phase.STARTING
    assert state.replicas[0].eta_us > NOW_US
    assert not state.replicas[0].serving
    desk.done(answer)
    assert desk.ledger.state().replicas[0].serving


def test_a_step_that_an_engine_lacks_is_refused_with_its_reason() -> None:
    desk = Desk()
    desk.start("r0")
    lack = Lack(at=Rung.SERVING, to=Rung.WARM, why="vLLM 0.31.0 has no such call")
    desk.ledger.learned("r0", lacks=(lack,))
    refused = desk.ask(Warm, replica_id="r0")
    assert isinstance(refused, Refused)
    assert refused.reason_code is RefusalCode.UNSUPPORTED
    assert "vLLM 0.31.0 has no such call" in refused.message
    desk.done(desk.ask(Park, replica_id="r0"))
    desk.done(desk.ask(Warm, replica_id="r0"))
    assert desk.rung("r0") is Rung.WARM
    assert Ledger(NODE, MODELS, desk.ledger.book()).held["r0"].state.lacks == (lack,)


def test_real_engines_for_the_cpu_and_gpus_do_not_mix() -> None:
    shares = msgspec.structs.replace(NODE, gpu_type="CPU")
    on_cpu = model("cpu", engine=EngineKind.VLLM, on_cpu=True, weights_bytes=GB, kv_cache_bytes=GB)
    for at, spec in ((shares, SMALL), (NODE, on_cpu)):
        shortage = fit.wrong_gpu_set(spec, at, (0,))
        assert shortage is not None
        assert spec.id in shortage.message
    assert fit.wrong_gpu_set(on_cpu, shares, (0,)) is None


def test_what_is_unknown_or_cannot_be_is_refused() -> None:
    desk = Desk()
    desk.start("r0")
    desk.start("t0", "tiny", ())
    start = {"replica_id": "new", "model_id": "small", "gpu_ids": (0,)}
    assert desk.refusal(Start, **start | {"model_id": "nope"}) is RefusalCode.UNKNOWN_MODEL
    assert desk.refusal(Start, **start | {"gpu_ids": (7,)}) is RefusalCode.UNKNOWN_GPU
    assert desk.refusal(Start, **start | {"replica_id": "r0"}) is RefusalCode.DUPLICATE_REPLICA
    assert desk.refusal(Start, **start | {"model_id": "real"}) is RefusalCode.UNSUPPORTED
    assert desk.refusal(Fetch, model_id="nope", to=WeightsAt.HOST) is RefusalCode.UNKNOWN_MODEL
    assert desk.refusal(Evict, replica_id="nope") is RefusalCode.UNKNOWN_REPLICA
    assert desk.refusal(Park, replica_id="t0") is RefusalCode.UNSUPPORTED
    assert desk.refusal(Promote, replica_id="r0") is RefusalCode.ILLEGAL_EDGE


def test_parked_cannot_be_shed() -> None:
    desk = Desk()
    desk.start("r0")
    desk.done(desk.ask(Park, replica_id="r0"))
    assert desk.refusal(Shed, replica_id="r0") is RefusalCode.ILLEGAL_EDGE
    assert desk.refusal(Drain, replica_id="r0") is RefusalCode.ILLEGAL_EDGE


def test_who_answers_requests_is_not_moved() -> None:
    desk = Desk()
    desk.start("r0")
    desk.start("r1", gpu_ids=(1,))
    desk.done(desk.ask(Park, replica_id="r1"))
    for verb in (Park, Shed, Warm, Evict):
        assert desk.refusal(verb, "r0", replica_id="r0") is RefusalCode.BUSY
    victims = (Victim(replica_id="r0", to=Rung.SHED),)  # type: ignore[arg-type]
    order = desk.order(Promote, replica_id="r1", victims=victims)
    assert disturbed(order, desk.ledger.held) == ["r0"]
    answer = desk.ask(Promote, "r0", replica_id="r1", victims=victims)
    assert isinstance(answer, Refused)


def test_one_start_per_gpu_and_nobody_frees_beside_it() -> None:
    desk = Desk()
    tight = model("tight", weights_bytes=5 * GB, kv_cache_bytes=5 * GB)
    desk.ledger.reload((*MODELS, tight))
    desk.start("r0", "tight")
    desk.start("r1", "tight")
    desk.done(desk.ask(Park, replica_id="r1"))
    assert isinstance(desk.ask(Start, replica_id="s", model_id="tight", gpu_ids=(0,)), Accepted)
    again = {"replica_id": "s2", "model_id": "tight", "gpu_ids": (0,)}
    assert desk.refusal(Start, **again) is RefusalCode.START_IN_PROGRESS
    assert desk.refusal(Park, replica_id="r0") is RefusalCode.START_IN_PROGRESS
    assert desk.refusal(Evict, replica_id="r0") is RefusalCode.START_IN_PROGRESS
    assert isinstance(desk.ask(Promote, replica_id="r1"), Accepted), "a wake frees nothing"


def test_a_promotion_takes_its_victims_room_and_nobody_gets_between() -> None:
    desk = Desk()
    desk.start("r0")
    desk.done(desk.ask(Shed, replica_id="r0"))
    desk.start("r1", "big")
    assert desk.refusal(Promote, replica_id="r0") is RefusalCode.NO_ROOM_GPU
    answer = desk.ask(
        Promote,
        replica_id="r0",
        victims=(Victim(replica_id="r1", to=Rung.SHED),),  # type: ignore[arg-type]
    )
    assert isinstance(answer, Accepted)
    desk.ledger.landed("r1", Rung.SHED, NOW_US)
    assert desk.refusal(Promote, replica_id="r1") is RefusalCode.NO_ROOM_GPU
    start = {"replica_id": "x", "model_id": "small", "gpu_ids": (0,)}
    assert desk.refusal(Start, **start) is RefusalCode.NO_ROOM_GPU
    desk.done(answer)
    assert desk.rung("r0") is Rung.SERVING


def test_victims_step_down_only_and_are_named_once() -> None:
    desk = Desk()
    desk.start("r0")
    desk.done(desk.ask(Shed, replica_id="r0"))
    desk.start("r1")
    desk.done(desk.ask(Park, replica_id="r1"))
    up = (Victim(replica_id="r1", to=Rung.WARM),)  # type: ignore[arg-type]
    assert desk.refusal(Promote, replica_id="r0", victims=up) is RefusalCode.ILLEGAL_EDGE
    itself = (Victim(replica_id="r0", to=None),)  # type: ignore[arg-type]
    assert desk.refusal(Promote, replica_id="r0", victims=itself) is RefusalCode.ILLEGAL_EDGE


def test_pinned_memory_is_kept_until_the_engine_ends() -> None:
    desk = Desk()
    desk.start("r0")
    assert desk.ledger.state().host_reserved_bytes == host_bytes(SMALL, Rung.SERVING)
    desk.done(desk.ask(Park, replica_id="r0"))
    desk.done(desk.ask(Promote, replica_id="r0"))
    assert desk.ledger.state().host_reserved_bytes == host_bytes(SMALL, Rung.PARKED)
    assert desk.ledger.state().replicas[0].pinned, "whoever plans is told"
    desk.done(desk.ask(Evict, replica_id="r0"))
    assert desk.ledger.state().host_reserved_bytes == 0


def test_a_park_that_began_has_pinned_and_one_that_did_not_has_not() -> None:
    """An agent that was restarted meanwhile may find the engine still awake."""
    desk = Desk()
    desk.start("r0")
    answer = desk.ask(Park, replica_id="r0")
    desk.ledger.landed("r0", Rung.SERVING, NOW_US)
    finish(desk.ledger, answer.action_id, OutcomeStatus.FAILED)
    assert desk.ledger.state().replicas[0].pinned
    desk.start("r1", gpu_ids=(1,))
    desk.done(desk.ask(Warm, replica_id="r1"))
    assert not desk.ledger.held["r1"].state.pinned


@pytest.mark.parametrize("leaves_for", [None, EngineKind.EXTERNAL])
def test_replicas_of_a_model_that_left_are_moved_and_ended(leaves_for: EngineKind | None) -> None:
    """Removed, or run by somebody else from now on: agents hear of managed models alone."""
    desk = Desk()
    desk.start("r0")
    fresh = [m for m in MODELS if m is not SMALL]
    if leaves_for is not None:
        fresh.append(msgspec.structs.replace(SMALL, engine=leaves_for))
    desk.ledger.reload(fresh)
    assert desk.ledger.state().weights_at["small"] is WeightsAt.HOST
    if leaves_for is None:
        start = {"replica_id": "r1", "model_id": "small", "gpu_ids": (1,)}
        assert desk.refusal(Start, **start) is RefusalCode.UNKNOWN_MODEL
    desk.done(desk.ask(Drain, replica_id="r0"))
    desk.done(desk.ask(Park, replica_id="r0"))
    desk.done(desk.ask(Promote, replica_id="r0"))
    desk.done(desk.ask(Evict, replica_id="r0"))
    assert desk.ledger.state().gpus[0].reserved_bytes == 0
    desk.ledger.reload([m for m in MODELS if m is not SMALL])
    assert "small" not in desk.ledger.state().weights_at


def test_a_start_on_the_cpu_is_due_when_the_catalog_says() -> None:
    desk = Desk()
    desk.ask(Start, replica_id="t0", model_id="tiny", gpu_ids=())
    eta_us = desk.ledger.held["t0"].state.eta_us
    assert eta_us == NOW_US + climb_us(TINY, WeightsAt.HOST)


def test_parking_more_than_the_host_holds_is_refused_with_bytes() -> None:
    desk = Desk()
    for gpu_id in (0, 1):
        desk.start(f"r{gpu_id}", "big", (gpu_id,))
    desk.done(desk.ask(Park, replica_id="r0"))
    answer = desk.ask(Park, replica_id="r1")
    assert isinstance(answer, Refused)
    assert answer.reason_code is RefusalCode.NO_ROOM_HOST
    assert answer.need_bytes > answer.free_bytes > 0


def test_drain_and_restore_are_words_and_a_step_down_ends_a_drain() -> None:
    desk = Desk()
    desk.start("r0")
    desk.done(desk.ask(Drain, replica_id="r0"))
    assert desk.phase("r0") is Phase.DRAINING
    desk.done(desk.ask(Restore, replica_id="r0"))
    assert desk.ledger.held["r0"].state.serving
    desk.done(desk.ask(Drain, replica_id="r0"))
    desk.done(desk.ask(Park, replica_id="r0"))
    assert desk.phase("r0") is Phase.READY


def test_asked_twice_done_once() -> None:
    desk = Desk()
    order = desk.order(Start, replica_id="r0", model_id="small", gpu_ids=(0,))
    first = desk.ledger.admit(order, NOW_US)
    desk.done(first)
    seq = desk.ledger.seq
    assert desk.ledger.admit(order, NOW_US) == first
    assert desk.ledger.seq == seq


def test_a_book_read_back_is_the_same_ledger() -> None:
    desk = Desk()
    desk.start("r0")
    desk.ask(Park, replica_id="r0")
    desk.refusal(Evict, replica_id="r0")
    book = msgspec.json.decode(msgspec.json.encode(desk.ledger.book()), type=Book)
    again = Ledger(NODE, MODELS, book)
    assert again.book() == msgspec.structs.replace(desk.ledger.book(), seq=again.seq)
    assert again.state().replicas == desk.ledger.state().replicas


def test_a_stale_deed_leaves_everything_as_it_was() -> None:
    desk = Desk()
    desk.start("r0")
    desk.done(desk.ask(Drain, replica_id="r0"))
    before = desk.ledger.held["r0"].state
    answer = desk.ask(Park, replica_id="r0")
    desk.ledger.stayed("r0")
    finish(desk.ledger, answer.action_id, OutcomeStatus.STALE)
    assert desk.ledger.held["r0"].state == before


def test_an_action_cannot_end_with_a_replica_in_the_air() -> None:
    desk = Desk()
    desk.start("r0")
    answer = desk.ask(Park, replica_id="r0")
    with pytest.raises(AssertionError, match="between rungs"):
        finish(desk.ledger, answer.action_id)


NAMES = st.sampled_from([f"r{i}" for i in range(6)])
RUNGS = st.sampled_from([None, *Rung])


class Anything(RuleBasedStateMachine):
    """Any order of actions, deeds that end, fail, crash: the laws hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.accepted: list[Action] = []

    def ask(self, action: Action, busy: frozenset[str]) -> None:
        ledger, before = self.desk.ledger, self.desk.ledger.book()
        rungs = {r: h.state.rung for r, h in ledger.held.items()}
        answer = ledger.admit(action, NOW_US, busy)
        once = ledger.book()
        assert ledger.admit(action, NOW_US, busy) == answer
        assert ledger.book() == once, "the same action twice is once"
        if isinstance(answer, Refused):
            assert msgspec.structs.replace(once, answers=before.answers) == before
            return
        self.accepted.append(action)
        for held in ledger.moved_by(action.action_id):
            at, to = rungs.get(held.state.replica_id), held.state.target
            assert at is None or to is None or (at, to) in stock.STEPS
        assert not busy & set(disturbed(action, ledger.held))

    @rule(
        name=NAMES,
        spec=st.sampled_from(["small", "big", "tiny"]),
        gpu=st.integers(0, 1),
    )
    def start(self, name: str, spec: str, gpu: int) -> None:
        gpu_ids = () if spec == "tiny" else (gpu,)
        order = self.desk.order(Start, replica_id=name, model_id=spec, gpu_ids=gpu_ids)
        self.ask(order, frozenset())

    @rule(name=NAMES)
    def start_wide(self, name: str) -> None:
        order = self.desk.order(Start, replica_id=name, model_id="wide", gpu_ids=(0, 1))
        self.ask(order, frozenset())

    @rule(
        verb=st.sampled_from([Park, Shed, Warm, Drain, Restore, Evict]),
        name=NAMES,
        busy=st.frozensets(NAMES, max_size=2),
    )
    def step(self, verb: type[Any], name: str, busy: frozenset[str]) -> None:
        self.ask(self.desk.order(verb, replica_id=name), busy)

    @rule(
        name=NAMES,
        victims=st.lists(st.tuples(NAMES, RUNGS), max_size=3),
        busy=st.frozensets(NAMES, max_size=1),
    )
    def promote(
        self, name: str, victims: list[tuple[str, Rung | None]], busy: frozenset[str]
    ) -> None:
        who = tuple(msgspec.convert({"replica_id": v, "to": to}, Victim) for v, to in victims)
        self.ask(self.desk.order(Promote, replica_id=name, victims=who), busy)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), well=st.booleans())
    def ends(self, data: st.DataObject, well: bool) -> None:
        """Victims first, as the deeds do it; a failure ends whatever was still moving."""
        action = self.accepted.pop(data.draw(st.integers(0, len(self.accepted) - 1)))
        ledger = self.desk.ledger
        moved = sorted(ledger.moved_by(action.action_id), key=lambda h: h.state.target or 0)
        for held in moved:
            if held.state.target is None or not well:
                ledger.gone(held.state.replica_id)
            else:
                ledger.landed(held.state.replica_id, held.state.target, NOW_US)
            self.nothing_is_promised_twice()
        finish(ledger, action.action_id)

    @rule(name=NAMES)
    def crashes(self, name: str) -> None:
        held = self.desk.ledger.held.get(name)
        if held is not None and not held.state.action_id:
            self.desk.ledger.gone(name)

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        state = self.desk.ledger.state()
        for gpu in state.gpus:
            assert 0 <= gpu.reserved_bytes <= fit.usable_hbm_bytes(gpu.hbm_bytes)
        assert 0 <= state.host_reserved_bytes <= state.host_bytes

    @invariant()
    def what_can_really_be_held_is_reserved(self) -> None:
        """By a count of our own: victims hold until they land, then only may the climber grow."""
        ledger = self.desk.ledger
        for gpu in ledger.state().gpus:
            here = [h for h in ledger.held.values() if gpu.gpu_id in h.state.gpu_ids]
            moving_down = {
                h.state.action_id
                for h in here
                if h.state.action_id and h.state.target is not Rung.SERVING
            }
            now = 0
            for h in here:
                waits = h.state.target is Rung.SERVING and h.state.action_id in moving_down
                ends = [h.state.rung] if waits else [h.state.rung, h.state.target or h.state.rung]
                now += max(gpu_bytes(h.spec, rung) for rung in ends)
            assert now <= gpu.reserved_bytes

    @invariant()
    def whoever_plans_counts_the_same(self) -> None:
        state = self.desk.ledger.state()
        gpus = tuple(msgspec.structs.replace(g, reserved_bytes=0) for g in state.gpus)
        empty = msgspec.structs.replace(state, replicas=(), gpus=gpus, host_reserved_bytes=0)
        models = {str(m.id): m for m in MODELS}
        assert fit.recounted(empty, state.replicas, NODE, models) == state

    def teardown(self) -> None:
        """Everything ended: nothing is left over."""
        ledger = self.desk.ledger
        for name in list(ledger.held):
            ledger.gone(name)
        state = ledger.state()
        assert [g.reserved_bytes for g in state.gpus] == [0, 0]
        assert state.host_reserved_bytes == 0


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(at=st.sampled_from(list(Rung)), verb=st.sampled_from([Park, Shed, Warm, Promote]))
def test_only_edges_of_the_graph_are_accepted(at: Rung, verb: type[Any]) -> None:
    desk = Desk()
    desk.start("r0")
    ways: dict[Rung, type[Any]] = {Rung.PARKED: Park, Rung.SHED: Shed, Rung.WARM: Warm}
    if at in ways:
        desk.done(desk.ask(ways[at], replica_id="r0"))
    order = desk.order(verb, replica_id="r0")
    accepted = isinstance(desk.ledger.admit(order, NOW_US), Accepted)
    assert accepted == ((at, target_rung(order)) in stock.STEPS)
