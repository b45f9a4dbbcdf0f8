"""Continuous batching: stories, and laws over random days of one replica."""

from hypothesis import given, settings
from hypothesis import strategies as st

from placement.engines.emulated_batch import Batch, Progress, Sequence
from placement.service_time import Timing, timing_of
from tests.builders import model
from tests.placement.step_by_step import Happening, Replica

TIMING = timing_of(model(), "H100-80GB")
FIXED = Timing(
    prefill_base_us=10_000,
    prefill_token_ps=0,
    prefill_request_us=0,
    step_base_us=1_000,
    step_context_token_ps=0,
)


def run_out(batch: Batch, cadence_us: int = 10**12) -> list[Progress]:
    """Advance until nothing runs, at most `cadence_us` at a time."""
    now_us, gained = 0, []
    while (next_us := batch.next_us()) is not None:
        now_us = min(next_us, now_us + cadence_us)
        gained += batch.advance(now_us)
    return gained


def tokens_of(gained: list[Progress]) -> dict[int, int]:
    found: dict[int, int] = {}
    for progress in gained:
        found[progress.seq_id] = found.get(progress.seq_id, 0) + progress.tokens
    return found


def ends_of(gained: list[Progress]) -> dict[int, int]:
    return {p.seq_id: p.at_us for p in gained if p.finished}


def test_a_lone_request_takes_its_prefill_and_then_a_step_a_token() -> None:
    batch = Batch(FIXED, kv_tokens=1000, max_num_seqs=4)
    batch.add(Sequence(1, 50, 11, 0))
    first, rest = run_out(batch)
    assert first == Progress(1, 1, 10_000, first=True, finished=False)
    assert rest == Progress(1, 10, 20_000, first=False, finished=True)
    assert batch.kv_used == 0


def test_a_newcomer_waits_for_the_step_under_way_only() -> None:
    batch = Batch(FIXED, kv_tokens=10_000, max_num_seqs=4)
    batch.add(Sequence(1, 50, 1000, 0))
    batch.advance(12_500)
    batch.add(Sequence(2, 50, 5, 12_500))
    gained = batch.advance(30_000)
    first = next(p for p in gained if p.seq_id == 2)
    assert first.at_us == 13_000 + 10_000


def test_no_more_than_max_num_seqs_run_and_the_rest_wait() -> None:
    batch = Batch(FIXED, kv_tokens=10_000, max_num_seqs=2)
    for seq_id in range(5):
        batch.add(Sequence(seq_id, 10, 10, 0))
    batch.advance(0)
    assert (batch.running, batch.waiting) == (2, 3) or (batch.running, batch.waiting) == (1, 4)
    assert tokens_of(run_out(batch)) == dict.fromkeys(range(5), 10)


def test_the_newest_is_preempted_when_kv_room_runs_out_and_still_ends() -> None:
    batch = Batch(FIXED, kv_tokens=100, max_num_seqs=4)
    batch.add(Sequence(1, 40, 50, 0))
    batch.advance(10_000)
    batch.add(Sequence(2, 40, 50, 10_000))
    assert tokens_of(run_out(batch)) == {1: 49, 2: 50}
    assert batch.preemptions > 0


def test_a_known_prefix_is_not_computed_again() -> None:
    batch = Batch(TIMING, kv_tokens=100_000, max_num_seqs=4)
    blocks = tuple(range(500))
    batch.add(Sequence(1, 8000, 1, 0, blocks))
    cold_us = run_out(batch)[0].at_us
    batch.add(Sequence(2, 8000, 1, cold_us, blocks))
    warm_us = run_out(batch)[0].at_us - cold_us
    assert warm_us < cold_us / 5
    assert batch.prefix_hits == 7999
    batch.forget_prefixes()
    batch.add(Sequence(3, 8000, 1, 2 * cold_us, blocks))
    assert batch.prefix_hits == 7999


def test_cancelling_frees_at_once_and_lets_the_next_one_in() -> None:
    batch = Batch(FIXED, kv_tokens=100, max_num_seqs=1)
    batch.add(Sequence(1, 50, 40, 0))
    batch.add(Sequence(2, 50, 40, 0))
    batch.advance(10_000)
    assert batch.cancel(1) is not None
    assert batch.kv_used == 0
    assert ends_of(run_out(batch)).keys() == {2}
    assert batch.cancel(2) is None


def test_a_hanging_sequence_keeps_its_slot_until_it_is_cancelled() -> None:
    batch = Batch(FIXED, kv_tokens=100, max_num_seqs=1)
    batch.add(Sequence(1, 10, 40, 0, hang_after=1))
    batch.add(Sequence(2, 10, 5, 0))
    assert tokens_of(run_out(batch)) == {1: 1}
    assert (batch.running, batch.waiting) == (1, 1)
    batch.cancel(1)
    assert tokens_of(run_out(batch)) == {2: 5}


