"""Clients that mean harm, on real sockets: each is bounded, and the next one is served."""

import asyncio
import json
import re
import socket

import httpx
import pytest

from gateway import hot_protocol
from gateway.checks import UnfitError, check_fit
from gateway.openai_api import CHECKED_BYTES_MAX, MESSAGES_MAX, BadBodyError, parse_head
from placement.catalog import Task
from tests.builders import catalog, model
from tests.gateway.world import Engine, Running, chat, external, gateway, post, until

CATALOG = catalog(model("small"), model("org/name"))
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


def chunks(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)


ENDLESS = {
    "header name": HEAD,
    "header value": HEAD + b"x: ",
    "URL": b"GET /",
    "trailer": CHUNKED + b"\r\n2\r\n{}\r\n0\r\nx: ",
    "chunk extension": CHUNKED + b"\r\n2;x=",
    "blank lines": b"",
}


@pytest.mark.parametrize("name", sorted(ENDLESS))
async def test_what_never_ends_is_refused_before_it_is_gathered(name: str) -> None:
    filler = b"\r\n" * 4096 if name == "blank lines" else b"a" * 8192
    async with gateway(CATALOG) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(ENDLESS[name])
        sent = 0
        reading = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        while not reading.done() and sent < 4 * hot_protocol.FRAMING_BYTES_MAX:
            writer.write(filler)
            sent += len(filler)
            await asyncio.wait({reading}, timeout=0.02)
        assert b"HTTP/1.1 431 " in await asyncio.wait_for(reading, 5)
        assert sent <= hot_protocol.FRAMING_BYTES_MAX + 3 * len(filler)
        writer.transport.abort()
        await asyncio.sleep(0.01)


async def test_a_body_in_tiny_chunks_arrives_whole() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        body = json.dumps(chat(user="x" * 100_000)).encode()
        got = await running.raw(CHUNKED + b"\r\n" + chunks(body, 2) + b"0\r\n\r\n")
        assert b"200 OK" in got[:15]
        assert engine.seen[0].json["user"] == "x" * 100_000


async def test_trailers_are_no_headers() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        got = await running.raw(
            CHUNKED
            + b"x-request-id: head\r\n\r\n"
            + chunks(json.dumps(chat()).encode(), 50)
            + b"0\r\nx-request-id: trailer\r\nx-request-timeout-ms: abc\r\n\r\n"
        )
        assert b"200 OK" in got[:15]
        assert b"x-request-id: head\r\n" in got


