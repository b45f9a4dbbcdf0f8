"""Beginning and ending: who is told what, one gateway per folder, catalogs that do not fit."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from gateway import state_dir
from gateway.admin import NodesChangedError, build_admin
from gateway.checks import UnfitError
from gateway.desk import AdminDesk
from gateway.hot_protocol import HotProtocol
from gateway.recorder import Recorder
from gateway.serving import Serving, Settings
from gateway.telemetry import OutcomeKind, Record
from gateway.wire import Request
from gateway.words import StartError
from placement.catalog import HistoryKept
from placement.snapshot import Rung
from tests.builders import catalog, model, node
from tests.gateway.world import Engine, Reply, Seen, ask, chat, event, gateway, post, until

TWO = catalog(model("small"), model("other"))


# --- the end


async def test_who_is_held_hears_at_once_that_the_gateway_stops() -> None:
    async with Engine() as engine, gateway(TWO) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        asked = asyncio.create_task(ask(running))
        await until(lambda: running.gate.admission.held("small") == 1)
        for connection in list(running.connections):
            connection.close_when_idle()
        response = await asked
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"
        assert int(response.headers["retry-after"]) >= 1
        seen = running.gate.telemetry.models["small"]
        assert seen.outcomes == {OutcomeKind.REFUSED: 1}
        assert running.gate.admission.held("small") == 0
        await until(lambda: not running.connections)


async def test_a_held_stream_hears_it_as_an_event_after_its_heartbeats() -> None:
    hasty = catalog(model("small"), time_scale=50)
    async with Engine() as engine, gateway(hasty) as running:
        running.fleet.put("r1", "small", engine, rung=Rung.PARKED)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(post(chat(stream=True)))
        await reader.readuntil(b": keep-alive")
        (connection,) = running.connections
        connection.close_when_idle()
        rest = await reader.read()
        assert b'"code":"shutting_down"' in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert running.gate.telemetry.models["small"].outcomes == {OutcomeKind.REFUSED: 1}
        writer.close()


async def test_a_running_answer_goes_on_and_is_cut_with_words_when_its_time_is_up() -> None:
    more = asyncio.Event()

    async def endless(_: Seen, reply: Reply) -> None:
        await reply.head()
        await reply.chunk(event("one "))
        await more.wait()
        await reply.chunk(event("two "))
        await asyncio.sleep(60)

    async with Engine(endless) as engine, gateway(TWO) as running:
        running.fleet.put("r1", "small", engine)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(post(chat(stream=True)))
        await reader.readuntil(b"one ")
        (connection,) = running.connections
        connection.close_when_idle()
        more.set()
        await reader.readuntil(b"two ")
        connection.stop()
        rest = await reader.read()
        assert b'"code":"shutting_down"' in rest
        assert running.gate.telemetry.models["small"].outcomes == {OutcomeKind.CUT: 1}
        await asyncio.wait_for(engine.seen[0].gone.wait(), 5)
        writer.close()


# --- one gateway per folder


def settings(folder: Path, **changes: object) -> Settings:
    plain = Settings(
        catalog_path="none",
        fleet="local",
        host="127.0.0.1",
        port=0,
        admin_port=0,
        state_dir=str(folder),
    )
    return msgspec.structs.replace(plain, **changes)


async def test_a_start_that_failed_before_its_fleet_leaves_anothers_alone(tmp_path: Path) -> None:
    card = tmp_path / state_dir.CARD
    card.write_text("another gateway's")
    agent = tmp_path / "nodes" / "n0" / "agent.json"
    agent.parent.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 -- begun before anything awaits
    try:
        began = psutil.Process(process.pid).create_time()
        agent.write_text(json.dumps({"pid": process.pid, "start_time": began, "port": 1}))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            serving = Serving(settings(tmp_path, port=port), TWO, lambda _: "")
            with pytest.raises(StartError, match="cannot listen"):
                await serving.start()
            await serving.close()
        assert card.read_text() == "another gateway's"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_folder_is_one_gateways_from_its_start_to_its_end(tmp_path: Path) -> None:
    with (
        state_dir.locked(tmp_path),
        pytest.raises(StartError, match="--state-dir"),
        state_dir.locked(tmp_path),
    ):
        pass
    with state_dir.locked(tmp_path):
        pass


@pytest.mark.integration
def test_up_over_a_folder_where_another_is_only_starting_ends_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway.main", "up", "--json", "--port", "0"]
    command += ["--admin-port", "0", "--state-dir", str(tmp_path)]
    with state_dir.locked(tmp_path):
        up = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert up.returncode == 1
    assert "warmtide down" in json.loads(up.stdout)["error"]
    assert b"Traceback" not in up.stderr
    assert [path.name for path in tmp_path.iterdir()] == [state_dir.LOCK], "it touched nothing"


# --- catalogs that do not fit

MANAGED = """
  - id: m
    engine: emulated
    weights: 16 GB
    parameters: 8B
    layers: 32
    kv_bytes_per_token: 128 KiB
    kv_cache: 15 GB