def test_pausing_with_wait_lets_the_old_end_and_the_new_wait() -> None:
    batch = Batch(FIXED, kv_tokens=1000, max_num_seqs=4)
    batch.add(Sequence(1, 10, 10, 0))
    assert batch.pause("wait") == []
    batch.add(Sequence(2, 10, 10, 0))
    assert tokens_of(run_out(batch)) == {1: 10}
    assert batch.drained
    assert batch.waiting == 1
    batch.resume()
    assert tokens_of(run_out(batch)) == {2: 10}


def test_pausing_with_keep_freezes_and_goes_on_where_it_was() -> None:
    batch = Batch(FIXED, kv_tokens=1000, max_num_seqs=4)
    batch.add(Sequence(1, 10, 10, 0))
    before = batch.advance(13_000)
    batch.pause("keep")
    assert batch.next_us() is None
    assert batch.kv_used == 0
    batch.resume()
    assert tokens_of(before + run_out(batch)) == {1: 10}


def test_pausing_with_abort_ends_all() -> None:
    batch = Batch(FIXED, kv_tokens=1000, max_num_seqs=1)
    for seq_id in (1, 2):
        batch.add(Sequence(seq_id, 10, 10, 0))
    assert sorted(batch.pause("abort")) == [1, 2]
    assert (batch.running, batch.waiting, batch.kv_used) == (0, 0, 0)


def test_a_thousand_steps_are_one_event() -> None:
    batch = Batch(FIXED, kv_tokens=10_000, max_num_seqs=4)
    batch.add(Sequence(1, 10, 1001, 0))
    assert len(run_out(batch)) == 2


def test_resuming_lets_those_in_who_came_meanwhile_after_the_step_under_way() -> None:
    batch = Batch(FIXED, kv_tokens=10_000, max_num_seqs=4)
    batch.add(Sequence(1, 10, 1000, 0))
    batch.advance(10_500)
    batch.pause("wait")
    batch.add(Sequence(2, 10, 5, 10_500))
    batch.resume()
    first = next(p for p in batch.advance(30_000) if p.seq_id == 2)
    assert first.at_us == 11_000 + 10_000


def test_milestones_are_first_tokens_and_ends_and_leave_nothing_uncounted() -> None:
    batch = Batch(FIXED, kv_tokens=1000, max_num_seqs=4)
    batch.add(Sequence(1, 10, 31, 0))
    batch.add(Sequence(2, 10, 6, 0))
    assert batch.milestones(15_000) == [Progress(1, 1, 10_000, first=True, finished=False)]
    # The second prompt takes the first one's next step along: 10 ms, then steps of 1 ms.
    assert batch.milestones(26_000) == [
        Progress(2, 1, 20_000, first=True, finished=False),
        Progress(2, 5, 25_000, first=False, finished=True),
    ]
    assert batch.kv_used == (10 + 1 + 1 + 6)
    assert batch.milestones(10**9) == [Progress(1, 30, 49_000, first=False, finished=True)]


requests = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 200), st.integers(0, 400_000)),
    min_size=1,
    max_size=25,
)


