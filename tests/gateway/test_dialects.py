"""What the gateway reads and says in each dialect: heads, errors, the events of a stream."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseErrorEvent

from gateway.dialects import Dialect
from gateway.events import EVENT_BYTES_MAX
from gateway.messages_api import MESSAGES, read_message, read_token_count
from gateway.openai_api import BadBodyError, Head, Refusal, Usage
from gateway.responses_api import RESPONSES, read_response
from gateway.routes import ROUTES
from gateway.tokens_api import read_text, read_tokens
from tests.gateway.speakers import SPEAKERS, Speaker, cut, reads

ASK = [{"role": "user", "content": "hi"}]
ANTHROPIC_TYPES = {
    *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
    *("request_too_large", "rate_limit_error", "api_error", "overloaded_error", "timeout_error"),
}


@given(st.binary(max_size=200), st.sampled_from(sorted(ROUTES)))
def test_any_bytes_are_a_head_or_a_clear_complaint(body: bytes, path: bytes) -> None:
    try:
        head = ROUTES[path].read(body)
    except BadBodyError as error:
        assert str(error)
    else:
        assert head.model


@pytest.mark.parametrize(
    ("read", "fields", "complaint"),
    [
        (read_response, {}, "input"),
        (read_response, {"input": ""}, "input"),
        (read_response, {"input": []}, "input"),
        (read_response, {"input": ["hi"]}, "input"),
        (read_response, {"input": {"role": "user"}}, "input"),
        (read_response, {"input": "hi", "max_output_tokens": 0}, "max_output_tokens"),
        (read_response, {"input": "hi", "stream": "yes"}, "stream"),
        (read_message, {"messages": ASK}, "max_tokens"),
        (read_message, {"messages": ASK, "max_tokens": 0}, "max_tokens"),
        (read_message, {"messages": [], "max_tokens": 1}, "messages"),
        (read_message, {"messages": "hi", "max_tokens": 1}, "messages"),
        (read_token_count, {}, "messages"),
        (read_text, {}, "prompt"),
        (read_text, {"prompt": "a", "messages": ASK}, "either"),
        (read_text, {"prompt": ["a"]}, "prompt"),
        (read_tokens, {}, "tokens"),
        (read_tokens, {"tokens": "1"}, "tokens"),
        (read_tokens, {"tokens": ["a"]}, "tokens"),
        (read_tokens, {"tokens": [1, "a"]}, "tokens"),
        (read_tokens, {"tokens": [-1]}, "tokens"),
        (read_tokens, {"tokens": [[1]]}, "tokens"),
    ],
)
def test_a_body_that_is_no_request_of_its_route_is_told_so(
    read: Callable[[bytes], Head], fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadBodyError, match=complaint):
        read(json.dumps({"model": "m", **fields}).encode())
    with pytest.raises(BadBodyError, match="model"):
        read(b"{}")


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (read_response, {"input": "hi"}),
        (read_response, {"input": [{"role": "user", "content": "hi"}]}),
        (read_response, {"prompt": {"id": "pmpt_1"}}),
        (read_message, {"messages": ASK, "max_tokens": 1}),
        (read_token_count, {"messages": ASK}),
        (read_text, {"prompt": ""}),
        (read_text, {"messages": ASK}),
        (read_tokens, {"tokens": []}),
        (read_tokens, {"tokens": [1, 2]}),
    ],
)
def test_what_a_client_may_send_is_read(
    read: Callable[[bytes], Head], fields: dict[str, Any]
) -> None:
    head = read(json.dumps({"model": "m", **fields}).encode())
    assert (head.model, head.stream, head.needs_state) == ("m", False, "")


@pytest.mark.parametrize(
    "fields",
    [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"background": True}],
)
def test_what_needs_something_kept_is_seen(fields: dict[str, Any]) -> None:
    head = read_response(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert head.needs_state == next(iter(fields))


@pytest.mark.parametrize(
    ("read", "field"),
    [
        (read_response, '"input": "hi", "conversation": %s'),
        (read_response, '"input": "hi", "prompt": %s'),
        (read_response, '"input": [{}, %s]'),
        (read_tokens, '"tokens": [1, %s]'),
    ],
)
def test_a_field_of_a_million_parts_is_not_taken_apart(
    read: Callable[[bytes], Head], field: str
) -> None:
    body = b'{"model": "m", ' + (field % f"[{'[],' * 999_999}[]]").encode() + b"}"
    tracemalloc.start()
    try:
        read(body)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < len(body)


# --- errors


# The official package has no record for this type, though Anthropic's API has it.
TOO_LARGE = (Refusal.TOO_LARGE, Refusal.HEADERS_TOO_LARGE)


@pytest.mark.parametrize("why", [why for why in Refusal if why not in TOO_LARGE])
def test_every_refusal_has_an_error_in_anthropics_words(why: Refusal) -> None:
    told = ErrorResponse.model_validate_json(
        MESSAGES.error_body(why, "told", None, b"req-1"), strict=True
    )
    assert told.error.type in ANTHROPIC_TYPES
    assert (told.error.message, told.request_id) == ("told", "req-1")
    event = MESSAGES.error_event(why, "told", b"req-1").decode()
    assert event.startswith("event: error\ndata: {")
    assert event.endswith("}\n\n")
    told = ErrorResponse.model_validate_json(event.split("data: ")[1], strict=True)
    assert told.error.message == "told"


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        (Refusal.BAD_REQUEST, "invalid_request_error"),
        (Refusal.NO_KEY, "authentication_error"),
        (Refusal.FORBIDDEN, "permission_error"),
        (Refusal.NO_MODEL, "not_found_error"),
        (Refusal.TOO_LARGE, "request_too_large"),
        (Refusal.TENANT_LIMIT, "rate_limit_error"),
        (Refusal.LOADING, "overloaded_error"),
        (Refusal.ENGINE_FAILED, "api_error"),
        (Refusal.DEADLINE, "timeout_error"),
    ],
)
def test_the_types_are_those_that_anthropics_clients_tell_apart(why: Refusal, kind: str) -> None:
    assert json.loads(MESSAGES.error_body(why, "told"))["error"]["type"] == kind


def test_an_error_of_a_response_is_an_event_of_it_and_what_makes_the_client_raise() -> None:
    told = RESPONSES.error_event(Refusal.DEADLINE, "late", sequence=7).decode()
    event = ResponseErrorEvent.model_validate_json(told.split("data: ")[1], strict=True)
    assert (event.type, event.code, event.message) == ("error", "deadline_exceeded", "late")
    assert event.sequence_number == 7
    assert json.loads(told.split("data: ")[1])["error"]["type"] == "timeout_error"


# --- streams


@given(st.sampled_from(SPEAKERS), st.sampled_from([b"\n\n", b"\r\n\r\n"]), reads)
def test_however_a_stream_is_cut_its_dialect_tells_the_same(
    speaker: Speaker, gap: bytes, shares: list[float]
) -> None:
    stream = b"".join(speaker.engine_events()).replace(b"\n\n", gap)
    relay = ROUTES[speaker.path.encode()].dialect.events(keep_usage=False)
    out, at = b"", 0
    first_text = stream.index(b"one ")
    for read in cut(stream, shares):
        assert not relay.first_us or at > first_text
        at += len(read)
        out += relay.feed(read, now_us=at)
        if relay.done:
            assert at >= len(stream.rstrip()), "not before its last event was whole"
    assert out == stream
    assert relay.first_us > first_text
    assert relay.done
    assert not relay.error
    assert relay.usage() == Usage(3, 2)


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_stream_is_whole_with_its_last_event_and_not_before(speaker: Speaker) -> None:
    dialect = ROUTES[speaker.path.encode()].dialect
    stream = b"".join(speaker.engine_events())
    last = len(speaker.engine_events()[-1])
    relay = dialect.events(keep_usage=True)
    for at in range(len(stream) - 2):
        assert not relay.done
        relay.feed(stream[at : at + 1], 1)
    for left, whole in ((last, False), (3, False), (2, True), (1, True), (0, True)):
        relay = dialect.events(keep_usage=False)
        relay.feed(stream[: len(stream) - left], 1)
        assert relay.done is whole, f"without its last {left} bytes"
        assert not whole or relay.usage() == Usage(3, 2)


SCHEMA = {"type": "object", "properties": {"error": {"type": "error"}, "usage": {"type": "string"}}}


def test_words_that_a_client_chose_are_no_errors_and_no_usage() -> None:
    """A response repeats the client's tools and metadata, whatever their names."""
    tool = {"type": "function", "name": "error", "parameters": SCHEMA}
    echoed = {"tools": [tool], "metadata": {"error": "x", "type": "error"}, "output": []}
    created = {"type": "response.created", "response": {"error": None, **echoed}}
    usage = {"input_tokens": 5, "output_tokens": 6}
    done = {"type": "response.completed", "response": {"error": None, "usage": usage, **echoed}}
    for line in ("event: {}\ndata: {}\n\n", "data: {1}\n\n"):
        relay = RESPONSES.events(keep_usage=False)
        for event in (created, done):
            relay.feed(line.format(event["type"], json.dumps(event)).encode(), 1)
        assert not relay.error
        assert relay.done
        assert relay.usage() == Usage(5, 6)
    assert RESPONSES.usage_in(json.dumps(done["response"]).encode()) == Usage(5, 6)


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (b"/v1/responses", 'event: response.failed\ndata: {"type":"response.failed"}'),
        (b"/v1/responses", 'event: error\ndata: {"type":"error","message":"x"}'),
        (b"/v1/responses", 'data: {"type":"error","message":"x"}'),
        (b"/v1/responses", 'data: {"error":{"message":"x"}}'),
        (b"/v1/messages", 'event: error\ndata: {"type":"error","error":{"message":"x"}}'),
        (b"/v1/messages", 'data: {"type":"error","error":{"message":"x"}}'),
        (b"/v1/chat/completions", 'data: {"error":{"message":"x"}}'),
    ],
)
def test_an_error_that_an_engine_tells_in_its_stream_is_seen(path: bytes, event: str) -> None:
    relay = ROUTES[path].dialect.events(keep_usage=False)
    relay.feed(f"{event}\n\n".encode(), 1)
    assert relay.error


