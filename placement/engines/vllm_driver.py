"""The driver of real vLLM servers: one per replica, on CUDA or on the CPU. ✎

In: replicas, the interpreter that has vLLM. Out: servers in sessions of their own, ready by their
HTTP, moved by the calls of `vllm_calls`, ended with every helper. What a server offers is asked
once it is ready and written beside it. Never: imports vLLM, guesses on which rung a server stands
(that cannot be seen from outside: the agent's ledger alone knows).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import msgspec

from placement.catalog import Frozen, NodeSpec
from placement.engines import vllm_calls, vllm_guard
from placement.engines.base import Engine, EngineError, Living, alive, write_json
from placement.engines.last_words import last_words
from placement.engines.processes import Processes
from placement.engines.ready_file import new_client
from placement.engines.vllm_find import HOW_TO_INSTALL
from placement.engines.vllm_launch import Ground, Ports, arguments, devices, environment
from placement.engines.vllm_ports import free_ports
from placement.engines.vllm_probe import Offered, lacks, offered, remark, too_old
from placement.snapshot import Lack, Rung, WeightsAt

log = logging.getLogger(__name__)

_GRACE_S = 5.0
"""A server ends within two seconds of a SIGTERM; one that is starting may not hear it."""

_POLL_WALL_S = 0.25
_ANSWER_WALL_S = 10.0

Measure = Callable[[], Mapping[str, int]]
"""Used bytes of every GPU of this machine, by its number and by its name."""


class Begun(Frozen, frozen=True, kw_only=True):
    """What a server was started as."""

    replica_id: str
    ports: Ports
    gpu_ids: tuple[int, ...]


class VllmDriver:
    """All vLLM servers of one node."""

    def __init__(
        self,
        node: NodeSpec,
        folder: Path,
        token_file: str,
        *,
        python: str,
        inherited: Mapping[str, str],
        measure: Measure,
    ) -> None:
        self._node = node
        self._processes = Processes(folder, "vllm.json", grace_s=_GRACE_S)
        self._client = new_client(token_file)
        self._python = python
        self._inherited = inherited
        self._measure = measure
        self._ground = Ground(
            hbm_bytes=max(node.hbm_bytes, 1),
            cache=str(folder / "vllm-cache"),
            guard=str(Path(str(vllm_guard.__file__)).parent),
            token_file=token_file,
        )

    async def start(self, engine: Engine, weights_at: WeightsAt) -> str:  # noqa: ARG002
        if not self._python:
            raise EngineError(f"{engine.replica_id} needs vLLM: {HOW_TO_INSTALL}")
        name = str(self._processes.place(engine.replica_id))
        ports = free_ports({begun.ports.api for begun in self._begun()}, name)
        self._offer_file(engine.replica_id).unlink(missing_ok=True)
        await self._processes.begin(
            engine.replica_id,
            Begun(replica_id=engine.replica_id, ports=ports, gpu_ids=engine.gpu_ids),
            arguments(engine.spec, ports, self._ground),
            python=self._python,
            env=environment(self._inherited, engine.spec, engine.gpu_ids, ports, self._ground),
        )
        return _endpoint(ports)

    async def ready(self, engine: Engine, eta_wall_s: float) -> str:  # noqa: ARG002
        """A start says nothing until it is over. The action's deadline bounds it."""
        endpoint = self._endpoint_of(engine.replica_id)
        while not await self._healthy(endpoint):
            identity = self._processes.identity(engine.replica_id)
            if identity is None or not alive(identity):
                why = last_words(self._processes.log_tail(engine.replica_id))
                where = self._processes.log(engine.replica_id)
                raise EngineError(f"vLLM ended while it was starting: {why} (all of it: {where})")
            await asyncio.sleep(_POLL_WALL_S)
        await self._probe(engine, endpoint)
        return endpoint

    async def _healthy(self, endpoint: str) -> bool:
        try:
            url = f"http://{endpoint}/health"
            return (await self._client.get(url, timeout=_ANSWER_WALL_S)).is_success
        except httpx.HTTPError:
            return False

    async def _probe(self, engine: Engine, endpoint: str) -> None:
        """Ask what it offers, and that it is ours: somebody else's server may hold the port."""
        base = f"http://{endpoint}"
        models = await vllm_calls.ask(self._client, "GET", f"{base}/v1/models")
        served = [m.get("id") for m in models.get("data", ()) if isinstance(m, dict)]
        if engine.spec.id not in served:
            raise EngineError(f"{base} serves {served}, not {engine.spec.id}")
        version = await vllm_calls.ask(self._client, "GET", f"{base}/version")
        openapi = await vllm_calls.ask(self._client, "GET", f"{base}/openapi.json")
        offer = offered(str(version.get("version")), openapi)
        if too_old(offer.version):
            raise EngineError(remark(offer.version))
        if note := remark(offer.version):
            log.warning("%s: %s", engine.replica_id, note)
        write_json(self._offer_file(engine.replica_id), offer)

    async def lacks(self, engine: Engine) -> tuple[Lack, ...]:
        offer = self._read_offer(engine.replica_id)
        return lacks(offer, on_cpu=engine.spec.on_cpu, adapted=bool(engine.spec.adapters))

    async def step(self, engine: Engine, at: Rung, to: Rung) -> None:
        for lack in await self.lacks(engine):
            if (lack.at, lack.to) == (at, to):
                raise EngineError(lack.why)
        await vllm_calls.step(self._client, engine.endpoint, at, to)

    async def canary(self, engine: Engine) -> str:
        return await vllm_calls.canary(self._client, engine.endpoint, engine.spec)

    async def adapt(self, engine: Engine) -> None:
        """Adapters that left the catalog leave the engine too, the last one as any other."""
        if "load_lora_adapter" not in self._read_offer(engine.replica_id).calls:
            if not engine.spec.adapters:
                return
            raise EngineError(
                f"{engine.replica_id} was started without adapters and cannot load any now: "
                "end it, the next one will"
            )
        await vllm_calls.load_adapters(self._client, engine.endpoint, engine.spec)

    async def end(self, replica_id: str) -> None:
        await self._processes.end(replica_id)

    async def living(self) -> dict[str, Living]:
        """A server whose leading process is gone counts as exited, whatever helpers it left."""
        found = {}
        for replica_id, _, identity in self._processes.begun():
            lives = alive(identity)
            found[replica_id] = Living(
                replica_id=replica_id,
                endpoint=self._endpoint_of(replica_id),
                state="ready" if lives else "exited",
                message="" if lives else last_words(self._processes.log_tail(replica_id)),
            )
        return found

    async def abandon(self) -> None:
        await self._processes.end_all()

    async def end_forgotten(self) -> None:
        await self._processes.end_forgotten()

    async def requests(self, engine: Engine) -> int:
        return await vllm_calls.requests(self._client, engine.endpoint)

    async def gpu_used_bytes(self) -> dict[int, int]:
        """Measured only where servers of ours hold GPUs: emulated GPUs are not this machine's."""
        held = {g for begun in self._begun() for g in begun.gpu_ids}
        if self._node.on_cpu or not held:
            return {}
        used = await asyncio.to_thread(self._measure)
        names = {g: devices(self._inherited, (g,))[0] for g in held}
        return {g: used[name] for g, name in names.items() if name in used}

    def _endpoint_of(self, replica_id: str) -> str:
        return _endpoint(_read_begun(self._processes.spec_file(replica_id)).ports)

    def _begun(self) -> list[Begun]:
        """Also those whose process is only about to run: their ports and GPUs are taken."""
        return [_read_begun(spec_file) for spec_file in self._processes.spec_files()]

    def _offer_file(self, replica_id: str) -> Path:
        return self._processes.place(replica_id) / "offered.json"

    def _read_offer(self, replica_id: str) -> Offered:
        try:
            offer_file = self._offer_file(replica_id)
            return msgspec.json.decode(offer_file.read_bytes(), type=Offered)
        except (OSError, msgspec.DecodeError) as error:
            raise EngineError(f"what {replica_id} offers was not written down: {error}") from error


def _endpoint(ports: Ports) -> str:
    return f"127.0.0.1:{ports.api}"


def _read_begun(spec_file: Path) -> Begun:
    try:
        return msgspec.json.decode(spec_file.read_bytes(), type=Begun)
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(f"{spec_file} cannot be read: {error}") from error
