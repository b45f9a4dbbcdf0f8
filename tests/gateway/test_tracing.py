"""W3C trace context through the gateway, and spans at a collector that speaks OTLP over HTTP."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.checks import UnfitError
from gateway.telemetry import OutcomeKind, Record
from gateway.tracing import Tracing, check_tracing
from gateway.wire import Request
from placement.catalog import TelemetryPolicy
from tests.builders import catalog, model
from tests.gateway.world import Engine, Running, answer, ask, chat, gateway, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
ONE = catalog(model("small"))


class Collector(Engine):
    """Takes spans as an OpenTelemetry collector does."""

    def spans(self) -> list[Any]:
        found = []
        for seen in self.seen:
            packed = seen.headers.get("content-encoding") == "gzip"
            body = gzip.decompress(seen.body) if packed else seen.body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found


@asynccontextmanager
async def traced(share: float = 1.0) -> AsyncIterator[tuple[Running, Engine, Collector]]:
    async with Engine() as engine, Collector() as collector, gateway(ONE) as running:
        running.fleet.put("r1", "small", engine)
        policy = TelemetryPolicy(otlp_url=collector.url, trace_share=share)
        running.gate.tracing = Tracing(policy, f"127.0.0.1:{running.port}")
        yield running, engine, collector


async def flushed(running: Running) -> None:
    assert running.gate.tracing is not None
    await asyncio.to_thread(running.gate.tracing.close)


async def post(running: Running, headers: dict[str, str], **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        return await client.post("/v1/chat/completions", json=chat(**body), headers=headers)


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def test_a_request_is_a_span_under_its_clients_and_over_its_engines() -> None:
    async with traced() as (running, engine, collector):
        given_headers = {"traceparent": SAMPLED, "tracestate": "a=1,b=2", "baggage": "k=v"}
        assert (await post(running, given_headers, stream=True)).status_code == 200
        await flushed(running)
        (span,) = collector.spans()
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    told = engine.seen[0].headers
    assert told["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert told["tracestate"] == "a=1,b=2"
    assert told["baggage"] == "k=v"
    found = attributes(span)
    assert span.name == "chat small"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "small"
    assert found["gen_ai.usage.input_tokens"] == 3
    assert found["gen_ai.usage.output_tokens"] == 2
    assert found["gen_ai.server.time_to_first_token"] > 0
    assert found["warmtide.replica"] == "r1"
    assert found["server.port"] == running.port
    assert [event.name for event in span.events] == ["sent"]
    assert span.end_time_unix_nano > span.start_time_unix_nano


async def test_without_a_context_a_new_trace_begins() -> None:
    async with traced() as (running, engine, collector):
        assert (await ask(running)).status_code == 200
        await flushed(running)
        (span,) = collector.spans()
    assert span.parent_span_id == b""
    assert engine.seen[0].headers["traceparent"].split("-")[1] == span.trace_id.hex()


async def test_what_the_client_decided_on_sampling_holds() -> None:
    async with traced() as (running, engine, collector):
        await post(running, {"traceparent": SAMPLED[:-2] + "00"})
        await flushed(running)
        assert collector.spans() == []
    version, trace, parent, flags = engine.seen[0].headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert parent != PARENT


async def test_a_share_of_none_traces_only_who_asks_for_it() -> None:
    async with traced(share=0.0) as (running, _, collector):
        await ask(running)
        await post(running, {"traceparent": SAMPLED})
        await flushed(running)
        assert [span.trace_id.hex() for span in collector.spans()] == [TRACE]


@pytest.mark.parametrize(
    "broken",
    [
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
    ],
)
async def test_a_context_that_is_none_begins_a_new_trace(broken: str) -> None:
    async with traced() as (running, engine, collector):
        await post(running, {"traceparent": broken, "tracestate": "a=1"})
        await flushed(running)
        (span,) = collector.spans()
    assert span.trace_id.hex() not in (TRACE, "0" * 32)
    assert span.parent_span_id == b""
    assert "tracestate" not in engine.seen[0].headers


async def test_a_failed_request_is_an_error_with_its_code() -> None:
    async with traced() as (running, engine, collector):

        async def dies(_seen: Any, reply: Any) -> None:
            reply.die()

        engine.script = dies
        short = {"x-request-timeout-ms": "300"}
        refused = await post(running, short)
        await flushed(running)
        (span,) = collector.spans()
    found = attributes(span)
    assert found["error.type"] == refused.json()["error"]["code"]
    assert found["warmtide.outcome"] == "refused"
    assert span.status.code == 2
    assert len(span.events) >= 1, "each attempt is told"


async def test_off_the_clients_context_passes_as_it_came() -> None:
    async with Engine() as engine, gateway(ONE) as running:
        running.fleet.put("r1", "small", engine)
        await post(running, {"traceparent": SAMPLED, "tracestate": "a=1"})
    assert engine.seen[0].headers["traceparent"] == SAMPLED
    assert engine.seen[0].headers["tracestate"] == "a=1"


async def test_a_collector_that_is_not_there_costs_no_request() -> None:
    async with Engine() as engine, gateway(ONE) as running:
        running.fleet.put("r1", "small", engine)
        running.gate.tracing = Tracing(TelemetryPolicy(otlp_url="http://127.0.0.1:9"), "h:1")
        for _ in range(20):
            assert (await ask(running)).status_code == 200
        await flushed(running)


async def test_a_collector_that_hangs_keeps_an_ending_gateway_for_a_moment_only() -> None:
    async def hangs(seen: Any, _reply: Any) -> None:
        await seen.gone.wait()

    async with traced() as (running, _, collector):
        collector.script = hangs
        tracing = running.gate.tracing
        assert tracing is not None
        ended = Record(model_id="small", outcome=OutcomeKind.ANSWERED)
        for _ in range(2000):  # four batches, each of which would wait in vain
            tracing.begin(Request(), "chat", "small").end(ended, "r1")
        ending = asyncio.create_task(flushed(running))
        await until(lambda: collector.seen)
        await ending
        assert len(collector.seen) <= 2, "what cannot be sent at once is given up"


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_no_context_whatever_breaks_a_request(text: str) -> None:
    async def story() -> None:
        async with traced() as (running, engine, _):
            engine.script = answer
            headers = {"traceparent": text.strip(), "tracestate": text.strip()}
            assert (await post(running, headers)).status_code == 200
            await flushed(running)

    asyncio.run(story())


def test_a_catalog_that_wants_traces_needs_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracing(TelemetryPolicy(otlp_url="http://127.0.0.1:4318"))
    check_tracing(TelemetryPolicy())
    monkeypatch.setattr("gateway.tracing._MODULES", ("opentelemetry.not_installed",))
    with pytest.raises(UnfitError, match=r"\.\[otel\]"):
        check_tracing(TelemetryPolicy(otlp_url="http://127.0.0.1:4318"))
