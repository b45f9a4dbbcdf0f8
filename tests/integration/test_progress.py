"""Whoever waits is told for what: on a terminal live, in a pipe by lines, on stdout never.

A start is held up for as long as a test likes by an obstacle in an agent's folder, an end by an
answer that goes on; no test depends on how quick the machine is.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from placement.engines.base import end_now
from tests.integration.running import (
    SAFETY_S,
    WARMTIDE,
    assert_no_bug_in,
    catalog_text,
    emulated,
    logs,
    processes_over,
    running,
    until,
    warmtide,
)
from tests.integration.terminal import on_terminal

pytestmark = pytest.mark.integration

SCALE = 50
CATALOG = catalog_text([emulated("llama-8b")])
WAITING = "waiting for the agents of n0"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A catalog, an obstacle to its only agent, and no process left at the end."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    obstacle(tmp_path).mkdir(parents=True)
    yield tmp_path
    for identity in processes_over(tmp_path):
        end_now(identity)


def obstacle(folder: Path) -> Path:
    """While a folder has this name, the agent's settings cannot be written."""
    return folder / "state" / "nodes" / "n0" / "agent-spec.json.new"


def flags(folder: Path) -> tuple[str, ...]:
    named = {"--catalog": folder / "catalog.yaml", "--state-dir": folder / "state"}
    ports = {"--port": 0, "--admin-port": 0, "--time-scale": SCALE}
    return tuple(str(word) for pair in {**named, **ports}.items() for word in pair)


@contextmanager
def begun(folder: Path, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A command whose stderr grows in a file."""
    with (folder / "err").open("wb") as err, (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [*WARMTIDE, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    try:
        yield process
    finally:
        process.wait(SAFETY_S)


def said(folder: Path) -> str:
    return (folder / "err").read_text()


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_slow_start_says_which_agent_it_waits_for(folder: Path, detach: tuple[str, ...]) -> None:
    state = folder / "state"
    with begun(folder, "up", "--json", *detach, *flags(folder)):
        until(lambda: f"warmtide: {WAITING} ..." in said(folder), "a line for the slow phase")
        status = warmtide("status", "--json", "--state-dir", state)
        assert status.code == 1
        assert WAITING in status.document["error"]
        doctor = warmtide("doctor", "--json", "--port", "0", "--state-dir", state)
        (gateway,) = [c for c in doctor.document["checks"] if c["check"] == "gateway"]
        assert (gateway["status"], WAITING in gateway["found"]) == ("warn", True)
        obstacle(folder).rmdir()
        until(lambda: (folder / "out").read_bytes().endswith(b"\n"), "the gateway is ready")
        until(lambda: f"{WAITING}: took " in said(folder), "how long it took")
        assert not (state / "phase.json").exists()
        down = warmtide("down", "--json", "--state-dir", state)
        assert len(down.document["ended"]) == 1
    assert json.loads((folder / "out").read_text())["models"] == ["llama-8b"]
    assert not processes_over(folder)


def test_down_ends_a_gateway_that_is_still_starting(folder: Path) -> None:
    state = folder / "state"
    with begun(folder, "up", "--json", *flags(folder)) as up:
        until(lambda: WAITING in said(folder), "the gateway is on its way up")
        down = warmtide("down", "--json", "--state-dir", state)
        assert down.document == {"ended": [f"gateway (pid {up.pid})"]}
        assert up.wait(SAFETY_S) == 1
    assert "ended while it was starting" in json.loads((folder / "out").read_text())["error"]
    assert not processes_over(folder)
    assert not (state / "phase.json").exists()
    obstacle(folder).rmdir()
    assert_no_bug_in(logs(folder))


def test_a_terminal_shows_a_live_line_and_stdout_stays_one_document(folder: Path) -> None:
    obstacle(folder).rmdir()
    state = folder / "state"
    up = on_terminal("up", "--detach", "--json", *flags(folder))
    assert up.code == 0, up
    assert json.loads(up.out)["models"] == ["llama-8b"]
    assert "starting the gateway (pid" in up.terminal
    assert "\x1b[2K" in up.terminal, "the line is rewritten in place"
    assert "\x1b[3" in up.terminal, "in colour"
    assert up.terminal.endswith("\x1b[2K"), "and wiped at the end"
    status = on_terminal("status", "--json", "--state-dir", state, env={"NO_COLOR": "1"})
    assert json.loads(status.out)["models"]
    assert "asking the gateway at http://127.0.0.1:" in status.terminal
    assert "\x1b[3" not in status.terminal, "NO_COLOR"
    doctor = on_terminal("doctor", "--json", "--state-dir", state)
    assert json.loads(doctor.out)["ok"], doctor
    assert "checking ports" in doctor.terminal
    dumb = on_terminal("down", "--json", "--state-dir", state, env={"TERM": "dumb"})
    assert len(json.loads(dumb.out)["ended"]) == 1
    assert "\x1b" not in dumb.terminal


def test_quick_commands_say_nothing_beside_their_document(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    with running(tmp_path, CATALOG, time_scale=SCALE) as gateway:
        state = ("--state-dir", str(gateway.state_dir))
        applied = warmtide("catalog", "apply", "--json", tmp_path / "catalog.yaml", *state)
        assert (applied.code, applied.document["ok"]) == (0, True)
        for line in applied.err.splitlines():
            assert line.startswith("warmtide: asking the gateway"), "only if it took a second"


@pytest.fixture
def slow_peer() -> Iterator[tuple[str, Event]]:
    """An external server whose streams end when they are let."""
    let_end = Event()

    class Peer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n')
            self.wfile.flush()
            let_end.wait(SAFETY_S)
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", let_end
    let_end.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_down_says_how_many_answers_it_lets_end(
    tmp_path: Path, slow_peer: tuple[str, Event]
) -> None:
    url, let_end = slow_peer
    text = catalog_text([{"id": "slow", "engine": "external", "endpoints": [url]}], nodes=())
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with (
        running(tmp_path, text) as gateway,
        httpx.Client(trust_env=False, timeout=SAFETY_S) as http,
        http.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        assert "one" in next(lines)
        with begun(tmp_path, "down", "--json", "--state-dir", str(gateway.state_dir)):
            until(lambda: "letting 1 answer end ..." in said(tmp_path), "down tells of the answer")
            let_end.set()
            assert [line for line in lines if line][-1] == "data: [DONE]"
            gateway.process.wait(SAFETY_S)
    assert "letting 1 answer end: took " in said(tmp_path)
    assert len(json.loads((tmp_path / "out").read_text())["ended"]) == 1
