"""Bodies and events, read without being changed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import OPENAI
from gateway.events import EventRelay
from gateway.openai_api import (
    BadBodyError,
    Refusal,
    has_text,
    parse_head,
    replace_model,
    unknown_model,
    usage_in,
)
from placement.catalog import Task

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=6))
def test_only_the_model_changes_when_a_body_is_sent_on_under_another_name(
    fields: dict[str, object],
) -> None:
    body = json.dumps({**fields, "model": "a"}).encode()
    assert json.loads(replace_model(body, "org/b")) == {**fields, "model": "org/b"}


@given(st.binary(max_size=200), st.sampled_from(list(Task)))
def test_any_bytes_are_a_head_or_a_clear_complaint(body: bytes, task: Task) -> None:
    try:
        head = parse_head(task, body)
    except BadBodyError as error:
        assert str(error)
    else:
        assert head.model


@pytest.mark.parametrize(
    ("task", "field", "given_", "good"),
    [
        (Task.COMPLETIONS, "prompt", "hi", True),
        (Task.COMPLETIONS, "prompt", [1, 2], True),
        (Task.COMPLETIONS, "prompt", [[1], [2]], True),
        (Task.COMPLETIONS, "prompt", "", False),
        (Task.COMPLETIONS, "prompt", [1, "a"], False),
        (Task.COMPLETIONS, "prompt", None, False),
        (Task.EMBEDDINGS, "input", ["a", "b"], True),
        (Task.EMBEDDINGS, "input", {}, False),
        (Task.EMBEDDINGS, "input", [[]], False),
    ],
)
def test_prompts_and_inputs_come_in_four_shapes(
    task: Task, field: str, given_: object, good: bool
) -> None:
    body = json.dumps({"model": "m", field: given_}).encode()
    if good:
        assert parse_head(task, body).model == "m"
    else:
        with pytest.raises(BadBodyError, match=field):
            parse_head(task, body)


def test_an_unknown_name_is_answered_with_the_closest_ones() -> None:
    assert "did you mean qwen3-8b" in unknown_model("qwen-8b", ["qwen3-8b", "llama"])
    assert "GET /v1/models" in unknown_model("zzz", ["qwen3-8b"])
    assert len(unknown_model("x" * 10_000, ["a"])) < 300


@pytest.mark.parametrize(
    ("choice", "counts"),
    [
        ({"delta": {"role": "assistant", "content": ""}}, False),
        ({"delta": {}}, False),
        ({"delta": {"content": "a"}}, True),
        ({"delta": {"reasoning_content": "hm"}}, True),
        ({"delta": {"tool_calls": [{"index": 0}]}}, True),
        ({"text": "a"}, True),
        ({"text": ""}, False),
    ],
)
def test_only_a_non_empty_delta_ends_the_wait_for_the_first_token(
    choice: dict[str, object], counts: bool
) -> None:
    assert has_text(f"data: {json.dumps({'choices': [choice]})}".encode()) is counts


@pytest.mark.parametrize("line", [b": keep-alive", b"data: [DONE]", b"data: {broken", b"event: x"])
def test_comments_ends_and_noise_are_no_first_token(line: bytes) -> None:
    assert not has_text(line)


def events(*texts: str) -> list[bytes]:
    return [
        b"data: " + json.dumps({"choices": [{"delta": {"content": t}}]}).encode() + b"\n\n"
        for t in texts
    ]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
def test_however_a_stream_is_cut_into_reads_whole_events_come_out_unchanged(
    texts: list[str], data: st.DataObject
) -> None:
    stream = b"".join([*events(*texts), b"data: [DONE]\n\n"])
    relay, out, at = EventRelay(), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        piece = relay.feed(stream[at : at + step], now_us=at + 1)
        assert piece == b"" or piece.endswith(b"\n\n"), "an error event may always follow"
        out += piece
        at += step
    assert out == stream
    assert relay.done
    assert bool(relay.first_us) == any(texts)


def test_usage_is_taken_from_the_last_events_and_never_made_up() -> None:
    tail = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n'
    found = usage_in(events("a")[0] + tail + b"data: [DONE]\n\n")
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens) == (7, 9)
    assert usage_in(b"".join(events("a", "b"))) is None
    assert usage_in(b'data: {"usage":null}\n\n') is None


def test_an_error_event_has_openais_shape() -> None:
    error = json.loads(OPENAI.error_event(Refusal.DEADLINE, "late").removeprefix(b"data: "))[
        "error"
    ]
    assert (error["type"], error["code"]) == ("timeout_error", "deadline_exceeded")
