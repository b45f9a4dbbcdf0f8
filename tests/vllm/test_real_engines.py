"""Real vLLM behind the whole of Warmtide: cold, served, asleep, awake, guarded, killed, back.

One pair of engines; the tests follow one another as a day does, and each leaves both serving.
"""

import contextlib
import os
import signal
import threading
from http.client import HTTPConnection
from typing import Any

import httpx
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from placement.plan import OutcomeStatus, Park, Promote, RefusalCode, Refused, Shed, Start, Warm
from placement.snapshot import Rung
from tests.vllm.fleet import (
    ADAPTED,
    ALIAS,
    BROKEN,
    COMPILED,
    SAFETY_S,
    TUNED,
    Fleet,
    session_of,
    until,
)

pytestmark = pytest.mark.heavy

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "The capital of France is"}]


def complete(fleet: Fleet, model: str) -> httpx.Response:
    """One plain completion, with the gateway's own headers in the answer."""
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    answer = httpx.post(
        f"{fleet.gateway.base_url}/completions",
        json=body | {"ignore_eos": True},
        timeout=SAFETY_S,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return answer


def text_of(answer: httpx.Response) -> str:
    text: str = answer.json()["choices"][0]["text"]
    return text


def both_serve(fleet: Fleet) -> None:
    for model in (ADAPTED, COMPILED):
        complete(fleet, model)


def test_two_cold_models_are_held_for_then_served(fleet: Fleet) -> None:
    answers: dict[str, httpx.Response] = {}
    asking = [
        threading.Thread(target=lambda m=model: answers.update({m: complete(fleet, m)}))
        for model in (ADAPTED, COMPILED)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answers.keys() == {ADAPTED, COMPILED}
    for answer in answers.values():
        assert answer.headers["x-warmtide-rung"] == "host"
        assert int(answer.headers["x-warmtide-held-ms"]) > 1000
        assert answer.json()["usage"]["completion_tokens"] == 8
    ports = {fleet.replica(m).endpoint for m in (ADAPTED, COMPILED)}
    assert len(ports) == 2
    assert fleet.gateway.model(ADAPTED)["cold_starts"] == {"host": 1}
    assert any((fleet.node / "vllm-cache").iterdir()), "compiled code is kept for the next start"


def test_chat_plain_and_streamed_by_the_official_client(fleet: Fleet) -> None:
    both_serve(fleet)
    with fleet.client() as client:
        for model in (ADAPTED, COMPILED):
            plain = client.chat.completions.create(
                model=model, messages=ASK, max_tokens=12, temperature=0, seed=0
            )
            assert plain.usage is not None
            assert 1 <= plain.usage.completion_tokens <= 12
            assert plain.model == model
            stream = client.chat.completions.create(
                model=model,
                messages=ASK,
                max_tokens=12,
                temperature=0,
                seed=0,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
            said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert said == plain.choices[0].message.content
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


def test_the_gateway_and_the_engine_count_the_same_request(fleet: Fleet) -> None:
    both_serve(fleet)
    tokens = 'vllm:generation_tokens_total{engine="0",model_name="tiny-compiled"}'

    def counted() -> float:
        text = fleet.engine(COMPILED, "GET", "/metrics", token=False).text
        line = next(line for line in text.splitlines() if line.startswith(tokens))
        return float(line.rsplit(" ", 1)[1])

    before = counted()
    seen = fleet.gateway.model(COMPILED)
    complete(fleet, COMPILED)
    until(lambda: counted() == before + 8, "the engine counts eight tokens")
    now = fleet.gateway.model(COMPILED)
    assert now["outcomes"]["answered"] == seen["outcomes"]["answered"] + 1
    admin = (fleet.gateway.state_dir / "admin.token").read_text()
    metrics = httpx.get(
        f"{fleet.gateway.admin_url}/metrics", headers={"Authorization": f"Bearer {admin}"}
    ).text
    assert "gen_ai_server_time_to_first_token_seconds" in metrics
    assert COMPILED in metrics


def test_an_adapter_answers_under_its_own_name(fleet: Fleet) -> None:
    base, tuned = complete(fleet, ADAPTED), complete(fleet, TUNED)
    assert tuned.json()["model"] == TUNED
    assert text_of(tuned) != text_of(base), "the adapter changes what is said"


def test_an_alias_is_asked_for_by_the_name_that_the_engine_knows(fleet: Fleet) -> None:
    aliased, plain = complete(fleet, ALIAS), complete(fleet, COMPILED)
    assert text_of(aliased) == text_of(plain)


def test_a_parked_engine_wakes_for_a_request(fleet: Fleet) -> None:
    young = text_of(complete(fleet, COMPILED))
    name, server = fleet.replica(COMPILED).replica_id, fleet.server(COMPILED)
    assert fleet.outcome(fleet.ask(Park, replica_id=name)).status is OutcomeStatus.DONE
    assert fleet.replica(COMPILED).rung is Rung.PARKED
    asleep = fleet.engine(COMPILED, "GET", "/is_sleeping", token=True)
    assert asleep.json() == {"is_sleeping": True}
    answer = complete(fleet, COMPILED)
    assert answer.headers["x-warmtide-rung"] == "parked"
    assert text_of(answer) == young
    assert fleet.replica(COMPILED).serving
    assert fleet.server(COMPILED) == server, "it woke, it was not started anew"


@pytest.mark.parametrize("asleep", [Park, Shed])
def test_the_agent_walks_an_engine_over_the_rungs(fleet: Fleet, asleep: type[Any]) -> None:
    """Down, half-way up, up: each step by vLLM's own calls, and a canary at the top."""
    both_serve(fleet)
    name, server = fleet.replica(ADAPTED).replica_id, fleet.server(ADAPTED)
    for verb, rung in ((asleep, None), (Warm, Rung.WARM), (Promote, Rung.SERVING)):
        done = fleet.outcome(fleet.ask(verb, replica_id=name))
        assert done.status is OutcomeStatus.DONE, done
        assert rung in (None, fleet.replica(ADAPTED).rung)
    state = fleet.gateway.serving(ADAPTED)
    assert [r["replica_id"] for r in state] == [name]
    assert text_of(complete(fleet, TUNED)) != text_of(complete(fleet, ADAPTED))
    assert fleet.server(ADAPTED) == server


def test_a_step_that_this_engine_lacks_is_refused_and_nothing_happens(fleet: Fleet) -> None:
    both_serve(fleet)
    replica = fleet.replica(COMPILED)
    refused = fleet.ask(Warm, replica_id=replica.replica_id)
    assert isinstance(refused, Refused)
    assert refused.reason_code is RefusalCode.UNSUPPORTED
    assert "release_kv_cache_memory" in refused.message
    assert "0.32" in refused.message
    assert fleet.replica(COMPILED).serving
    assert complete(fleet, COMPILED).headers["x-warmtide-rung"] == "serving"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sleep"),
        ("POST", "/sleep?level=2"),
        ("POST", "//sleep"),
        ("POST", "/sleep/"),
        ("POST", "/%73leep"),
        ("POST", "/v1/models/../../sleep"),
        ("POST", "/v1/chat/completions/%2e%2e/%2e%2e/%2e%2e/sleep"),
        ("POST", "/health;/sleep"),
        ("POST", "http://127.0.0.1/sleep"),
        ("POST", "/pause"),
        ("POST", "/abort_requests"),
        ("POST", "/collective_rpc"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/invocations"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/is_sleeping"),
        ("GET", "/server_info"),
        ("HEAD", "/health"),
        ("GET", "/v1/chat/completions"),
    ],
)
def test_a_real_engine_does_nothing_for_strangers(fleet: Fleet, method: str, path: str) -> None:
    host, port = fleet.replica(COMPILED).endpoint.split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body=b"{}", headers={"Content-Type": "application/json"})
        assert connection.getresponse().status == 401
    asleep = fleet.engine(COMPILED, "GET", "/is_sleeping", token=True)
    assert asleep.json() == {"is_sleeping": False}


