"""The guard before a vLLM server, as plain ASGI: without a token only inference calls pass."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from placement.engines import vllm_guard
from placement.engines.vllm_guard.warmtide_guard import OPEN, TOKEN_FILE, Guard

TOKEN = "s3cret-token"
FOLDER = Path(str(vllm_guard.__file__)).parent
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get")
OPEN_PATHS = sorted({path for paths in OPEN.values() for path in paths})
CLOSED = (
    "/sleep",
    "/wake_up",
    "/collective_rpc",
    "/v1/load_lora_adapter",
    "/invocations",
    "/pause",
)


class Server:
    """What stands behind the guard: it remembers what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.reached.append(scope.get("path", scope["type"]))


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def sent_through(token_file: Path, scope: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """What reached the server, and what the guard answered itself."""
    server, answers = Server(), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_FILE, str(token_file))
        guard = Guard(server)
    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    return server.reached, answers


def http(method: str, path: str, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": list(headers), **more}


BEARER = (b"authorization", f"Bearer {TOKEN}".encode())


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_inference_and_health_pass(token_file: Path, path: str) -> None:
    method = "GET" if path in OPEN["GET"] else "POST"
    assert sent_through(token_file, http(method, path)) == ([path], [])


@pytest.mark.parametrize("path", CLOSED)
def test_memory_and_development_calls_want_the_token(token_file: Path, path: str) -> None:
    reached, answers = sent_through(token_file, http("POST", path))
    assert not reached
    assert answers[0]["status"] == 401
    assert sent_through(token_file, http("POST", path, BEARER)) == ([path], [])


twisted = st.builds(
    lambda before, path, after: before + path + after,
    st.sampled_from(
        ["", "/", "//", "/.", "/..", "/v1", "/v1/models/..", "/%2e", " ", "\t", "\x00"]
    ),
    st.sampled_from([*OPEN_PATHS, *CLOSED, *(p.upper() for p in OPEN_PATHS), "/"]),
    st.sampled_from(["", "/", "//", ";", ";x", "/..", "/../sleep", "%2f", "\x00", " ", "?", "#"]),
)


@given(method=st.sampled_from(METHODS), path=st.one_of(twisted, st.text()))
@example(method="HEAD", path="/health")
@example(method="POST", path="/v1/chat/completions/../../sleep")
@example(method="POST", path="/V1/CHAT/COMPLETIONS")
def test_whatever_is_not_exactly_open_is_refused(token_file: Path, method: str, path: str) -> None:
    reached, answers = sent_through(token_file, http(method, path))
    if path in OPEN.get(method, ()):
        assert reached == [path]
    else:
        assert not reached
        assert answers[0]["status"] == 401


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, paths in OPEN.items() for p in paths])
def test_an_open_call_is_open_in_one_spelling(token_file: Path, method: str, path: str) -> None:
    twists = [f"{path}/", f"/{path}", f"{path}/..", f"{path};x", f"{path}%00", f" {path}", path[1:]]
    for twist in (*twists, path.upper(), path.replace("/", "//"), path.replace("/", "\\")):
        assert not sent_through(token_file, http(method, twist))[0], twist


@given(
    given_header=st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"", b"Bearer", b"Bearer ", TOKEN.encode(), b"bearer " + TOKEN.encode()]),
        st.integers(0, len(TOKEN) - 1).map(lambda n: f"Bearer {TOKEN[:n]}".encode()),
    )
)
def test_nothing_but_the_token_opens_it(token_file: Path, given_header: bytes) -> None:
    reached, _ = sent_through(token_file, http("POST", "/sleep", (b"authorization", given_header)))
    assert bool(reached) == (given_header == BEARER[1])


def test_two_tokens_are_none(token_file: Path) -> None:
    wrong = (b"authorization", b"Bearer x")
    for headers in ((BEARER, wrong), (wrong, BEARER), (BEARER, BEARER)):
        assert not sent_through(token_file, http("POST", "/sleep", *headers))[0]


def test_a_prefix_that_a_proxy_claims_opens_nothing(token_file: Path) -> None:
    """Routers cut `root_path` off: what is open with it may be another call without it."""
    scope = http("POST", "/v1/completions", root_path="/v1/completions")
    assert not sent_through(token_file, scope)[0]


def test_a_websocket_is_closed_before_it_opens(token_file: Path) -> None:
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    reached, answers = sent_through(token_file, scope)
    assert not reached
    assert [a["type"] for a in answers] == ["websocket.close"]


def test_the_server_may_begin_and_end(token_file: Path) -> None:
    assert sent_through(token_file, {"type": "lifespan"})[0] == ["lifespan"]


def test_without_a_token_there_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for path, error in ((tmp_path / "none", OSError), (tmp_path / "empty", ValueError)):
        with pytest.raises(error):
            sent_through(path, http("GET", "/health"))


def test_it_needs_nothing_but_its_own_folder(token_file: Path) -> None:
    """As vLLM's interpreter loads it: no Warmtide, no packages, one file on the path."""
    assert [p.name for p in FOLDER.glob("*.py")] == ["__init__.py", "warmtide_guard.py"]
    code = f"import sys; sys.path[:0] = [{str(FOLDER)!r}]; import warmtide_guard as g; g.Guard(0)"
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={TOKEN_FILE: str(token_file)},
        check=True,
        timeout=60,
    )
