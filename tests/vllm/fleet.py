"""A fleet of two real vLLM models on this machine's CPU, and its node agent spoken to directly.

In: the tiny model. Out: `Fleet`: the gateway, the agent's verbs, the engines and their processes.
Ended with `warmtide down` on every path. Never: stands in for any part of the product.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest
from openai import OpenAI

from placement.agent.book import EventLine, Listening
from placement.catalog import NodeId
from placement.clock import wall_us
from placement.engines.base import IDENTITY, Identity, end_now, read_identity
from placement.plan import Accepted, Answer, Outcome, Reason, ReasonCode, Refused
from placement.snapshot import NodeState, ReplicaState
from tests.integration import running as plain

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SAFETY_S = 300.0
"""A net under everything that waits: an engine starts in a minute on a quiet machine."""

ADAPTED, COMPILED, BROKEN, TUNED = "tiny-adapted", "tiny-compiled", "tiny-broken", "tiny-tuned"
ALIAS = "gpt-tiny"


def make_tiny_model(folder: Path) -> Path:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON.parents[1]} is missing: run `make setup-vllm`")
    made = folder / "made"
    script = Path(__file__).with_name("tiny_llama.py")
    subprocess.run([PYTHON, script, made], check=True, timeout=SAFETY_S)
    return made


def catalog(tiny: Path) -> str:
    """One model with an adapter, which vLLM runs uncompiled on a CPU, and one that it compiles."""
    usual: dict[str, Any] = {
        "engine": "vllm",
        "source": str(tiny / "model"),
        "weights": "1.2 MB",
        "layers": 2,
        "kv_bytes_per_token": "1 KiB",
        "kv_cache": "200 MB",
        "max_model_len": 1024,
        "max_num_seqs": 16,
        "deadline": "300 s",
        "engine_args": ["--dtype=bfloat16"],
    }
    adapters = [{"id": TUNED, "source": str(tiny / "adapter")}]
    models = [
        {"id": ADAPTED, **usual, "adapters": adapters},
        {"id": COMPILED, **usual, "aliases": [ALIAS]},
        {"id": BROKEN, **usual, "source": str(tiny / "nothing")},
    ]
    node = {"id": "n0", "gpus": 2, "gpu": "CPU", "hbm": "800 MB", "host_memory": "12 GB"}
    policy = {"idle_park": "1 h"}
    text = plain.catalog_text(models, nodes=[node], policy=policy)
    return text.replace("fleet:\n", f"fleet:\n  vllm_python: {PYTHON}\n")


class Fleet:
    """A running gateway over the two models, and its agent."""

    def __init__(self, gateway: plain.Gateway) -> None:
        self.gateway = gateway
        self.node = gateway.state_dir / "nodes" / "n0"
        self.token = (gateway.state_dir / "agent.token").read_text()
        self._asked = 0

    def client(self) -> OpenAI:
        return OpenAI(
            base_url=self.gateway.base_url, api_key="none", max_retries=0, timeout=SAFETY_S
        )

    # --- the agent, as the controller speaks to it

    def agent(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        there = msgspec.json.decode((self.node / "agent.json").read_bytes(), type=Listening)
        return httpx.request(
            method,
            f"http://127.0.0.1:{there.port}{path}",
            content=body,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=SAFETY_S,
            trust_env=False,
        )

    def ask(self, verb: type[Any], **what: Any) -> Answer:
        self._asked += 1
        action = verb(
            action_id=f"test-{self._asked}",
            snapshot_version=0,
            deadline_us=wall_us() + int(SAFETY_S * 1e6),
            node_id=NodeId("n0"),
            why=Reason(code=ReasonCode.OPERATOR),
            **what,
        )
        answer = self.agent("POST", "/v1/actions", msgspec.json.encode(action))
        return msgspec.json.decode(answer.content, type=Accepted | Refused)

    def outcome(self, answer: Answer) -> Outcome:
        """Wait until an accepted action has ended."""
        assert isinstance(answer, Accepted), answer
        there = msgspec.json.decode((self.node / "agent.json").read_bytes(), type=Listening)
        with httpx.stream(
            "GET",
            f"http://127.0.0.1:{there.port}/v1/events?after=-1",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=SAFETY_S,
            trust_env=False,
        ) as events:
            for line in events.iter_lines():
                told = msgspec.json.decode(line, type=EventLine) if line else None
                if told and told.outcome and told.outcome.action_id == answer.action_id:
                    return told.outcome
        raise AssertionError(f"the agent fell silent before {answer.action_id} had ended")

    def replica(self, model_id: str) -> ReplicaState:
        inventory = self.agent("GET", "/v1/inventory")
        state = msgspec.json.decode(inventory.content, type=NodeState)
        (found,) = (r for r in state.replicas if r.model_id == model_id)
        return found

    # --- engines

    def engine(self, model_id: str, method: str, path: str, *, token: bool) -> httpx.Response:
        """Straight to an engine, past gateway and agent."""
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        url = f"http://{self.replica(model_id).endpoint}{path}"
        return httpx.request(method, url, headers=headers, timeout=SAFETY_S, trust_env=False)

    def server(self, model_id: str) -> Identity:
        """The leading process of a model's engine."""
        place = self.node / "engines" / self.replica(model_id).replica_id
        found = read_identity(place / f"engine{IDENTITY}")
        assert found is not None, f"nobody wrote down who runs in {place}"
        return found


def session_of(leader: Identity) -> set[int]:
    """Pids of a server and its helpers."""
    found = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader.pid and process.status() != "zombie":
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def until(holds: Callable[[], object], what: str) -> None:
    for _ in range(int(SAFETY_S / 0.1)):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"never came true: {what}")


@contextmanager
def running(folder: Path, tiny: Path) -> Iterator[Fleet]:
    """A fleet for as long as it is needed, then `warmtide down`, and no process of it left."""
    process = plain.begin(folder, catalog(tiny))
    try:
        fleet = Fleet(plain.announced(folder, process))
        yield fleet
        found = [read_identity(p) for p in fleet.node.glob(f"engines/*/engine{IDENTITY}")]
        leaders = [leader for leader in found if leader is not None]
        assert any(session_of(leader) for leader in leaders), "engines ran until the end"
        plain.ended(fleet.gateway)
        left = {leader.pid: session_of(leader) for leader in leaders}
        assert not any(left.values()), f"`warmtide down` left {left}"
        ours = {k: v for k, v in plain.logs(folder).items() if "engine.log" not in k}
        plain.assert_no_bug_in(ours)
    finally:
        for leader_file in folder.glob(f"state/nodes/*/engines/*/engine{IDENTITY}"):
            if (identity := read_identity(leader_file)) is not None:
                end_now(identity)
        plain.end_all(folder, process)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of a stream of server-sent events, without its end mark."""
    lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]
