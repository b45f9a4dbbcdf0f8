"""Engines that break HTTP: what one of them sends never reaches another client, or passes for an
answer."""

import asyncio
import json

import pytest

from gateway.telemetry import OutcomeKind
from tests.builders import catalog, model
from tests.gateway.world import (
    DONE,
    WHOLE,
    Engine,
    Reply,
    Script,
    Seen,
    answer,
    ask,
    event,
    external,
    gateway,
)

ONE_MODEL = catalog(model("small"))
BODY = json.dumps(WHOLE).encode()
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
GOOD = OK + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


def says(*pieces: bytes, then_close: bool = False, pause_s: float = 0.0) -> Script:
    async def script(_: Seen, reply: Reply) -> None:
        for piece in pieces:
            reply.writer.write(piece)
            await reply.writer.drain()
            await asyncio.sleep(pause_s)
        if then_close:
            reply.writer.close()

    return script


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\na: b\r\n\r\n"]
)
@pytest.mark.parametrize("pause_s", [0.0, 0.05])
async def test_an_interim_response_is_no_answer_and_nobody_gets_anothers(
    interim: bytes, pause_s: float
) -> None:
    async with (
        Engine(says(interim, GOOD, pause_s=pause_s)) as engine,
        gateway(ONE_MODEL) as running,
    ):
        running.fleet.put("a", "small", engine)
        for number in range(3):
            response = await ask(running, user=str(number))
            assert response.status_code == 200
            assert response.json() == WHOLE
        assert [seen.json["user"] for seen in engine.seen] == ["0", "1", "2"]


SECRET = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nSECRET"


@pytest.mark.parametrize(
    "surplus", [SECRET, SECRET[:25], b"\x00garbage", b"\r\n\r\nHTTP/1.1 500 X\r\n"]
)
async def test_bytes_behind_an_answer_belong_to_nobody(surplus: bytes) -> None:
    async with Engine(says(GOOD + surplus)) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        first = await ask(running)
        assert first.json() == WHOLE
        engine.script = answer
        second = await ask(running)
        assert second.status_code == 200
        assert second.json() == WHOLE


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",),
        (b"HTTP/1.1 500 X\r\na: b\r\n",),
        (OK + b"content-length: 500\r\n\r\n" + BODY[:40],),
        (b"not HTTP at all\r\n\r\n",),
        (b"HTTP/1.1 204 No Content\r\n\r\n",),
        (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",),
        (b"HTTP/1.1 000 X\r\ncontent-length: 0\r\n\r\n",),
        (b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",),
        (OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00",),
    ],
)
async def test_what_is_no_answer_is_an_engines_failure(pieces: tuple[bytes, ...]) -> None:
    async with Engine(says(*pieces, then_close=True)) as engine:
        whole = catalog(external("mine", engine.url))
        async with gateway(whole) as running:
            response = await ask(running, model="mine")
            assert response.status_code in (502, 503)
            assert response.json()["error"]["code"] in ("engine_failed", "no_capacity")
            assert running.gate.telemetry.models["mine"].outcomes[OutcomeKind.ANSWERED] == 0
            assert sum(running.gate.in_flight().values()) == 0


async def test_endless_headers_are_cut_off() -> None:
    async def endless(_: Seen, reply: Reply) -> None:
        reply.writer.write(OK)
        while True:
            reply.writer.write(b"x-filler: " + b"y" * 1000 + b"\r\n")
            await reply.writer.drain()

    async with Engine(endless) as engine, gateway(catalog(external("mine", engine.url))) as running:
        response = await ask(running, model="mine")
        assert response.status_code in (502, 503)


async def test_an_error_too_large_to_keep_is_told_in_short() -> None:
    huge = b"HTTP/1.1 500 X\r\ncontent-length: 12000000\r\n\r\n" + b"z" * 12_000_000
    async with Engine(says(huge)) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        response = await ask(running)
        assert response.status_code == 500
        assert "over 8388608 bytes" in response.json()["error"]["message"]


ERRORS = [
    b'data: {"error":{"message":"x"}}\n\n',
    b'data:{"error" : {"message":"x"}}\n\n',
    b'data: {"object":"error","error":"x"}\n\n',
]


@pytest.mark.parametrize("told", ERRORS)
async def test_a_stream_that_tells_of_an_error_was_cut_however_it_spells_it(told: bytes) -> None:
    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(event("one") + told + DONE)
        await reply.last()

    async with Engine(script) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        assert (await ask(running, stream=True)).status_code == 200
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.CUT] == 1


async def test_text_that_speaks_of_errors_is_an_answer() -> None:
    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        no_error = b'data: {"error":null,"choices":[{"delta":{"content":"\\"error\\": no"}}]}\n\n'
        await reply.chunk(no_error + DONE)
        await reply.last()

    async with Engine(script) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        assert (await ask(running, stream=True)).status_code == 200
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.ANSWERED] == 1


async def test_logprobs_of_the_token_error_are_no_error() -> None:
    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        logprobs = b'{"tokens":["error"],"top_logprobs":[{"error":-0.1,"warning":-2.5}]}'
        await reply.chunk(b'data: {"choices":[{"text":"error","logprobs":%b}]}\n\n' % logprobs)
        await reply.chunk(DONE)
        await reply.last()

    async with Engine(script) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        assert (await ask(running, stream=True)).status_code == 200
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.ANSWERED] == 1


UNFINISHED = [
    event("say [DONE] when you are done"),
    event("data: [DONE]"),
    event("one") + b'data: {"choices":[{"delta":{"content":"[DONE]',
]


@pytest.mark.parametrize("said", UNFINISHED)
async def test_a_text_that_speaks_of_the_end_is_not_the_end(said: bytes) -> None:
    """An engine that dies after such a text has not finished it."""

    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(said)
        await reply.last()

    async with Engine(script) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        response = await ask(running, stream=True)
        *_, last, nothing = response.text.split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"
        assert nothing == ""
        assert running.gate.telemetry.models["small"].outcomes[OutcomeKind.CUT] == 1


async def test_one_oversize_event_costs_its_own_client_and_no_other() -> None:
    async def script(seen: Seen, reply: Reply) -> None:
        if seen.json.get("user") != "bad":
            await answer(seen, reply)
            return
        await reply.head()
        await reply.chunk(b"data: " + b"x" * 2_000_000)
        await asyncio.sleep(60)

    async with Engine(script) as engine, gateway(catalog(external("mine", engine.url))) as running:
        for _ in range(3):
            response = await ask(running, model="mine", stream=True, user="bad")
            assert response.status_code == 502
            assert (await ask(running, model="mine")).status_code == 200


async def test_a_token_count_beyond_all_measure_is_not_counted() -> None:
    absurd = BODY.replace(b'"prompt_tokens": 3', b'"prompt_tokens": ' + b"9" * 5000)
    assert absurd != BODY
    whole = OK + b"content-length: %d\r\n\r\n" % len(absurd) + absurd
    async with Engine(says(whole)) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        for _ in range(2):
            assert (await ask(running)).status_code == 200
        assert sum(running.gate.in_flight().values()) == 0
        assert running.gate.telemetry.models["small"].prompt_tokens.total < 10**18
