"""Parts of an agent that a whole one shows too seldom: its watch, its patience, its adapters."""

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from placement.agent.app import Agent
from placement.agent.book import AgentSpec
from placement.agent.deeds import Deeds
from placement.agent.ledger import Ledger
from placement.catalog import Adapter, EngineKind, NodeId
from placement.clock import Clock, wall_us
from placement.engines import emulated_driver, ready_file
from placement.engines.base import IDENTITY, Driver, Engine, EngineError, end, spawn
from placement.engines.llamacpp_driver import LlamaCppDriver
from placement.plan import Reason, ReasonCode, Start
from placement.snapshot import Rung
from tests.builders import model, node

SMALL = model("small")


def an_agent(folder: Path) -> Agent:
    (folder / "token").write_text("only-for-tests")
    return Agent(
        AgentSpec(
            node=node(),
            models=(SMALL,),
            time_scale=50.0,
            anchor_us=wall_us(),
            seed=1,
            state_dir=str(folder / "node"),
            token_file=str(folder / "token"),
        )
    )


async def test_a_watch_that_stumbles_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`agent.json` is garbage for a while, then gone: the agent still sees that it must leave."""
    agent, left = an_agent(tmp_path), asyncio.Event()
    await agent.begin()
    agent.listens(1, left.set)
    file = agent.folder / "agent.json"
    file.write_text("{")
    try:
        async with asyncio.timeout(60):
            while not any(r.exc_info and "watch" in r.message for r in caplog.records):
                await asyncio.sleep(0.01)
            file.unlink()
            await left.wait()
    finally:
        await agent.end()


async def test_a_task_that_breaks_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent = an_agent(tmp_path)

    async def broken() -> None:
        raise RuntimeError("a bug of ours")

    agent._run(broken())
    await asyncio.sleep(0.05)
    assert "a bug of ours" in caplog.text
    await agent.end()


class Loader:
    """An engine into which adapters are loaded while the catalog changes once more."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.meanwhile: list[Any] = []

    async def canary(self, engine: Engine) -> str:  # noqa: ARG002
        return "Paris"

    async def adapt(self, engine: Engine) -> None:
        if self.meanwhile:
            self.meanwhile.pop()()
        await asyncio.sleep(0)
        self.loaded = [a.id for a in engine.spec.adapters]


async def test_a_catalog_that_changes_while_adapters_load_is_heard() -> None:
    ledger, loader = Ledger(node(), (SMALL,)), Loader()
    engines = {EngineKind.EMULATED: cast("Driver", loader)}
    deeds = Deeds(ledger, engines, Clock(1.0), _nothing_measured, lambda: None)
    ledger.admit(_start("r0"), 0)
    tuned, finer = (
        msgspec.structs.replace(SMALL, adapters=(Adapter(id=name, source="x"),))
        for name in ("tuned", "finer")
    )
    ledger.reload((tuned,))
    loader.meanwhile = [lambda: ledger.reload((finer,))]
    await deeds.prove("r0")
    assert loader.loaded == ["finer"]
    ledger.landed("r0", Rung.SERVING, 1)
    ledger.reload((tuned,))
    await deeds.adapt_serving()
    assert loader.loaded == ["tuned"]


async def test_an_engine_that_cannot_be_ended_keeps_no_bytes() -> None:
    ledger = Ledger(node(), (SMALL,))
    engines = {EngineKind.EMULATED: cast("Driver", Loader())}  # it has no `end`
    deeds = Deeds(ledger, engines, Clock(1.0), _nothing_measured, lambda: None)
    ledger.admit(_start("r0"), 0)
    await deeds.end(ledger.held["r0"])
    assert ledger.state().gpus[0].reserved_bytes == 0


async def test_a_model_on_the_cpu_may_take_longer_to_load_than_an_engine_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bounds it is the action's deadline, and the end of its process."""
    monkeypatch.setattr(emulated_driver, "_UP_WALL_S", 0.05)
    (tmp_path / "token").write_text("only-for-tests")
    driver = LlamaCppDriver(tmp_path, str(tmp_path / "token"))
    place = tmp_path / "engines" / "r0"
    sleeper = await spawn(
        ["-c", "import time; time.sleep(600)"],
        log=place / "engine.log",
        identity_file=place / f"engine{IDENTITY}",
    )
    ready = asyncio.create_task(driver.ready(Engine(replica_id="r0", spec=SMALL), 0.0))
    try:
        await asyncio.sleep(0.5)
        assert not ready.done()
    finally:
        await end(sleeper)
    with pytest.raises(EngineError, match="ended before it listened"):
        await ready


async def test_an_engine_host_that_never_listens_is_given_up(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing.json"
    with pytest.raises(EngineError, match="no word"):
        await ready_file.until_ready(nowhere, nowhere, tmp_path / "log", limit_s=0.05)


async def _nothing_measured() -> dict[int, int]:
    return {}


def _start(name: str) -> Start:
    order = {
        "verb": "start",
        "action_id": "a1",
        "snapshot_version": 1,
        "deadline_us": 10**12,
        "node_id": NodeId("n0"),
        "why": Reason(code=ReasonCode.OPERATOR),
        "replica_id": name,
        "model_id": "small",
        "gpu_ids": (0,),
    }
    return msgspec.convert(order, Start, from_attributes=True)
