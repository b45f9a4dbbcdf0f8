"""The node agent with real processes: what it does, what it refuses, what it survives."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import msgspec
import pytest

from placement.catalog import Adapter, EngineKind, Faults
from placement.edges import footprint_bytes, gpu_bytes
from placement.engines.base import alive
from placement.plan import (
    Accepted,
    Drain,
    Evict,
    Fetch,
    OutcomeStatus,
    Park,
    Promote,
    RefusalCode,
    Restore,
    Shed,
    Start,
    Victim,
    Warm,
)
from placement.snapshot import Phase, Rung, WeightsAt
from tests.builders import GB, catalog, model, node
from tests.placement.fleet_bench import (
    BIG,
    CATALOG,
    NODE,
    SCALE,
    SMALL,
    Bench,
    rss_bytes,
    running,
    start,
)

pytestmark = pytest.mark.integration


def victim(name: str, to: Rung | None) -> tuple[Victim, ...]:
    return (msgspec.convert({"replica_id": name, "to": to}, Victim),)


async def test_a_replicas_life(bench: Bench) -> None:
    """Start, serve, park, promote over a neighbour, evict: each seen from outside."""
    answer = await bench.ask(Start, replica_id="r0", model_id="small", gpu_ids=(0,))
    await bench.until(lambda: bench.fleet.snapshot().replicas(), "the start is seen")
    assert bench.replica("r0").phase is Phase.STARTING
    assert bench.replica("r0").eta_us > 0
    outcome = await bench.outcome(answer)
    assert outcome.ended_us - outcome.began_us > 10_000_000, "an engine start takes its time"
    assert bench.replica("r0").serving
    assert (await bench.complete("r0")).status_code == 200

    await bench.done(Park, replica_id="r0")
    assert bench.replica("r0").rung is Rung.PARKED
    await start(bench, "b0", "big")
    refused = await bench.refused(Promote, replica_id="r0")
    assert refused.reason_code is RefusalCode.NO_ROOM_GPU
    await bench.done(Promote, replica_id="r0", victims=victim("b0", Rung.SHED))
    assert bench.replica("r0").serving
    assert bench.replica("b0").rung is Rung.SHED
    assert (await bench.complete("r0")).json()["choices"][0]["text"].startswith("This")

    await bench.done(Evict, replica_id="b0")
    await bench.done(Evict, replica_id="r0")
    node_state = bench.fleet.snapshot().nodes[0]
    assert node_state.replicas == ()
    assert [g.reserved_bytes for g in node_state.gpus] == [0, 0]
    assert bench.versions == sorted(set(bench.versions))


async def test_every_edge_of_the_graph(bench: Bench) -> None:
    await start(bench, "r0")
    for verb, rung in (
        (Warm, Rung.WARM),
        (Promote, Rung.SERVING),
        (Shed, Rung.SHED),
        (Warm, Rung.WARM),
        (Park, Rung.PARKED),
        (Warm, Rung.WARM),
        (Shed, Rung.SHED),
        (Promote, Rung.SERVING),
        (Park, Rung.PARKED),
        (Promote, Rung.SERVING),
    ):
        await bench.done(verb, replica_id="r0")
        assert bench.replica("r0").rung is rung
        reserved = bench.fleet.snapshot().nodes[0].gpus[0].reserved_bytes
        assert reserved == gpu_bytes(SMALL, rung)
    assert (await bench.complete("r0")).status_code == 200


async def test_a_start_without_room_tells_bytes_and_an_action_runs_once(bench: Bench) -> None:
    order = bench.order(Start, replica_id="b0", model_id="big", gpu_ids=(0,))
    both = await asyncio.gather(bench.fleet.submit(order), bench.fleet.submit(order))
    assert set(both) == {Accepted(action_id=order.action_id)}
    await bench.outcome(both[0])
    assert await bench.fleet.submit(order) == both[0]
    refused = await bench.refused(Start, replica_id="b1", model_id="big", gpu_ids=(0,))
    assert refused.reason_code is RefusalCode.NO_ROOM_GPU
    assert refused.need_bytes == footprint_bytes(BIG) > refused.free_bytes
    assert [r.replica_id for r in bench.fleet.snapshot().replicas()] == ["b0"]


async def test_a_busy_replica_is_not_moved(bench: Bench) -> None:
    await start(bench, "r0")
    running_request = asyncio.create_task(bench.complete("r0", tokens=6000))
    code = None
    while code is not RefusalCode.BUSY:  # until the engine has the request
        assert not running_request.done(), "the request ended before it was seen"
        await bench.done(Drain, replica_id="r0")
        probe = bench.order(Park, replica_id="r0")
        answer = await bench.fleet.submit(probe)
        if isinstance(answer, Accepted):
            pytest.fail("parked although a request had been sent")
        code = answer.reason_code
    assert (await bench.refused(Evict, replica_id="r0")).reason_code is RefusalCode.BUSY
    await bench.done(Restore, replica_id="r0")
    assert (await running_request).status_code == 200


async def test_a_failed_wake_ends_the_engine(bench: Bench) -> None:
    await start(bench, "r0")
    await bench.done(Park, replica_id="r0")
    await bench.faults("small", Faults(failed_wake=1.0))
    outcome = await bench.outcome(await bench.ask(Promote, replica_id="r0"))
    assert outcome.status is OutcomeStatus.FAILED
    assert "ended r0" in outcome.message
    assert bench.fleet.snapshot().nodes[0].replicas == ()


async def test_a_victim_that_keeps_its_memory_is_ended(bench: Bench) -> None:
    await start(bench, "r0")
    await bench.done(Park, replica_id="r0")
    await start(bench, "b0", "big")
    await bench.faults("big", Faults(memory_not_freed=1.0))
    await bench.done(Promote, replica_id="r0", victims=victim("b0", Rung.SHED))
    assert [r.replica_id for r in bench.fleet.snapshot().replicas()] == ["r0"]
    assert bench.replica("r0").serving


async def test_a_sleeper_that_keeps_its_memory_is_not_believed(bench: Bench) -> None:
    await start(bench, "r0")
    await bench.faults("small", Faults(memory_not_freed=1.0))
    outcome = await bench.outcome(await bench.ask(Park, replica_id="r0"))
    assert outcome.status is OutcomeStatus.FAILED
    assert "left memory behind" in outcome.message


async def test_a_deadline_that_has_passed_moves_nothing(bench: Bench) -> None:
    await start(bench, "r0")
    late = msgspec.structs.replace(bench.order(Park, replica_id="r0"), deadline_us=1)
    outcome = await bench.outcome(await bench.fleet.submit(late))
    assert outcome.status is OutcomeStatus.STALE
    assert bench.replica("r0").serving


async def test_a_crashed_engine_leaves_the_inventory(bench: Bench) -> None:
    await start(bench, "r0")
    await start(bench, "r1", gpu_id=1)
    await bench.faults("small", Faults(crash_per_request=1.0))
    with pytest.raises(httpx.HTTPError):
        (await bench.complete("r0")).raise_for_status()
    await bench.until(lambda: len(bench.fleet.snapshot().replicas()) == 1, "the crash is seen")
    assert bench.replica("r1").serving


async def test_a_killed_engine_host_takes_its_replicas_and_comes_back(bench: Bench) -> None:
    await start(bench, "r0")
    os.kill(bench.process("engine-host").pid, signal.SIGKILL)
    await bench.until(lambda: not bench.fleet.snapshot().replicas(), "the replicas are gone")
    await start(bench, "r1")
    assert (await bench.complete("r1")).status_code == 200


async def test_the_api_wants_its_token_and_sense(bench: Bench) -> None:
    port = msgspec.json.decode((bench.folder() / "agent.json").read_bytes())["port"]
    token = (bench.state_dir / "agent.token").read_text()
    assert (bench.state_dir / "agent.token").stat().st_mode & 0o077 == 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/inventory")).status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        assert (await client.get("/v1/inventory")).json()["node_id"] == "n0"
        assert (await client.post("/v1/actions", content=b"{}")).status_code == 400
        assert (await client.put("/v1/models", content=b"[1]")).status_code == 400
        assert (await client.get("/v1/events?after=x")).status_code == 400


async def test_an_agent_is_small(bench: Bench) -> None:
    await start(bench, "r0")
    assert rss_bytes(bench.process("agent")) < 60_000_000


async def test_weights_are_fetched_before_they_are_loaded(tmp_path: Path) -> None:
    cold = catalog(SMALL, nodes=(node(preloaded=False),), time_scale=SCALE)
    async with running(tmp_path, cold) as bench:
        assert bench.fleet.snapshot().nodes[0].weights_at == {"small": WeightsAt.DISK}
        outcome = await bench.done(Fetch, model_id="small", to=WeightsAt.HOST)
        assert outcome.ended_us - outcome.began_us >= 8 * GB * 1_000_000 // NODE.links.disk
        assert bench.fleet.snapshot().nodes[0].weights_at == {"small": WeightsAt.HOST}


async def test_adapters_and_new_models_of_a_changed_catalog(bench: Bench) -> None:
    await start(bench, "r0")
    changed = msgspec.structs.replace(SMALL, adapters=(Adapter(id="tuned", source="x"),))
    await bench.fleet.reload(
        msgspec.structs.replace(CATALOG, models=(changed, model("fresh", weights_bytes=GB)))
    )
    url = f"http://{bench.replica('r0').endpoint}/v1/models"
    async with httpx.AsyncClient() as client:
        names = {m["id"] for m in (await client.get(url)).json()["data"]}
    assert names == {"small", "tuned"}
    await start(bench, "f0", "fresh", gpu_id=1)
    refused = await bench.refused(Start, replica_id="b0", model_id="big", gpu_ids=(1,))
    assert refused.reason_code is RefusalCode.UNKNOWN_MODEL
    assert alive(bench.process("agent"))


async def adapters_of(bench: Bench, replica_id: str) -> dict[str, str]:
    """Adapters that an engine has loaded, and from where."""
    async with httpx.AsyncClient() as client:
        listed = await client.get(f"http://{bench.replica(replica_id).endpoint}/v1/models")
    return {m["id"]: m["root"] for m in listed.json()["data"] if m["parent"]}


async def test_adapters_follow_the_catalog_in_both_directions(bench: Bench) -> None:
    await start(bench, "r0")
    await start(bench, "parked", gpu_id=1)
    for sources in ({"a": "1", "b": "1"}, {"b": "2"}, {}, {"a": "1"}):
        adapters = tuple(Adapter(id=name, source=source) for name, source in sources.items())
        changed = msgspec.structs.replace(SMALL, adapters=adapters)
        await bench.fleet.reload(msgspec.structs.replace(CATALOG, models=(changed, BIG)))
        assert await adapters_of(bench, "r0") == sources
    await bench.done(Park, replica_id="parked")
    await bench.fleet.reload(CATALOG)
    await bench.done(Promote, replica_id="parked")
    assert await adapters_of(bench, "parked") == {}


async def test_new_adapters_reach_whoever_did_not_serve_when_they_came(bench: Bench) -> None:
    await start(bench, "parked")
    await bench.done(Park, replica_id="parked")
    await start(bench, "drained", gpu_id=1)
    await bench.done(Drain, replica_id="drained")
    starting = await bench.ask(Start, replica_id="starting", model_id="small", gpu_ids=(0,))
    changed = msgspec.structs.replace(SMALL, adapters=(Adapter(id="tuned", source="x"),))
    await bench.fleet.reload(msgspec.structs.replace(CATALOG, models=(changed, BIG)))
    await bench.done(Restore, replica_id="drained")
    await bench.outcome(starting)
    await bench.done(Promote, replica_id="parked")
    async with httpx.AsyncClient() as client:
        for name in ("parked", "drained", "starting"):
            listed = await client.get(f"http://{bench.replica(name).endpoint}/v1/models")
            assert "tuned" in {m["id"] for m in listed.json()["data"]}, name


async def test_replicas_of_a_model_that_somebody_else_runs_now_can_be_ended(bench: Bench) -> None:
    await start(bench, "r0")
    await bench.done(Park, replica_id="r0")
    elsewhere = msgspec.structs.replace(
        SMALL, engine=EngineKind.EXTERNAL, endpoints=("http://127.0.0.1:9",)
    )
    await bench.fleet.reload(msgspec.structs.replace(CATALOG, models=(elsewhere, BIG)))
    assert bench.replica("r0").pinned
    outcome = await bench.done(Evict, replica_id="r0")
    assert outcome.model_id == "small"
    assert bench.fleet.snapshot().replicas() == []


@pytest.mark.heavy
async def test_a_hung_engine_host_is_ended_by_the_agent_that_would_adopt_it(bench: Bench) -> None:
    await start(bench, "r0")
    host = bench.process("engine-host")
    os.kill(host.pid, signal.SIGSTOP)
    os.kill(bench.process("agent").pid, signal.SIGKILL)
    await bench.until(lambda: not bench.fleet.snapshot().replicas(), "the replica is given up")
    assert not alive(host)
    await start(bench, "r1")


async def test_a_client_that_leaves_in_mid_request_is_no_error(bench: Bench) -> None:
    """A gateway that is ended while it hands models over: the agent's log stays silent."""
    port = msgspec.json.decode((bench.folder() / "agent.json").read_bytes())["port"]
    token = (bench.state_dir / "agent.token").read_text()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n[".encode())
    await writer.drain()
    await asyncio.sleep(0.2)  # headers and body are read apart, as from a gateway
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
    await bench.done(Start, replica_id="r0", model_id="small", gpu_ids=(0,))
    assert "Traceback" not in (bench.folder() / "agent.log").read_text()
