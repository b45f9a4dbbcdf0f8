"""The unmodified `openai` and `anthropic` packages on the further routes of a running gateway."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from tests.integration.running import (
    SAFETY_S,
    Gateway,
    catalog_text,
    digest,
    emulated,
    running,
    until,
)
from tests.integration.test_openai_client import MODELS, SMOLLM2, WEATHER

pytestmark = pytest.mark.integration

SCALE = 50.0
KEY = "wt-for-everything"
ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA: Any = WEATHER["function"]["parameters"]
FUNCTION: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
TOOL: Any = {"name": "get_weather", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    text = catalog_text(
        [*MODELS, emulated("fragile")], tenants=[{"id": "all", "keys": [digest(KEY)]}]
    )
    with running(tmp_path_factory.mktemp("dialects"), text, time_scale=SCALE) as up:
        yield up


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def claude(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as found:
        yield found


def post(gateway: Gateway, path: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{gateway.url}{path}",
        json=body,
        headers={"x-api-key": KEY},
        timeout=SAFETY_S,
        trust_env=False,
    )


def break_streams(gateway: Gateway, model_id: str) -> None:
    """From now on the model's engine stops in the middle of every answer."""
    node = gateway.state_dir / "nodes" / "n0"
    port = json.loads((node / "engine-host.ready.json").read_text())["port"]
    token = (gateway.state_dir / "agent.token").read_text()
    answer = httpx.post(
        f"http://127.0.0.1:{port}/host/faults",
        json={"model_id": model_id, "faults": {"half_stream_per_request": 1.0}},
        headers={"authorization": f"Bearer {token}"},
        timeout=SAFETY_S,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text


# --- OpenAI's Responses


def test_a_response_plain_and_streamed_says_the_same(client: OpenAI) -> None:
    asked: Any = {"model": "llama-8b", "input": "hello", "max_output_tokens": 40}
    whole = client.responses.create(**asked)
    assert whole.output_text.startswith("This is emulated text")
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    events = list(client.responses.create(stream=True, **asked))
    said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == whole.output_text
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].response.status == whole.status
    assert events[-1].response.usage == whole.usage


def test_a_response_calls_functions_and_takes_their_output(client: OpenAI) -> None:
    first = client.responses.create(
        model="llama-8b", input=ASK, tools=[FUNCTION], tool_choice="required"
    )
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "emulated"})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    turns: Any = [*ASK, call.model_dump(), output]
    second = client.responses.create(
        model="llama-8b",
        input=turns,
        tools=[FUNCTION],
        max_output_tokens=16,
    )
    assert second.output_text
    with client.responses.stream(
        model="llama-8b", input=ASK, tools=[FUNCTION], tool_choice="required"
    ) as stream:
        final = stream.get_final_response()
    assert final.output[0].type == "function_call"
    assert final.output[0].arguments == call.arguments


def test_what_a_response_cannot_be_is_told(client: OpenAI) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"input": "hi", "previous_response_id": "resp_1"}, "no answers are kept"),
        ({"input": "hi", "background": True}, "no answers are kept"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "web_search"),
        ({"input": []}, "input"),
        ({"input": "hi", "temperature": -1}, "temperature"),
        ({"input": "hi", "max_output_tokens": 10**6}, "context length"),
    ]
    for body, words in asked:
        with pytest.raises(openai.BadRequestError, match=words):
            client.responses.create(model="llama-8b", **body)
    with pytest.raises(openai.NotFoundError, match="did you mean llama-8b"):
        client.responses.create(model="lama-8b", input="hi")


# --- Anthropic's Messages


def test_a_message_plain_and_streamed_says_the_same(claude: Anthropic) -> None:
    asked: Any = {"model": "llama-8b", "messages": ASK, "max_tokens": 40, "system": "be brief"}
    whole = claude.messages.create(**asked)
    assert whole.content[0].text.startswith("This is emulated text")
    assert (whole.role, whole.model) == ("assistant", "llama-8b")
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
    del asked["max_tokens"]
    assert claude.messages.count_tokens(**asked).input_tokens == whole.usage.input_tokens


