"""Usage that only the gateway asked for: the engine gets one question more, the client nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import EventRelay
from gateway.openai_api import Usage, parse_head, usage_in
from gateway.usage import ask_for_usage
from placement.catalog import Task
from tests.gateway.speakers import cut, reads
from tests.gateway.test_openai_api import json_values

ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
blanks = st.text(alphabet=" \t\r\n", max_size=3)
options = st.dictionaries(
    st.sampled_from(["include_usage", "continuous_usage_stats", "x"]),
    st.sampled_from([True, False, None]),
)


def asked(body: bytes) -> bytes | None:
    return ask_for_usage(body, parse_head(Task.CHAT, body).stream_options)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), blanks, blanks, st.booleans())
def test_a_body_that_says_nothing_of_usage_says_that_more_and_nothing_else(
    fields: dict[str, Any], before: str, after: str, ascii_only: bool
) -> None:
    fields = {k: v for k, v in fields.items() if k not in ("stream_options", "max_tokens")} | ASK
    text = json.dumps(fields, ensure_ascii=ascii_only, indent=len(before) or None)
    body = f"{before}{text}{after}".encode("utf-8", "replace")
    fuller = asked(body)
    assert fuller is not None
    expected = json.loads(body) | {"stream_options": {"include_usage": True}}
    assert json.loads(fuller) == expected
    assert fuller.startswith(body.rstrip()[:-1]), "no byte of the client's is touched"


@given(options, st.sampled_from(["stream_options", "stream\\u005foptions"]))
def test_options_of_the_clients_own_stay_and_one_who_asked_is_left_alone(
    given_: dict[str, bool | None], key: str
) -> None:
    text = json.dumps(ASK)[:-1] + f', "{key}": {json.dumps(given_)}}}'
    fuller = asked(text.encode())
    if given_.get("include_usage"):
        assert fuller is None
    else:
        assert fuller is not None
        expected = {**ASK, "stream_options": {**given_, "include_usage": True}}
        assert json.loads(fuller) == expected


@pytest.mark.parametrize("nonsense", ['"yes"', "[]", "1", '{"include_usage": "yes"}'])
def test_what_no_engine_would_take_is_the_engines_to_refuse(nonsense: str) -> None:
    assert asked((json.dumps(ASK)[:-1] + f', "stream_options": {nonsense}}}').encode()) is None


def test_of_a_field_given_twice_the_last_counts_as_for_the_engine() -> None:
    first = '"stream_options": {"include_usage": true}, "stream_options": null'
    fuller = asked((json.dumps(ASK)[:-1] + f", {first}}}").encode())
    assert fuller is not None
    assert fuller.count(b"stream_options") == 1
    assert json.loads(fuller)["stream_options"] == {"include_usage": True}


def test_a_token_called_usage_does_not_hide_the_usage() -> None:
    """vLLM puts `prompt_logprobs` behind the usage, with the prompt's tokens as they read."""
    told = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    logprobs = [None, {"12": {"logprob": -1.0, "rank": 1, "decoded_token": "usage"}}]
    answer = json.dumps({"choices": [], **told, "prompt_logprobs": logprobs}).encode()
    assert usage_in(answer) == Usage(3, 2)


# --- the answer

GAPS = ["\n\n", "\r\n\r\n"]
texts = st.text(max_size=12) | st.sampled_from(
    ['"usage": {} "choices": []', "data: [DONE]", "\n\n"]
)


def chunk(text: str, usage: object = None, **more: object) -> str:
    told: dict[str, object] = {"choices": [{"delta": {"content": text}}], **more}
    if usage is not None:
        told["usage"] = usage
    return f"data: {json.dumps(told)}"


def usage_event(blank: str) -> str:
    counts = '"usage":{"prompt_tokens":7,"completion_tokens":9}'
    return f'data: {{"id":"c","choices":{blank}[{blank}],{blank}{counts}}}'


@given(
    st.lists(st.tuples(texts, st.sampled_from([None, {"prompt_tokens": 7}, {}])), max_size=5),
    st.sampled_from(["", " "]),
    st.sampled_from(GAPS),
    st.booleans(),
    reads,
)
def test_however_a_stream_is_cut_the_client_gets_all_of_it_but_the_event_of_usage(
    said: list[tuple[str, object]], blank: str, gap: str, keep: bool, shares: list[float]
) -> None:
    """Usage beside choices, in every chunk or the last, is the client's: nothing of it is lost."""
    events = [chunk(text, usage) for text, usage in said]
    events += ['data: {"choices":[],"prompt_filter_results":[]}', ": a comment"]
    events += [chunk("", usage={"prompt_tokens": 7}, id="last")]
    theirs = "".join(event + gap for event in events)
    stream = f"{theirs}{usage_event(blank)}{gap}data: [DONE]{gap}".encode()
    relay = EventRelay(keep_usage=keep)
    out = b"".join(relay.feed(read, now_us=1) for read in cut(stream, shares))
    assert out == (f"{theirs}data: [DONE]{gap}".encode() if keep else stream)
    assert relay.usage() == Usage(7, 9)
    assert relay.done


def test_an_event_of_usage_whose_last_blank_line_was_left_out_is_kept_too() -> None:
    relay = EventRelay(keep_usage=True)
    assert (
        relay.feed(f"{chunk('a')}\n\n{usage_event('')}".encode(), 1) == f"{chunk('a')}\n\n".encode()
    )
    assert relay.rest() == b""
    assert relay.usage() == Usage(7, 9)
