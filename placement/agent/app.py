"""The node agent: one process per node, owner of its GPUs, the hands of whoever plans. ✎

`python -m placement.agent.app --spec FILE`. Takes actions over HTTP, answers at once, reports how
they ended as events. Its book is on disk before a deed begins and after it ends, so it may be
killed at any moment: the next one adopts what lives. Engines are no children of it, and tokens
never pass through it. Listens on loopback, for whoever has the token.
"""

import argparse
import asyncio
import hmac
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from placement.agent import nvml
from placement.agent.adoption import adopt, end_strays, find_living
from placement.agent.book import AgentSpec, Book, EventLine, Listening
from placement.agent.deeds import Deeds, Measure
from placement.agent.ledger import Ledger
from placement.catalog import EngineKind, ModelSpec
from placement.clock import Clock
from placement.engines.base import Driver, EngineError, Living, identity_of, write_json
from placement.engines.emulated_driver import EmulatedDriver
from placement.engines.llamacpp_driver import LlamaCppDriver
from placement.engines.vllm_driver import VllmDriver
from placement.plan import Accepted, Action, Answer
from placement.snapshot import Phase

log = logging.getLogger(__name__)

_WATCH_WALL_S = 0.5
_PATIENCE = 3
"""So often may the watch get no answer before it takes an engine-host for hung and ends it."""

_HEARTBEAT_WALL_S = 5.0
_SEQ_GAP = 1000
"""A restarted agent skips this many numbers: its last few may not have reached the disk."""


