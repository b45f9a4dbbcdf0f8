"""The metrics say what happened, in Prometheus' words, and agree with the clients' count."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import exposition
from gateway.telemetry import Histogram, OutcomeKind, Record, Telemetry, percentile
from prewarm.history import HistoryState
from tests.builders import catalog, model
from tests.gateway.world import Engine, Running, ask, gateway


def samples(running: Running) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(exposition(running.gate, HistoryState()).decode()):
        for sample in family.samples:
            labels = tuple(v for k, v in sorted(sample.labels.items()) if k != "le")
            found[(sample.name, *labels, sample.labels.get("le", ""))] = sample.value
    return found


async def test_what_clients_saw_is_what_the_metrics_count() -> None:
    async with Engine() as engine, gateway(catalog(model("small"))) as running:
        running.fleet.put("r1", "small", engine)
        for _ in range(3):
            assert (await ask(running, stream=True)).status_code == 200
        assert (await ask(running, model="nobody")).status_code == 404
        seen = samples(running)
        assert seen[("warmtide_requests_offered_total", "small", "")] == 3
        assert seen[("warmtide_requests_refused_unknown_total", "model_not_found", "")] == 1
        assert seen[("warmtide_requests_ended_total", "small", "answered", "")] == 3
        tokens = ("gen_ai_client_token_usage_sum", "warmtide", "small", "output", "")
        assert seen[tokens] == 6
        durations = "gen_ai_server_request_duration_seconds_count"
        assert seen[(durations, "", "chat", "warmtide", "small", "")] == 3
        assert seen[("gen_ai_server_time_to_first_token_seconds_count", "small", "")] == 3
        assert seen[("gen_ai_server_time_to_first_token_seconds_bucket", "small", "+Inf")] == 3
        assert seen[("warmtide_in_flight", "small", "")] == 0
        assert seen[("warmtide_replicas_ready", "small", "")] == 1


async def test_a_gateway_that_was_never_asked_has_metrics_too() -> None:
    async with gateway(catalog(model("small"))) as running:
        seen = samples(running)
        assert seen[("warmtide_held", "small", "")] == 0
        assert seen[("warmtide_node_alive", "n0", "")] == 1


def test_a_histogram_counts_each_span_once_under_its_bound() -> None:
    spans = Histogram((10, 20))
    spans.add([1, 10, 11])
    spans.add([20, 21, 1000])
    assert spans.counts == [2, 2, 2]
    assert spans.total == 1063


def test_percentiles_are_ranks_of_what_was_seen() -> None:
    assert percentile([], 0.5) is None
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_a_retry_is_an_outcome_but_no_new_demand() -> None:
    telemetry = Telemetry()
    for retry in (False, True):
        telemetry.add(Record(model_id="m", outcome=OutcomeKind.ANSWERED, retry=retry))
    assert telemetry.models["m"].offered == 1
    assert telemetry.models["m"].outcomes[OutcomeKind.ANSWERED] == 2
