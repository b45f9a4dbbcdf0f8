"""Responses and Messages on engines that know chat: what is asked of them, how it is told back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from placement.engines.dialects.chat import Translation
from placement.engines.dialects.messages import MessagesTranslation, count_chat
from placement.engines.dialects.reading import UnfitError
from placement.engines.dialects.responses import ResponsesTranslation

RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
ASK = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def responses(**fields: Any) -> Translation:
    return ResponsesTranslation(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def messages(**fields: Any) -> Translation:
    usual = {"model": "m", "messages": ASK, "max_tokens": 9}
    return MessagesTranslation(json.dumps(usual | fields).encode())


def asked(translation: Translation) -> Any:
    return json.loads(translation.body())


# --- requests


def test_a_response_is_asked_for_as_a_chat() -> None:
    body = asked(
        responses(
            instructions="be brief",
            input=[
                {"role": "developer", "content": "now"},
                {"role": "user", "content": [{"type": "input_text", "text": "a"}] * 2},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {
                    "type": "function_call_output",
                    "call_id": "c2",
                    "output": [{"type": "input_text", "text": "2"}],
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "b", "annotations": []}],
                },
            ],
            tools=[{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
            tool_choice={"type": "function", "name": "f"},
            text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            max_output_tokens=5,
            temperature=0.5,
            stream=True,
            store=True,
            metadata={"a": "b"},
            reasoning={"effort": "low"},
        )
    )
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for i, name in ((1, "f"), (2, "g"))
    ]
    function = {"name": "f", "description": "", "parameters": SCHEMA}
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": "now"},
            {"role": "user", "content": "a\na"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "assistant", "content": "b"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "max_tokens": 5,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_message_is_asked_for_as_a_chat() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    body = asked(
        messages(
            system=[{"type": "text", "text": "be brief", **cached}],
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "a", **cached}] * 2},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "text", "text": "b"},
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "x"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "and?"},
                        {"type": "tool_result", "tool_use_id": "t1", "content": "1"},
                        {
                            "type": "tool_result",
                            "tool_use_id": "t2",
                            "content": [{"type": "text", "text": "2"}],
                            "is_error": True,
                        },
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]},
            ],
            tools=[{"name": "f", "input_schema": {"properties": {}}, **cached}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            top_k=3,
            thinking={"type": "disabled"},
            metadata={"user_id": "u"},
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )
    )
    function = {"name": "f", "arguments": '{"city":"x"}'}
    schema = {"type": "object", "properties": {}}
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\na"},
            {
                "role": "assistant",
                "content": "b",
                "tool_calls": [{"id": "t1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "1"},
            {"role": "tool", "tool_call_id": "t2", "content": "2"},
            {"role": "user", "content": "and?"},
            {"role": "tool", "tool_call_id": "t3", "content": ""},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "", "parameters": schema},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": SCHEMA},
        },
        "max_tokens": 9,
        "stop": ["END"],
        "top_k": 3,
    }
    counted = {"model": "m", "messages": ASK, "system": "s"}
    assert count_chat(json.dumps(counted).encode())["messages"] == [
        {"role": "system", "content": "s"},
        *ASK,
    ]


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://x"}}


@pytest.mark.parametrize(
    ("make", "fields", "param"),
    [
        (responses, {"previous_response_id": "resp_1"}, "previous_response_id"),
        (responses, {"conversation": "c"}, "conversation"),
        (responses, {"background": True}, "background"),
        (responses, {"max_tool_calls": 3}, "max_tool_calls"),
        (responses, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (responses, {"tool_choice": {"type": "web_search"}}, "tool_choice"),
        (responses, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        (responses, {"input": [{"role": "critic", "content": "x"}]}, "input[0]"),
        (
            responses,
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        (responses, {"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        (responses, {"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        (responses, {"max_output_tokens": "5"}, "max_output_tokens"),
        (messages, {"mcp_servers": []}, "mcp_servers"),
        (messages, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        (messages, {"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
        (messages, {"tool_choice": {"type": "tool"}}, "tool_choice"),
        (messages, {"messages": [{"role": "critic", "content": "x"}]}, "messages[0].role"),
        (
            messages,
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0].type",
        ),
        (messages, {"output_config": {"budget": 1}}, "output_config.budget"),
        (messages, {"max_tokens": None}, "max_tokens"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_by_its_name(
    make: Callable[..., Translation], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UnfitError) as caught:
        make(**fields)
    assert param in (caught.value.param or "")
    assert param.split(".")[0] in caught.value.message


@given(st.binary(max_size=100) | st.just(b"[" * 5000))
def test_bytes_that_are_no_body_are_told_so(body: bytes) -> None:
    for kind in (ResponsesTranslation, MessagesTranslation):
        with pytest.raises(UnfitError) as caught:
            kind(body)
        assert caught.value.message


# --- answers

words = st.text(min_size=1, max_size=6)
parts = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.lists(words, min_size=1, max_size=3)),
        st.tuples(st.just("reasoning"), st.lists(words, min_size=1, max_size=3)),
        st.tuples(st.just("call"), st.just(['{"city"', ':"x"}'])),
    ),
    max_size=4,
)
finishes = st.sampled_from(["stop", "length", "tool_calls", "abort"])


def deltas(said: list[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    """A chat's deltas, as engines send them: a call's first piece has its id and name."""
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    calls = 0
    for kind, pieces in said:
        if kind == "call":
            head = {"index": calls, "id": f"call_{calls}", "type": "function"}
            head |= {"function": {"name": "f", "arguments": ""}}
            rest = [{"index": calls, "function": {"arguments": piece}} for piece in pieces]
            found += [{"tool_calls": [call]} for call in (head, *rest)]
            calls += 1
        else:
            key = "content" if kind == "text" else "reasoning_content"
            found += [{key: piece} for piece in pieces]
    return found


def stream(said: list[tuple[str, list[str]]], finish: str) -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    chunks: list[dict[str, Any]] = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas(said)
    ]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    chunks.append(head | {"choices": [], "usage": usage})
    return [b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks] + [b"data: [DONE]\n\n"]


def told_by(translation: Translation, chunks: list[bytes], at_once: int) -> bytes:
    """What comes of a stream whose engine writes so many chunks at once."""
    pieces = [b"".join(chunks[i : i + at_once]) for i in range(0, len(chunks), at_once)]
    return b"".join(map(translation.events, pieces))


def expected(said: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    """Neighbours of one kind are one item; every call is its own."""
    found: list[tuple[str, str]] = []
    for kind, pieces in said:
        if found and kind != "call" and found[-1][0] == kind:
            found[-1] = kind, found[-1][1] + "".join(pieces)
        else:
            found.append((kind, "".join(pieces)))
    return found


def events_of(told: bytes) -> list[dict[str, Any]]:
    """Events whose line `event:` says what their type says."""
    found = []
    for event in told.decode().split("\n\n"):
        if event:
            name, data = event.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


@given(parts, finishes, st.integers(1, 5))
def test_a_response_is_told_in_events_that_the_official_package_knows(
    said: list[tuple[str, list[str]]], finish: str, at_once: int
) -> None:
    translation = responses(stream=True)
    told = told_by(translation, stream(said, finish), at_once)
    events = [RESPONSE_EVENT.validate_python(event) for event in events_of(told)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type == f"response.{last.response.status}"
    assert last.response.status == (
        "completed" if finish in ("stop", "tool_calls") else "incomplete"
    )
    assert last.response.usage.input_tokens == 3
    assert last.response.usage.total_tokens == 7
    items = last.response.output
    assert [_item(item) for item in items] == expected(said)
    grown: dict[int, str] = {}
    for event in events:
        if event.type.endswith(".delta"):
            grown[event.output_index] = grown.get(event.output_index, "") + event.delta
        elif event.type == "response.output_item.done":
            assert event.item == items[event.output_index]
    assert [grown[i] for i in range(len(items))] == [text for _, text in expected(said)]


def _item(item: Any) -> tuple[str, str]:
    if item.type == "function_call":
        assert (item.name, item.call_id[:5]) == ("f", "call_")
        return "call", item.arguments
    kind = "reasoning" if item.type == "reasoning" else "text"
    return kind, item.content[0].text


@given(parts, finishes, st.integers(1, 5))
def test_a_message_is_told_in_events_that_the_official_package_knows(
    said: list[tuple[str, list[str]]], finish: str, at_once: int
) -> None:
    translation = messages(stream=True)
    told = told_by(translation, stream(said, finish), at_once)
    events = [MESSAGE_EVENT.validate_python(event) for event in events_of(told)]
    assert events[0].type == "message_start"
    assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"]
    usage = events[-2].usage
    assert (usage.input_tokens, usage.output_tokens) == (3, 4)
    starts = [event for event in events if event.type == "content_block_start"]
    stops = [event.index for event in events if event.type == "content_block_stop"]
    assert [event.index for event in starts] == stops == list(range(len(starts)))
    kinds = {"text": "text", "thinking": "reasoning", "tool_use": "call"}
    grown = [""] * len(starts)
    for event in events:
        if event.type == "content_block_delta":
            grown[event.index] += next(v for k, v in event.delta if k != "type")
    found = [(kinds[s.content_block.type], text) for s, text in zip(starts, grown, strict=True)]
    assert found == (expected(said) or [("text", "")])


@pytest.mark.parametrize(
    ("finish", "stop", "said", "reason"),
    [
        ("stop", None, "text", "end_turn"),
        ("length", None, "text", "max_tokens"),
        ("tool_calls", None, "call", "tool_use"),
        ("stop", None, "call", "tool_use"),
        ("stop", "END", "text", "stop_sequence"),
        ("stop", 128001, "text", "end_turn"),
        ("abort", None, "text", None),
    ],
)
def test_why_a_message_stopped(finish: str, stop: Any, said: str, reason: str | None) -> None:
    told: dict[str, Any] = {"role": "assistant", "content": "x"}
    if said == "call":
        function = {"name": "f", "arguments": '{"city":"x"}'}
        told = {"content": None, "tool_calls": [{"id": "c", "function": function}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"index": 0, "message": told, "finish_reason": finish, "stop_reason": stop}
    answer = {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": usage}
    message = Message.model_validate(messages().whole(answer))
    assert message.stop_reason == reason
    assert message.stop_sequence == ("END" if stop == "END" else None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 4)
    (block,) = message.content
    assert block.type == ("tool_use" if said == "call" else "text")
    assert block.type != "tool_use" or block.input == {"city": "x"}


def test_a_whole_response_is_one_that_the_official_package_knows() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    told = {"content": "x", "reasoning_content": "hm", "tool_calls": [call]}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"message": told, "finish_reason": "tool_calls"}
    answer = {"id": "chatcmpl-1", "created": 5, "model": "m", "choices": [choice], "usage": usage}
    tool = {"type": "function", "name": "f", "parameters": SCHEMA}
    asks = responses(tools=[tool], instructions="be", metadata={"a": "b"}, max_output_tokens=9)
    found = Response.model_validate(asks.whole(answer))
    assert found.status == "completed"
    assert [item.type for item in found.output] == ["reasoning", "message", "function_call"]
    assert found.output_text == "x"
    assert (found.instructions, found.metadata, found.max_output_tokens) == ("be", {"a": "b"}, 9)
    assert found.model_dump()["store"] is False
    assert found.tools[0].type == "function"


def test_a_call_that_was_cut_short_has_no_arguments_that_could_be_used() -> None:
    function = {"name": "f", "arguments": '{"city":"x'}
    told = {"content": None, "tool_calls": [{"id": "c", "function": function}]}
    answer = {"choices": [{"message": told, "finish_reason": "length"}]}
    message = messages().whole(answer)
    assert message["content"][0]["input"] == {}
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(("make", "last"), [(responses, "response.failed"), (messages, "error")])
def test_an_error_in_mid_stream_is_the_last_event(
    make: Callable[..., Translation], last: str
) -> None:
    translation = make(stream=True)
    error = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    chunks = [stream([("text", ["a"])], "stop")[1], error, b"data: [DONE]\n\n"]
    events = events_of(b"".join(map(translation.events, chunks)))
    assert events[-1]["type"] == last
    assert "out of memory" in json.dumps(events[-1])
    assert len([event for event in events if event["type"] == last]) == 1
