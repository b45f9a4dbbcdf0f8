"""`warmtide doctor` over real ports, folders, servers, gateways: what is wrong, and what helps."""

import json
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from placement.engines.base import end_now
from tests.integration.running import (
    SAFETY_S,
    WARMTIDE,
    announced,
    begin,
    catalog_text,
    emulated,
    end_all,
    processes_over,
    running,
    until,
    warmtide,
)

pytestmark = pytest.mark.integration

CATALOG = catalog_text([emulated("llama-8b")])
FREE = ("--port", "0", "--admin-port", "0")


def examined(*arguments: str | Path) -> dict[str, Any]:
    """The document; its exit code says the same."""
    done = warmtide("doctor", "--json", *arguments)
    assert "Traceback" not in done.err, done.err
    document: dict[str, Any] = done.document
    assert done.code == (0 if document["ok"] else 1)
    assert not [c for c in document["checks"] if "this check broke" in c["found"]]
    return document


def of(document: dict[str, Any], check: str) -> list[dict[str, str]]:
    return [c for c in document["checks"] if c["check"] == check]


def one(document: dict[str, Any], check: str) -> dict[str, str]:
    (found,) = of(document, check)
    return found


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    file = tmp_path / "catalog.yaml"
    file.write_text(CATALOG)
    return file


def test_a_machine_fit_for_the_default_catalog_is_told_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    document = examined(*FREE, "--state-dir", state)
    assert document["ok"], document
    checks = {c["check"] for c in document["checks"]}
    assert {"python", "packages", "plug-ins", "port", "disk", "memory", "clock"} <= checks
    assert "SmolLM2" in one(document, "llamacpp")["found"]
    assert not state.exists(), "looking makes nothing"
    told = warmtide("doctor", *FREE, "--state-dir", state)
    assert (told.code, told.err) == (0, "")
    assert "all well" in told.out


