"""A real `warmtide up`, in a state directory of its own, and proof that nothing of it is left.

In: a catalog's text, a time scale. Out: `Gateway`: where it listens, what it says of itself, who
its processes are. Ended with `warmtide down` on every path, each process told by pid and start
time. Never: stands in for any part of the product.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from placement.catalog_file import parse_catalog
from placement.engines.base import IDENTITY, Identity, alive, end_now, identity_of, read_identity
from placement.snapshot import Phase, Rung

SAFETY_S = 120.0
"""A net under everything that waits; no test measures with it."""

_POLL_S = 0.02
WARMTIDE = (sys.executable, "-m", "gateway.main")


# --- catalogs -------------------------------------------------------------------------------------

NODE: dict[str, Any] = {"id": "n0", "gpus": 2, "gpu": "H100-80GB", "host_memory": "256 GB"}


def emulated(model_id: str, **keys: Any) -> dict[str, Any]:
    """An emulated model that starts in about 13 s of trace time and leaves room for neighbours."""
    usual = {"weights": "8 GB", "layers": 4, "kv_cache": "8 GB", "max_num_seqs": 8}
    return {"id": model_id, "engine": "emulated", **usual, **keys}


def catalog_text(
    models: Iterable[Mapping[str, Any]],
    *,
    nodes: Iterable[Mapping[str, Any]] = (NODE,),
    **sections: Any,
) -> str:
    """A catalog file as an operator would write it. Checked here, so that a test's own slip
    shows where it was made."""
    nodes = [dict(node) for node in nodes]
    fleet = {"fleet": {"nodes": nodes}} if nodes else {}
    document = {"models": [dict(model) for model in models], **fleet, **sections}
    text: str = yaml.safe_dump(document, sort_keys=False)
    parse_catalog(text, "the test's catalog")
    return text


def digest(key: str) -> str:
    """An API key as the catalog holds it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


# --- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything else there is an error."""
        assert self.out.endswith("\n"), f"no document: {self}"
        return json.loads(self.out)