def test_a_message_calls_tools_and_takes_their_results(claude: Anthropic) -> None:
    asked: Any = {"model": "llama-8b", "max_tokens": 200, "tools": [TOOL]}
    first = claude.messages.create(messages=ASK, tool_choice={"type": "any"}, **asked)
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("get_weather", {"city": "emulated"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns: Any = [
        *ASK,
        {"role": "assistant", "content": [call.model_dump(exclude_none=True)]},
        {"role": "user", "content": [result]},
    ]
    second = claude.messages.create(messages=turns, **asked)
    assert second.content[0].type == "text"
    choice: Any = {"type": "tool", "name": "get_weather"}
    with claude.messages.stream(messages=ASK, tool_choice=choice, **asked) as stream:
        final = stream.get_final_message()
    assert final.content[0].type == "tool_use"
    assert final.content[0].input == {"city": "emulated"}


def test_anthropics_client_raises_the_error_that_belongs(
    gateway: Gateway, claude: Anthropic
) -> None:
    asked: Any = {"messages": ASK, "max_tokens": 9}
    with pytest.raises(anthropic.NotFoundError, match="did you mean llama-8b"):
        claude.messages.create(model="lama-8b", **asked)
    with pytest.raises(anthropic.BadRequestError, match="does not serve chat"):
        claude.messages.create(model="bge-m3", **asked)
    with pytest.raises(anthropic.BadRequestError, match="context length"):
        claude.messages.create(model="llama-8b", messages=ASK, max_tokens=20_000)
    image: Any = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x"}}
    with pytest.raises(anthropic.BadRequestError, match="'image' is not supported"):
        claude.messages.create(
            model="llama-8b", messages=[{"role": "user", "content": [image]}], max_tokens=9
        )
    with (
        Anthropic(base_url=gateway.url, api_key="wt-made-up", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError, match="not known"),
    ):
        stranger.messages.create(model="llama-8b", **asked)


def test_adapters_are_models_in_every_dialect(
    gateway: Gateway, client: OpenAI, claude: Anthropic
) -> None:
    name = "llama-8b-sql"
    assert client.responses.create(model=name, input="hi", max_output_tokens=16).model == name
    message = claude.messages.create(model=name, messages=ASK, max_tokens=16)
    assert message.model == name
    assert post(gateway, "/tokenize", model=name, prompt="hi").json()["count"] == 1


# --- tokens


def test_emulated_models_of_every_task_count_tokens(gateway: Gateway) -> None:
    for name in ("llama-8b", "gpt-4o-mini", "bge-m3"):
        answer = post(gateway, "/tokenize", model=name, prompt="a tide rises").json()
        assert answer["count"] == len(answer["tokens"]) == 3
        back = post(gateway, "/detokenize", model=name, tokens=answer["tokens"])
        assert back.json() == {"prompt": "a tide rises"}
    told = post(gateway, "/tokenize", prompt="no model is named")
    assert (told.status_code, told.json()["error"]["code"]) == (400, "invalid_request")


# --- what goes wrong, and what is counted


def test_a_stream_that_its_engine_cuts_is_an_error_to_both_clients(
    gateway: Gateway, client: OpenAI, claude: Anthropic
) -> None:
    assert post(gateway, "/tokenize", model="fragile", prompt="wake up").status_code == 200
    break_streams(gateway, "fragile")
    stream = client.responses.create(model="fragile", input="hi", stream=True)
    with pytest.raises(openai.APIError, match="engine"):
        list(stream)
    with (
        pytest.raises(anthropic.APIStatusError, match="engine"),
        claude.messages.stream(model="fragile", messages=ASK, max_tokens=99) as events,
    ):
        events.get_final_message()
    until(lambda: gateway.model("fragile")["outcomes"].get("cut") == 2, "both are counted, once")
    assert gateway.model("fragile")["offered"] == 3


def test_tokens_of_streams_are_counted_though_nobody_asked(
    gateway: Gateway, client: OpenAI
) -> None:
    def tokens() -> dict[str, int]:
        found: dict[str, int] = gateway.model("qwen-8b")["tokens"]
        return found

    before = tokens()
    chat = client.chat.completions.create(
        model="qwen-8b",
        messages=ASK,
        max_tokens=30,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    assert all(chunk.usage is None and chunk.choices for chunk in chat)
    plain = client.completions.create(
        model="qwen-8b", prompt="x", max_tokens=12, stream=True, extra_body={"ignore_eos": True}
    )
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    until(lambda: tokens()["output"] == before["output"] + 42, "both streams' tokens are counted")
    assert tokens()["prompt"] > before["prompt"]
    assert gateway.model("qwen-8b")["itl_ms"]["p50"] > 0


async def test_every_request_of_many_in_all_dialects_is_counted_once(gateway: Gateway) -> None:
    before = gateway.model("llama-8b")

    async def response(client: AsyncOpenAI, number: int) -> None:
        stream = await client.responses.create(
            model="llama-8b", input=f"question {number}", max_output_tokens=24, stream=True
        )
        assert [event.type async for event in stream][-1].startswith("response.")

    async def message(client: AsyncAnthropic, number: int) -> None:
        asked: Any = [{"role": "user", "content": f"question {number}"}]
        async with client.messages.stream(
            model="llama-8b", messages=asked, max_tokens=24
        ) as stream:
            assert await stream.get_final_text()

    async def leave(client: AsyncAnthropic) -> None:
        stream = await client.messages.create(
            model="llama-8b", messages=ASK, max_tokens=4000, stream=True
        )
        await anext(stream)
        await stream.close()

    async with (
        AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as ours,
        AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as theirs,
    ):
        asks = [response(ours, number) for number in range(10)]
        asks += [message(theirs, number) for number in range(10)]
        await asyncio.gather(*asks, leave(theirs))
    until(lambda: not gateway.model("llama-8b")["in_flight"], "all have ended")
    after = gateway.model("llama-8b")
    ended = {k: n - before["outcomes"].get(k, 0) for k, n in after["outcomes"].items()}
    assert sum(ended.values()) == 21
    assert ended["answered"] >= 20, "who left may have been answered before"


# --- the small real model, cold at first


def test_the_small_model_in_every_dialect(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first request is held while it loads."""
    with (
        running(tmp_path_factory.mktemp("small"), catalog_text([SMOLLM2])) as gateway,
        Anthropic(base_url=gateway.url, api_key="x", max_retries=0) as claude,
        OpenAI(base_url=gateway.base_url, api_key="x", max_retries=0) as client,
    ):
        with claude.messages.stream(model="smollm2", messages=ASK, max_tokens=8) as stream:
            assert stream.get_final_text()
        response = client.responses.create(model="smollm2", input=ASK, max_output_tokens=16)
        assert response.usage is not None
        answer = post(gateway, "/tokenize", model="smollm2", messages=ASK).json()
        assert answer["count"] == response.usage.input_tokens
        assert answer["max_model_len"] == 2048
        text = {"model": "smollm2", "prompt": "Tides rise."}
        tokens = post(gateway, "/tokenize", **text).json()["tokens"]
        back = post(gateway, "/detokenize", model="smollm2", tokens=tokens)
        assert back.json() == {"prompt": "Tides rise."}
        counted = claude.messages.count_tokens(model="smollm2", messages=ASK)
        assert counted.input_tokens == answer["count"]
