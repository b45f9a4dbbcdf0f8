"""CPU per request of this gateway and of peers, side by side in one run. An edge.

`make bench` (or `python -m loadtests.bench --peers DIR`): subjects stand before the same mock
engine, pinned to one core, load and engine to another; rounds are interleaved, medians compared.
CPU is user + system time of a subject's process tree. The report is docs/reports/gateway.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import psutil

from loadtests.pressure import Told

MODELS = 40
KEY = "wt-bench-key-that-guards-nothing"
READY_WALL_S = 60.0
Kind = str
KINDS: dict[Kind, dict[str, Any]] = {"chat": {}, "stream": {"stream": True}}


class Subject(NamedTuple):
    """A gateway under test: its process tree, its port, the version that it says it is."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    version: str


class Round(NamedTuple):
    cpu_us: float
    per_s: float
    p99_ms: float


@contextmanager
def running(command: list[str], core: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to a core, ended with all its children."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {core % (os.cpu_count() or 1)})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


def warmtide(stack: ExitStack, engine_port: int, folder: Path) -> Subject:
    """Ours, with what a real one does: keys checked, one of forty models routed, telemetry on."""
    digest = f"sha256:{sha256(KEY.encode()).hexdigest()}"
    models = [
        f"  - {{id: model-{i}, engine: external, endpoints: ['http://127.0.0.1:{engine_port}']}}"
        for i in range(MODELS)
    ]
    catalog = folder / "bench.yaml"
    catalog.write_text(
        "models:\n" + "\n".join(models) + f"\ntenants:\n  - {{id: bench, keys: ['{digest}']}}\n"
    )
    flags = ["--port", "0", "--admin-port", "0", "--state-dir", str(folder / "state")]
    command = [sys.executable, "-m", "gateway.main", "up", "--json", "--catalog", str(catalog)]
    process = stack.enter_context(running([*command, *flags], core=0))
    ready = json.loads(first_line(process))
    version = subprocess.run(
        [sys.executable, "-m", "gateway.main", "version"],
        capture_output=True,
        check=True,
        text=True,
    )
    return Subject(
        "warmtide", process, int(ready["url"].rpartition(":")[2]), version.stdout.strip()
    )


def vllm_router(stack: ExitStack, engine_port: int, peers: Path) -> Subject:
    """The Rust router of the vLLM project, as its package runs it."""
    port = _free_port()
    command = [str(peers / "bin" / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{engine_port}", "--policy", "round_robin"]
    command += ["--prometheus-port", str(_free_port())]
    process = stack.enter_context(running(command, core=0))
    version = subprocess.run(
        [str(peers / "bin" / "pip"), "show", "vllm-router"],
        capture_output=True,
        check=True,
        text=True,
    )
    line = next(x for x in version.stdout.splitlines() if x.startswith("Version"))
    return Subject("vllm-router", process, port, line.replace("Version:", "vllm-router"))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def request_bytes(port: int, kind: Kind) -> bytes:
    body = {
        "model": "model-17",
        "messages": [{"role": "user", "content": "Tell me of the tides, in a sentence or two."}],
        **KINDS[kind],
    }
    data = msgspec.json.encode(body)
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    ).encode() + data


def wait_ready(subject: Subject) -> None:
    """Until one request is answered."""
    deadline = time.perf_counter() + READY_WALL_S
    while time.perf_counter() < deadline:
        try:
            told = press(subject, "chat", requests=1, connections=1)
        except (OSError, subprocess.CalledProcessError):
            told = None
        if told is not None and not told.failed:
            return
        time.sleep(0.2)
    raise SystemExit(f"{subject.name} does not answer on port {subject.port}")


def press(subject: Subject, kind: Kind, requests: int, connections: int) -> Told:
    command = [sys.executable, "-m", "loadtests.pressure", "--port", str(subject.port)]
    command += ["--requests", str(requests), "--connections", str(connections)]
    done = subprocess.run(
        command,
        input=request_bytes(subject.port, kind),
        capture_output=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)}),
    )
    return msgspec.json.decode(done.stdout, type=Told)


def cpu_us(process: subprocess.Popen[bytes]) -> float:
    root = psutil.Process(process.pid)
    times = [p.cpu_times() for p in (root, *root.children(recursive=True))]
    return sum(t.user + t.system for t in times) * 1e6


