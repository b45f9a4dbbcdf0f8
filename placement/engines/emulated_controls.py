"""vLLM's memory controls and adapters of one emulated replica, over HTTP. ✎

In: `POST`s that the replica's server has let through. Out: statuses and bodies as vLLM gives them,
once the deed ended. Never: decides what a call does (`emulated` does), authenticates.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from placement.clock import Clock
from placement.engines.asgi import Request
from placement.engines.emulated import EmulatedNode, Verdict
from placement.engines.emulated_replica import TAGS, EmulatedReplica
from placement.engines.emulated_requests import error_body

_GONE = Verdict(500, "EngineDeadError: the engine is gone")


class Host(Protocol):
    """What a server needs of its engine-host."""

    node: EmulatedNode
    clock: Clock
    token: str

    def settle(self) -> int:
        """Bring the node to now, deliver its events; the trace time."""


class Server(Protocol):
    """What the controls need of the replica's server."""

    host: Host
    replica: EmulatedReplica

    def pump(self) -> int: ...

    def aborted(self, seq_ids: list[int]) -> None: ...


class Controls:
    """The development endpoints of one replica; one deed at a time."""

    def __init__(self, server: Server) -> None:
        self.drained = asyncio.Event()
        self._server = server
        self._replica = server.replica
        self._node = server.host.node
        self._id = server.replica.replica_id
        self._lock = asyncio.Lock()
        self._deed: asyncio.Future[Verdict] | None = None

    def ended(self, verdict: Verdict) -> None:
        """The deed under way ended."""
        if self._deed is not None and not self._deed.done():
            self._deed.set_result(verdict)

    def died(self) -> None:
        self.drained.set()
        self.ended(_GONE)

    async def handle(self, request: Request) -> None:
        match request.path:
            case "/sleep":
                await self._sleep(request)
            case "/wake_up":
                await self._wake(request)
            case "/release_kv_cache_memory":
                await self._answer(request, await self._do(self._begin_release))
            case "/collective_rpc":
                await self._collective_rpc(request)
            case "/reset_prefix_cache":
                self._server.pump()
                verdict = self._node.reset_prefix_cache(self._id)
                await self._answer(request, verdict)
            case "/v1/load_lora_adapter" | "/v1/unload_lora_adapter":
                await self._lora(request)
            case _:
                await request.reply_json(404, {"detail": "Not Found"})

    async def _answer(self, request: Request, verdict: Verdict) -> None:
        if verdict.status == 200:
            await request.reply_json(200, {"status": self._replica.status})
        else:
            await request.reply(verdict.status, error_body(verdict.status, verdict.message))

    async def _do(self, begin: Callable[[int], Verdict | None]) -> Verdict:
        """One deed at a time; it goes on even if its caller leaves."""
        async with self._lock:
            return await self._do_locked(begin)

    async def _do_locked(self, begin: Callable[[int], Verdict | None]) -> Verdict:
        self._server.pump()
        now_us = self._server.host.settle()
        if self._replica.state != "ready":
            return _GONE
        self._deed = asyncio.get_running_loop().create_future()
        verdict = begin(now_us)
        self._server.host.settle()
        if verdict is None:
            verdict = await self._deed
        self._deed = None
        self._server.pump()
        return verdict

    def _begin_release(self, now_us: int) -> Verdict | None:
        return self._node.release_kv(self._id, now_us)

    async def _sleep(self, request: Request) -> None:
        query = dict(request.query)
        level, mode = query.get("level", "1"), query.get("mode", "abort")
        if level not in ("0", "1", "2") or mode not in ("abort", "wait", "keep"):
            message = "level must be 0, 1 or 2 and mode abort, wait or keep"
            await request.reply(400, error_body(400, message))
            return
        async with self._lock:
            self._server.pump()
            self._server.aborted(self._node.pause(self._id, mode))
            self.drained.clear()
            self._server.pump()
            if mode == "wait":
                await self.drained.wait()
            verdict = await self._do_locked(
                lambda now_us: self._node.sleep(self._id, int(level), now_us)
            )
        await self._answer(request, verdict)

    async def _wake(self, request: Request) -> None:
        tags = tuple(value for key, value in request.query if key == "tags")
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            message = f"unknown tag {unknown[0]!r}: tags are {', '.join(TAGS)}"
            await request.reply(400, error_body(400, message))
            return
        verdict = await self._do(lambda now_us: self._node.wake(self._id, tags, now_us))
        await self._answer(request, verdict)

    async def _collective_rpc(self, request: Request) -> None:
        try:
            method = msgspec.json.decode(request.body, type=dict[str, object]).get("method")
        except msgspec.DecodeError:
            method = None
        if method != "reload_weights":
            message = f"collective_rpc knows method reload_weights here, got {method!r}"
            await request.reply(400, error_body(400, message))
            return
        verdict = await self._do(lambda now_us: self._node.reload_weights(self._id, now_us))
        if verdict.status == 200:
            await request.reply_json(200, {"results": [None] * self._replica.spec.gpus})
        else:
            await self._answer(request, verdict)

    async def _lora(self, request: Request) -> None:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, object])
        except msgspec.DecodeError as error:
            await request.reply(400, error_body(400, f"the request body is not valid: {error}"))
            return
        name, path = body.get("lora_name"), body.get("lora_path")
        loras, loading = self._replica.loras, request.path == "/v1/load_lora_adapter"
        if not isinstance(name, str) or not name or (loading and not isinstance(path, str)):
            await request.reply(400, error_body(400, "lora_name (and lora_path) must be given"))
        elif loading and name in self._replica.names:
            message = f"The lora adapter '{name}' has already been loaded."
            await request.reply(400, error_body(400, message))
        elif not loading and name not in loras:
            message = f"The lora adapter '{name}' cannot be found."
            await request.reply(404, error_body(404, message))
        else:
            if loading:
                loras[name] = str(path)
            else:
                del loras[name]
            done = "added" if loading else "removed"
            text = f"Success: LoRA adapter '{name}' {done} successfully."
            await request.reply(200, text.encode(), b"text/plain")
