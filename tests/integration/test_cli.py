"""The commands as a person or a script meets them: one document, one exit code, nothing left."""

import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from placement.engines.base import Identity, alive, end_now, identity_of
from tests.integration.running import (
    SAFETY_S,
    Gateway,
    announced,
    assert_no_bug_in,
    begin,
    catalog_text,
    emulated,
    end_all,
    ended,
    logs,
    processes_over,
    running,
    until,
    warmtide,
)

pytestmark = pytest.mark.integration

SCALE = 50.0
CATALOG = catalog_text([emulated("llama-8b", aliases=["gpt-4o-mini"], min_replicas=1)])
BROKEN = """models:
  - id: llama-8b
    engine: emulated
    weights: 16
    color: blue
fleet:
  nodes:
    - {id: n0, gpus: 1, gpu: H100-80GB, host_memory: 64 GB}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("cli"), CATALOG, time_scale=SCALE) as up:
        yield up


def chat(url: str, model: str, **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    with httpx.Client(trust_env=False, timeout=SAFETY_S) as http:
        return http.post(f"{url}/v1/chat/completions", json=body, headers=headers)


# --- up


def test_up_says_in_one_line_where_it_is(gateway: Gateway) -> None:
    assert set(gateway.card) == {"url", "admin_url", "state_dir", "pid", "time_scale", "models"}
    assert gateway.card["models"] == ["llama-8b"]
    assert gateway.card["time_scale"] == SCALE
    assert gateway.card["pid"] == gateway.process.pid
    assert Path(gateway.card["state_dir"]) == gateway.state_dir
    assert gateway.url.startswith("http://127.0.0.1:")
    assert gateway.url != gateway.admin_url
    with httpx.Client(trust_env=False) as http:
        assert http.get(f"{gateway.url}/health/live").status_code == 200
        assert http.get(f"{gateway.url}/health/ready").json()["nodes"] == ["n0"]


def test_secrets_are_for_their_owner_alone(gateway: Gateway) -> None:
    for name in ("admin.token", "agent.token"):
        path = gateway.state_dir / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        secret = path.read_text().strip()
        assert len(secret) >= 32
        assert not [line for line in gateway.processes().values() if secret in line]
        assert not [log for log, text in logs(gateway.folder).items() if secret in text]
    with httpx.Client(trust_env=False) as http:
        assert http.get(f"{gateway.admin_url}/status").status_code == 401


def test_a_second_gateway_over_the_same_state_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    before = gateway.processes()
    second = warmtide("up", "--json", "--port", "0", "--state-dir", gateway.state_dir)
    assert second.code == 1
    assert str(gateway.process.pid) in second.document["error"]
    assert "--state-dir" in second.document["error"]
    assert gateway.processes() == before
    assert chat(gateway.url, "llama-8b").status_code == 200


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_in_use_is_told_with_what_to_do(tmp_path: Path, flag: str) -> None:
    other = {"--port": "--admin-port", "--admin-port": "--port"}[flag]
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = warmtide(
            *("up", "--json", flag, str(port), other, "0", "--state-dir", tmp_path / "state"),
            *("--catalog", tmp_path / "catalog.yaml"),
        )
    assert up.code == 1
    assert f"127.0.0.1:{port}" in up.document["error"]
    assert flag in up.document["error"]
    assert "Traceback" not in up.err
    assert not processes_over(tmp_path)


def test_a_bad_catalog_is_told_by_line_and_field_with_its_remedy(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(BROKEN)
    flags = ("--catalog", file, "--state-dir", tmp_path / "state", "--port", "0")
    told = warmtide("up", *flags)
    assert (told.code, told.out) == (2, "")
    assert f"{file}:4: models[0].weights: " in told.err
    assert f"{file}:5: models[0].color: " in told.err
    assert "Traceback" not in told.err
    as_json = warmtide("up", "--json", *flags)
    assert as_json.code == 2
    found = {p["field"]: p for p in as_json.document["problems"]}
    assert found["models[0].weights"]["line"] == 4
    assert found["models[0].color"]["file"] == str(file)
    assert all(problem["remedy"] for problem in found.values())
    assert not processes_over(tmp_path)


def test_a_catalog_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    up = warmtide(
        *("up", "--json", "--catalog", tmp_path / "no.yaml", "--state-dir", tmp_path / "state")
    )
    assert up.code == 2
    assert "no.yaml" in up.out
    assert "Traceback" not in up.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--host", "0.0.0.0"), ("0.0.0.0", "tenants", "warmtide key new")),
        (("--fleet", "ray"), ("ray", "local", "warmtide.fleets")),
    ],
)
def test_what_cannot_be_done_is_bad_input_in_clear_words(
    tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    up = warmtide(
        *("up", "--json", "--port", "0", "--admin-port", "0", *flags),
        *("--catalog", tmp_path / "catalog.yaml", "--state-dir", tmp_path / "state"),
    )
    assert up.code == 2, up
    assert all(word in up.document["error"] for word in words)
    assert all(word in up.err for word in words)
    assert "Traceback" not in up.err
    assert not processes_over(tmp_path)


def test_a_state_directory_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    up = warmtide("up", "--json", "--state-dir", tmp_path / "file" / "state")
    assert up.code == 2
    assert "--state-dir" in up.err
    assert "Traceback" not in up.err


# --- the other commands


def test_status_is_one_document_or_one_table(gateway: Gateway) -> None:
    status = warmtide("status", "--json", "--state-dir", gateway.state_dir)
    assert status.code == 0
    assert [row["model"] for row in status.document["models"]] == ["llama-8b"]
    assert [row["node"] for row in status.document["nodes"]] == ["n0"]
    assert status.document["time_scale"] == SCALE
    table = warmtide("status", "--state-dir", gateway.state_dir)
    assert table.code == 0
    assert "llama-8b" in table.out
    assert "n0" in table.out


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_state_directory_that_others_may_write_is_not_used(tmp_path: Path, mode: int) -> None:
    """Who may write there could have left a token that they know, or a link where a file is due."""
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    state.chmod(mode)
    victim.write_text("precious")
    (state / "admin.token").write_text("known")
    (state / "gateway.json.new").symlink_to(victim)
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    up = warmtide(
        *("up", "--json", "--catalog", tmp_path / "catalog.yaml", "--state-dir", state),
        *("--port", "0", "--admin-port", "0"),
    )
    assert up.code == 2
    assert f"chmod 700 {state}" in up.document["error"]
    assert victim.read_text() == "precious"


def test_a_catalog_may_have_any_name(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "größer 100 %.yaml"
    file.write_text(CATALOG)
    applied = warmtide("catalog", "apply", file, "--json", "--state-dir", gateway.state_dir)
    assert applied.document["ok"], applied.err


def test_commands_over_an_idle_state_directory_say_so(tmp_path: Path) -> None:
    status = warmtide("status", "--json", "--state-dir", tmp_path)
    assert status.code == 1
    assert "warmtide up" in status.document["error"]
    down = warmtide("down", "--json", "--state-dir", tmp_path)
    assert (down.code, down.document) == (0, {"ended": []})
    told = warmtide("down", "--state-dir", tmp_path)
    assert (told.code, "nothing was running" in told.out) == (0, True)


def test_the_version_is_one_document() -> None:
    version = warmtide("version", "--json")
    assert version.code == 0
    assert set(version.document) == {"version"}


def test_an_unknown_command_is_bad_input() -> None:
    assert warmtide("upp").code == 2
    assert warmtide("up", "--prot", "1").code == 2


def test_a_new_key_opens_a_gateway_whose_catalog_has_its_digest(tmp_path: Path) -> None:
    made = warmtide("key", "new", "--json")
    assert made.code == 0
    key, sha256 = made.document["key"], made.document["sha256"]
    assert warmtide("key", "new", "--json").document["key"] != key
    models = [emulated("llama-8b", min_replicas=1)]
    text = catalog_text(models, tenants=[{"id": "me", "keys": [sha256]}])
    with running(tmp_path, text, time_scale=SCALE) as gateway:
        assert chat(gateway.url, "llama-8b").status_code == 401
        assert chat(gateway.url, "llama-8b", authorization=f"Bearer {key}").status_code == 200
        assert not [name for name, log in logs(tmp_path).items() if key in log]


def test_a_detached_gateway_goes_on_alone_until_down(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    state = tmp_path / "state"
    try:
        up = warmtide(
            *("up", "--detach", "--json", "--port", "0", "--admin-port", "0"),
            *("--catalog", tmp_path / "catalog.yaml", "--state-dir", state),
            *("--time-scale", str(SCALE)),
        )
        assert up.code == 0, up
        assert chat(up.document["url"], "llama-8b").status_code == 200
        pid = up.document["pid"]
        assert os.getsid(pid) == pid
        before = processes_over(state)
        down = warmtide("down", "--json", "--state-dir", state)
        assert down.code == 0
        assert [str(pid) in line for line in down.document["ended"]] == [True]
        assert not [line for identity, line in before.items() if alive(identity)]
        assert not processes_over(state)
        assert_no_bug_in(logs(tmp_path))
    finally:
        for identity in processes_over(tmp_path):
            end_now(identity)


def test_a_detached_gateway_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(BROKEN)
    flags = ("--catalog", tmp_path / "catalog.yaml", "--state-dir", tmp_path / "state")
    up = warmtide("up", "--detach", "--json", "--port", "0", "--admin-port", "0", *flags)
    assert up.code == 2
    assert {p["line"] for p in up.document["problems"]} == {4, 5}
    assert not processes_over(tmp_path)


# --- endings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    process = begin(tmp_path, CATALOG, time_scale=SCALE)
    try:
        gateway = announced(tmp_path, process)
        assert chat(gateway.url, "llama-8b").status_code == 200
        before = gateway.processes()
        assert len(before) == 3, "gateway, agent, engine-host"
        process.send_signal(number)
        assert process.wait(SAFETY_S) == 0
        assert not [line for identity, line in before.items() if alive(identity)]
        assert not processes_over(tmp_path)
        down = warmtide("down", "--json", "--state-dir", gateway.state_dir)
        assert down.document == {"ended": []}
        assert_no_bug_in(logs(tmp_path))
    finally:
        end_all(tmp_path, process)


MOMENTS: dict[str, Callable[[Path], object]] = {
    "its first file": lambda folder: (folder / "state" / "admin.token").exists(),
    "its agents' specification": lambda folder: list(folder.rglob("agent-spec.json")),
    "an agent's process": lambda folder: len(processes_over(folder)) > 1,
    "an agent that listens": lambda folder: list(folder.rglob("agent.json")),
    "an engine-host's specification": lambda folder: list(folder.rglob("engine-host.spec.json")),
    "an engine-host's process": lambda folder: len(processes_over(folder)) > 2,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_in_mid_start_leaves_nothing(tmp_path: Path, moment: str) -> None:
    process = begin(tmp_path, CATALOG, time_scale=SCALE)
    try:
        until(lambda: MOMENTS[moment](tmp_path), moment)
        process.terminate()
        process.wait(SAFETY_S)
        assert not processes_over(tmp_path)
        said = (tmp_path / "up.out").read_text()
        assert said.count("\n") == 1, "an error or an announcement, never both"
        assert {"error", "url"} & set(json.loads(said))
        assert_no_bug_in(logs(tmp_path))
    finally:
        end_all(tmp_path, process)


def test_a_gateway_that_was_killed_is_not_taken_for_running(tmp_path: Path) -> None:
    """Also where its parent has not collected it yet, as in a container without an init."""
    process = begin(tmp_path, CATALOG, time_scale=SCALE)
    try:
        gateway = announced(tmp_path, process)
        until(lambda: gateway.serving("llama-8b"), "an engine to leave behind")
        process.kill()
        until(lambda: identity_of(process.pid) is None, "the kernel has ended it")
        state = ("--state-dir", gateway.state_dir)
        assert warmtide("status", "--json", *state).code == 1
        down = warmtide("down", "--json", *state)
        assert down.code == 0
        names = [line.split(" (")[0] for line in down.document["ended"]]
        assert names == ["agent of n0", "engine-host of n0"]
        assert not processes_over(tmp_path)
    finally:
        end_all(tmp_path, process)


# --- external models alone


class Peer(BaseHTTPRequestHandler):
    """Somebody else's OpenAI-compatible server; says what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": "assistant", "content": f"{self.path} {asked['model']}"}
        key = self.headers.get("authorization", "none")
        body = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "key": key,
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def peer() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def external(model_id: str, *endpoints: str, **keys: str) -> dict[str, object]:
    return {"id": model_id, "engine": "external", "endpoints": list(endpoints), **keys}