def test_a_port_that_somebody_holds_is_told_with_who(tmp_path: Path, catalog: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        document = examined(
            *("--port", str(port), "--admin-port", str(port), "--catalog", catalog),
            *("--state-dir", tmp_path / "state"),
        )
    assert not document["ok"]
    for check in ("port", "admin-port"):
        held = one(document, check)
        assert held["status"] == "fail"
        assert f"pid {os.getpid()}" in held["found"]
        assert f"--{check}" in held["mend"]
    again = examined("--port", str(port), "--admin-port", "0", "--state-dir", tmp_path / "state")
    assert one(again, "port")["status"] == "ok", "let go, it is free"


def test_one_port_cannot_serve_clients_and_admin(tmp_path: Path, catalog: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    document = examined("--port", port, "--admin-port", port, "--state-dir", tmp_path / "state")
    assert one(document, "port")["status"] == "ok"
    assert one(document, "admin-port")["status"] == "fail"


def test_what_a_folder_lacks_is_told(tmp_path: Path, catalog: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    token = state / "admin.token"
    token.write_text("x" * 43)
    token.chmod(0o644)
    document = examined(*FREE, "--catalog", catalog, "--state-dir", state)
    assert one(document, "state-dir")["mend"] == f"`chmod 700 {state}`"
    assert one(document, "tokens")["mend"] == f"`chmod 600 {token}`"
    assert one(document, "sqlite")["status"] == "ok"
    token.chmod(0o600)
    state.chmod(0o700)
    document = examined(*FREE, "--catalog", catalog, "--state-dir", state)
    assert document["ok"]
    assert one(document, "state-dir")["status"] == "ok"
    assert not of(document, "tokens")
    assert sorted(p.name for p in state.iterdir()) == ["admin.token"], "what it tried is gone"


def test_a_disk_that_takes_nothing_fails_doctor_and_start_in_clear_words(
    tmp_path: Path, catalog: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)

    def full(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*WARMTIDE, *map(str, arguments), "--json", *FREE, "--state-dir", str(state)],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
            capture_output=True,
            text=True,
            timeout=SAFETY_S,
            check=False,
        )

    doctor = full("doctor", "--catalog", catalog)
    assert doctor.returncode == 1
    assert "File too large" in one(json.loads(doctor.stdout), "state-dir")["found"]
    up = full("up", "--catalog", catalog)
    assert up.returncode == 1
    assert str(state) in json.loads(up.stdout)["error"]
    assert "warmtide doctor" in up.stderr
    assert "Traceback" not in up.stderr
    assert not processes_over(state)
    with_room = begin(tmp_path, CATALOG, time_scale=50)
    try:
        gateway = announced(tmp_path, with_room)
        assert len((gateway.state_dir / "admin.token").read_text()) >= 32, "no empty token is kept"
    finally:
        with_room.terminate()
        with_room.wait(SAFETY_S)
        end_all(tmp_path, with_room)


def test_a_bad_catalog_is_a_failed_check_and_a_missing_one_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text("models:\n  - id: m\n    engine: emulated\n    weigths: 3 GB\n")
    document = examined(*FREE, "--catalog", file, "--state-dir", tmp_path / "state")
    problem = one(document, "catalog")
    assert f"{file}:4: models[0].weigths" in problem["found"]
    assert "weights" in problem["mend"]
    missing = warmtide("doctor", "--json", "--catalog", tmp_path / "none.yaml")
    assert (missing.code, "none.yaml" in missing.document["error"]) == (2, True)
    assert warmtide("doctor", "--port", "70000").code == 2
    assert warmtide("doctor", "--state-dir", file).code == 2


@pytest.fixture
def peer() -> Iterator[str]:
    """A server that lists one model for those who bring the key."""

    class Peer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["authorization"] == "Bearer sk-theirs"
            body = b'{"object":"list","data":[{"id":"their-name"}]}' if known else b"{}"
            self.send_response(200 if known else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_servers_of_others_are_asked_and_their_trouble_only_warned_of(
    tmp_path: Path, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def external(name: str, url: str, **keys: str) -> dict[str, Any]:
        return {"id": name, "engine": "external", "endpoints": [url], **keys}

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as let_go:
            gone_url = f"http://127.0.0.1:{let_go.getsockname()[1]}"
        models = [
            external("good", peer, upstream_model="their-name", api_key_env="THEIR_KEY"),
            external("renamed", peer, api_key_env="THEIR_KEY"),
            external("keyless", peer),
            external("gone", gone_url),
            external("silent", silent_url),
        ]
        file = tmp_path / "catalog.yaml"
        file.write_text(catalog_text(models, nodes=()))
        where = (*FREE, "--catalog", file, "--state-dir", tmp_path / "state")
        keyless = examined(*where)
        assert one(keyless, "secrets")["status"] == "fail"
        monkeypatch.setenv("THEIR_KEY", "sk-theirs")
        document = examined(*where)
    assert document["ok"]
    found = {c["found"].split(":")[0]: c for c in of(document, "endpoints")}
    assert {name: c["status"] for name, c in found.items()} == {
        "good": "ok",
        "renamed": "warn",
        "keyless": "warn",
        "gone": "warn",
        "silent": "warn",
    }
    assert "their-name" in found["renamed"]["found"]
    assert "401" in found["keyless"]["found"]
    assert "nothing came" in found["silent"]["found"]
    assert "sk-theirs" not in json.dumps(document)


def test_weights_that_are_not_there_are_told_by_the_model(tmp_path: Path) -> None:
    model = {"id": "small", "engine": "llamacpp", "source": str(tmp_path / "no.gguf")}
    shape = {"weights": "98 MB", "parameters": "135M", "layers": 30, "kv_bytes_per_token": "22 KiB"}
    file = tmp_path / "catalog.yaml"
    file.write_text(catalog_text([{**model, **shape}]))
    document = examined(*FREE, "--catalog", file, "--state-dir", tmp_path / "state")
    assert one(document, "llamacpp")["status"] == "fail"
    assert "no.gguf" in one(document, "llamacpp")["found"]


def test_a_running_gateway_is_asked_and_compared_with_the_file(tmp_path: Path) -> None:
    with running(tmp_path, CATALOG, time_scale=50) as gateway:
        document = examined("--state-dir", gateway.state_dir)
        assert document["ok"], document
        assert str(gateway.process.pid) in one(document, "port")["found"], "its own port is known"
        assert one(document, "gateway")["status"] == "ok"
        assert one(document, "nodes")["found"] == "1 of 1 alive"
        changed = tmp_path / "changed.yaml"
        changed.write_text(catalog_text([emulated("llama-8b"), emulated("another")]))
        compared = examined("--catalog", changed, "--state-dir", gateway.state_dir)
        assert one(compared, "gateway")["status"] == "warn"
        assert f"warmtide catalog apply {changed}" in one(compared, "gateway")["mend"]
        os.kill(gateway.process.pid, signal.SIGSTOP)
        try:
            hangs = examined("--state-dir", gateway.state_dir)
        finally:
            os.kill(gateway.process.pid, signal.SIGCONT)
        assert one(hangs, "gateway")["status"] == "fail"
        assert "does not answer" in one(hangs, "gateway")["found"]


def test_what_a_killed_gateway_left_is_told_until_down_ends_it(tmp_path: Path) -> None:
    process = begin(tmp_path, CATALOG, time_scale=50)
    try:
        state = announced(tmp_path, process).state_dir
        process.kill()
        process.wait(SAFETY_S)
        left = one(examined(*FREE, "--state-dir", state), "leftovers")
        assert (left["status"], "agent of n0" in left["found"]) == ("warn", True)
        assert "warmtide down" in left["mend"]
        assert warmtide("down", "--state-dir", state).code == 0
        until(lambda: not processes_over(state), "all have ended")
        assert one(examined(*FREE, "--state-dir", state), "leftovers")["found"] == "none"
    finally:
        for identity in processes_over(tmp_path):
            end_now(identity)


def test_traces_are_looked_for_where_replay_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ("--state-dir", tmp_path / "state")
    (tmp_path / "traces" / "mine").mkdir(parents=True)
    (tmp_path / "traces" / "mine" / "counts.csv").write_text("t_s,c0\n0,1\n")
    named = examined(*FREE, *state, "--traces", tmp_path / "traces")
    assert "1 files" in one(named, "traces")["found"]
    monkeypatch.setenv("WARMTIDE_TRACES", str(tmp_path / "nowhere"))
    nowhere = examined(*FREE, *state)
    assert one(nowhere, "traces")["status"] == "warn"
    assert "generator" in one(nowhere, "traces")["found"]
    assert nowhere["ok"]