"""
EXTERNAL = """
  - id: theirs
    engine: external
    endpoints: [http://127.0.0.1:9]
    api_key_env: THEIR_KEY
"""
TENANT = 'tenants:\n  - id: t\n    keys: ["sha256:' + "0" * 64 + '"]\n'


async def test_a_reload_passes_the_same_checks_as_a_start(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    empty = catalog(nodes=(node(),))
    empty = msgspec.structs.replace(empty, nodes=())
    serving = Serving(settings(tmp_path), empty, lambda name: environment.get(name, ""))
    with pytest.raises(UnfitError, match="THEIR_KEY"):
        await serving.apply("models:" + EXTERNAL, "posted")
    assert not serving.gate.catalog.models, "the old one stays in force"
    environment["THEIR_KEY"] = "sk-1"
    told = await serving.apply("models:" + EXTERNAL, "posted")
    assert list(told["added"]) == ["theirs"]
    (lane,) = serving.gate.table.lanes("theirs")
    assert lane.spec.api_key_env == "THEIR_KEY"
    await serving.gate.pool.close()


async def test_of_two_reloads_at_once_gate_and_controller_take_the_same_last(
    tmp_path: Path,
) -> None:
    """The first one waits for a collector that hangs, and is not to win because of it."""

    async def hangs(seen: Seen, _reply: Reply) -> None:
        await seen.gone.wait()

    async with Engine(hangs) as collector:
        empty = msgspec.structs.replace(catalog(), nodes=())
        serving = Serving(settings(tmp_path), empty, lambda _: "sk-1")
        traced = f"telemetry:\n  otlp: {collector.url}\n"
        await serving.apply("models:" + EXTERNAL + traced, "posted")
        assert serving.gate.tracing is not None
        ended = Record(model_id="theirs", outcome=OutcomeKind.ANSWERED)
        serving.gate.tracing.begin(Request(), "chat", "theirs").end(ended, "")
        later = EXTERNAL.replace("theirs", "later")
        await asyncio.gather(
            serving.apply("models:" + EXTERNAL, "first"), serving.apply("models:" + later, "second")
        )
    in_force = serving.loop.controller.catalog
    assert [spec.id for spec in in_force.models] == ["later"]
    assert serving.gate.catalog.version == in_force.version


async def test_a_reload_cannot_open_a_gateway_to_everybody(tmp_path: Path) -> None:
    empty = msgspec.structs.replace(catalog(), nodes=())
    serving = Serving(settings(tmp_path, host="0.0.0.0"), empty, lambda _: "sk-1")
    with pytest.raises(UnfitError, match="tenants"):
        await serving.apply("models:" + EXTERNAL, "posted")
    await serving.apply("models:" + EXTERNAL + TENANT, "posted")
    assert serving.gate.catalog.tenants


async def test_the_admin_port_serves_no_inference_and_tells_what_does_not_fit(
    tmp_path: Path,
) -> None:
    async def apply(_text: str, _name: str) -> dict[str, object]:
        raise UnfitError("set THEIR_KEY")

    async with Engine() as engine, gateway(TWO) as running:
        running.fleet.put("r1", "small", engine)
        gate = running.gate
        recorder = Recorder(gate.windows, tmp_path, HistoryKept(), gate.clock)
        app = build_admin(lambda: running.desk, running.loop, recorder, "secret", apply)
        desk = AdminDesk(app)
        connections: set[HotProtocol] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: HotProtocol(desk, connections), "127.0.0.1", 0
        )
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 401
            client.headers["authorization"] = "Bearer secret"
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 404
            assert (await client.get("/status")).status_code == 200
            refused = await client.post("/catalog", content="models: []")
            assert (refused.status_code, refused.json()["error"]["message"]) == (
                409,
                "set THEIR_KEY",
            )
            desk.stopping = True
            assert (await client.get("/status")).json()["error"]["code"] == "shutting_down"
        assert not engine.seen
        server.close()


async def test_a_model_that_left_the_catalog_is_forgotten_once_nothing_of_it_is_left() -> None:
    finish = asyncio.Event()

    async def slow(_: Seen, reply: Reply) -> None:
        await finish.wait()
        await reply.json({})

    async with Engine(slow) as engine, gateway(TWO) as running:
        gate = running.gate
        running.fleet.put("r1", "small", engine)
        asked = asyncio.create_task(ask(running))
        await until(lambda: engine.seen)
        gate.load(msgspec.structs.replace(TWO, models=TWO.models[1:], version="2"))
        gate.demand(gate.now_us())
        assert set(gate.specs) == {"small", "other"}, "one of its requests runs"
        finish.set()
        assert (await asked).status_code == 200
        gate.demand(gate.now_us())
        assert set(gate.specs) == {"small", "other"}, "a replica of it stands"
        running.fleet.drop("r1")
        gate.demand(gate.now_us())
        assert set(gate.specs) == {"other"}


async def test_a_reload_cannot_change_how_fast_time_runs(tmp_path: Path) -> None:
    empty = msgspec.structs.replace(catalog(), nodes=())
    serving = Serving(settings(tmp_path), empty, lambda _: "sk-1")
    with pytest.raises(NodesChangedError, match="time_scale"):
        await serving.apply("models:" + EXTERNAL + "fleet: {time_scale: 6}\n", "posted")
    assert not serving.gate.catalog.models, "the old one stays in force"
