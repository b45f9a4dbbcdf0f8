"""Who is measured: this gateway and its peers, each started as its package is run. An edge.

In: the port of an engine, a folder of environments. Out: running `Subject`s, or why there is none.
Never: measures, installs anything, leaves a process behind.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from loadtests.bench_report import OURS

MODELS = 40
ASKED = "model-17"
KEY = "sk-bench-key-that-guards-nothing"
READY_WALL_S = 90.0
SUBJECT_CORE, LOAD_CORE = 0, 1
LOG_TAIL_LINES = 3
LOG_LINE_MAX = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Subject(NamedTuple):
    """A gateway under test. `slower`: it gets so many times fewer requests and rounds."""

    name: str
    version: str
    process: subprocess.Popen[bytes]
    port: int
    slower: "Slower"


class Slower(NamedTuple):
    """How much less of the same work a slow subject is given, so that a run ends within minutes.
    What is compared is CPU per request."""

    fewer_requests: int = 1
    every_nth_round: int = 1


class NotRunningError(Exception):
    """A subject that cannot be measured; the text says why."""


class Place(NamedTuple):
    """What a subject is started with."""

    engine_port: int
    folder: Path
    port: int

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.engine_port}"


class Recipe(NamedTuple):
    """How a peer is run."""

    distribution: str
    arguments: Callable[[Place], list[str]]
    environment: Mapping[str, str] = {}
    slower: Slower = Slower()


def _vllm_router(place: Place) -> list[str]:
    """The Rust router of the vLLM project."""
    return [
        *("--host", "127.0.0.1", "--port", str(place.port)),
        *("--worker-urls", place.engine_url, "--policy", "round_robin"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
    ]


def _smg(place: Place) -> list[str]:
    """The Rust gateway that was SGLang's. Without its load monitor, which a mock engine lacks the
    routes for; with room for every connection."""
    return [
        *("launch", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--worker-urls", place.engine_url, "--policy", "round_robin"),
        *("--disable-load-monitoring", "--max-concurrent-requests", "4096"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
    ]


def _litellm(place: Place) -> list[str]:
    """The proxy of LiteLLM, one worker, with the same models and the key that is sent."""
    to_engine = {"api_base": f"{place.engine_url}/v1", "api_key": "unused"}
    models = [
        {"model_name": model, "litellm_params": {"model": f"openai/{model}", **to_engine}}
        for model in model_names()
    ]
    config = place.folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": models}))
    return [
        *("--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)),
        *("--num_workers", "1"),
    ]


PEERS = {
    "vllm-router": Recipe("vllm-router", _vllm_router),
    "smg": Recipe("smg", _smg),
    "litellm": Recipe(
        "litellm",
        _litellm,
        environment={
            "LITELLM_MASTER_KEY": KEY,
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        slower=Slower(fewer_requests=50, every_nth_round=3),
    ),
}


def model_names() -> list[str]:
    return [f"model-{number}" for number in range(MODELS)]


def request_bytes(port: int, *, stream: bool) -> bytes:
    """The one request that all subjects are sent; peers without keys let the header pass by."""
    body = {
        "model": ASKED,
        "messages": [{"role": "user", "content": "Tell me of the tides, in a sentence or two."}],
        **({"stream": True} if stream else {}),
    }
    data = msgspec.json.encode(body)
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    ).encode() + data


# --- starting


def start_engine(stack: ExitStack, folder: Path) -> int:
    """The mock engine, beside the load; its port."""
    command = [sys.executable, "-m", "loadtests.mock_engine", "--model", ASKED]
    _, out = _started(stack, command, folder / "engine", core=LOAD_CORE)
    return int(_first_line(out))


def start_ours(stack: ExitStack, engine_port: int, folder: Path) -> Subject:
    """Ours, with what a real one does: keys checked, one of forty models routed, telemetry on."""
    endpoint = f"http://127.0.0.1:{engine_port}"
    catalog = {
        "models": [
            {"id": name, "engine": "external", "endpoints": [endpoint]} for name in model_names()
        ],
        "tenants": [{"id": "bench", "keys": [f"sha256:{sha256(KEY.encode()).hexdigest()}"]}],
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(catalog))
    command = [sys.executable, "-m", "gateway.main"]
    flags = ["--port", "0", "--admin-port", "0", "--state-dir", str(folder / "state")]
    up = [*command, "up", "--json", "--catalog", str(path), *flags]
    process, out = _started(stack, up, folder / OURS, core=SUBJECT_CORE)
    ready = json.loads(_first_line(out))
    version = subprocess.run([*command, "version", "--json"], capture_output=True, check=True)
    number = json.loads(version.stdout)["version"]
    return Subject(OURS, number, process, int(ready["url"].rpartition(":")[2]), Slower())


def start_peer(stack: ExitStack, name: str, engine_port: int, folder: Path, peers: Path) -> Subject:
    """A peer from its own environment. Raises `NotRunningError`."""
    recipe, bin_folder = PEERS[name], peers / name / "bin"
    program = bin_folder / name
    if not program.is_file():
        raise NotRunningError(f"not installed: there is no {program}")
    version = _version(bin_folder / "python", recipe.distribution)
    place = Place(engine_port, folder, free_port())
    command = [str(program), *recipe.arguments(place)]
    process, _ = _started(
        stack, command, folder / name, core=SUBJECT_CORE, environment=recipe.environment
    )
    return Subject(name, version, process, place.port, recipe.slower)


def await_answer(subject: Subject, answers: Callable[[Subject], bool], folder: Path) -> None:
    """Until one request is answered. Raises `NotRunningError` with the end of its log."""
    deadline_s = time.perf_counter() + READY_WALL_S
    while time.perf_counter() < deadline_s and subject.process.poll() is None:
        if answers(subject):
            return
        time.sleep(0.2)
    ended = subject.process.poll()
    what = f"ended with {ended}" if ended is not None else f"no answer in {READY_WALL_S:.0f} s"
    raise NotRunningError(f"did not start: {what}. {_tail(folder / subject.name)}")


def _started(
    stack: ExitStack,
    command: list[str],
    log: Path,
    *,
    core: int,
    environment: Mapping[str, str] | None = None,
) -> tuple["subprocess.Popen[bytes]", Path]:
    """A process with its children on one core from its first thread on; stdout goes to a file,
    because nobody reads along. Ended with the stack."""
    out = log.with_suffix(".out")
    process = stack.enter_context(_running(command, log, out, core, environment or {}))
    return process, out


@contextmanager
def _running(
    command: list[str], log: Path, out: Path, core: int, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with out.open("wb") as stdout, log.with_suffix(".log").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment},  # noqa: TID251 -- a child's own, handed down
            preexec_fn=lambda: pin(core),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pin(core: int) -> None:
    """This process, from now on, runs on that core alone."""
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def _first_line(out: Path) -> str:
    deadline_s = time.perf_counter() + READY_WALL_S
    while time.perf_counter() < deadline_s:
        if (text := out.read_text()).endswith("\n"):
            return text
        time.sleep(0.05)
    raise NotRunningError(f"did not start: nothing came to {out.name}")


def _tail(log: Path) -> str:
    """The last lines that it wrote, on one, without colours."""
    text = "\n".join(
        path.read_text("utf-8", "replace")
        for path in (log.with_suffix(".out"), log.with_suffix(".log"))
    )
    lines = COLOUR.sub("", text).strip().splitlines()[-LOG_TAIL_LINES:]
    return " / ".join(line.strip()[:LOG_LINE_MAX] for line in lines)


def _version(python: Path, distribution: str) -> str:
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRunningError(f"not installed: {distribution} is not in its environment")
    return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
