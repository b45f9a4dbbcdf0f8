"""Peers for the gateway's tests: engines on real sockets, a fleet steered by hand, raw clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import msgspec

from gateway.app import build_app
from gateway.desk import Desk
from gateway.gate import Gate
from gateway.hot_protocol import HotProtocol
from placement.catalog import Catalog, NodeId, ReplicaId
from placement.clock import Clock
from placement.fleet import FleetChanged, FleetEvent
from placement.plan import Accepted, Action, Answer
from placement.snapshot import (
    ClusterSnapshot,
    GpuState,
    NodeState,
    Phase,
    ReplicaState,
    Rung,
)
from prewarm.loop import Loop
from tests.builders import GB

Writer = asyncio.StreamWriter


def event(text: str) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return f"data: {json.dumps({**chunk, 'choices': choices})}\n\n".encode()


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


@dataclass
class Seen:
    """A request as an engine got it."""

    path: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """What an engine's script writes with."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    async def json(self, document: Any, status: int = 200, headers: str = "") -> None:
        body = json.dumps(document).encode()
        self.writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await self.writer.drain()

    async def head(self) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def last(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def die(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Seen, Reply], Awaitable[None]]


async def answer(seen: Seen, reply: Reply) -> None:
    """An engine in good health."""
    if not seen.json.get("stream"):
        await reply.json(WHOLE)
        return
    await reply.head()
    for data in (ROLE, event("one "), event("two"), USAGE, DONE):
        await reply.chunk(data)
    await reply.last()


class Engine:
    """A server that speaks HTTP/1.1 and follows a script; remembers what it was asked."""

    def __init__(self, script: Script = answer) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: Writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (x.partition(": ") for x in lines if x)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(first.split()[1], headers, body)
        self.seen.append(seen)
        script = asyncio.create_task(_run(self.script, seen, Reply(writer)))
        left = asyncio.create_task(reader.read(1))
        await asyncio.wait({script, left}, return_when=asyncio.FIRST_COMPLETED)
        if left.done() and not script.done():
            seen.gone.set()
            script.cancel()
            await asyncio.gather(script, return_exceptions=True)
            return False
        left.cancel()
        await asyncio.gather(left, script, return_exceptions=True)
        return not writer.is_closing()


async def _run(script: Script, seen: Seen, reply: Reply) -> None:
    await script(seen, reply)


class SteeredFleet:
    """A fleet whose replicas the test moves by hand; it takes every action and only notes it."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self.catalog = catalog
        self.clock = clock
        self.actions: list[Action] = []
        self.replicas: dict[str, ReplicaState] = {}
        self._version = 0
        self._listener: Callable[[FleetEvent], None] = lambda _: None

    async def start(self, listener: Callable[[FleetEvent], None]) -> None:
        self._listener = listener
        self.publish()

    async def submit(self, action: Action) -> Answer:
        self.actions.append(action)
        return Accepted(action_id=action.action_id)

    def snapshot(self) -> ClusterSnapshot:
        nodes = []
        for spec in self.catalog.nodes:
            gpus = tuple(GpuState(gpu_id=g, hbm_bytes=spec.hbm_bytes) for g in range(spec.gpus))
            mine = tuple(r for r in self.replicas.values() if r.node_id == spec.id)
            nodes.append(
                NodeState(
                    node_id=spec.id,
                    alive=True,
                    gpus=gpus,
                    host_bytes=256 * GB,
                    host_reserved_bytes=0,
                    replicas=mine,
                )
            )
        return ClusterSnapshot(version=self._version, nodes=tuple(nodes))

    async def reload(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def close(self, *, end_engines: bool) -> None: ...

    def publish(self) -> None:
        self._version += 1
        self._listener(FleetChanged(snapshot=self.snapshot()))

    def put(
        self,
        replica_id: str,
        model_id: str,
        engine: Engine | None = None,
        *,
        rung: Rung = Rung.SERVING,
        phase: Phase = Phase.READY,
    ) -> None:
        """Place a replica, or move it to another rung."""
        self.replicas[replica_id] = ReplicaState(
            replica_id=ReplicaId(replica_id),
            model_id=model_id,  # type: ignore[arg-type]  # tests speak plain strings
            node_id=NodeId("n0"),
            gpu_ids=(0,),
            rung=rung,
            phase=phase,
            since_us=self.clock.now_us(),
            endpoint=f"127.0.0.1:{engine.port}" if engine is not None else "",
        )
        self.publish()

    def drop(self, replica_id: str) -> None:
        del self.replicas[replica_id]
        self.publish()


@dataclass
class Running:
    """A gateway in this process, on a real port."""

    port: int
    gate: Gate
    desk: Desk
    fleet: SteeredFleet
    loop: Loop
    connections: set[HotProtocol]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes, read until the gateway closes (or five quiet seconds)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if half_close:
            writer.write_eof()
        got = b""
        try:
            async with asyncio.timeout(5):
                while piece := await reader.read(65536):
                    got += piece
        except (TimeoutError, ConnectionError):
            pass
        writer.close()
        return got


@asynccontextmanager
async def gateway(catalog: Catalog) -> AsyncIterator[Running]:
    """Gate, desk, control loop and hot protocol, over a fleet steered by hand."""
    clock = Clock(catalog.time_scale)
    gate = Gate(catalog, clock, lambda _: "")
    fleet = SteeredFleet(catalog, clock)
    loop = Loop(catalog, fleet, gate, clock)
    gate.eta_of, gate.poke = loop.eta_us, loop.poke
    desk = Desk(gate, build_app(lambda: desk))
    connections: set[HotProtocol] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: HotProtocol(desk, connections), "127.0.0.1", 0
    )
    await loop.start()
    loop.step()
    try:
        port = server.sockets[0].getsockname()[1]
        yield Running(port, gate, desk, fleet, loop, connections)
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await gate.pool.close()
        await loop.close(end_engines=True)
        await asyncio.sleep(0)


async def ask(running: Running, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        return await client.post("/v1/chat/completions", json=chat(**body))


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def chat(model: str = "small", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def external(model_id: str, *urls: str, **changes: Any) -> Any:
    """An external model's spec."""
    from placement.catalog import EngineKind, ModelId, ModelSpec, Task

    return ModelSpec(
        id=ModelId(model_id),
        engine=EngineKind.EXTERNAL,
        endpoints=urls,
        tasks=(Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS),
        **changes,
    )


def post(body: Any, path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    """A request as bytes, closing the connection after its answer."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