def play(day: list[tuple[int, int, int]], cadence_us: int, cancelled: set[int]) -> list[Progress]:
    """A day of arrivals; KV use is checked at every look."""
    batch, gained = Batch(TIMING, kv_tokens=600, max_num_seqs=4), []
    arrivals = sorted((at_us, i, p, o) for i, (p, o, at_us) in enumerate(day))
    now_us = 0
    while arrivals or batch.next_us() is not None:
        step_us = now_us + cadence_us
        if (next_us := batch.next_us()) is not None:
            step_us = min(step_us, next_us)
        now_us = min(step_us, arrivals[0][0]) if arrivals else step_us
        gained += batch.advance(now_us)
        while arrivals and arrivals[0][0] <= now_us:
            at_us, seq_id, prompt, output = arrivals.pop(0)
            batch.add(Sequence(seq_id, prompt, output, at_us, tuple(range(prompt // 16))))
            if seq_id in cancelled:
                batch.cancel(seq_id)
        assert 0 <= batch.kv_used <= batch.kv_tokens
        assert batch.running <= batch.max_num_seqs
    assert batch.kv_used == 0
    assert not batch.running
    assert not batch.waiting
    return gained


@settings(max_examples=60, deadline=None)
@given(day=requests, cadence_us=st.integers(5_000, 10**7), cancelled=st.sets(st.integers(0, 24)))
def test_every_request_gets_exactly_its_tokens(
    day: list[tuple[int, int, int]], cadence_us: int, cancelled: set[int]
) -> None:
    found = tokens_of(play(day, cadence_us, cancelled))
    wanted = {i: output for i, (_, output, _) in enumerate(day) if i not in cancelled}
    assert found == wanted


@settings(max_examples=40, deadline=None)
@given(day=requests, cadence_us=st.integers(5_000, 10**6))
def test_how_often_one_looks_changes_nothing(
    day: list[tuple[int, int, int]], cadence_us: int
) -> None:
    assert ends_of(play(day, cadence_us, set())) == ends_of(play(day, 10**12, set()))


@given(others=st.integers(0, 30), prompt=st.integers(1, 2000))
def test_more_load_is_never_faster(others: int, prompt: int) -> None:
    def end_us(n: int) -> int:
        batch = Batch(TIMING, kv_tokens=10**6, max_num_seqs=64)
        batch.add(Sequence(0, 100, 50, 0))
        for i in range(n):
            batch.add(Sequence(i + 1, prompt, 60, 0))
        return ends_of(run_out(batch))[0]

    assert end_us(others + 1) >= end_us(others)


@st.composite
def days(draw: st.DrawFn) -> list[Happening]:
    """Arrivals, some of which hang, and clients that leave, dense enough to meet."""
    day = []
    for seq_id in range(draw(st.integers(1, 14))):
        at_us = draw(st.integers(0, 500_000))
        prompt, output = draw(st.integers(1, 110)), draw(st.integers(1, 90))
        hang_after = draw(st.none() | st.none() | st.integers(1, 30))
        day.append(Happening(at_us, "add", seq_id, prompt, output, hang_after))
        if hang_after is not None or draw(st.integers(0, 3)) == 0:
            leaves_us = at_us + draw(st.integers(0, 1_000_000))
            day.append(Happening(leaves_us, "cancel", seq_id))
    return sorted(day, key=lambda happening: happening.at_us)


def happen(batch: Batch, event: Happening) -> None:
    if event.what == "cancel":
        batch.cancel(event.seq_id)
        return
    _, _, seq_id, prompt, output, hang_after = event
    batch.add(Sequence(seq_id, prompt, output, event.at_us, hang_after=hang_after))


shapes = st.tuples(st.sampled_from([120, 300, 10_000]), st.integers(1, 6), st.integers(8, 200))
timings = st.sampled_from([TIMING, FIXED])


@settings(max_examples=150, deadline=None)
@given(day=days(), shape=shapes, timing=timings, cadence_us=st.integers(1_000, 300_000))
def test_every_look_finds_what_one_step_after_the_other_gives(
    day: list[Happening], shape: tuple[int, int, int], timing: Timing, cadence_us: int
) -> None:
    truth, batch = Replica(timing, *shape), Batch(timing, *shape)
    truth.play(day)
    told: dict[int, int] = {}
    looks = {e.at_us for e in day} | set(range(0, truth.now_us + cadence_us, cadence_us))
    for now_us in sorted(looks):
        for progress in batch.advance(now_us):
            before = told.get(progress.seq_id, 0)
            told[progress.seq_id] = so_far = before + progress.tokens
            assert progress.at_us == truth.all[progress.seq_id].token_us[so_far - 1]
            assert progress.first == (before == 0)
            assert progress.finished == (so_far == truth.all[progress.seq_id].output)
        for seq_id in told.keys() | {e.seq_id for e in day if e.at_us < now_us}:
            times = truth.all[seq_id].token_us
            assert told.get(seq_id, 0) == sum(at_us <= now_us for at_us in times)
        for event in (e for e in day if e.at_us == now_us):
            happen(batch, event)
    assert batch.preemptions == truth.preemptions
    assert batch.kv_used == truth.kv


@settings(max_examples=150, deadline=None)
@given(day=days(), shape=shapes, timing=timings)
def test_milestones_are_those_of_one_step_after_the_other(
    day: list[Happening], shape: tuple[int, int, int], timing: Timing
) -> None:
    truth, batch = Replica(timing, *shape), Batch(timing, *shape)
    truth.play(day)
    found: list[Progress] = []
    for event in day:
        found += batch.milestones(event.at_us)
        happen(batch, event)
    while (next_us := batch.next_us()) is not None:
        found += batch.milestones(next_us)
    assert [p.at_us for p in found] == sorted(p.at_us for p in found)
    began = {p.seq_id: p.at_us for p in found if p.first}
    assert began == {r.seq_id: r.token_us[0] for r in truth.all.values() if r.token_us}
    assert ends_of(found) == {r.seq_id: r.token_us[-1] for r in truth.all.values() if r.ended}
    ended = {r.seq_id: r.output for r in truth.all.values() if r.ended}
    assert {i: n for i, n in tokens_of(found).items() if i in ended} == ended
    assert len(found) == len({(p.seq_id, p.first, p.finished) for p in found})
    assert batch.preemptions == truth.preemptions
