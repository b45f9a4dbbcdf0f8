"""The driver of emulated engines: one engine-host per node, which runs all of its replicas. ✎

The host speaks vLLM's HTTP for each of them, is started on the first need and again when it has
died. It outlives the agent and is found again by its files.
"""

import asyncio
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from placement.catalog import NodeSpec
from placement.engines import vllm_calls
from placement.engines.base import (
    IDENTITY,
    Engine,
    EngineError,
    Identity,
    Living,
    alive,
    end,
    identity_of_spec,
    read_identity,
    spawn,
    write_json,
)
from placement.engines.emulated import HostSpec
from placement.engines.ready_file import new_client, read_ready, until_ready
from placement.snapshot import Lack, Rung, WeightsAt

_UP_WALL_S = 30.0
"""How long a fresh engine-host may take to import, bind and say so on a busy machine."""

_POLL_WALL_S = 0.01

_LIST_WALL_S = 10.0
"""An engine-host that cannot list its replicas in this time hangs."""

_RUNG_OF_SLEEP = {
    "awake": Rung.SERVING,
    "kv_released": Rung.WARM,
    "level1": Rung.PARKED,
    "level2": Rung.SHED,
}


class HostedReplica(msgspec.Struct):
    """One entry of the engine-host's list; other fields are of no use here."""

    replica_id: str
    port: int
    state: str
    sleep: str = "awake"
    running: int = 0
    waiting: int = 0
    exit_message: str | None = None


class _Hosted(msgspec.Struct):
    replicas: list[HostedReplica]


class EmulatedDriver:
    """All emulated replicas of a node, in one engine-host."""

    def __init__(
        self, node: NodeSpec, clock: tuple[float, int], seed: int, folder: Path, token_file: str
    ) -> None:
        self._ready_file = folder / "engine-host.ready.json"
        self._spec_file = folder / "engine-host.spec.json"
        self._identity_file = folder / f"engine-host{IDENTITY}"
        self._log = folder / "engine-host.log"
        self._host_spec = HostSpec(
            node=node,
            time_scale=clock[0],
            anchor_us=clock[1],
            seed=seed,
            token_file=token_file,
            ready_file=str(self._ready_file),
        )
        self._client = new_client(token_file)
        self._starting = asyncio.Lock()
        self._last: Identity | None = None
        """The host as last seen: still to be ended when its files have been removed."""

    async def start(self, engine: Engine, weights_at: WeightsAt) -> str:
        base = await self._host()
        body = {
            "replica_id": engine.replica_id,
            "model": msgspec.to_builtins(engine.spec),
            "gpu_ids": engine.gpu_ids,
            "weights_at": int(weights_at),
            "port": 0,
        }
        answer = await vllm_calls.ask(self._client, "POST", f"{base}/host/replicas", body)
        return f"127.0.0.1:{answer['port']}"

    async def ready(self, engine: Engine, eta_wall_s: float) -> str:
        """A start says nothing until it is over, as vLLM's: look more often as it falls due."""
        left_s = eta_wall_s
        while True:
            found = (await self._hosted()).get(engine.replica_id)
            if found is None or found.state == "exited":
                why = found.exit_message if found else "its engine-host has ended"
                raise EngineError(f"{engine.replica_id} exited while starting: {why}")
            if found.state == "ready":
                return f"127.0.0.1:{found.port}"
            pause_s = min(max(left_s / 2, eta_wall_s / 100, _POLL_WALL_S), 0.5)
            await asyncio.sleep(pause_s)
            left_s -= pause_s

    async def lacks(self, engine: Engine) -> tuple[Lack, ...]:  # noqa: ARG002
        return ()

    async def step(self, engine: Engine, at: Rung, to: Rung) -> None:
        await vllm_calls.step(self._client, engine.endpoint, at, to)

    async def canary(self, engine: Engine) -> str:
        return await vllm_calls.canary(self._client, engine.endpoint, engine.spec)

    async def adapt(self, engine: Engine) -> None:
        await vllm_calls.load_adapters(self._client, engine.endpoint, engine.spec)

    async def end(self, replica_id: str) -> None:
        base = self._base()
        if base is None:
            return
        url = f"{base}/host/replicas/{quote(replica_id, safe='')}"
        try:
            await vllm_calls.ask(self._client, "DELETE", url, fine=(404,))
        except EngineError:
            if self._base() is not None:
                raise

    async def living(self) -> dict[str, Living]:
        hosted = (await self._hosted()).values()
        return {
            r.replica_id: Living(
                replica_id=r.replica_id,
                endpoint=f"127.0.0.1:{r.port}",
                state=r.state,
                rung=_RUNG_OF_SLEEP.get(r.sleep),
                message=r.exit_message or "",
            )
            for r in hosted
        }

    async def abandon(self) -> None:
        identity = self._identity() or self._last
        if identity is not None:
            await end(identity)

    async def end_forgotten(self) -> None:
        if self._last is not None and self._last != read_identity(self._identity_file):
            await end(self._last)

    async def requests(self, engine: Engine) -> int:
        found = (await self._hosted()).get(engine.replica_id)
        return found.running + found.waiting if found else 0

    async def gpu_used_bytes(self) -> dict[int, int]:
        base = self._base()
        if base is None:
            return {}
        answer = await vllm_calls.ask(self._client, "GET", f"{base}/host/memory")
        return {int(g["gpu_id"]): int(g["used_bytes"]) for g in answer["gpus"]}

    async def _hosted(self) -> dict[str, HostedReplica]:
        base = self._base()
        if base is None:
            return {}
        try:
            answer = await self._client.get(f"{base}/host/replicas", timeout=_LIST_WALL_S)
            answer.raise_for_status()
            listed = msgspec.json.decode(answer.content, type=_Hosted).replicas
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            if self._base() is None:
                return {}
            raise EngineError(f"engine-host does not answer: {error!r}") from error
        return {r.replica_id: r for r in listed}

    def _identity(self) -> Identity | None:
        """The living host, also one whose starter died before it wrote the identity down."""
        known = read_identity(self._identity_file)
        known = known or identity_of_spec(self._ready_file, self._spec_file)
        if known is None or not alive(known):
            return None
        self._last = known
        return known

    def _base(self) -> str | None:
        """Where the living host listens, or None."""
        if self._identity() is None:
            return None
        ready = read_ready(self._ready_file)
        return f"http://127.0.0.1:{ready.port}" if ready else None

    async def _host(self) -> str:
        """The engine-host's address, once it is up."""
        async with self._starting:
            if self._identity() is None:
                self._ready_file.unlink(missing_ok=True)
                write_json(self._spec_file, self._host_spec)
                await spawn(
                    ["-m", "placement.engines.emulated_http", "--spec", str(self._spec_file)],
                    log=self._log,
                    identity_file=self._identity_file,
                )
            port = await until_ready(
                self._ready_file, self._identity_file, self._log, limit_s=_UP_WALL_S
            )
            return f"http://127.0.0.1:{port}"
