"""What goes wrong, as stories on real sockets: engines break, clients leave, we have bugs."""

import asyncio
import json
import socket
import struct

import pytest

from gateway import hot_protocol
from gateway.telemetry import OutcomeKind
from tests.builders import catalog, model
from tests.gateway.world import (
    DONE,
    ROLE,
    Engine,
    Reply,
    Running,
    Script,
    Seen,
    answer,
    ask,
    chat,
    event,
    external,
    gateway,
    post,
    until,
)

ONE_MODEL = catalog(model("small"))
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


def kept(body: object) -> bytes:
    """A request that leaves its connection open."""
    return post(body).replace(b"connection: close\r\n", b"")


async def silent(_: Seen, reply: Reply) -> None:
    await reply.head()
    await reply.chunk(event("one "))
    await asyncio.sleep(60)


# --- lanes


async def test_many_requests_that_break_together_are_one_failure_and_an_answer_ends_the_row() -> (
    None
):
    together = asyncio.Event()

    async def die(_: Seen, reply: Reply) -> None:
        await together.wait()
        reply.die()

    async with Engine(die) as engine, gateway(catalog(external("ext", engine.url))) as running:
        asked = [asyncio.create_task(ask(running, model="ext")) for _ in range(12)]
        await until(lambda: len(engine.seen) == 12)
        together.set()
        assert {r.status_code for r in await asyncio.gather(*asked)} == {503}
        (lane,) = running.gate.table.lanes("ext")
        assert lane.failures == 1
        await until(lambda: lane.ready(running.gate.now_us()))
        assert (await ask(running, model="ext")).status_code == 503
        assert lane.failures == 2, "in a row"
        await until(lambda: lane.ready(running.gate.now_us()))
        engine.script = answer
        assert (await ask(running, model="ext")).status_code == 200
        assert lane.failures == 0


HALF_HEAD = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-ty"
HALF_BODY = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"id":'


@pytest.mark.parametrize("said", [HALF_HEAD, HALF_BODY], ids=["in its head", "in its body"])
async def test_an_engine_that_dies_in_mid_answer_has_not_answered(said: bytes) -> None:
    async def die(_: Seen, reply: Reply) -> None:
        reply.writer.write(said)
        await reply.writer.drain()
        await asyncio.sleep(0.05)
        # With bytes of the request unread or SO_LINGER 0 a dying process resets its connections.
        sock = reply.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reply.die()

    async with Engine(die) as broken, Engine() as sound, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", broken)
        running.fleet.put("b", "small", sound)
        response = await ask(running)
        assert response.headers["x-warmtide-replica"] == "b"
        assert broken.seen
        assert response.json()["object"] == "chat.completion"


async def test_a_body_without_length_ends_with_its_connection() -> None:
    async def http_1_0(_: Seen, reply: Reply) -> None:
        reply.writer.write(HALF_BODY + b'"c"}')
        await reply.writer.drain()
        reply.writer.close()

    async with Engine(http_1_0) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        assert (await ask(running)).json() == {"id": "c"}


# --- our own bugs


