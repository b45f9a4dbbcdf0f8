"""What arrives on the wire: bad requests get a clear OpenAI error, never a 500, never a crash."""

import asyncio
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.hot_protocol import BODY_BYTES_MAX
from tests.builders import catalog, model
from tests.gateway.world import Engine, Running, chat, gateway, post

CATALOG = catalog(model("small"), model("qwen3-8b"))
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


def parsed(raw: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = raw.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}, "OpenAI's shape"
    assert error["message"]
    return int(head.split()[1]), error


BODIES = {
    "not JSON": (b"{nope", 400, "not valid JSON"),
    "cut off": (b'{"model":"small"', 400, "ends too early"),
    "empty": (b"", 400, "ends too early"),
    "an array": (b"[]", 400, "expected `object`"),
    "model a number": (b'{"model":3,"messages":[{"role":"user"}]}', 400, "`model`"),
    "no model": (b'{"messages":[{"role":"user"}]}', 400, "missing required field `model`"),
    "no messages": (b'{"model":"small"}', 400, "`messages`"),
    "no message": (b'{"model":"small","messages":[]}', 400, "`messages`"),
    "messages a string": (b'{"model":"small","messages":"hi"}', 400, "`messages`"),
    "a message without role": (b'{"model":"small","messages":[{}]}', 400, "role"),
    "stream a string": (b'{"model":"small","messages":[{"role":"u"}],"stream":"y"}', 400, "stream"),
    "no tokens": (b'{"model":"small","messages":[{"role":"u"}],"max_tokens":0}', 400, "max_tokens"),
    "bad UTF-8": (b'{"model":"\xff\xfe","messages":[{"role":"u"}]}', 400, "UTF-8"),
    "unknown model": (b'{"model":"qwen3-8","messages":[{"role":"u"}]}', 404, "qwen3-8b"),
    "deep": (b'{"model":"small","x":' + b"[" * 100_000, 400, "body"),
}


@pytest.mark.parametrize("name", sorted(BODIES))
async def test_a_body_that_is_no_request_is_told_what_is_wrong(name: str) -> None:
    body, status, told = BODIES[name]
    async with gateway(CATALOG) as running:
        got, error = parsed(await running.raw(post(body)))
        assert got == status
        assert told.lower() in str(error["message"]).lower()


WIRES = {
    "not HTTP": (b"hello there\r\n\r\n", 400),
    "both framings": (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc", 400),
    "two lengths": (HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
    "length no number": (HEAD + b"content-length: x\r\n\r\n", 400),
    "negative length": (HEAD + b"content-length: -1\r\n\r\n", 400),
    "bad chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\nabc", 400),
    "header bomb": (HEAD + b"x: y\r\n" * 5000 + b"\r\n", 431),
    "long header": (HEAD + b"x: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    "long URL": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
    "oversize body": (HEAD + b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), 413),
    "huge length": (HEAD + b"content-length: 99999999999999999999\r\n\r\n", 400),
    "an upgrade": (
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        400,
    ),
    "a tunnel": (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "nul in header": (HEAD + b"x: a\x00b\r\n\r\n", 400),
    "obs-fold smuggling": (HEAD + b"transfer-encoding : chunked\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", sorted(WIRES))
async def test_bytes_that_are_no_request_are_refused_and_the_next_client_is_served(
    name: str,
) -> None:
    data, status = WIRES[name]
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        got, _ = parsed(await running.raw(data))
        assert got == status
        assert b"200 OK" in (await running.raw(post(chat())))[:15]


async def test_a_half_closed_socket_hears_why_it_got_no_answer() -> None:
    async with gateway(CATALOG) as running:
        cut_head = await running.raw(HEAD + b"content-le", half_close=True)
        assert parsed(cut_head)[0] == 400
        cut_body = await running.raw(HEAD + b"content-length: 9\r\n\r\n{", half_close=True)
        assert parsed(cut_body)[0] == 400
        whole = await running.raw(post(chat()), half_close=True)
        assert parsed(whole)[1]["code"] == "client_closed"
        assert running.gate.admission.held("small") == 0


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        body = json.dumps(chat(user="1")).encode()
        one = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
        got = await running.raw(
            one + b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + post({"model": "nobody"})
        )
        order = [got.find(b'"chat.completion"'), got.find(b'"live"'), got.find(b'"error"')]
        assert -1 not in order
        assert order == sorted(order)


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps(chat()).encode()
        writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_http_1_0_clients_are_served_without_chunks() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        body = json.dumps(chat(stream=True)).encode()
        head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
        got = await running.raw(head + body)
        assert b"transfer-encoding" not in got
        assert got.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/models/qwen", 404),
        ("GET", "/v1/models/small", 200),
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
    ],
)
async def test_every_other_route_answers_clearly(method: str, path: str, status: int) -> None:
    async with (
        gateway(CATALOG) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        response = await client.request(method, path)
        assert response.status_code == status
        if status >= 400:
            assert response.json()["error"]["message"]


async def test_models_tell_rung_readiness_and_estimated_wait() -> None:
    async with Engine() as engine, gateway(CATALOG) as running:
        running.fleet.put("a", "small", engine)
        async with httpx.AsyncClient(base_url=running.url) as client:
            data = {m["id"]: m["warmtide"] for m in (await client.get("/v1/models")).json()["data"]}
        assert data["small"] == {"rung": "serving", "ready": True, "eta_ms": 0, "adapters": []}
        cold = data["qwen3-8b"]
        assert (cold["rung"], cold["ready"]) == ("host", False)
        assert cold["eta_ms"] > 10_000


async def flood(running: Running, data: bytes) -> bytes:
    return await running.raw(data, half_close=True)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(min_size=0, max_size=300), max_size=4), st.booleans())
def test_no_bytes_whatever_bring_the_gateway_down(pieces: list[bytes], as_body: bool) -> None:
    async def story() -> None:
        async with gateway(CATALOG) as running:
            for piece in pieces:
                raw = await flood(running, post(piece) if as_body else piece)
                assert b" 500 " not in raw[:20]
            assert b"200 OK" in await flood(
                running, b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )

    asyncio.run(story())
