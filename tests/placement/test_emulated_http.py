"""A real engine-host on real sockets: OpenAI's routes, vLLM's controls, faults, leavers."""

import base64
import json
import math
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import psutil
import pytest

from placement import edges
from placement.catalog import Faults, ModelSpec
from placement.snapshot import Rung
from tests.builders import GB, model, node
from tests.placement.engine_processes import HEADERS, TOKEN, HostClient, engine_host

pytestmark = pytest.mark.integration
_ids = count()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostClient]:
    with engine_host(tmp_path_factory.mktemp("host")) as client:
        yield client


@pytest.fixture
def spec() -> ModelSpec:
    return model(f"m{next(_ids)}", aliases=("nick",), max_model_len=4000)


@pytest.fixture
def url(host: HostClient, spec: ModelSpec) -> Iterator[str]:
    yield host.up(spec.id, spec)
    assert host.http.delete(f"/host/replicas/{spec.id}").status_code == 200
    assert host.gpu_used() == 0


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as found:
        yield found


def ask(text: str = "hello") -> Any:
    """One user message; the client's own types for it are many."""
    return [{"role": "user", "content": text}]


def post(url: str, path: str, body: object = None) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, headers=HEADERS, timeout=60)


def test_a_chat_answers_visibly_emulated_text_with_exact_usage(
    client: openai.OpenAI, spec: ModelSpec
) -> None:
    answer = client.chat.completions.create(model=spec.id, messages=ask(), max_tokens=20)
    choice = answer.choices[0]
    assert (choice.message.content or "").startswith(f"This is emulated text from {spec.id}:")
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    again = client.chat.completions.create(model=spec.id, messages=ask(), max_tokens=20)
    assert again.choices[0].message.content == choice.message.content


def test_a_stream_says_the_same_as_a_whole_answer(client: openai.OpenAI, spec: ModelSpec) -> None:
    whole = client.chat.completions.create(model="nick", messages=ask("x"))
    stream = client.chat.completions.create(
        model="nick",
        messages=ask("x"),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage


def test_a_long_answer_comes_in_several_chunks_but_never_one_a_token(
    client: openai.OpenAI, spec: ModelSpec
) -> None:
    stream = client.completions.create(
        model=spec.id, prompt="x", max_tokens=3000, stream=True, extra_body={"ignore_eos": True}
    )
    said = [chunk.choices[0].text for chunk in stream]
    assert 5 < len(said) < 500
    assert len("".join(said).split()) == 3000


def test_a_required_tool_is_called_with_arguments_that_fit_its_schema(
    client: openai.OpenAI, spec: ModelSpec
) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    }
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    choices: list[Any] = ["required", {"type": "function", "function": {"name": "weather"}}]
    for choice in choices:
        answer = client.chat.completions.create(
            model=spec.id,
            messages=ask(),
            tools=[tool],
            tool_choice=choice,
        )
        call = (answer.choices[0].message.tool_calls or [])[0]
        assert answer.choices[0].finish_reason == "tool_calls"
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"city": "emulated", "unit": "C"}