def one_round(subject: Subject, kind: Kind, requests: int, connections: int) -> Round:
    before = cpu_us(subject.process)
    told = press(subject, kind, requests, connections)
    if told.failed:
        raise SystemExit(f"{subject.name}: {told.failed} of {requests} {kind} requests failed")
    spent = cpu_us(subject.process) - before
    return Round(spent / told.requests, told.requests / told.wall_us * 1e6, told.p99_us / 1000)


def compare(subjects: list[Subject], arguments: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds, every other one in reverse order; medians and ratios to each peer."""
    results: dict[Kind, dict[str, list[Round]]] = {
        kind: {s.name: [] for s in subjects} for kind in KINDS
    }
    for number in range(arguments.rounds):
        for kind in KINDS:
            requests = arguments.requests if kind == "chat" else arguments.requests // 4
            for subject in subjects if number % 2 == 0 else reversed(subjects):
                result = one_round(subject, kind, requests, arguments.connections)
                results[kind][subject.name].append(result)
                sys.stderr.write(f"round {number + 1} {kind} {subject.name}: {result}\n")
    return {
        "rounds": arguments.rounds,
        "requests": arguments.requests,
        "connections": arguments.connections,
        "versions": {s.name: s.version for s in subjects},
        "rss_mb": {
            s.name: round(psutil.Process(s.process.pid).memory_info().rss / 1e6) for s in subjects
        },
        "kinds": {kind: _summary(by_name) for kind, by_name in results.items()},
    }


def _summary(by_name: dict[str, list[Round]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, rounds in by_name.items():
        rows[name] = {
            "cpu_us": round(median(r.cpu_us for r in rounds), 1),
            "cpu_us_min_max": [round(f(r.cpu_us for r in rounds), 1) for f in (min, max)],
            "per_s": round(median(r.per_s for r in rounds)),
            "p99_ms": round(median(r.p99_ms for r in rounds), 1),
        }
        if name != "warmtide":
            pairs = zip(by_name["warmtide"], rounds, strict=True)
            rows[name]["warmtide_cpu_ratio"] = round(
                median(a.cpu_us / b.cpu_us for a, b in pairs), 2
            )
    return rows


def markdown(found: dict[str, Any]) -> str:
    lines = [
        "# What the gateway costs per request",
        "",
        "Written by `make bench`. Every subject stood before the same mock engine that answers at",
        f"once, pinned to one core; load (closed loop, {found['connections']} connections) and the",
        "engine shared another.",
        f"{found['rounds']} interleaved rounds, medians; CPU is user + system time of the process "
        "tree ÷ requests served.",
        "Warmtide checked an API key, routed one of 40 models and kept its telemetry.",
        "Streams are 16 chunks without pauses, each its own write: the worst case for a relay.",
        "One noisy machine: compare the ratios (pairwise, median over rounds), not the figures.",
        "",
    ]
    for kind, rows in found["kinds"].items():
        lines += [
            f"## {kind}",
            "",
            "| gateway | CPU µs/request | min–max | requests/s | p99 ms | RSS MB | our CPU ÷ its |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            low, high = row["cpu_us_min_max"]
            ratio = row.get("warmtide_cpu_ratio", "")
            lines.append(
                f"| {found['versions'][name]} | {row['cpu_us']} | {low}–{high} | {row['per_s']} "
                f"| {row['p99_ms']} | {found['rss_mb'][name]} | {ratio} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per request, against peers.")
    parser.add_argument("--peers", type=Path, default=None, help="a venv that has vllm-router")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--report", type=Path, default=None, help="write Markdown here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        command = [sys.executable, "-m", "loadtests.mock_engine"]
        engine = stack.enter_context(running(command, core=1))
        port = int(first_line(engine))
        subjects = [warmtide(stack, port, Path(name))]
        if arguments.peers is not None:
            subjects.append(vllm_router(stack, port, arguments.peers))
        for subject in subjects:
            wait_ready(subject)
        found = compare(subjects, arguments)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if arguments.report is not None:
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
        arguments.report.write_text(markdown(found), "utf-8")


if __name__ == "__main__":
    main()
