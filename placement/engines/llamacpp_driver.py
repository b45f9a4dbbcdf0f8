"""The driver of llama.cpp engines: one process per replica, on the CPU. ✎

What it starts outlives the agent and is found again by its files.
"""

from pathlib import Path

from placement.engines import vllm_calls
from placement.engines.base import IDENTITY, Engine, EngineError, Living, alive
from placement.engines.processes import Processes
from placement.engines.ready_file import new_client, read_ready, until_ready
from placement.snapshot import Lack, Rung, WeightsAt

_GRACE_S = 2.0


class LlamaCppDriver:
    """One llama.cpp process per replica, on the CPU."""

    def __init__(self, folder: Path, token_file: str) -> None:
        self._processes = Processes(folder, "spec.json", grace_s=_GRACE_S)
        self._token_file = token_file
        self._client = new_client(token_file)

    async def start(self, engine: Engine, weights_at: WeightsAt) -> str:  # noqa: ARG002
        ready_file = self._processes.place(engine.replica_id) / "ready.json"
        ready_file.unlink(missing_ok=True)
        spec = {
            "replica_id": engine.replica_id,
            "model": engine.spec,
            "port": 0,
            "token_file": self._token_file,
            "ready_file": str(ready_file),
        }
        spec_file = str(self._processes.spec_file(engine.replica_id))
        argv = ["-m", "placement.engines.llamacpp", "--spec", spec_file]
        await self._processes.begin(engine.replica_id, spec, argv)
        return ""

    async def ready(self, engine: Engine, eta_wall_s: float) -> str:  # noqa: ARG002
        place = self._processes.place(engine.replica_id)
        # How long a load may take depends on the model: the action's deadline bounds it.
        port = await until_ready(
            place / "ready.json", place / f"engine{IDENTITY}", place / "engine.log"
        )
        await vllm_calls.ask(self._client, "GET", f"http://127.0.0.1:{port}/health")
        return f"127.0.0.1:{port}"

    async def lacks(self, engine: Engine) -> tuple[Lack, ...]:  # noqa: ARG002
        return ()

    async def step(self, engine: Engine, at: Rung, to: Rung) -> None:
        raise EngineError(f"{engine.replica_id} cannot go {at.name} → {to.name}: it is on the CPU")

    async def canary(self, engine: Engine) -> str:
        return await vllm_calls.canary(self._client, engine.endpoint, engine.spec)

    async def adapt(self, engine: Engine) -> None:
        """Adapters of llama.cpp models are named at start, not while they run."""

    async def end(self, replica_id: str) -> None:
        await self._processes.end(replica_id)

    async def living(self) -> dict[str, Living]:
        found: dict[str, Living] = {}
        for replica_id, place, identity in self._processes.begun():
            if not alive(identity):
                continue
            ready = read_ready(place / "ready.json")
            found[replica_id] = Living(
                replica_id=replica_id,
                endpoint=f"127.0.0.1:{ready.port}" if ready else "",
                state="ready" if ready else "starting",
                rung=Rung.SERVING,
            )
        return found

    async def abandon(self) -> None:
        await self._processes.end_all()

    async def end_forgotten(self) -> None:
        await self._processes.end_forgotten()

    async def requests(self, engine: Engine) -> int:
        return await vllm_calls.requests(self._client, engine.endpoint)

    async def gpu_used_bytes(self) -> dict[int, int]:
        return {}