async def blocked(running: Running, data: bytes) -> tuple[asyncio.StreamReader, asyncio.Transport]:
    """Send and send, read nothing, until the gateway can write no more to us."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", running.port))
    transport, _ = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), sock=sock
    )
    transport.pause_reading()
    await until(lambda: running.connections)
    (connection,) = running.connections
    async with asyncio.timeout(30):
        while not connection._unread:
            if not transport.get_write_buffer_size():
                transport.write(data)
            await asyncio.sleep(0)
    return reader, transport


REFUSED = post(b"{}" + b" " * 20_000)  # long: one read must not bring a whole pipeline
REFUSED = REFUSED.replace(b"connection: close\r\n", b"")
REFUSED = REFUSED.replace(b"host: x", b"x-request-id: " + b"a" * 128)


async def test_who_reads_no_answers_is_read_no_further() -> None:
    async with gateway(CATALOG) as running:
        _, transport = await blocked(running, REFUSED * 4)
        (connection,) = running.connections
        assert connection._transport is not None
        assert not connection._transport.is_reading()
        assert connection._transport.get_write_buffer_size() < 4_000_000
        before = connection._transport.get_write_buffer_size()
        await asyncio.sleep(0.1)
        assert connection._transport.get_write_buffer_size() == before
        assert b"live" in await running.raw(LIVE.replace(b"host", b"connection: close\r\nhost"))
        transport.abort()
        await asyncio.sleep(0.01)  # both ends hear of it


async def test_who_begins_to_read_at_last_gets_every_answer_in_order() -> None:
    async with gateway(CATALOG) as running:
        ask = [
            b"GET /v1/models HTTP/1.1\r\nx-n: %d\r\n\r\n" % n if n % 2 else LIVE for n in range(30)
        ]
        got = await running.raw(b"".join(ask) + b"GARBAGE\r\n\r\n")
        heads = re.findall(rb"HTTP/1.1 (\d+)", got)
        assert heads == [b"200"] * 30 + [b"400"]
        reader, transport = await blocked(running, REFUSED * 4)
        transport.resume_reading()
        transport.write(b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 20)
        assert rest.count(b"404 ") == 1
        assert rest.rpartition(b"HTTP/1.1 ")[2].startswith(b"404")
        transport.abort()
        await asyncio.sleep(0.01)


async def test_a_closing_connection_whose_client_takes_nothing_is_ended() -> None:
    async with gateway(CATALOG) as running:
        _, transport = await blocked(running, REFUSED * 4)
        (connection,) = running.connections
        connection.close()
        for _ in range(hot_protocol.CLOSING_TICKS + 3):
            running.desk.tick += 1
            connection.expire()
        await until(lambda: not running.connections)
        transport.abort()
        await asyncio.sleep(0.01)  # both ends hear of it


async def test_who_leaves_answers_unread_behind_a_full_pipeline_is_closed_in_the_end() -> None:
    async with gateway(CATALOG) as running:
        _, transport = await blocked(running, REFUSED * 4)
        (connection,) = running.connections
        for _ in range(hot_protocol.IDLE_TICKS + hot_protocol.CLOSING_TICKS + 5):
            running.desk.tick += 1
            connection.expire()
        await until(lambda: not running.connections)
        transport.abort()
        await asyncio.sleep(0.01)  # both ends hear of it


BIG = CHECKED_BYTES_MAX


@pytest.mark.parametrize(
    ("task", "field", "raw", "good"),
    [
        (Task.COMPLETIONS, "prompt", b"[" + b"[1]," * BIG + b"[1]]", True),
        (Task.EMBEDDINGS, "input", b'[ "a"' + b',"a"' * BIG + b"]", True),
        (Task.EMBEDDINGS, "input", b"[1" + b",1" * BIG + b"]", True),
        (Task.EMBEDDINGS, "input", b"[" + b"{}," * BIG + b"{}]", False),
        (Task.EMBEDDINGS, "input", b'["a",1]', False),
        (Task.EMBEDDINGS, "input", b"[[1],[]]", False),
        (Task.COMPLETIONS, "prompt", b"[" + b"9" * 5000 + b"]", False),
        (Task.CHAT, "messages", b"[" + b'{"role":"u"},' * MESSAGES_MAX + b'{"role":"u"}]', False),
        (Task.CHAT, "messages", b"[" + b'{"rol\\u0065":""},' * MESSAGES_MAX + b"{}]", False),
    ],
)
def test_long_lists_are_judged_without_being_built(
    task: Task, field: str, raw: bytes, good: bool
) -> None:
    body = b'{"model":"m","%b": %b}' % (field.encode(), raw)
    if good:
        assert parse_head(task, body).model == "m"
    else:
        with pytest.raises(BadBodyError, match=field):
            parse_head(task, body)


FORMS = {
    "an encoded name": (b"GET /v1/models/org%2Fname HTTP/1.1\r\n", 200),
    "a whole URL": (b"GET http://x/v1/models?a=b HTTP/1.1\r\n", 200),
    "a whole URL without a path": (b"GET http://x HTTP/1.1\r\n", 404),
    "a slash too many": (b"GET /health/live/ HTTP/1.1\r\n", 404),
    "a host that is none": (b"GET /nope HTTP/1.1\r\nhost: [\r\n", 404),
    "HTTP/2.0": (b"GET /health/live HTTP/2.0\r\n", 400),
    "HTTP/2.0 kept alive": (b"GET /health/live HTTP/2.0\r\nconnection: keep-alive\r\n", 400),
}


@pytest.mark.parametrize("name", sorted(FORMS))
async def test_odd_request_lines_are_answered_by_what_they_mean(name: str) -> None:
    line, status = FORMS[name]
    async with gateway(CATALOG) as running:
        close = b"" if b"connection" in line else b"connection: close\r\n"
        got = await running.raw(line + close + b"\r\n")
        assert int(got.split()[1]) == status
        assert b"location" not in got.lower()


async def test_only_what_is_a_retry_is_left_out_of_the_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        seen: list[str] = []
        monkeypatch.setattr(running.gate.rates, "arrive", lambda model_id, _: seen.append(model_id))
        async with httpx.AsyncClient(base_url=running.url) as client:
            for count in ("0", "00", "-1", "x", "", "1", "07"):
                await client.post(
                    "/v1/chat/completions", json=chat(), headers={"x-stainless-retry-count": count}
                )
        assert len(seen) == 5


@pytest.mark.parametrize("secret", ["sk-key\n", "sk-kéy", "sk\x00key", " sk"])
def test_a_secret_that_fits_no_header_is_refused_unshown(secret: str) -> None:
    served = catalog(external("ext", "http://127.0.0.1:9", api_key_env="EXT_KEY"))
    check_fit(served, "127.0.0.1", lambda _: "sk-key")
    with pytest.raises(UnfitError, match="EXT_KEY") as refused:
        check_fit(served, "127.0.0.1", lambda _: secret)
    assert "sk" not in str(refused.value).replace("ask", "")
