"""The command as a user meets it: exit codes, one JSON document, fleets found and refused."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from loadtests.cli import replay
from loadtests.spans import span_us
from loadtests.trace_places import GENERATED, demo_trace
from prewarm.traces.records import DAY_US, HOUR_US, US
from tests.loadtests.fake_openai import ADMIN_TOKEN, FakeOpenAI, fake_openai

TRACE = "t_s,c0,c1\n0,30,10\n600,90,20\n1200,20,5\n"


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """The peer in a thread of its own, as the command runs a loop of its own."""
    ready: Future[tuple[FakeOpenAI, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with fake_openai() as server:
            server.models = ["good", "vectors", "held", "real"]
            server.time_scale = 600.0
            server.catalog = [
                {"id": "good", "engine": "emulated", "layers": 32},
                {"id": "vectors", "engine": "emulated", "tasks": ["embeddings"]},
                {"id": "held", "engine": "emulated", "tasks": ["chat", "completions"]},
                {"id": "real", "engine": "llamacpp"},
            ]
            stop = asyncio.Event()
            ready.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    server, loop, stop = ready.result(timeout=20)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=20)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    (tmp_path / "admin.token").write_text(ADMIN_TOKEN)
    file = tmp_path / "counts.csv"
    file.write_text(TRACE)
    return str(file)


def warmtide_replay(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("replay")(replay)
    return CliRunner().invoke(app, list(arguments))


def against(fake: FakeOpenAI, trace: str, *more: str) -> Result:
    state = str(Path(trace).parent)
    common = ("--url", fake.url, "--admin-url", fake.url, "--state-dir", state, "--json")
    return warmtide_replay(trace, *common, *more)


def test_a_replay_tells_one_document_in_the_fleets_own_time(fake: FakeOpenAI, trace: str) -> None:
    result = against(fake, trace, "--limit", "40", "--duration", "20m")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["sent"] == document["answered"] == 40 == len(fake.bodies)
    assert (document["time_scale"], document["evidence"]) == (600.0, "emulated")
    assert set(document["models"]) == {"good", "held"}
    assert document["streams"] == {"c0": "good", "c1": "held"}
    assert document["models"]["held"]["cold_starts"] == document["models"]["held"]["sent"] > 0
    assert document["slice"] == {"start_s": 0.0, "duration_s": 1200.0, "requests": 150}


def test_another_speed_than_the_fleets_is_refused(fake: FakeOpenAI, trace: str) -> None:
    result = against(fake, trace, "--speed", "20")
    assert result.exit_code == 2
    assert "runs 600 times wall time, not 20" in json.loads(result.stdout)["error"]
    assert not fake.bodies


def test_without_an_admin_port_the_speed_is_taken_on_trust_and_said(
    fake: FakeOpenAI, trace: str
) -> None:
    fake.time_scale = 0.0
    result = against(fake, trace, "--speed", "600", "--limit", "5", "--models", "good")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["evidence"] is None
    assert "taken on trust" in document["notes"][0]


def test_real_engines_are_left_out_and_refused_when_time_is_scaled(
    fake: FakeOpenAI, trace: str
) -> None:
    result = against(fake, trace, "--map", "c0=real")
    assert result.exit_code == 2
    assert "real engines keep wall time" in result.stderr
    vectors = against(fake, trace, "--models", "vectors")
    assert vectors.exit_code == 2
    assert "serves no chat" in vectors.stderr


def test_lost_requests_fail_the_command_but_still_tell(fake: FakeOpenAI, trace: str) -> None:
    fake.models = ["vanish"]
    fake.catalog = [{"id": "vanish", "engine": "emulated"}]
    result = against(fake, trace, "--limit", "3")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["lost"], document["lost_by_code"]) == (3, {"no_answer": 3})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--map", "c9=good"), "no stream 'c9'"),
        (("--map", "c0=goood"), "no model 'goood'; it has good"),
        (("--models", "heldd"), "no model 'heldd'; it has held"),
        (("--map", "c0"), "write stream=model"),
        (("--map", "c0=a", "--map", "c0=b"), "twice"),
        (("--start", "9d"), "behind the trace's end"),
        (("--start", "soon"), "is no time span"),
        (("--duration", "0s"), "longer than nothing"),
        (("--limit", "-1"), "--limit"),
        (("--speed", "inf"), "--speed"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_2(
    fake: FakeOpenAI, trace: str, arguments: tuple[str, ...], told: str
) -> None:
    result = against(fake, trace, *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_a_bad_trace_or_none_is_exit_2_and_no_gateway_is_exit_1(trace: str) -> None:
    assert warmtide_replay("/no/such/trace").exit_code == 2
    assert warmtide_replay().exit_code == 2
    nobody = warmtide_replay(trace, "--url", "http://127.0.0.1:9", "--limit", "1")
    assert nobody.exit_code == 1
    assert "warmtide up" in nobody.stderr


def test_a_key_that_others_may_read_is_refused(fake: FakeOpenAI, trace: str) -> None:
    key = Path(trace).with_name("key")
    key.write_text("wt-secret\n")
    key.chmod(0o644)
    result = against(fake, trace, "--api-key-file", str(key))
    assert result.exit_code == 2
    assert "chmod 600" in result.stderr
    assert "wt-secret" not in result.output


def test_the_demo_takes_a_real_trace_where_one_lies_and_ours_elsewhere(tmp_path: Path) -> None:
    inside = tmp_path / "shared" / "traces" / "servegen"
    inside.mkdir(parents=True)
    repository = tmp_path / "repository"
    (repository / "docs").mkdir(parents=True)
    (repository / "pyproject.toml").touch()
    assert demo_trace(None, repository / "docs") == GENERATED
    real = inside / "clients_10min_m-large.csv.gz"
    real.touch()
    assert demo_trace(None, repository / "docs") == str(real)
    assert demo_trace(tmp_path / "elsewhere", repository) == GENERATED


def test_spans_are_read_as_people_write_them() -> None:
    assert span_us("8d", "--start") == 8 * DAY_US
    assert span_us("1.5h", "--start") == HOUR_US * 3 // 2
    assert span_us("600", "--start") == 600 * US
