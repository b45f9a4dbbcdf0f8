"""Every route as a story on real sockets: the official clients over engines steered by hand."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.telemetry import OutcomeKind
from placement.catalog import Adapter, Catalog, EngineKind, Task, Tenant
from placement.snapshot import Rung
from tests.builders import catalog, model
from tests.gateway.speakers import (
    ASK,
    CHAT,
    MESSAGES,
    RESPONSES,
    SAID,
    SPEAKERS,
    Speaker,
    anthropic_of,
    openai_of,
)
from tests.gateway.test_tenants import GUARDED, KEY
from tests.gateway.world import (
    DONE,
    Engine,
    Reply,
    Running,
    Seen,
    ask,
    event,
    external,
    gateway,
    until,
)

ONE_MODEL = catalog(model("small"))
each = pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.path)


async def post(running: Running, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        return await client.post(path, json=body, headers=sent)


def outcomes(running: Running, model_id: str = "small") -> dict[str, int]:
    return {str(k): n for k, n in running.gate.telemetry.models[model_id].outcomes.items()}


# --- answers


@each
async def test_the_official_client_reads_a_stream_and_its_tokens_are_counted(
    speaker: Speaker,
) -> None:
    async with Engine(speaker.answer) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        assert await speaker.stream_text(running.url, "none") == SAID
        await until(lambda: outcomes(running) == {"answered": 1})
        told = running.gate.telemetry.models["small"]
        assert (told.prompt_tokens.total, told.output_tokens.total) == (3, 2)
        assert sum(told.ttft.counts) == 1
        assert engine.seen[0].path == speaker.path


@each
async def test_an_answer_that_is_not_streamed_goes_through_byte_by_byte(speaker: Speaker) -> None:
    async with Engine(speaker.answer) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        response = await post(running, speaker.path, speaker.body)
        assert response.json() == speaker.whole()
        assert json.loads(engine.seen[0].body) == speaker.body
        told = running.gate.telemetry.models["small"]
        assert (told.prompt_tokens.total, told.output_tokens.total) == (3, 1)


@each
async def test_a_held_stream_hears_heartbeats_that_no_client_minds(speaker: Speaker) -> None:
    scaled = catalog(model("small"), time_scale=50)
    async with Engine(speaker.answer) as engine, gateway(scaled) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        asked = asyncio.create_task(speaker.stream_text(running.url, "none"))
        await until(lambda: running.gate.admission.held("small") == 1)
        heard_us = running.gate.now_us() + 7_000_000
        await until(lambda: running.gate.now_us() > heard_us)
        running.fleet.put("r1", "small", engine)
        assert await asked == SAID
        await until(lambda: outcomes(running) == {"answered": 1})
        told = running.gate.telemetry.models["small"]
        assert min(told.ttft.latest) >= 7_000_000, "heartbeats are no first token"


@each
async def test_a_held_stream_whose_deadline_passes_ends_with_its_dialects_error(
    speaker: Speaker,
) -> None:
    scaled = catalog(model("small", deadline_us=30_000_000), time_scale=50)
    async with Engine(speaker.answer) as engine, gateway(scaled) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        response = await post(running, speaker.path, speaker.body | {"stream": True})
        assert response.text.startswith(": keep-alive")
        assert speaker.failure_in(response.text)["code"] == "deadline_exceeded"
        assert outcomes(running) == {"refused": 1}


async def test_anthropics_client_comes_back_when_it_was_told_to() -> None:
    """It waits less than a climb takes: 503 with Retry-After, then the model serves."""
    async with Engine(MESSAGES.answer) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine, rung=Rung.PARKED)
        async with anthropic_of(running.url, retries=2) as client:
            message = client.messages.create(
                model="small",
                messages=ASK,
                max_tokens=9,
                extra_headers={"x-request-timeout-ms": "1000"},
            )
            asked = asyncio.create_task(message)
            await until(lambda: running.gate.telemetry.models)
            running.fleet.put("a", "small", engine)
            assert (await asked).role == "assistant"
        told = running.gate.telemetry.models["small"]
        assert outcomes(running) == {"refused": 1, "answered": 1}
        assert told.refused == {"model_loading": 1}
        assert told.offered == 1, "a retry is no demand of its own"


# --- engines that break


def cut_after(speaker: Speaker, events: int, then: bytes = b"", *, die: bool = True) -> Any:
    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        for piece in speaker.engine_events()[:events]:
            await reply.chunk(piece)
        if then:
            await reply.chunk(then)
        if die:
            reply.die()
        else:
            await reply.last()

    return script


@each
@pytest.mark.parametrize("half", [b"", b'event: x\ndata: {"type":"response.output_te'])
@pytest.mark.parametrize("die", [True, False])
async def test_a_stream_that_ends_too_early_ends_with_an_error_event(
    speaker: Speaker, half: bytes, die: bool
) -> None:
    async with (
        Engine(cut_after(speaker, 2, half, die=die)) as engine,
        gateway(ONE_MODEL) as running,
    ):
        running.fleet.put("a", "small", engine)
        response = await post(running, speaker.path, speaker.body | {"stream": True})
        error = speaker.failure_in(response.text)
        assert error["code"] == "engine_failed"
        assert "output_te" not in response.text, "no half event came out"
        assert outcomes(running) == {"cut": 1}
        numbers = [
            json.loads(line[6:])["sequence_number"]
            for line in response.text.splitlines()
            if line.startswith("data: ") and speaker is RESPONSES
        ]
        assert numbers == sorted(set(numbers)), "the error is an event after those before it"


@each
async def test_an_error_that_the_engine_tells_itself_is_a_cut(speaker: Speaker) -> None:
    told = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'
    async with (
        Engine(cut_after(speaker, 2, told + DONE, die=False)) as engine,
        gateway(ONE_MODEL) as running,
    ):
        running.fleet.put("a", "small", engine)
        response = await post(running, speaker.path, speaker.body | {"stream": True})
        assert '"message":"x"' in response.text
        assert outcomes(running) == {"cut": 1}


async def test_the_official_clients_raise_what_the_gateway_tells_in_a_stream() -> None:
    async with (
        Engine(cut_after(RESPONSES, 3)) as engine,
        Engine(cut_after(MESSAGES, 3)) as other,
        gateway(catalog(model("small"), model("other"))) as running,
    ):
        running.fleet.put("a", "small", engine)
        running.fleet.put("b", "other", other)
        async with openai_of(running.url) as client:
            stream = await client.responses.create(model="small", input="hi", stream=True)
            with pytest.raises(openai.APIError, match="the engine broke off"):
                [told async for told in stream]
        async with anthropic_of(running.url) as theirs:
            with pytest.raises(anthropic.APIStatusError, match="the engine broke off"):
                async with theirs.messages.stream(
                    model="other", messages=ASK, max_tokens=9
                ) as events:
                    await events.get_final_text()


@each
async def test_a_client_that_leaves_in_mid_stream_is_one_cancellation(speaker: Speaker) -> None:
    async def slow(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"".join(speaker.engine_events()[:3]))
        await asyncio.sleep(60)

    async with Engine(slow) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        body = speaker.body | {"stream": True}
        async with (
            httpx.AsyncClient(base_url=running.url) as client,
            client.stream("POST", speaker.path, json=body) as response,
        ):
            await anext(response.aiter_bytes())
        await asyncio.wait_for(engine.seen[0].gone.wait(), 5)
        await until(lambda: outcomes(running) == {"cancelled": 1})


# --- usage of streams


async def test_a_managed_engine_is_asked_for_usage_and_the_client_sees_none_of_it() -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        response = await ask(running, stream=True)
        assert engine.seen[0].json["stream_options"] == {"include_usage": True}
        assert "usage" not in response.text
        assert response.text.endswith("data: [DONE]\n\n")
        response = await ask(running, stream=True, stream_options={"include_usage": True})
        assert '"usage"' in response.text
        told = running.gate.telemetry.models["small"]
        assert (told.prompt_tokens.total, told.output_tokens.total) == (6, 4)
        await ask(running)
        assert "stream_options" not in engine.seen[2].json


async def test_what_others_run_is_asked_what_the_client_asked() -> None:
    async with Engine() as engine, gateway(catalog(external("mine", engine.url))) as running:
        response = await ask(running, model="mine", stream=True)
        assert "stream_options" not in engine.seen[0].json
        assert '"usage"' in response.text, "an event that came unasked is not ours to keep"


async def test_a_second_attempt_asks_the_same_as_the_first() -> None:
    async def die(_: Seen, reply: Reply) -> None:
        reply.die()

    async with Engine(die) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        asked = asyncio.create_task(ask(running, stream=True))
        await until(lambda: engine.seen)
        engine.script = CHAT.answer
        assert (await asked).status_code == 200
        assert engine.seen[0].body == engine.seen[-1].body


# --- keys and headers


@pytest.mark.parametrize("path", [CHAT.path, RESPONSES.path, MESSAGES.path, "/v1/models"])
async def test_either_header_carries_a_key_and_neither_is_passed_on(path: str) -> None:
    bodies = {speaker.path: speaker.body for speaker in SPEAKERS}
    async with Engine(MESSAGES.answer) as engine, gateway(GUARDED) as running:
        running.fleet.put("a", "small", engine)
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            for headers, status in (
                ({"authorization": f"Bearer {KEY}"}, 200),
                ({"x-api-key": KEY}, 200),
                ({"x-api-key": "wt-wrong"}, 401),
                ({"x-api-key": KEY, "authorization": "Bearer wt-wrong"}, 401),
                ({}, 401),
            ):
                method = "POST" if path in bodies else "GET"
                response = await client.request(
                    method, path, json=bodies.get(path), headers=headers
                )
                assert response.status_code == status, headers
        for seen in engine.seen:
            assert not {"authorization", "x-api-key"} & set(seen.headers)


async def test_anthropics_clients_come_in_with_their_key_and_read_their_errors() -> None:
    async with Engine(MESSAGES.answer) as engine, gateway(GUARDED) as running:
        running.fleet.put("a", "small", engine)
        assert await MESSAGES.stream_text(running.url, KEY) == SAID
        asked: list[tuple[type[anthropic.APIStatusError], str, str]] = [
            (anthropic.AuthenticationError, "wt-wrong", "small"),
            (anthropic.PermissionDeniedError, KEY, "secret"),
            (anthropic.NotFoundError, KEY, "smal"),
        ]
        for error, key, name in asked:
            async with anthropic_of(running.url, key) as client:
                with pytest.raises(error) as caught:
                    await client.messages.create(model=name, messages=ASK, max_tokens=9)
            body = caught.value.body
            assert isinstance(body, dict)
            assert body["request_id"] == caught.value.response.headers["x-request-id"]


async def test_anthropics_headers_reach_the_engines_of_their_routes_alone() -> None:
    headers = {"anthropic_version": "2023-06-01", "anthropic_beta": "a,b"}
    async with Engine(MESSAGES.answer) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        await post(running, MESSAGES.path, MESSAGES.body, **headers)
        await post(running, CHAT.path, CHAT.body, **headers)
        with_them, without = (seen.headers for seen in engine.seen)
        assert with_them["anthropic-version"] == "2023-06-01"
        assert with_them["anthropic-beta"] == "a,b"
        assert "anthropic-version" not in without


async def test_a_request_too_large_is_told_in_the_dialect_of_its_path() -> None:
    async with gateway(ONE_MODEL) as running:
        head = "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n"
        raw = await running.raw(head.format("/v1/messages?beta=true").encode())
        assert json.loads(raw.split(b"\r\n\r\n")[1])["error"]["type"] == "request_too_large"
        raw = await running.raw(head.format("/v1/responses").encode())
        assert json.loads(raw.split(b"\r\n\r\n")[1])["error"]["code"] == "request_too_large"


# --- what is not served


BARE: list[Callable[[str], bytes]] = [
    lambda _: b'HTTP/1.1 404 X\r\ncontent-length: 22\r\n\r\n{"detail":"Not Found"}',
    lambda _: b"HTTP/1.1 405 X\r\ncontent-length: 0\r\n\r\n",
    lambda _: b"HTTP/1.1 501 X\r\ncontent-length: 0\r\n\r\n",
]
EXTRA = (
    (RESPONSES.path, RESPONSES.body),
    (MESSAGES.path, MESSAGES.body),
    ("/v1/messages/count_tokens", {"messages": ASK}),
    ("/tokenize", {"prompt": "hi"}),
    ("/detokenize", {"tokens": [1]}),
)


@pytest.mark.parametrize("bare", BARE)
@pytest.mark.parametrize(("path", "body"), EXTRA)
async def test_a_server_that_lacks_a_route_is_a_501_that_names_who_has_it(
    path: str, body: dict[str, Any], bare: Callable[[str], bytes]
) -> None:
    async def lacking(_: Seen, reply: Reply) -> None:
        reply.writer.write(bare(""))

    async with Engine(lacking) as engine:
        whole = catalog(external("mine", engine.url), model("small", aliases=("tiny",)))
        async with gateway(whole) as running:
            response = await post(running, path, body | {"model": "mine"})
            assert response.status_code == 501
            assert response.headers["x-should-retry"] == "false"
            error = response.json()["error"]
            assert error["code"] == "unsupported_route"
            assert f"{path} is served by: small, tiny" in error["message"]
            assert running.gate.telemetry.models["mine"].refused["unsupported_route"] == 1
            assert len(engine.seen) == 1


async def test_a_404_about_the_model_and_one_of_a_usual_route_stay_the_servers_own() -> None:
    async def unknown(_: Seen, reply: Reply) -> None:
        await reply.json({"error": {"message": "model `mine` not found"}}, 404)

    async def lacking(_: Seen, reply: Reply) -> None:
        await reply.json({"detail": "Not Found"}, 404)

    async with Engine(unknown) as engine, gateway(catalog(external("mine", engine.url))) as running:
        response = await post(running, MESSAGES.path, MESSAGES.body | {"model": "mine"})
        assert (response.status_code, response.json()["error"]["message"]) == (
            404,
            "model `mine` not found",
        )
        engine.script = lacking
        response = await post(running, CHAT.path, CHAT.body | {"model": "mine"})
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


async def test_without_anybody_who_serves_a_route_that_is_said() -> None:
    async def lacking(_: Seen, reply: Reply) -> None:
        await reply.json({}, 404)

    async with Engine(lacking) as engine, gateway(catalog(external("mine", engine.url))) as running:
        response = await post(running, "/tokenize", {"model": "mine", "prompt": "a"})
        assert "no model of this catalog is known to" in response.json()["error"]["message"]


async def test_an_engine_kind_that_does_not_serve_a_route_is_not_woken_for_it() -> None:
    cpu = model("cpu", engine=EngineKind.LLAMACPP, tasks=(Task.CHAT, Task.EMBEDDINGS))
    embedder = model("bge", tasks=(Task.EMBEDDINGS,))
    async with gateway(catalog(cpu, embedder)) as running:
        response = await post(running, "/v1/embeddings", {"model": "cpu", "input": "a"})
        assert response.status_code == 501
        assert "/v1/embeddings is served by: bge" in response.json()["error"]["message"]
        response = await post(running, MESSAGES.path, MESSAGES.body | {"model": "bge"})
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert not running.fleet.actions
        assert outcomes(running, "cpu") == outcomes(running, "bge") == {"refused": 1}


async def test_nothing_is_stored_and_whoever_counts_on_it_is_told() -> None:
    async with Engine(RESPONSES.answer) as engine:
        whole = catalog(model("small"), external("mine", engine.url))
        async with gateway(whole) as running, openai_of(running.url) as client:
            asks: list[Callable[[], Any]] = [
                lambda: client.responses.retrieve("resp_1"),
                lambda: client.responses.cancel("resp_1"),
                lambda: client.responses.delete("resp_1"),
                lambda: client.responses.input_items.list("resp_1"),
            ]
            for one in asks:
                with pytest.raises(openai.InternalServerError, match="stored") as caught:
                    await one()
                assert caught.value.status_code == 501
                assert caught.value.response.headers["x-should-retry"] == "false"
            with pytest.raises(openai.BadRequestError, match="whole conversation") as refused:
                await client.responses.create(
                    model="small", input="hi", previous_response_id="resp_1"
                )
            assert refused.value.param == "previous_response_id"
            assert not running.fleet.actions, "no model is woken for it"
            await client.responses.create(model="mine", input="hi", previous_response_id="resp_1")
            assert engine.seen[0].json["previous_response_id"] == "resp_1"


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/tokenize", "/v1/responsesx"])
async def test_an_unknown_path_is_a_404_with_the_list(path: str) -> None:
    async with gateway(ONE_MODEL) as running:
        response = await post(running, path, {"model": "small"})
        assert response.status_code == 404
        message = response.json()["error"]["message"]
        assert all(known in message for known in ("/v1/responses", "/v1/messages", "/tokenize"))


async def test_a_route_of_inference_takes_posts() -> None:
    async with gateway(ONE_MODEL) as running, httpx.AsyncClient(base_url=running.url) as client:
        for path in (RESPONSES.path, MESSAGES.path, "/tokenize"):
            response = await client.get(path)
            assert response.status_code == 405
            assert path in response.json()["error"]["message"]


# --- names


NAMED: Catalog = catalog(
    model("small", aliases=("gpt-4o-mini",), adapters=(Adapter(id="small-sql", source="x"),))
)


@pytest.mark.parametrize(("path", "body"), [(CHAT.path, CHAT.body), *EXTRA])
async def test_aliases_and_adapters_are_models_on_every_route(
    path: str, body: dict[str, Any]
) -> None:
    async def echo(seen: Seen, reply: Reply) -> None:
        await reply.json({"asked": seen.json})

    async with Engine(echo) as engine, gateway(NAMED) as running:
        running.fleet.put("a", "small", engine)
        for name, engines in (("gpt-4o-mini", "small"), ("small-sql", "small-sql")):
            response = await post(running, path, body | {"model": name})
            assert response.json()["asked"] == body | {"model": engines}


@pytest.mark.parametrize(("path", "body"), EXTRA)
async def test_adapters_of_a_server_that_others_run_keep_their_names(
    path: str, body: dict[str, Any]
) -> None:
    async def echo(seen: Seen, reply: Reply) -> None:
        await reply.json({"asked": seen.json})

    async with Engine(echo) as engine:
        adapter = Adapter(id="mine-sql", source="")
        theirs = external("mine", engine.url, adapters=(adapter,), upstream_model="org/base")
        async with gateway(catalog(theirs)) as running:
            for name, engines in (("mine", "org/base"), ("mine-sql", "mine-sql")):
                response = await post(running, path, body | {"model": name})
                assert response.json()["asked"]["model"] == engines


async def test_a_tenant_is_told_only_of_models_that_it_may_use() -> None:
    async def lacking(_: Seen, reply: Reply) -> None:
        await reply.json({}, 404)

    async with Engine(lacking) as engine:
        blue = Tenant(id="blue", key_sha256=GUARDED.tenants[0].key_sha256, models=("mine", "small"))
        whole = catalog(
            external("mine", engine.url), model("small"), model("secret"), tenants=(blue,)
        )
        async with gateway(whole) as running:
            body = {"model": "mine", "prompt": "a"}
            response = await post(running, "/tokenize", body, authorization=f"Bearer {KEY}")
            assert response.json()["error"]["message"].count("small") == 1
            assert "secret" not in response.text


async def test_text_in_any_dialect_may_speak_of_errors() -> None:
    said = event('data: {"type":"error","error":{"x":1}} event: error')
    for speaker in SPEAKERS[1:]:
        assert speaker.translate is not None
        translation = speaker.translate(json.dumps(speaker.body | {"stream": True}).encode())
        stream = b"".join(map(translation.events, (said, DONE)))

        async def script(_: Seen, reply: Reply, stream: bytes = stream) -> None:
            await reply.head()
            await reply.chunk(stream)
            await reply.last()

        async with Engine(script) as engine, gateway(ONE_MODEL) as running:
            running.fleet.put("a", "small", engine)
            response = await post(running, speaker.path, speaker.body | {"stream": True})
            assert response.content == stream
            assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.ANSWERED] == 1
