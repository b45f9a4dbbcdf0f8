"""Where one request ends and the next begins is never open to two readings.

A request that two parsers cut differently lets one client's bytes become another's request. What
this gateway passes on, it frames anew; so the engine must never see more requests, other paths or
other bodies than a strict reader would, however the client framed them.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway import hot_protocol
from tests.builders import catalog, model
from tests.gateway.world import Engine, Running, ask, chat, gateway, post, until

ONE = catalog(model("small"))
SMUGGLED = post(chat(user="smuggled"))
BODY = b'{"model":"small","messages":[{"role":"user","content":"hi"}],"user":"open"}'
LINE = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)

# Each ends in what a lenient reader would take for a second request.
FORMS: dict[str, bytes] = {
    "length and chunks": LINE + LENGTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": LINE + b"transfer-encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "two lengths": LINE + b"content-length: 0\r\n" + LENGTH + b"\r\n",
    "two lengths in one": LINE + b"content-length: 0, 5\r\n\r\n",
    "a signed length": LINE + b"content-length: +0\r\n\r\n",
    "a length in hex": LINE + b"content-length: 0x0\r\n\r\n",
    "a blank before the colon": LINE + b"content-length : 0\r\n\r\n",
    "a folded header": LINE + b"x: y\r\n content-length: 0\r\n" + LENGTH + b"\r\n" + BODY,
    "a bare line feed": LINE + b"x: y\ncontent-length: 0\r\n\r\n",
    "a bare carriage return": LINE + b"x: y\rcontent-length: 0\r\n\r\n",
    "a null in a header": LINE + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "chunked twice": LINE + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in disguise": LINE + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, not last": LINE + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked with a tab": LINE + b"transfer-encoding:\tchunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "two encodings": LINE
    + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n"
    + LENGTH
    + b"\r\n0\r\n\r\n",
    "a chunk size that overflows": LINE
    + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n\r\n",
    "a signed chunk size": LINE + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "chunk extensions with a line": LINE
    + b'transfer-encoding: chunked\r\n\r\n0;a="\n\r\n"\r\n\r\n',
}


async def users_seen(engine: Engine, running: Running, data: bytes) -> list[str]:
    """Send, and give what engines saw of it: the `user` of each request."""
    await running.raw(data)
    await until(lambda: not running.connections)
    return [seen.json.get("user") for seen in engine.seen]


@pytest.mark.parametrize("name", FORMS)
async def test_an_ambiguous_request_smuggles_nothing(name: str) -> None:
    async with Engine() as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        users = await users_seen(engine, running, FORMS[name] + SMUGGLED)
        assert "smuggled" not in users
        assert len(users) <= 1
        assert (await ask(running, user="next")).status_code == 200
        assert engine.seen[-1].json["user"] == "next"


HEADERS = st.sampled_from(
    [
        b"content-length: 0", b"content-length: %d" % len(BODY), b"content-length: 7",
        b"Content-Length: 0", b"content-length:0 ", b"transfer-encoding: chunked",
        b"Transfer-Encoding: Chunked", b"transfer-encoding: identity", b"x: y", b" folded",
        b"expect: 100-continue", b"connection: keep-alive", b"upgrade: h2c", b"te: trailers",
    ]
)  # fmt: skip
BREAKS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n"])
PAYLOADS = st.sampled_from(
    [BODY, b"0\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), b"", b"1\r\nx\r\n"]
)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(HEADERS, BREAKS), max_size=5), PAYLOADS)
@example([(b"transfer-encoding: chunked", b"\r\n"), (b"content-length: 0", b"\r\n")], b"0\r\n\r\n")
def test_whatever_the_framing_the_engine_gets_whole_requests_of_one_client(
    lines: list[tuple[bytes, bytes]], payload: bytes
) -> None:
    """A second request may follow (pipelining is allowed), but never one made of another's body."""
    framing = b"".join(line + end for line, end in lines)

    async def story() -> None:
        async with Engine() as engine, gateway(ONE) as running:
            running.fleet.put("a", "small", engine)
            data = LINE + framing + b"\r\n" + payload
            users = await users_seen(engine, running, data)
            assert users in ([], ["open"])
            assert all(seen.path == "/v1/chat/completions" for seen in engine.seen)
            assert (await ask(running, user="next")).status_code == 200

    asyncio.run(story())


@pytest.mark.parametrize("sent", [b"POST /v1/ch", LINE + b"x-slow", LINE + LENGTH + b"\r\n{"])
async def test_who_sends_a_request_drop_by_drop_is_told_and_let_go(sent: bytes) -> None:
    """A slowloris: it costs a connection for a while, never a request's worth of anything."""
    async with Engine() as engine, gateway(ONE) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(sent)
        await until(lambda: running.connections)
        (connection,) = running.connections
        await asyncio.sleep(0.05)  # what was sent has arrived
        for _ in range(hot_protocol.BODY_TICKS + 2):
            running.desk.tick += 1
            connection.expire()
            if connection.closing:
                break
            if b"{" not in sent:
                writer.write(b"y")  # a byte a tick does not buy it more time
            await asyncio.sleep(0)
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(), 5)
        assert got.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in got
        assert running.gate.telemetry.models[""].refused == {"request_timeout": 1}
        assert not engine.seen
        writer.close()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40_000), st.sampled_from([b"[", b'{"a":', b'[{"b":[']))
def test_a_body_of_any_depth_is_answered_or_told(depth: int, opening: bytes) -> None:
    async def story() -> None:
        async with Engine() as engine, gateway(ONE) as running:
            running.fleet.put("a", "small", engine)
            closing = {b"[": b"]", b'{"a":': b"}", b'[{"b":[': b"]}]"}[opening]
            deep = opening * depth + b"1" + closing * depth
            got = await running.raw(post(BODY[:-1] + b',"deep":' + deep + b"}"))
            assert got[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400")
            assert (await ask(running)).status_code == 200

    asyncio.run(story())


async def test_who_is_refused_in_mid_upload_still_hears_why() -> None:
    """Closed at once, a connection with bytes on their way is reset, and the answer lost."""
    too_large = hot_protocol.BODY_BYTES_MAX + 1
    async with gateway(ONE) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(LINE + b"content-length: %d\r\n\r\n" % too_large)
        for _ in range(too_large // 2**20):
            writer.write(b"x" * 2**20)
            await writer.drain()
        got = await asyncio.wait_for(reader.read(), 10)
        assert got.startswith(b"HTTP/1.1 413 ")
        writer.close()
        await until(lambda: not running.connections)


async def until_reset(writer: asyncio.StreamWriter) -> None:
    """Write on and on; the net under it is ten times what is borne."""
    try:
        for _ in range(10 * hot_protocol.LINGER_BYTES_MAX // 2**20):
            writer.write(b"x" * 2**20)
            await writer.drain()
    except ConnectionError:
        return
    raise AssertionError("it was taken without end")


@pytest.mark.parametrize("way", ["for ever", "without end"])
async def test_nobody_is_listened_to_for_ever_after_a_refusal(way: str) -> None:
    async with gateway(ONE) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"nonsense\r\n\r\n")
        assert b" 400 " in await reader.readuntil(b"\r\n")
        (connection,) = running.connections
        if way == "for ever":
            running.desk.tick += hot_protocol.LINGER_TICKS + 1
            connection.expire()
        else:
            await until_reset(writer)
        await until(lambda: not running.connections)
        writer.transport.abort()
