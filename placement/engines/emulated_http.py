"""The engine-host: all emulated replicas of one node in one process, each on its own port. ✎

In: a `HostSpec` file; the control API on 127.0.0.1. Out: replicas that listen once their start
ended. Never: decides what fits or how long anything takes (`emulated` does), or binds elsewhere.
"""

import argparse
import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop
from uvicorn.server import ServerState

from placement.clock import Clock
from placement.engines.asgi import Door, Request, announce, bind, run_later
from placement.engines.emulated import (
    DeedEnded,
    EmulatedNode,
    Exited,
    FaultsRequest,
    HostSpec,
    Ready,
    ReplicaRequest,
)
from placement.engines.emulated_server import EngineServer

LOG = logging.getLogger("warmtide.engine_host")


class EngineHost:
    """The node's engines and their servers."""

    def __init__(self, spec: HostSpec, token: str) -> None:
        self.node = EmulatedNode(spec.node, spec.seed)
        self.clock = Clock(spec.time_scale, spec.anchor_us)
        self.token = token
        self.door = Door()
        self._servers: dict[str, EngineServer] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()

    def settle(self) -> int:
        """Bring the node to now, deliver its events, wait for the next; the trace time."""
        now_us = self.clock.now_us()
        for event in self.node.advance(now_us):
            server = self._servers.get(event.replica_id)
            match event:
                case Ready() if server is not None:
                    task = asyncio.get_running_loop().create_task(self._open(server))
                    self._opening.add(task)
                    task.add_done_callback(self._opening.discard)
                case Exited():
                    LOG.info("replica %s exited: %s", event.replica_id, event.message)
                    self._shut(event.replica_id)
                case DeedEnded() if server is not None:
                    server.controls.ended(event.verdict)
        if self._timer is not None:
            self._timer.cancel()
        next_us = self.node.next_us()
        if next_us is not None:
            self._timer = run_later(self.clock.wall_s(next_us - now_us), self._tick)
        return now_us

    def _tick(self) -> None:
        self.settle()

    async def _open(self, server: EngineServer) -> None:
        """The start ended: its port takes connections from now on."""
        replica_id = server.replica.replica_id
        bound = self._sockets.pop(replica_id, None)
        if bound is None:
            return
        loop = asyncio.get_running_loop()
        protocol = self.door.protocol(server.handle, server.connections)
        server.server = await loop.create_server(protocol, sock=bound, backlog=1024)
        if server.replica.state == "exited":
            server.died()

    def _shut(self, replica_id: str) -> None:
        bound = self._sockets.pop(replica_id, None)
        if bound is not None:
            bound.close()
        server = self._servers.get(replica_id)
        if server is not None:
            server.died()

    # The control API.

    async def handle(self, request: Request) -> None:
        if not request.may(self.token):
            await request.reply_json(401, {"error": "the engine-host needs its node's token"})
            return
        try:
            await self._route(request)
        except (msgspec.DecodeError, ValueError) as error:
            await request.reply_json(400, {"error": f"{request.path}: {error}"})

    async def _route(self, request: Request) -> None:
        match request.method, request.path:
            case "POST", "/host/replicas":
                await self._create(request)
            case "GET", "/host/replicas":
                self.settle()
                listed = [self._told(server) for server in self._servers.values()]
                await request.reply_json(200, {"replicas": listed})
            case "DELETE", path if path.startswith("/host/replicas/"):
                await self._delete(request, path.removeprefix("/host/replicas/"))
            case "GET", "/host/memory":
                self.settle()
                await request.reply_json(200, self._memory())
            case "POST", "/host/faults":
                asked = msgspec.json.decode(request.body, type=FaultsRequest)
                self.node.set_faults(asked.model_id, asked.faults)
                await request.reply_json(200, {})
            case _:
                known = "/host/replicas, /host/memory and /host/faults"
                await request.reply_json(404, {"error": f"no such path; there are {known}"})

    async def _create(self, request: Request) -> None:
        asked = msgspec.json.decode(request.body, type=ReplicaRequest)
        if asked.replica_id in self._servers:
            await request.reply_json(409, {"error": f"replica {asked.replica_id} exists already"})
            return
        gpus = self.node.memory.gpus
        if len(asked.gpu_ids) != asked.model.gpus or not set(asked.gpu_ids) <= set(range(gpus)):
            wrong = f"{asked.model.id} needs {asked.model.gpus} of GPUs 0 to {gpus - 1}"
            await request.reply_json(400, {"error": f"gpu_ids {asked.gpu_ids}: {wrong}"})
            return
        bound = bind(asked.port)
        port: int = bound.getsockname()[1]
        replica = self.node.start(asked, self.settle())
        self._sockets[asked.replica_id] = bound
        self._servers[asked.replica_id] = EngineServer(self, replica, port)
        self.settle()
        await request.reply_json(201, {"port": port})

    async def _delete(self, request: Request, replica_id: str) -> None:
        now_us = self.settle()
        server = self._servers.get(replica_id)
        if server is None:
            await request.reply_json(404, {"error": f"no replica {replica_id} on this host"})
            return
        self.node.end(replica_id, now_us)
        self.settle()
        del self._servers[replica_id]
        await request.reply_json(200, {})

    def _told(self, server: EngineServer) -> dict[str, object]:
        replica = server.replica
        if replica.state == "ready":
            server.pump()
        # Ready is who can be reached: the port opens a moment after the start ended.
        opening = replica.state == "ready" and server.server is None
        return {
            "replica_id": replica.replica_id,
            "model_id": replica.spec.id,
            "port": server.port,
            "state": "starting" if opening else replica.state,
            "exit_message": replica.exit_message,
            "sleep": replica.sleep_word,
            "running": replica.batch.running,
            "waiting": replica.batch.waiting,
        }

    def _memory(self) -> dict[str, object]:
        memory = self.node.memory
        return {
            "gpus": [
                {"gpu_id": g, "total_bytes": memory.hbm_bytes, "used_bytes": memory.gpu_used(g)}
                for g in range(memory.gpus)
            ],
            "host": {"total_bytes": memory.host_total_bytes, "used_bytes": memory.host_used()},
        }


async def serve(spec: HostSpec) -> None:
    token = Path(spec.token_file).read_text().strip()  # noqa: ASYNC240  before anything is served
    host = EngineHost(spec, token)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound = bind(spec.control_port)
    port = bound.getsockname()[1]
    protocol = host.door.protocol(host.handle, ServerState())
    server = await loop.create_server(protocol, sock=bound, backlog=128)
    announce(Path(spec.ready_file), port)
    LOG.info("engine-host of node %s listens on port %d", spec.node.id, port)
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m placement.engines.emulated_http")
    parser.add_argument("--spec", type=Path, required=True, help="JSON of a HostSpec")
    path: Path = parser.parse_args(arguments).spec
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=HostSpec)
    except (OSError, msgspec.DecodeError) as error:
        LOG.error("cannot read the host's spec %s: %s", path, error)  # noqa: TRY400  for people
        return 2
    uvloop.run(serve(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