async def test_a_bug_before_anybody_answers_is_a_500_in_openais_shape(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(ONE_MODEL) as running:
        monkeypatch.setattr(running.desk, "tenant_of", _bug)
        got = await running.raw(post(chat()))
        assert got.startswith(b"HTTP/1.1 500 ")
        error = json.loads(got.partition(b"\r\n\r\n")[2])["error"]
        assert (error["type"], error["code"]) == ("api_error", "internal_error")
        assert b"a bug of ours" not in got
        assert "a bug of ours" in caplog.text
        monkeypatch.undo()
        assert b"live" in await running.raw(LIVE.replace(b"host", b"connection: close\r\nhost"))


async def test_a_bug_while_a_request_is_sent_frees_its_slot_and_ends_its_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        monkeypatch.setattr(running.gate.pool, "send", _bug)
        assert await running.raw(post(chat()) + LIVE) == b""
        assert sum(running.gate.in_flight().values()) == 0
        assert not running.connections
        assert "a bug of ours" in caplog.text
        monkeypatch.undo()
        assert (await ask(running)).status_code == 200


def _bug(*_: object) -> None:
    raise AssertionError("a bug of ours")


# --- clients


async def test_a_client_that_leaves_behind_a_pipelined_request_frees_the_engine_at_once() -> None:
    async with Engine(silent) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(kept(chat(stream=True)) * 2)
        await reader.readuntil(b"one ")
        writer.close()
        await asyncio.wait_for(engine.seen[0].gone.wait(), 5)
        await until(lambda: sum(running.gate.in_flight().values()) == 0)
        assert len(engine.seen) == 1


async def test_a_full_pipeline_stops_reading_and_all_of_it_is_answered_in_order() -> None:
    go = asyncio.Event()

    async def when_told(seen: Seen, reply: Reply) -> None:
        await go.wait()
        await reply.json({"user": seen.json["user"]})

    many = 5 * hot_protocol.PIPELINE_MAX
    async with Engine(when_told) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        padding = "x" * 80_000  # so that one read brings no two of them
        for number in range(many):
            writer.write(kept(chat(user=str(number), pad=padding)))
        await until(lambda: engine.seen)
        (connection,) = running.connections
        await until(lambda: connection.pipelined >= hot_protocol.PIPELINE_MAX)
        await asyncio.sleep(0.1)
        assert connection.pipelined <= hot_protocol.PIPELINE_MAX + 1
        go.set()
        for number in range(many):
            await reader.readuntil(b'{"user": "%d"}' % number)
        writer.close()


async def test_more_pipelined_requests_than_anybody_sends_are_refused() -> None:
    async with Engine() as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        got = await running.raw(LIVE * (hot_protocol.PIPELINE_BURST_MAX + 2))
        assert got.count(b"200 OK") == hot_protocol.PIPELINE_BURST_MAX + 1, "those that came first"
        assert b"malformed_http" in got.rpartition(b"HTTP/1.1 400 ")[2], "then why it closes"


def flood(sent: list[int]) -> Script:
    piece = event("x" * 50_000)

    async def script(_: Seen, reply: Reply) -> None:
        await reply.head()
        for _i in range(600):
            await reply.chunk(piece)
            sent.append(len(piece))
        await reply.chunk(DONE)
        await reply.last()

    return script


async def slow_reader(running: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(post(chat(stream=True)))
    await reader.read(100)
    return reader, writer


IMPATIENT = catalog(model("small", deadline_us=10_000_000), time_scale=50)


async def test_silence_of_an_engine_whose_client_does_not_read_is_not_the_engines() -> None:
    sent: list[int] = []
    async with Engine(flood(sent)) as engine, gateway(IMPATIENT) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await slow_reader(running)
        began_us = running.gate.now_us()
        await until(lambda: running.gate.now_us() > began_us + 4 * 10_000_000)
        assert len(sent) < 600
        rest = await asyncio.wait_for(reader.read(), 20)
        assert b"[DONE]" in rest[-40:]
        writer.close()
        assert running.gate.telemetry.models["small"].outcomes == {OutcomeKind.ANSWERED: 1}


async def test_a_client_that_never_reads_is_taken_to_have_left() -> None:
    sent: list[int] = []
    async with Engine(flood(sent)) as engine, gateway(IMPATIENT) as running:
        running.fleet.put("a", "small", engine)
        _, writer = await slow_reader(running)
        await until(lambda: running.gate.telemetry.models)
        assert running.gate.telemetry.models["small"].outcomes == {OutcomeKind.CANCELLED: 1}
        assert sum(running.gate.in_flight().values()) == 0
        writer.transport.abort()


async def test_what_is_left_unread_of_one_answer_slows_the_next_ones_engine() -> None:
    sent: list[int] = []

    async def burst(_: Seen, reply: Reply) -> None:
        engine.script = flood(sent)
        await reply.head()
        pieces = [event("x" * 50_000)] * 200 + [DONE]
        reply.writer.write(b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (ROLE, *pieces)))
        await reply.last()

    async with Engine(burst) as engine, gateway(ONE_MODEL) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(kept(chat(stream=True)) * 2)
        await reader.read(100)
        before = -1
        while len(sent) != before:  # until nothing moves any more
            before = len(sent)
            await asyncio.sleep(0.3)
        assert len(sent) < 600
        writer.transport.abort()
