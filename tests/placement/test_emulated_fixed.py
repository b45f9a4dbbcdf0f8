"""Fixed service times: nobody slows anybody, and only slots are short."""

import heapq

from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import ServiceTimes
from placement.engines.emulated_batch import Batch, FixedBatch, Progress, Sequence, batch_of
from tests.builders import model

PREFILL_US, STEP_US = 35_000, 15_000


def replica(slots: int = 32) -> FixedBatch:
    return FixedBatch(PREFILL_US, STEP_US, kv_tokens=10_000, max_num_seqs=slots)


def test_a_model_with_fixed_figures_gets_a_replica_that_keeps_to_them() -> None:
    spec = model(service=ServiceTimes(prefill_us=70_000, decode_step_us=20_000), max_num_seqs=3)
    batch = batch_of(spec, "any GPU")
    for seq_id in range(4):
        batch.add(Sequence(seq_id, 1000, 2, 0))
    assert (batch.running, batch.waiting) == (3, 1)
    assert batch.next_us() == 70_000
    assert isinstance(batch_of(model(), "H100-80GB"), Batch)


def test_many_prompts_at_once_delay_nobody() -> None:
    batch = replica()
    for seq_id in range(32):
        batch.add(Sequence(seq_id, 1000, 11, 0))
    told = batch.milestones(10**9)
    assert [p.at_us for p in told] == 32 * [35_000] + 32 * [35_000 + 10 * 15_000]
    assert [p.tokens for p in told] == 32 * [1] + 32 * [10]


def test_the_next_one_is_taken_in_the_moment_a_slot_is_free() -> None:
    batch = replica(slots=1)
    batch.add(Sequence(1, 10, 3, 0))
    batch.add(Sequence(2, 10, 1, 0))
    told = batch.milestones(10**9)
    assert [(p.seq_id, p.at_us) for p in told] == [(1, 35_000), (1, 65_000), (2, 100_000)]
    assert told[-1] == Progress(2, 1, 100_000, first=True, finished=True)


def test_a_look_in_between_tells_of_everybody_in_order_of_time() -> None:
    batch = replica()
    batch.add(Sequence(1, 10, 100, 0))
    batch.advance(5_000)
    batch.add(Sequence(2, 10, 100, 5_000))
    assert batch.advance(64_000) == [
        Progress(1, 1, 35_000, first=True, finished=False),
        Progress(2, 1, 40_000, first=True, finished=False),
        Progress(1, 1, 50_000, first=False, finished=False),
        Progress(2, 1, 55_000, first=False, finished=False),
    ]
    assert batch.step_end_us(64_001) == 65_000
    assert batch.kv_used == 2 * 12
    assert batch.advance(64_500) == []


def test_one_that_leaves_makes_room_at_once() -> None:
    batch = replica(slots=1)
    batch.add(Sequence(1, 10, 100, 0))
    batch.add(Sequence(2, 10, 1, 0))
    batch.milestones(60_000)
    left = batch.cancel(1)
    assert left is not None
    assert left.done_tokens == 2
    assert batch.next_us() == 60_000 + PREFILL_US
    assert batch.cancel(1) is None


def test_one_that_hangs_keeps_its_slot_until_it_is_cancelled() -> None:
    batch = replica(slots=1)
    batch.add(Sequence(1, 10, 100, 0, hang_after=3))
    batch.add(Sequence(2, 10, 1, 0))
    assert [p.tokens for p in batch.advance(10**8)] == [1, 2]
    assert (batch.running, batch.waiting, batch.next_us()) == (1, 1, None)
    batch.cancel(1)
    assert batch.next_us() == 10**8 + PREFILL_US


def test_a_pause_that_keeps_freezes_and_prefills_again() -> None:
    batch = replica()
    batch.add(Sequence(1, 10, 10, 0))
    batch.advance(70_000)  # three tokens
    assert batch.pause("keep") == []
    assert (batch.running, batch.waiting, batch.next_us()) == (0, 1, None)
    batch.advance(10**6)
    batch.resume()
    assert batch.milestones(10**9) == [
        Progress(1, 7, 10**6 + 35_000 + 6 * 15_000, first=False, finished=True)
    ]


def test_a_pause_that_waits_lets_the_old_end_and_the_new_wait() -> None:
    batch = replica()
    batch.add(Sequence(1, 10, 2, 0))
    batch.pause("wait")
    batch.add(Sequence(2, 10, 2, 0))
    assert [p.seq_id for p in batch.milestones(10**9)] == [1, 1]
    assert batch.drained
    assert batch.waiting == 1
    batch.resume()
    assert batch.running == 1


def test_a_pause_that_aborts_ends_all() -> None:
    batch = replica(slots=1)
    for seq_id in (1, 2):
        batch.add(Sequence(seq_id, 10, 10, 0))
    assert batch.pause("abort") == [1, 2]
    assert (batch.running, batch.waiting, batch.next_us(), batch.kv_used) == (0, 0, None, 0)


requests = st.lists(
    st.tuples(st.integers(0, 2_000_000), st.integers(1, 60)), min_size=1, max_size=40
)


@given(day=requests, slots=st.integers(1, 5), cadence_us=st.integers(1_000, 10**6))
def test_the_replica_is_a_queue_before_equal_servers(
    day: list[tuple[int, int]], slots: int, cadence_us: int
) -> None:
    day = sorted(day)
    free_us, firsts, ends = [0] * slots, {}, {}
    for seq_id, (at_us, output) in enumerate(day):
        first_us = max(at_us, heapq.heappop(free_us)) + PREFILL_US
        firsts[seq_id], ends[seq_id] = first_us, first_us + (output - 1) * STEP_US
        heapq.heappush(free_us, ends[seq_id])

    quick, chatty, told, heard = replica(slots), replica(slots), [], []
    look_us = 0
    for seq_id, (at_us, output) in enumerate(day):
        told += quick.milestones(at_us)
        while look_us < at_us:
            look_us = min(look_us + cadence_us, at_us)
            heard += chatty.advance(look_us)
        for batch in (quick, chatty):
            batch.add(Sequence(seq_id, 10, output, at_us))
    told += quick.milestones(10**10)
    heard += chatty.advance(10**10)
    for progress in (told, heard):
        assert {p.seq_id: p.at_us for p in progress if p.first} == firsts
        assert {p.seq_id: p.at_us for p in progress if p.finished} == ends
        counted = [sum(p.tokens for p in progress if p.seq_id == i) for i in range(len(day))]
        assert counted == [output for _, output in day]
    assert [p.at_us for p in told] == sorted(p.at_us for p in told)
    for p in heard:
        assert (p.at_us - firsts[p.seq_id]) % STEP_US == 0
