"""Reading one answer: what is a token, what is not, and how each ending is judged."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtests.answers import Answer, Ending, Outcome, Reading
from tests.loadtests.fake_openai import DONE, ERROR, delta, event, usage


def read(*parts: bytes, status: int = 200, ending: Ending = Ending.COMPLETE) -> Answer:
    """Parts arrive 1000 us apart, the first 1000 us after sending."""
    reading = Reading()
    reading.sent_us = 1_000_000
    reading.status = status
    for number, part in enumerate(parts, start=1):
        reading.on_body(part, 1_000_000 + 1000 * number)
    return reading.answer(ending, late_us=0)


def test_the_first_token_is_the_first_delta_that_is_not_empty() -> None:
    answer = read(
        b": warmtide keep-alive\n\n",
        delta(role="assistant", content=""),
        delta(content="Hi"),
        delta(content="!"),
        delta(),
        usage(2),
        DONE,
    )
    assert answer.outcome is Outcome.ANSWERED
    assert answer.ttft_us == 3000
    assert answer.itl_us == 1000.0
    assert answer.tokens == 2


def test_tool_calls_and_completion_texts_are_tokens_too() -> None:
    assert read(delta(tool_calls=[{"index": 0}]), DONE).ttft_us == 1000
    assert read(event(choices=[{"index": 0, "text": "x"}]), DONE).ttft_us == 1000
    assert read(event(choices=[{"index": 0, "text": ""}]), DONE).ttft_us is None


def test_several_tokens_in_a_chunk_count_by_usage() -> None:
    answer = read(delta(content="a b"), delta(content="c d e"), usage(5), DONE)
    assert answer.itl_us == 1000 / 4
    assert answer.tokens == 5


def test_a_single_token_has_no_gap() -> None:
    assert read(delta(content="a"), usage(1), DONE).itl_us is None


def test_the_comment_tells_the_rung_after_heartbeats() -> None:
    answer = read(b": warmtide replica=r1 rung=parked held-ms=1234\n\n", delta(content="a"), DONE)
    assert (answer.rung, answer.held_ms) == ("parked", 1234.0)


def test_a_refusal_keeps_its_code() -> None:
    body = b'{"error": {"message": "m", "type": "t", "code": "queue_full"}}'
    assert read(body, status=503) == Answer(outcome=Outcome.REFUSED, code="503 queue_full")
    assert read(b"<html>", status=502).code == "502"
    assert read(b"", status=429, ending=Ending.BROKEN).outcome is Outcome.REFUSED


def test_an_error_after_the_engine_spoke_cuts_and_before_it_refuses() -> None:
    cut = read(delta(role="assistant", content=""), ERROR, DONE)
    assert (cut.outcome, cut.code) == (Outcome.CUT, "200 engine_broke")
    assert read(b": warmtide\n\n", ERROR, DONE).outcome is Outcome.REFUSED


def test_endings_are_judged_by_what_was_seen() -> None:
    begun = delta(content="a")
    assert read(begun, ending=Ending.BROKEN).outcome is Outcome.CUT
    assert read(begun).outcome is Outcome.CUT  # whole on the wire, but never said it was done
    assert read(begun, ending=Ending.TIMED_OUT).outcome is Outcome.CUT
    assert read(begun, ending=Ending.LEFT).outcome is Outcome.CANCELLED
    assert read(status=0, ending=Ending.BROKEN).outcome is Outcome.LOST
    assert read(status=0, ending=Ending.TIMED_OUT).outcome is Outcome.LOST
    assert read(status=200, ending=Ending.TIMED_OUT).outcome is Outcome.LOST
    heartbeat = b": keep-alive model is getting ready\n\n"
    assert read(heartbeat, ending=Ending.BROKEN).outcome is Outcome.LOST
    assert read(heartbeat, ending=Ending.LEFT).outcome is Outcome.CANCELLED
    assert read(begun, DONE, ending=Ending.BROKEN).outcome is Outcome.ANSWERED


def test_nonsense_in_the_stream_cuts_it() -> None:
    assert read(delta(content="a"), b"data: {nope\n\n", DONE).outcome is Outcome.CUT
    assert read(delta(content="a"), b"x" * (2 << 20)).code == "200 endless_event"


WHOLE = delta(role="assistant", content="") + delta(content="a") + delta(content="b") + usage(2)


@given(st.lists(st.integers(0, len(WHOLE + DONE)), max_size=8), st.booleans())
def test_where_the_bytes_are_split_does_not_matter(cuts: list[int], windows: bool) -> None:
    whole = (WHOLE + DONE).replace(b"\n", b"\r\n") if windows else WHOLE + DONE
    edges = [0, *sorted(cuts), len(whole)]
    parts = [whole[a:b] for a, b in pairwise(edges)]
    answer = read(*parts)
    assert (answer.outcome, answer.tokens) == (Outcome.ANSWERED, 2)


@given(st.lists(st.binary(max_size=80), max_size=5), st.integers(100, 599), st.sampled_from(Ending))
def test_any_bytes_end_in_one_outcome(parts: list[bytes], status: int, ending: Ending) -> None:
    assert read(*parts, status=status, ending=ending).outcome in set(Outcome)
    assert read(*(b"data: " + part + b"\n" for part in parts), ending=ending).late_us == 0