def test_a_start_that_fails_says_why_and_leaves_nothing(fleet: Fleet) -> None:
    started = fleet.ask(Start, replica_id="broken-1", model_id=BROKEN, gpu_ids=(0,))
    ended = fleet.outcome(started)
    assert ended.status is OutcomeStatus.FAILED
    assert "ended while it was starting" in ended.message
    assert "/nothing" in ended.message, "the cause is in the message"
    assert not list((fleet.node / "engines" / "broken-1").glob("*.identity.json"))
    told = fleet.gateway.status()["outcomes"]
    assert any(o["replica_id"] == "broken-1" for o in told), "and people see it in `status`"


def test_an_agent_that_is_killed_takes_no_engine_with_it(fleet: Fleet) -> None:
    both_serve(fleet)
    before = {m: fleet.server(m) for m in (ADAPTED, COMPILED)}
    agent = fleet.gateway.agent()
    assert agent is not None
    body = {"model": COMPILED, "prompt": "x", "max_tokens": 400, "stream": True}
    with httpx.stream(
        "POST",
        f"{fleet.gateway.base_url}/completions",
        json=body | {"ignore_eos": True},
        timeout=SAFETY_S,
        trust_env=False,
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        os.kill(agent.pid, signal.SIGKILL)
        assert "data: [DONE]" in list(lines)
    until(lambda: fleet.gateway.agent() not in (None, agent), "a new agent")
    until((fleet.node / "agent.json").exists, "it says where it listens")
    assert {m: fleet.server(m) for m in (ADAPTED, COMPILED)} == before
    assert fleet.replica(COMPILED).lacks, "what the engine lacks is still known"
    both_serve(fleet)


@pytest.mark.parametrize("killed", ["server", "engine core"])
def test_an_engine_that_is_killed_is_noticed_cleaned_up_and_started_on_demand(
    fleet: Fleet, killed: str
) -> None:
    """Without its server, an engine core holds all of its memory and would stay for ever. Without
    its core, a server ends by itself."""
    both_serve(fleet)
    server, name = fleet.server(ADAPTED), fleet.replica(ADAPTED).replica_id
    helpers = session_of(server) - {server.pid}
    assert len(helpers) >= 2, "vLLM has an engine core and a worker of its own"
    (core,) = (pid for pid in helpers if "EngineCore" in psutil.Process(pid).cmdline()[0])
    os.kill(server.pid if killed == "server" else core, signal.SIGKILL)
    until(lambda: not session_of(server), "no process of it is left")
    until(lambda: not fleet.gateway.serving(ADAPTED), "the gateway knows")
    answer = complete(fleet, ADAPTED)
    assert answer.headers["x-warmtide-rung"] == "host"
    assert fleet.replica(ADAPTED).replica_id != name