def test_what_was_cached_was_prompt_too() -> None:
    relay = MESSAGES.events(keep_usage=False)
    start = {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 300}
    events = [
        {"type": "message_start", "message": {"usage": {**start, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}},
    ]
    for told in events:
        relay.feed(f"data: {json.dumps(told)}\n\n".encode(), 1)
    assert relay.usage() == Usage(321, 9)


@pytest.mark.parametrize("dialect", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("count", ["-1", "1000000000000000", "9" * 5000, '"many"', "null", "1.5"])
def test_a_count_beyond_all_measure_is_not_taken(dialect: Dialect, count: str) -> None:
    text = f'{{"usage":{{"input_tokens":1,"output_tokens":{count}}}}}'
    found = dialect.usage_in(text.encode())
    assert found is None or found.completion_tokens == 0


@pytest.mark.parametrize(
    ("delta", "counts"), [("", False), ("a", True), ({"type": "text_delta", "text": ""}, False)]
)
def test_only_a_delta_that_says_something_is_the_first_token(delta: object, counts: bool) -> None:
    for path, kind in (
        (b"/v1/responses", "response.function_call_arguments.delta"),
        (b"/v1/messages", "content_block_delta"),
    ):
        relay = ROUTES[path].dialect.events(keep_usage=False)
        relay.feed(f"event: {kind}\ndata: {json.dumps({'delta': delta})}\n\n".encode(), 1)
        assert bool(relay.first_us) is counts


def test_a_response_may_repeat_more_than_a_chunk_ever_holds() -> None:
    half = b"data: " + b"x" * (EVENT_BYTES_MAX + 1)
    for path, fits in ((b"/v1/responses", True), (b"/v1/messages", False)):
        relay = ROUTES[path].dialect.events(keep_usage=False)
        relay.feed(half, 1)
        assert relay.oversize is not fits