def test_embeddings_are_unit_vectors_in_both_encodings(
    client: openai.OpenAI, spec: ModelSpec
) -> None:
    listed = client.embeddings.create(
        model=spec.id, input=["a", "b"], encoding_format="float", dimensions=32
    )
    packed = client.embeddings.create(
        model=spec.id, input=["a"], encoding_format="base64", dimensions=32
    )
    vector = listed.data[0].embedding
    assert math.isclose(sum(x * x for x in vector), 1.0, rel_tol=1e-6)
    raw = base64.b64decode(str(packed.data[0].embedding))
    assert struct.unpack("32f", raw) == pytest.approx(vector)
    assert listed.data[1].embedding != vector


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '{"messages": []}',
        '{"messages": "x"}',
        '{"messages": [{"role": "user", "content": 5}]}',
        '{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
        '{"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}',
        '{"messages": [{"role": "user", "content": "x"}], "max_tokens": 4000}',
        '{"messages": [{"role": "user", "content": "x"}], "n": 2}',
        '{"messages": [{"role": "user", "content": "x"}], "temperature": -1}',
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        json.dumps({"messages": ask("x" * 16_100)}),
        "[" * 100_000,
    ],
)
def test_a_bad_body_is_a_400_with_vllms_error_shape(url: str, body: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert error["message"]


def test_an_unknown_model_is_a_404(url: str) -> None:
    answer = post(url, "/v1/chat/completions", {"model": "nobody", "messages": ask()})
    assert answer.status_code == 404
    assert "`nobody` does not exist" in answer.json()["error"]["message"]


def test_adapters_are_served_by_their_name_once_loaded(url: str) -> None:
    wanted = {"model": "poet", "messages": ask(), "max_tokens": 1}
    assert post(url, "/v1/chat/completions", wanted).status_code == 404
    named = {"lora_name": "poet", "lora_path": "/weights/poet"}
    assert post(url, "/v1/load_lora_adapter", named).status_code == 200
    assert post(url, "/v1/load_lora_adapter", named).status_code == 400
    assert post(url, "/v1/chat/completions", wanted).json()["model"] == "poet"
    models = httpx.get(f"{url}/v1/models").json()["data"]
    assert {m["id"]: m["parent"] for m in models}["poet"] is not None
    assert post(url, "/v1/unload_lora_adapter", named).status_code == 200
    assert post(url, "/v1/chat/completions", wanted).status_code == 404


def test_the_controls_want_the_agents_token_and_inference_does_not(url: str) -> None:
    for path in ("/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache"):
        assert httpx.post(f"{url}{path}").status_code == 401
    assert httpx.get(f"{url}/is_sleeping").status_code == 401
    assert httpx.get(f"{url}/health").status_code == 200
    assert httpx.get(f"{url}/metrics").status_code == 200


def test_a_park_and_a_wake_move_the_bytes_that_the_edge_table_says(
    host: HostClient, url: str, spec: ModelSpec
) -> None:
    assert post(url, "/sleep?level=1").json() == {"status": "sleeping"}
    assert host.gpu_used() == edges.gpu_bytes(spec, Rung.PARKED)
    assert post(url, "/wake_up?tags=weights").json() == {"status": "sleeping"}
    assert host.gpu_used() == edges.gpu_bytes(spec, Rung.WARM)
    assert post(url, "/wake_up?tags=kv_cache").json() == {"status": "awake"}
    assert httpx.get(f"{url}/is_sleeping", headers=HEADERS).json() == {"is_sleeping": False}
    assert post(url, "/wake_up?tags=weigths").status_code == 400


def test_a_canary_can_tell_garbage_after_level_2_from_text(url: str) -> None:
    canary = {"prompt": "The capital of France is", "max_tokens": 1}

    def said() -> str:
        answer = post(url, "/v1/completions", canary)
        assert answer.status_code == 200
        text: str = answer.json()["choices"][0]["text"]
        return text

    healthy = said()
    post(url, "/sleep?level=2")
    post(url, "/wake_up")
    assert said() != healthy
    assert post(url, "/collective_rpc", {"method": "reload_weights"}).status_code == 200
    assert said() == healthy


def test_a_request_to_a_sleeper_waits_for_the_wake(
    url: str, host: HostClient, spec: ModelSpec
) -> None:
    post(url, "/sleep?level=1")
    body = {"messages": ask(), "max_tokens": 2, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        host.until(spec.id, waiting=1, running=0)
        post(url, "/wake_up")
        assert "[DONE]" in answer.read().decode()


def test_the_default_mode_aborts_what_runs_and_wait_lets_it_end(
    url: str, host: HostClient, spec: ModelSpec
) -> None:
    body = {"prompt": "x", "max_tokens": 3000, "ignore_eos": True, "stream": True}
    for mode, reason in (("abort", '"abort"'), ("wait", '"length"')):
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            host.until(spec.id, running=1)
            post(url, f"/sleep?level=1&mode={mode}")
            assert f'"finish_reason":{reason}' in answer.read().decode()
        post(url, "/wake_up")


def test_a_client_that_leaves_frees_its_slot_at_once(
    url: str, host: HostClient, spec: ModelSpec
) -> None:
    # Weeks of trace time if nobody cancelled it.
    host.http.post("/host/faults", content=_faults(spec, Faults(hang_per_request=1.0)))
    body = {"messages": ask(), "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        host.until(spec.id, running=1)
    host.until(spec.id, running=0)


def _faults(spec: ModelSpec, faults: Faults) -> bytes:
    return msgspec.json.encode({"model_id": spec.id, "faults": faults})


def test_a_half_written_stream_ends_in_the_middle_of_an_event(
    url: str, host: HostClient, spec: ModelSpec
) -> None:
    host.http.post("/host/faults", content=_faults(spec, Faults(half_stream_per_request=1.0)))
    body = {"messages": ask(), "stream": True}
    with (
        httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
    ):
        answer.read()


def test_a_crash_cuts_streams_closes_the_port_and_frees_all_memory(host: HostClient) -> None:
    spec = model("crasher", faults=Faults(crash_per_request=1.0))
    url = host.up("crasher", spec)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/v1/chat/completions", json={"messages": ask()}, timeout=60)
    told = host.until("crasher", state="exited")
    assert "EngineDeadError" in told["exit_message"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    assert host.gpu_used() == 0
    assert host.http.delete("/host/replicas/crasher").status_code == 200


def test_the_port_is_known_at_once_and_opens_when_the_start_ended(tmp_path: Path) -> None:
    with engine_host(tmp_path, time_scale=1.0) as slow:
        url = slow.begin("a", model("a"))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        assert slow.told("a")["state"] == "starting"
        assert slow.gpu_used() == edges.footprint_bytes(model("a"))
        second = slow.begin("b", model("b"))
        assert "Start one at a time" in slow.until("b", state="exited")["exit_message"]
        assert second != url


def test_the_control_api_refuses_strangers_and_says_what_is_wrong(host: HostClient) -> None:
    bare = str(host.http.base_url)
    assert httpx.get(f"{bare}/host/replicas").status_code == 401
    assert host.http.delete("/host/replicas/nobody").status_code == 404
    assert host.http.post("/host/replicas", content=b"{").status_code == 400
    wrong_gpus = {"replica_id": "w", "model": model("w", gpus=2), "gpu_ids": [0]}
    answer = host.http.post("/host/replicas", content=msgspec.json.encode(wrong_gpus))
    assert answer.status_code == 400
    assert "needs 2 of GPUs 0 to 7" in answer.json()["error"]


def test_metrics_carry_vllms_names_and_trace_seconds(url: str, spec: ModelSpec) -> None:
    post(url, "/v1/chat/completions", {"messages": ask(), "max_tokens": 50, "ignore_eos": True})
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    values = {k: float(v) for k, _, v in (ln.rpartition(" ") for ln in lines if ln[0] != "#")}
    labels = f'engine="0",model_name="{spec.id}"'
    assert values[f"vllm:generation_tokens_total{{{labels}}}"] == 50
    assert values[f'vllm:request_success_total{{{labels},finished_reason="length"}}'] == 1
    assert values[f"vllm:inter_token_latency_seconds_count{{{labels}}}"] == 49
    itl_s = values[f"vllm:inter_token_latency_seconds_sum{{{labels}}}"] / 49
    assert 0.005 < itl_s < 0.05, "trace seconds, not wall seconds"
    assert values[f'vllm:engine_sleep_state{{{labels},sleep_state="awake"}}'] == 1


def test_64_idle_replicas_fit_in_60_megabytes(tmp_path: Path) -> None:

    with engine_host(tmp_path, spec=node(gpus=64, host_bytes=1000 * GB)) as crowd:
        for gpu_id in range(64):
            crowd.begin(f"r{gpu_id}", model(f"r{gpu_id}"), gpu_id)
        for gpu_id in range(64):
            crowd.until(f"r{gpu_id}", state="ready")
        pid = json.loads((tmp_path / "host.json").read_bytes())["pid"]
        assert psutil.Process(pid).memory_info().rss < 60 * 2**20