def warmtide(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [*WARMTIDE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SAFETY_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Finished(code=done.returncode, out=done.stdout, err=done.stderr)


async def python(*arguments: str, **more: Any) -> Finished:
    """Run a Python command to its end, while the test's own servers go on answering."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )
    try:
        async with asyncio.timeout(SAFETY_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None, "its output ended, and so did it"
    return Finished(code=process.returncode, out=out.decode(), err=err.decode())


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something to come true; `what` is for the message if it never does."""
    for _ in range(int(SAFETY_S / _POLL_S)):
        if holds():
            return
        time.sleep(_POLL_S)
    raise AssertionError(f"never came true: {what}")


# --- processes ------------------------------------------------------------------------------------


def processes_over(folder: Path) -> dict[Identity, str]:
    """Living processes whose command line names something under this folder."""
    found: dict[Identity, str] = {}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        identity = identity_of(process.pid) if str(folder) in line else None
        if identity is not None:
            found[identity] = line
    return found


class Gateway:
    """A gateway that is up."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.process = process
        self.state_dir = folder / "state"
        self.log = folder / "up.log"
        card = json.loads((folder / "up.out").read_text())
        self.card: dict[str, Any] = card
        self.url: str = card["url"]
        self.admin_url: str = card["admin_url"]
        self.identity = identity_of(card["pid"])
        assert self.identity is not None, "a gateway that announced itself lives"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def status(self) -> dict[str, Any]:
        """What `warmtide status` shows, from the admin port."""
        token = (self.state_dir / "admin.token").read_text()
        answer = httpx.get(
            f"{self.admin_url}/status",
            headers={"Authorization": f"Bearer {token}"},
            timeout=SAFETY_S,
            trust_env=False,
        )
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def model(self, model_id: str) -> dict[str, Any]:
        """A model's row of the status."""
        rows: list[dict[str, Any]] = self.status()["models"]
        return next(row for row in rows if row["model"] == model_id)

    def serving(self, model_id: str) -> list[dict[str, Any]]:
        """Replicas of a model that take requests."""
        return [r for r in self.model(model_id)["replicas"] if serves(r)]

    def agent(self, node_id: str = "n0") -> Identity | None:
        return read_identity(self.state_dir / "nodes" / node_id / f"agent{IDENTITY}")

    def engine_host(self, node_id: str = "n0") -> Identity | None:
        return read_identity(self.state_dir / "nodes" / node_id / f"engine-host{IDENTITY}")

    def processes(self) -> dict[Identity, str]:
        """The gateway, its agents and their engines."""
        return processes_over(self.state_dir)


def serves(replica: Mapping[str, Any]) -> bool:
    """Whether a replica of the status document takes new requests."""
    ready = replica["rung"] == Rung.SERVING and replica["phase"] == Phase.READY
    return ready and not replica.get("action_id")


def begin(
    folder: Path,
    catalog: str | None,
    *,
    time_scale: float | None = None,
    arguments: Iterable[str] = (),
) -> "subprocess.Popen[bytes]":
    """Start `warmtide up` and do not wait for it."""
    folder.mkdir(exist_ok=True)
    command = [*WARMTIDE, "up", "--json", "--port", "0", "--admin-port", "0"]
    command += ["--state-dir", str(folder / "state")]
    if catalog is not None:
        (folder / "catalog.yaml").write_text(catalog)
        command += ["--catalog", str(folder / "catalog.yaml")]
    if time_scale is not None:
        command += ["--time-scale", f"{time_scale:g}"]
    with (folder / "up.out").open("wb") as out, (folder / "up.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )


def announced(folder: Path, process: "subprocess.Popen[bytes]") -> Gateway:
    """Wait for the line that says where it listens."""
    out = folder / "up.out"
    until(
        lambda: process.poll() is not None or out.read_bytes().endswith(b"\n"),
        "the gateway says that it is ready, or ends",
    )
    said = f"{out.read_text()}{(folder / 'up.log').read_text()}"
    assert process.poll() is None, f"the gateway ended with {process.returncode}:\n{said}"
    return Gateway(folder, process)


@contextmanager
def running(
    folder: Path,
    catalog: str | None = None,
    *,
    time_scale: float | None = None,
    arguments: Iterable[str] = (),
) -> Iterator[Gateway]:
    """A gateway for as long as it is needed, then `warmtide down`, and nothing left."""
    process = begin(folder, catalog, time_scale=time_scale, arguments=arguments)
    try:
        gateway = announced(folder, process)
        yield gateway
        before = gateway.processes()
        down = ended(gateway)
        left = [line for identity, line in before.items() if alive(identity)]
        assert not left, f"`warmtide down` said {down.document} and left {left}"
        assert not gateway.processes()
        assert (folder / "up.out").read_bytes().count(b"\n") == 1, "stdout is one document"
        assert_no_bug_in(logs(folder))
    finally:
        end_all(folder, process)


def ended(gateway: Gateway) -> Finished:
    """`warmtide down`, while its parent, who is us, waits for it as parents do."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(warmtide, "down", "--json", "--state-dir", gateway.state_dir)
        gateway.process.wait(SAFETY_S)
        down = asked.result(SAFETY_S)
    assert down.code == 0, down
    return down


def end_all(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """The net under the net: whatever failed, no process of this folder goes on."""
    identity = identity_of(process.pid) if process.poll() is None else None
    if identity is not None:
        end_now(identity)
    process.wait(SAFETY_S)
    for found in processes_over(folder):
        end_now(found)


def logs(folder: Path) -> dict[str, str]:
    """Every log under a folder, by its path."""
    found = sorted(folder.rglob("*.log"))
    return {str(path.relative_to(folder)): path.read_text("utf-8", "replace") for path in found}


def assert_no_bug_in(texts: Mapping[str, str]) -> None:
    """A traceback in a log is a bug that somebody swallowed."""
    for name, text in texts.items():
        at = text.find("Traceback (most recent call last)")
        assert at < 0, f"{name} holds a traceback:\n{text[max(0, at - 500) : at + 4000]}"
