"""Thousands of clients that keep their connections open: what they cost a real gateway in memory.

The gateway is started with the usual soft limit on open files, 1024: it has to raise its own.
"""

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.running import SAFETY_S, Gateway, catalog_text, running

pytestmark = pytest.mark.integration

CONNECTIONS = 5000
AT_ONCE = 64
RSS_BYTES_MAX = 250_000_000
USUAL_SOFT_LIMIT = 1024
SPARE_FILES = 200
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextmanager
def soft_limit(files: int) -> Iterator[None]:
    """This process's own limit on open files, which its children start with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def engine_port() -> Iterator[int]:
    """An external server, mocked: it answers every chat at once."""
    engine = subprocess.Popen(
        [sys.executable, "-m", "loadtests.mock_engine"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert engine.stdout is not None
        yield int(engine.stdout.readline())
    finally:
        engine.kill()
        engine.communicate()


@pytest.fixture
def gateway(tmp_path: Path, engine_port: int) -> Iterator[Gateway]:
    model = {"id": "m", "engine": "external", "endpoints": [f"http://127.0.0.1:{engine_port}"]}
    with (
        soft_limit(USUAL_SOFT_LIMIT),
        running(tmp_path, catalog_text([model], nodes=[])) as up,
    ):
        yield up


async def ask(client: Client) -> None:
    """One request on a kept connection, its answer read to the end."""
    reader, writer = client
    writer.write(REQUEST)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    assert b"a mock answer" in await reader.readexactly(length)


async def clients(port: int) -> list[Client]:
    """Connect all, each with one answered request, a bounded number at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> Client:
        async with turn:
            client = await asyncio.open_connection("127.0.0.1", port)
            await ask(client)
            return client

    return await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def test_5000_idle_connections_fit_in_250_mb_and_are_still_served(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + SPARE_FILES:
        pytest.skip(f"this machine allows {hard} open files; this needs {CONNECTIONS}")
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    with soft_limit(CONNECTIONS + SPARE_FILES):
        async with asyncio.timeout(SAFETY_S):
            kept = await clients(int(gateway.url.rpartition(":")[2]))
            assert process.num_fds() > CONNECTIONS, "all of them are open at once"
            rss = process.memory_info().rss
            with capsys.disabled():
                told = f"{before / 1e6:.0f} MB, then {rss / 1e6:.0f} MB"
                print(f"\n{CONNECTIONS} idle connections: {told}")  # noqa: T201
            assert rss < RSS_BYTES_MAX

            async with httpx.AsyncClient(trust_env=False, timeout=SAFETY_S) as http:
                chat = f"{gateway.base_url}/chat/completions"
                assert (await http.post(chat, content=BODY)).status_code == 200
            for client in kept[:: CONNECTIONS // 10]:
                await ask(client)
            assert process.num_fds() > CONNECTIONS, "nobody was sent away to make room"
            for _, writer in kept:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in kept))
    assert gateway.model("m")["outcomes"]["answered"] == CONNECTIONS + 11


def test_a_low_hard_limit_is_used_to_the_last_and_told() -> None:
    code = (
        "import resource; from gateway.limits import allow_many_sockets; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096)); allow_many_sockets(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4096, 4096)"
    assert "at most 4096 open files" in done.stderr
    assert "LimitNOFILE" in done.stderr
