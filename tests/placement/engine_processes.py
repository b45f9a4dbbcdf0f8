"""Real engine processes for tests, ended by pid."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from placement.catalog import ModelSpec, NodeSpec
from placement.clock import wall_us
from placement.engines.emulated import HostSpec, ReplicaRequest
from tests.builders import node

TOKEN = "only-for-tests"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
_PATIENCE_S = 60


@contextmanager
def engine_process(module: str, spec: msgspec.Struct, ready_file: Path) -> Iterator[str]:
    """`python -m module --spec FILE` until it is ready; its URL. Ended on the way out."""
    spec_file = ready_file.with_suffix(".spec")
    spec_file.write_bytes(msgspec.json.encode(spec))
    log = ready_file.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--spec", str(spec_file)], stdout=out, stderr=out
        )
    try:
        give_up = time.monotonic() + _PATIENCE_S
        while not ready_file.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.01)
        ready = json.loads(ready_file.read_bytes())
        assert ready["pid"] == process.pid
        yield f"http://127.0.0.1:{ready['port']}"
    finally:
        process.terminate()
        assert process.wait(timeout=_PATIENCE_S) == 0, log.read_text()


class HostClient:
    """The control API of an engine-host, as a node agent uses it."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, headers=HEADERS, timeout=_PATIENCE_S)

    def begin(self, replica_id: str, spec: ModelSpec, *gpu_ids: int) -> str:
        """Begin a start; the URL it will have."""
        asked = ReplicaRequest(replica_id=replica_id, model=spec, gpu_ids=gpu_ids or (0,))
        answer = self.http.post("/host/replicas", content=msgspec.json.encode(asked))
        assert answer.status_code == 201, answer.text
        return f"http://127.0.0.1:{answer.json()['port']}"

    def told(self, replica_id: str) -> dict[str, Any]:
        listed = self.http.get("/host/replicas").json()["replicas"]
        found: dict[str, Any] = next(r for r in listed if r["replica_id"] == replica_id)
        return found

    def until(self, replica_id: str, **wanted: Any) -> dict[str, Any]:
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            told = self.told(replica_id)
            if all(told[key] == value for key, value in wanted.items()):
                return told
            assert time.monotonic() < give_up, f"{told} never became {wanted}"
            time.sleep(0.01)

    def up(self, replica_id: str, spec: ModelSpec, *gpu_ids: int) -> str:
        url = self.begin(replica_id, spec, *gpu_ids)
        self.until(replica_id, state="ready")
        return url

    def gpu_used(self, gpu_id: int = 0) -> int:
        used: int = self.http.get("/host/memory").json()["gpus"][gpu_id]["used_bytes"]
        return used


@contextmanager
def engine_host(
    folder: Path, *, time_scale: float = 100.0, spec: NodeSpec | None = None
) -> Iterator[HostClient]:
    """An engine-host of one node, a hundred times faster than life unless told otherwise."""
    token_file = folder / "token"
    token_file.write_text(TOKEN)
    ready_file = folder / "host.json"
    host = HostSpec(
        node=spec or node(gpus=8),
        time_scale=time_scale,
        anchor_us=wall_us(),
        seed=7,
        token_file=str(token_file),
        ready_file=str(ready_file),
    )
    with engine_process("placement.engines.emulated_http", host, ready_file) as url:
        client = HostClient(url)
        try:
            yield client
        finally:
            client.http.close()