class Agent:
    """Ledger, drivers and deeds of one node, and the file they live on."""

    def __init__(self, spec: AgentSpec) -> None:
        self.folder = Path(spec.state_dir)
        self._book_file = self.folder / "replicas.json"
        clock = Clock(spec.time_scale, spec.anchor_us)
        book = _read_book(self._book_file)
        self.ledger = Ledger(spec.node, spec.models, book)
        self.ledger.seq += _SEQ_GAP if book else 0
        emulated = EmulatedDriver(
            spec.node, (spec.time_scale, spec.anchor_us), spec.seed, self.folder, spec.token_file
        )
        vllm = VllmDriver(
            spec.node,
            self.folder,
            spec.token_file,
            python=spec.vllm_python,
            inherited=dict(os.environ),  # noqa: TID251  handed down to engines
            measure=nvml.used_bytes,
        )
        drivers: dict[EngineKind, Driver] = {
            EngineKind.EMULATED: emulated,
            EngineKind.LLAMACPP: LlamaCppDriver(self.folder, spec.token_file),
            EngineKind.VLLM: vllm,
        }
        self.deeds = Deeds(self.ledger, drivers, clock, measure_all(drivers), self.changed)
        self.leave: Callable[[], None] = lambda: None
        """Ends the process; set once `agent.json` says that this is the node's agent."""
        self._listens = False
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Adopt what lives, then watch it. Only after this may anyone ask for the inventory."""
        for going_on in await adopt(self.deeds):
            self._run(going_on)
        self.changed()
        self._run(self._watch())

    def changed(self) -> None:
        """Write the book down and wake whoever follows."""
        write_json(self._book_file, self.ledger.book())
        self._moved.set()
        self._moved = asyncio.Event()

    async def take(self, action: Action) -> Answer:
        """Answer at once; what is accepted goes on as a task of its own."""
        if (known := self.ledger.answered(action.action_id)) is not None:
            return known
        busy = await self.deeds.busy(action)
        if (known := self.ledger.answered(action.action_id)) is not None:
            return known  # asked a second time while the engines were asked
        answer = self.ledger.admit(action, self.deeds.clock.now_us(), busy)
        self.changed()
        if isinstance(answer, Accepted):
            self._run(self.deeds.carry_out(action))
        return answer

    async def reload(self, models: list[ModelSpec]) -> None:
        """A changed catalog. Engines that serve learn of new adapters now, others when they do."""
        self.ledger.reload(models)
        self.changed()
        await self.deeds.adapt_serving()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Lines from `after` on, for ever. An empty line now and then shows that we live."""
        if after > self.ledger.seq:
            after = -1  # counted by an agent whose book is lost
        while True:
            moved, upto = self._moved, self.ledger.seq
            for line in self._lines(after):
                yield line
            after = upto
            try:
                async with asyncio.timeout(_HEARTBEAT_WALL_S):
                    await moved.wait()
            except TimeoutError:
                yield b"\n"

    def _lines(self, after: int) -> list[bytes]:
        if after >= self.ledger.seq:
            return []
        node = self.ledger.state()
        told = [t for t in self.ledger.told if t.seq > after]
        lines = [EventLine(seq=t.seq, node=node, outcome=t.outcome) for t in told]
        if not told or told[-1].seq < self.ledger.seq:
            lines.append(EventLine(seq=self.ledger.seq, node=node))
        return [msgspec.json.encode(line) + b"\n" for line in lines]

    def _run(self, deed: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(deed)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """A task that broke says so at once, not when its remains are collected."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the agent broke", exc_info=error)

    async def end(self) -> None:
        """Leave. Engines stay, and unfinished deeds are settled by the next agent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Look again and again, until somebody else owns this node. No error ends the watch."""
        patience = _PATIENCE
        while True:
            await asyncio.sleep(_WATCH_WALL_S)
            try:
                if self._listens and await self._displaced():
                    self.leave()
                    return
                await self._look_around(patience)
                patience = _PATIENCE
            except EngineError as error:
                log.warning("watch: %s", error)
                patience -= 1
            except Exception:
                log.exception("watch: it goes on in %s s", _WATCH_WALL_S)

    async def _look_around(self, patience: int) -> None:
        """Engines that ended by themselves leave the book; engines nobody wrote down are ended."""
        resting = {r: h.state for r, h in self.ledger.held.items() if not h.state.action_id}
        living = await find_living(self.deeds, patience=patience)
        await end_strays(self.deeds, living)
        for replica_id, state in resting.items():
            await self._look_at(replica_id, state.since_us, living.get(replica_id))

    def listens(self, port: int, leave: Callable[[], None]) -> None:
        """Say where, and from now on watch that nobody else says so."""
        me = identity_of(os.getpid())
        assert me is not None, "this process runs"
        there = Listening(pid=me.pid, start_time=me.start_time, port=port)
        write_json(self.folder / "agent.json", there)
        self.leave, self._listens = leave, True

    async def _displaced(self) -> bool:
        """Two agents on one node would end each other's engines: the one not in the file goes."""
        try:
            file = (self.folder / "agent.json").read_bytes()
        except FileNotFoundError:
            log.error("agent.json has been removed: ending this node's engines, and leaving")  # noqa: TRY400
            for driver in self.deeds.drivers.values():
                await driver.abandon()
            return True
        if msgspec.json.decode(file, type=Listening).pid == os.getpid():
            return False
        log.error("another agent owns this node now: leaving")
        for driver in self.deeds.drivers.values():
            await driver.end_forgotten()
        return True

    async def _look_at(self, replica_id: str, since_us: int, found: Living | None) -> None:
        held = self.ledger.held.get(replica_id)
        if held is None or held.state.action_id or held.state.since_us != since_us:
            return  # it moved while we looked
        if found is None or found.state == "exited":
            why = found.message if found else "its process is gone"
            log.warning("%s has crashed: %s", replica_id, why)
            await self.deeds.end(held)


def measure_all(drivers: Mapping[EngineKind, Driver]) -> Measure:
    """What the kinds of engines measure on each GPU, added up."""

    async def measure() -> dict[int, int]:
        total: dict[int, int] = {}
        for used in await asyncio.gather(*(d.gpu_used_bytes() for d in drivers.values())):
            for gpu_id, n_bytes in used.items():
                total[gpu_id] = total.get(gpu_id, 0) + n_bytes
        return total

    return measure


def _read_book(path: Path) -> Book | None:
    """The former agent's book. One that cannot be read is laid aside, and its engines end."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Book)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        log.warning("%s is unreadable (%s): every engine found will be ended", path, error)
        path.replace(path.with_suffix(".unreadable"))
        return None


def routes(agent: Agent) -> list[Route]:
    """The agent's HTTP surface."""
    actions = msgspec.json.Decoder(Action)
    models = msgspec.json.Decoder(list[ModelSpec])

    async def act(request: Request) -> Response:
        try:
            action = actions.decode(await request.body())
        except msgspec.DecodeError as error:
            return _json({"error": f"this is no action: {error}"}, 400)
        answer = await agent.take(action)
        return _json(answer, 202 if isinstance(answer, Accepted) else 409)

    async def inventory(_: Request) -> Response:
        return _json(agent.ledger.state())

    async def events(request: Request) -> Response:
        try:
            after = int(request.query_params.get("after", "-1"))
        except ValueError:
            return _json({"error": "`after` is a sequence number"}, 400)
        return StreamingResponse(agent.follow(after), media_type="application/x-ndjson")

    async def catalog(request: Request) -> Response:
        try:
            fresh = models.decode(await request.body())
        except msgspec.DecodeError as error:
            return _json({"error": f"this is no list of models: {error}"}, 400)
        await agent.reload(fresh)
        return _json({"models": len(fresh)})

    async def health(_: Request) -> Response:
        starting = sum(h.state.phase is Phase.STARTING for h in agent.ledger.held.values())
        return _json({"status": "ok", "replicas": len(agent.ledger.held), "starting": starting})

    return [
        Route("/v1/actions", act, methods=["POST"]),
        Route("/v1/inventory", inventory),
        Route("/v1/events", events),
        Route("/v1/models", catalog, methods=["PUT"]),
        Route("/health", health),
    ]


async def _left(_: Request, __: Exception) -> Response:
    """Whoever asked is gone in the middle of asking: no error of ours, and nobody reads this."""
    return Response(status_code=400)


_HANDLERS = {ClientDisconnect: _left}


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """Everything but /health wants the token."""
    expected = f"Bearer {token}".encode()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                await _json({"error": "wrong or missing token"}, 401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return guard


async def serve(spec: AgentSpec, token: str) -> None:
    """Adopt, listen, say where, and stay until a signal."""
    agent = Agent(spec)
    await agent.begin()
    listener = _listener(spec.port)
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(Starlette(routes=routes(agent), exception_handlers=_HANDLERS), token),
            access_log=False,
            log_level="warning",
            loop="asyncio",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    agent.listens(listener.getsockname()[1], lambda: setattr(server, "should_exit", True))
    try:
        await server.serve(sockets=[listener])
    finally:
        await agent.end()


def _listener(port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it on, each
    # answer waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description="Warmtide's node agent")
    parser.add_argument("--spec", type=Path, required=True, help="JSON file with an AgentSpec")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    spec = msgspec.json.decode(parser.parse_args().spec.read_bytes(), type=AgentSpec)
    asyncio.run(serve(spec, Path(spec.token_file).read_text().strip()))


if __name__ == "__main__":
    main()
