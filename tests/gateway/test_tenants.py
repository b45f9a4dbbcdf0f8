"""Keys, quotas and names: who may ask for what."""

import asyncio
import hashlib

import httpx
import pytest

from placement.catalog import Adapter, Tenant
from tests.builders import catalog, model
from tests.gateway.world import Engine, chat, gateway, until

KEY, OTHER = "wt-key-of-blue", "wt-key-of-red"


def digest(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


GUARDED = catalog(
    model("small", aliases=("gpt-4o-mini",), adapters=(Adapter(id="small-sql", source="x"),)),
    model("secret"),
    tenants=(
        Tenant(
            id="blue", key_sha256=(digest(KEY),), models=("small", "small-sql"), max_in_flight=1
        ),
        Tenant(id="red", key_sha256=(digest(OTHER),)),
    ),
)


async def status_of(url: str, key: str | None, name: str = "small") -> tuple[int, str]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        response = await client.post("/v1/chat/completions", json=chat(name), headers=headers)
    code = response.json().get("error", {}).get("code", "")
    return response.status_code, code


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        (None, "small", (401, "invalid_api_key")),
        ("wt-wrong", "small", (401, "invalid_api_key")),
        (KEY, "secret", (403, "permission_denied")),
        (KEY, "small", (200, "")),
        (KEY, "small-sql", (200, "")),
        (OTHER, "gpt-4o-mini", (200, "")),
    ],
)
async def test_a_key_opens_its_tenants_models_and_no_others(
    key: str | None, name: str, expected: tuple[int, str]
) -> None:
    async with Engine() as engine, gateway(GUARDED) as running:
        running.fleet.put("a", "small", engine)
        running.fleet.put("b", "secret", engine)
        assert await status_of(running.url, key, name) == expected
        assert all("authorization" not in seen.headers for seen in engine.seen)


PAGES = [
    ("https://elsewhere.example", 403),
    ("http://elsewhere.example:8000", 403),
    ("http://localhost.elsewhere.example", 403),
    ("http://127.0.0.1.elsewhere.example", 403),
    ("null", 403),
    ("", 403),
    ("http://localhost:3000", 200),
    ("http://127.0.0.1:8000", 200),
    ("https://[::1]", 200),
]


@pytest.mark.parametrize(("origin", "expected"), PAGES)
async def test_without_tenants_pages_of_other_sites_may_not_ask(origin: str, expected: int) -> None:
    """A browser sends plain text anywhere unasked, and a name may lead to 127.0.0.1 all at once."""
    headers = {"origin": origin, "content-type": "text/plain"}
    async with Engine() as engine, gateway(catalog(model("small"))) as running:
        running.fleet.put("a", "small", engine)
        async with httpx.AsyncClient(base_url=running.url) as client:
            for path in ("/v1/chat/completions", "/v1/messages", "/tokenize"):
                body = {**chat("small"), "max_tokens": 3}
                response = await client.post(path, json=body, headers=headers)
                assert response.status_code == expected, path
        assert bool(engine.seen) == (expected == 200)


@pytest.mark.parametrize("framing", ["content-length: 33554432", "transfer-encoding: chunked"])
async def test_a_strangers_body_is_not_kept(framing: str) -> None:
    """A few hundred connections with almost whole bodies would be all the memory there is."""
    async with gateway(GUARDED) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: wrong\r\n{framing}\r\n\r\n"
        writer.write(head.encode())
        piece = b"x" * 2**20
        for _ in range(4):
            chunked = b"%x\r\n%b\r\n" % (len(piece), piece)
            writer.write(chunked if "chunked" in framing else piece)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(4096), 20)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"authentication_error" in answer
        writer.close()
        unknown = running.gate.telemetry.models[""]
        assert unknown.refused == {"invalid_api_key": 1}


async def test_with_tenants_the_key_says_who_may_ask_wherever_it_is() -> None:
    headers = {"origin": "https://elsewhere.example", "authorization": f"Bearer {KEY}"}
    async with Engine() as engine, gateway(GUARDED) as running:
        running.fleet.put("a", "small", engine)
        async with httpx.AsyncClient(base_url=running.url) as client:
            asked = await client.post("/v1/chat/completions", json=chat("small"), headers=headers)
        assert asked.status_code == 200


async def test_the_list_of_models_shows_a_tenant_only_its_own() -> None:
    async with gateway(GUARDED) as running, httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/v1/models")).status_code == 401
        listed = await client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
        assert {m["id"] for m in listed.json()["data"]} == {"small", "gpt-4o-mini", "small-sql"}


async def test_a_tenant_over_its_quota_is_told_to_come_back_and_may_when_one_ended() -> None:
    async with Engine() as engine, gateway(GUARDED) as running:
        waiting = asyncio.create_task(status_of(running.url, KEY))
        await until(lambda: running.gate.admission.held("small") == 1)
        assert await status_of(running.url, KEY) == (429, "rate_limit_exceeded")
        running.fleet.put("a", "small", engine)
        assert await waiting == (200, "")
        assert await status_of(running.url, KEY) == (200, "")
