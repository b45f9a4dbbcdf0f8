"""A local fleet of real processes for tests: submit, wait for what becomes of it, end it all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from placement.catalog import Catalog, Faults, NodeId
from placement.clock import Clock
from placement.engines.base import IDENTITY, Identity, read_identity
from placement.fleet import ActionEnded, FleetChanged, FleetEvent
from placement.fleets.local import LocalFleet, end_leftovers
from placement.plan import (
    Accepted,
    Answer,
    Outcome,
    OutcomeStatus,
    Reason,
    ReasonCode,
    Refused,
    Start,
)
from placement.snapshot import ReplicaState
from tests.builders import GB, catalog, model, node

SCALE = 50.0
SAFETY_S = 60.0
SMALL = model("small", weights_bytes=8 * GB, kv_cache_bytes=10 * GB)
BIG = model("big", weights_bytes=30 * GB, kv_cache_bytes=25 * GB)
NODE = node(host_bytes=512 * GB)
CATALOG = catalog(SMALL, BIG, nodes=(NODE,), time_scale=SCALE)


class Bench:
    """One fleet and everything it has said."""

    def __init__(self, state_dir: Path, what: Catalog = CATALOG, scale: float = SCALE) -> None:
        self.state_dir = state_dir
        self.clock = Clock(scale)
        self.fleet = LocalFleet(what, state_dir, self.clock)
        self.outcomes: dict[str, Outcome] = {}
        self.versions: list[int] = []
        self._asked = 0
        self._moved = asyncio.Event()

    def hear(self, event: FleetEvent) -> None:
        match event:
            case FleetChanged(snapshot=snapshot):
                self.versions.append(snapshot.version)
            case ActionEnded(outcome=outcome):
                assert outcome.action_id not in self.outcomes, "an action ends once"
                self.outcomes[outcome.action_id] = outcome
        self._moved.set()
        self._moved = asyncio.Event()

    def order(self, verb: type[Any], *, node_id: str = "n0", **what: Any) -> Any:
        self._asked += 1
        return verb(
            action_id=f"{id(self):x}-{self._asked}",
            snapshot_version=self.fleet.snapshot().version,
            deadline_us=self.clock.now_us() + self.clock.trace_us(30),
            node_id=NodeId(node_id),
            why=Reason(code=ReasonCode.OPERATOR),
            **what,
        )

    async def ask(self, verb: type[Any], **what: Any) -> Answer:
        return await self.fleet.submit(self.order(verb, **what))

    async def until(self, true: Callable[[], Any], what: str = "") -> None:
        try:
            async with asyncio.timeout(SAFETY_S):
                while not true():
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"never came true: {what}; {self.fleet.snapshot()}") from None

    async def outcome(self, answer: Answer) -> Outcome:
        assert isinstance(answer, Accepted), answer
        await self.until(lambda: answer.action_id in self.outcomes, f"end of {answer.action_id}")
        return self.outcomes[answer.action_id]

    async def done(self, verb: type[Any], **what: Any) -> Outcome:
        outcome = await self.outcome(await self.ask(verb, **what))
        assert outcome.status is OutcomeStatus.DONE, outcome
        return outcome

    async def refused(self, verb: type[Any], **what: Any) -> Refused:
        answer = await self.ask(verb, **what)
        assert isinstance(answer, Refused), answer
        return answer

    def replica(self, replica_id: str) -> ReplicaState:
        found = self.fleet.snapshot().replica(replica_id)
        assert found is not None, f"{replica_id} is not there: {self.fleet.snapshot()}"
        return found

    def folder(self, node_id: str = "n0") -> Path:
        return self.state_dir / "nodes" / node_id

    def process(self, name: str, node_id: str = "n0") -> Identity:
        """The agent or the engine-host of a node."""
        found = read_identity(self.folder(node_id) / f"{name}{IDENTITY}")
        assert found is not None, f"no {name} was started"
        return found

    async def sleep_word(self, replica_id: str) -> str:
        """What the engine-host says of a replica, past the agent."""
        ready = msgspec.json.decode((self.folder() / "engine-host.ready.json").read_bytes())
        token = (self.state_dir / "agent.token").read_text()
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
            answer = await client.get(f"http://127.0.0.1:{ready['port']}/host/replicas")
        found = {r["replica_id"]: r["sleep"] for r in answer.json()["replicas"]}
        return str(found[replica_id])

    async def faults(self, model_id: str, faults: Faults) -> None:
        ready = msgspec.json.decode((self.folder() / "engine-host.ready.json").read_bytes())
        token = (self.state_dir / "agent.token").read_text()
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
            body = {"model_id": model_id, "faults": msgspec.to_builtins(faults)}
            answer = await client.post(f"http://127.0.0.1:{ready['port']}/host/faults", json=body)
            answer.raise_for_status()

    async def complete(self, replica_id: str, tokens: int = 4) -> httpx.Response:
        url = f"http://{self.replica(replica_id).endpoint}/v1/completions"
        body = {"model": self.replica(replica_id).model_id, "prompt": "hi", "max_tokens": tokens}
        async with httpx.AsyncClient(timeout=SAFETY_S) as client:
            return await client.post(url, json=body | {"ignore_eos": True})


@asynccontextmanager
async def running(
    state_dir: Path, what: Catalog = CATALOG, scale: float = SCALE
) -> AsyncIterator[Bench]:
    """A fleet that is up; whatever happens, nothing of it is left afterwards."""
    bench = Bench(state_dir, what, scale)
    try:
        await bench.fleet.start(bench.hear)
        yield bench
        await bench.fleet.close(end_engines=True)
    finally:
        await bench.fleet.close(end_engines=False)
        await asyncio.to_thread(end_leftovers, state_dir)


def rss_bytes(identity: Identity) -> int:
    return int(psutil.Process(identity.pid).memory_info().rss)


async def start(bench: Bench, name: str, spec: str = "small", gpu_id: int = 0) -> None:
    await bench.done(Start, replica_id=name, model_id=spec, gpu_ids=(gpu_id,))
