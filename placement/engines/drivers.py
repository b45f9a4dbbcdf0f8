"""Drivers of the engines that this fleet runs by itself: emulated ones, and llama.cpp. ✎

`EmulatedDriver` keeps one engine-host per node, which runs all emulated replicas and speaks vLLM's
HTTP for each; the host is started on the first need and again when it has died. `LlamaCppDriver`
keeps one process per replica. What they start outlives them and is found again by its files.
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
from placement.snapshot import Rung, WeightsAt

_UP_WALL_S = 30.0
"""How long a fresh engine-host may take to import, bind and say so on a busy machine."""

_POLL_WALL_S = 0.02

_LIST_WALL_S = 10.0
"""An engine-host that cannot list its replicas in this time hangs."""

_RUNG_OF_SLEEP = {
    "awake": Rung.SERVING,
    "kv_released": Rung.WARM,
    "level1": Rung.PARKED,
    "level2": Rung.SHED,
}


class Ready(msgspec.Struct):
    """What a process writes when it listens."""

    pid: int
    port: int


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


def new_client(token_file: str) -> httpx.AsyncClient:
    """Plain HTTP on this machine, with the token; each deed sets its own time limit."""
    token = Path(token_file).read_text().strip()
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}"},
        timeout=None,
        trust_env=False,
        verify=False,
    )


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
            pause_s = min(max(left_s / 2, eta_wall_s / 100, _POLL_WALL_S / 2), 0.5)
            await asyncio.sleep(pause_s)
            left_s -= pause_s

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


class LlamaCppDriver:
    """One llama.cpp process per replica, on the CPU."""

    def __init__(self, folder: Path, token_file: str) -> None:
        self._folder = folder / "engines"
        self._token_file = token_file
        self._client = new_client(token_file)
        self._started: dict[str, Identity] = {}

    async def start(self, engine: Engine, weights_at: WeightsAt) -> str:  # noqa: ARG002
        place = self._place(engine.replica_id)
        spec = {
            "replica_id": engine.replica_id,
            "model": engine.spec,
            "port": 0,
            "token_file": self._token_file,
            "ready_file": str(place / "ready.json"),
        }
        (place / "ready.json").unlink(missing_ok=True)
        write_json(place / "spec.json", spec)
        self._started[engine.replica_id] = await spawn(
            ["-m", "placement.engines.llamacpp", "--spec", str(place / "spec.json")],
            log=place / "engine.log",
            identity_file=place / f"engine{IDENTITY}",
        )
        return ""

    async def ready(self, engine: Engine, eta_wall_s: float) -> str:  # noqa: ARG002
        place = self._place(engine.replica_id)
        # How long a load may take depends on the model: the action's deadline bounds it.
        port = await until_ready(
            place / "ready.json", place / f"engine{IDENTITY}", place / "engine.log"
        )
        await vllm_calls.ask(self._client, "GET", f"http://127.0.0.1:{port}/health")
        return f"127.0.0.1:{port}"

    async def step(self, engine: Engine, at: Rung, to: Rung) -> None:
        raise EngineError(f"{engine.replica_id} cannot go {at.name} → {to.name}: it is on the CPU")

    async def canary(self, engine: Engine) -> str:
        return await vllm_calls.canary(self._client, engine.endpoint, engine.spec)

    async def adapt(self, engine: Engine) -> None:
        """Adapters of llama.cpp models are named at start, not while they run."""

    async def end(self, replica_id: str) -> None:
        known = self._started.pop(replica_id, None)
        identity = self._identity(self._place(replica_id)) or known
        if identity is not None:
            await end(identity, grace_s=2.0)
        (self._place(replica_id) / f"engine{IDENTITY}").unlink(missing_ok=True)

    async def living(self) -> dict[str, Living]:
        found: dict[str, Living] = {}
        for spec_file in sorted(self._folder.glob("*/spec.json")):
            place = spec_file.parent
            if (identity := self._identity(place)) is None or not alive(identity):
                continue
            replica_id = str(msgspec.json.decode(spec_file.read_bytes())["replica_id"])
            ready = read_ready(place / "ready.json")
            found[replica_id] = Living(
                replica_id=replica_id,
                endpoint=f"127.0.0.1:{ready.port}" if ready else "",
                state="ready" if ready else "starting",
                rung=Rung.SERVING,
            )
        return found

    async def abandon(self) -> None:
        for replica_id in {*await self.living(), *self._started}:
            await self.end(replica_id)

    async def end_forgotten(self) -> None:
        for replica_id, identity in self._started.items():
            if identity != self._identity(self._place(replica_id)):
                await end(identity)

    async def requests(self, engine: Engine) -> int:
        try:
            answer = await self._client.get(f"http://{engine.endpoint}/metrics")
        except httpx.HTTPError as error:
            raise EngineError(f"{engine.replica_id} does not answer: {error!r}") from error
        return requests_of(answer.text) if answer.is_success else 0

    async def gpu_used_bytes(self) -> dict[int, int]:
        return {}

    def _place(self, replica_id: str) -> Path:
        return self._folder / quote(replica_id, safe="")

    def _identity(self, place: Path) -> Identity | None:
        known = read_identity(place / f"engine{IDENTITY}")
        return known or identity_of_spec(place / "ready.json", place / "spec.json")


def requests_of(metrics: str) -> int:
    """Running and waiting requests in an engine's Prometheus text, vLLM's names or llama.cpp's."""
    names = ("num_requests_running", "num_requests_waiting", "requests_processing")
    total = 0.0
    for line in metrics.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name.endswith((*names, "requests_deferred")):
            total += float(line.rsplit(" ", 1)[1])
    return int(total)


def read_ready(path: Path) -> Ready | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ready)
    except (OSError, msgspec.DecodeError):
        return None


async def until_ready(
    ready_file: Path, identity_file: Path, log: Path, *, limit_s: float | None = None
) -> int:
    """The port, once a fresh process has said that it listens."""
    try:
        async with asyncio.timeout(limit_s):
            while (ready := read_ready(ready_file)) is None:
                identity = read_identity(identity_file)
                if identity is not None and not alive(identity):
                    raise EngineError(f"the process ended before it listened: see {log}")
                await asyncio.sleep(_POLL_WALL_S)
    except TimeoutError:
        raise EngineError(f"no word after {limit_s} s: see {log}") from None
    return ready.port
