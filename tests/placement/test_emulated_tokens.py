"""Tokens of emulated engines: counted as usage counts them, and back to their text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engines.emulated_requests import Job, Limits, parse, text_tokens
from placement.engines.emulated_tokens import answer, ids_of, text_of

LIMITS = Limits(("m", "adapter"), 8192, 8)
chars = st.characters(min_codepoint=2, max_codepoint=0x1FFF, exclude_categories=["Cs"])


def ask(path: str, **body: Any) -> tuple[int, Any]:
    told = answer(path, json.dumps(body).encode(), LIMITS)
    return told.status, json.loads(told.body)


@given(st.text(alphabet=chars))
def test_a_text_comes_back_from_its_tokens(text: str) -> None:
    ids = ids_of(text)
    assert text_of(ids) == text
    assert len(ids) == text_tokens(text)
    assert all(0 <= token < 2**52 for token in ids), "every client's numbers can hold an id"


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_any_ids_have_some_text(ids: list[int]) -> None:
    status, told = ask("/detokenize", tokens=ids)
    assert status == 200
    assert isinstance(told["prompt"], str)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_chat_has_the_tokens_that_its_usage_tells(texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    job = parse("/v1/chat/completions", json.dumps({"messages": messages}).encode(), LIMITS)
    assert isinstance(job, Job)
    status, told = ask("/tokenize", model="m", messages=messages)
    assert (status, told["count"]) == (200, job.prompt_tokens)
    assert len(told["tokens"]) == told["count"]
    status, counted = ask("/v1/messages/count_tokens", model="m", messages=messages)
    assert (status, counted) == (200, {"input_tokens": job.prompt_tokens})


def test_the_answer_has_vllms_shape() -> None:
    status, told = ask("/tokenize", model="adapter", prompt="hello", return_token_strs=True)
    assert status == 200
    assert told == {
        "count": 2,
        "max_model_len": 8192,
        "tokens": ids_of("hello"),
        "token_strs": ["hell", "o"],
    }
    assert ask("/tokenize", prompt="")[1]["tokens"] == []
    assert ask("/tokenize", prompt="x")[1]["token_strs"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": 5}, 400),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404),
        ("/tokenize", {"messages": [{"content": "x"}]}, 400),
        ("/tokenize", {"messages": [], "continue_final_message": True}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/detokenize", {"tokens": "x"}, 400),
        ("/detokenize", {"tokens": [1], "model": "nobody"}, 404),
    ],
)
def test_a_bad_request_is_told_in_openais_shape(
    path: str, body: dict[str, Any], status: int
) -> None:
    found, told = ask(path, **body)
    assert found == status
    assert told["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": "x"}], "model": "nobody"}, 404, "not_found"),
    ],
)
def test_a_bad_count_is_told_in_anthropics_shape(
    body: dict[str, Any], status: int, kind: str
) -> None:
    found, told = ask("/v1/messages/count_tokens", **body)
    assert (found, told["type"]) == (status, "error")
    assert told["error"]["type"].startswith(kind)