def test_external_models_alone_need_no_fleet(tmp_path: Path, peer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"http://127.0.0.1:{gone.getsockname()[1]}"
    models = [
        external("theirs", peer, upstream_model="their-name"),
        external("half-there", nobody, f"{peer}/v1"),
        external("gone", nobody),
    ]
    with running(tmp_path, catalog_text(models, nodes=())) as gateway:
        assert set(gateway.processes()) == {gateway.identity}, "no agents, no engines"
        with httpx.Client(trust_env=False) as http:
            assert http.get(f"{gateway.url}/health/ready").status_code == 200
        told = chat(gateway.url, "theirs", authorization="Bearer the-clients-own").json()
        assert told["choices"][0]["message"]["content"] == "/v1/chat/completions their-name"
        assert told["key"] == "none", "a client's credentials stay here"
        for _ in range(4):
            assert chat(gateway.url, "half-there").status_code == 200
        refused = chat(gateway.url, "gone")
        assert refused.status_code in (502, 503)
        assert refused.json()["error"]["code"] in ("no_capacity", "engine_failed")
        assert int(refused.headers["retry-after"]) >= 1
        rows = {row["model"]: row for row in gateway.status()["models"]}
        assert rows["theirs"]["outcomes"] == {"answered": 1}
        assert rows["half-there"]["outcomes"] == {"answered": 4}


def test_a_key_for_an_external_model_comes_from_the_environment(
    tmp_path: Path, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = catalog_text([external("theirs", peer, api_key_env="THEIR_KEY")], nodes=())
    (tmp_path / "catalog.yaml").write_text(text)
    up = warmtide(
        *("up", "--json", "--port", "0", "--catalog", tmp_path / "catalog.yaml"),
        *("--state-dir", tmp_path / "state"),
    )
    assert up.code == 2
    assert "THEIR_KEY" in up.document["error"]
    monkeypatch.setenv("THEIR_KEY", "sk-their-secret")
    ours = [external("theirs", peer, api_key_env="THEIR_KEY"), emulated("ours")]
    with running(tmp_path, catalog_text(ours)) as gateway:
        assert chat(gateway.url, "theirs").json()["key"] == "Bearer sk-their-secret"
        agent = gateway.agent()
        assert agent is not None
        inherited = psutil.Process(agent.pid).environ()
        assert "PATH" in inherited
        assert "THEIR_KEY" not in inherited, "engines have no use for others' keys"
    assert not [name for name, log in logs(tmp_path).items() if "sk-their-secret" in log]


def test_ending_lets_a_running_answer_end(tmp_path: Path) -> None:
    """SIGTERM in the middle of a stream: the stream is whole, and only then all ends."""
    process = begin(tmp_path, CATALOG, time_scale=SCALE)
    try:
        gateway = announced(tmp_path, process)
        until(lambda: gateway.serving("llama-8b"), "a replica that answers at once")
        body = {
            "model": "llama-8b",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 2000,
            "ignore_eos": True,
            "stream": True,
        }
        with (
            httpx.Client(trust_env=False, timeout=SAFETY_S) as http,
            http.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            process.terminate()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(SAFETY_S) == 0
        assert not processes_over(tmp_path)
    finally:
        end_all(tmp_path, process)


def test_down_tells_what_it_ended(tmp_path: Path) -> None:
    process = begin(tmp_path, CATALOG, time_scale=SCALE)
    try:
        gateway = announced(tmp_path, process)
        down = ended(gateway)
        (line,) = down.document["ended"]
        assert gateway.url in line
        assert str(process.pid) in line
        assert isinstance(gateway.identity, Identity)
        assert not alive(gateway.identity)
    finally:
        end_all(tmp_path, process)
