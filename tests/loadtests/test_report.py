"""Answers to one document and one table; the sums always agree."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtests.answers import Answer, Outcome
from loadtests.report import About, summarise
from loadtests.screen import as_table

ABOUT = About(
    trace="t.csv",
    source="a real trace",
    evidence={"a": "emulated", "b": "emulated"},
    time_scale=20.0,
    seed=3,
    url="http://x",
    start_s=0.0,
    duration_s=60.0,
    held=9,
    arrivals="drawn",
    lengths="drawn",
    streams={"c0": "a", "c1": "b"},
)

answers = st.builds(
    Answer,
    outcome=st.sampled_from(Outcome),
    ttft_us=st.none() | st.integers(1, 10**9),
    itl_us=st.none() | st.floats(0.1, 1e6),
    rung=st.sampled_from(["", "serving", "parked", "cold"]),
    held_ms=st.floats(0, 1e6),
)


@given(st.lists(st.tuples(st.integers(0, 1), answers)))
def test_sent_is_the_sum_in_all_and_in_each_model(rows: list[tuple[int, Answer]]) -> None:
    document = summarise(ABOUT, ["a", "b"], [m for m, _ in rows], [a for _, a in rows])
    for figures in (document, *document["models"].values()):
        assert figures["sent"] == sum(figures[outcome.value] for outcome in Outcome)
    assert document["sent"] == sum(m["sent"] for m in document["models"].values()) == len(rows)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    Console(quiet=True).print(as_table(document))


def test_figures_are_in_trace_time() -> None:
    one = Answer(outcome=Outcome.ANSWERED, ttft_us=10_000, itl_us=500.0, late_us=1000)
    document = summarise(ABOUT, ["a", "b"], [0], [one])
    assert document["ttft_ms"]["p50"] == 200.0
    assert document["itl_ms"]["p50"] == 10.0
    assert document["client_late_ms"]["p99"] == 20.0
    assert document["models"]["b"]["ttft_ms"] == {"p50": None, "p95": None, "p99": None}


def test_cold_starts_and_waits_are_those_of_the_held() -> None:
    cold = Answer(outcome=Outcome.ANSWERED, rung="parked", held_ms=1000.0)
    warm = Answer(outcome=Outcome.ANSWERED, rung="serving")
    document = summarise(ABOUT, ["a", "b"], [0, 0, 0], [cold, warm, warm])
    assert (document["cold_starts"], document["held"]) == (1, 1)
    assert document["cold_starts_by_rung"] == {"parked": 1}
    assert document["held_ms"] == {"mean": 1000.0, "max": 1000.0}


def test_the_table_says_what_kind_of_evidence_it_is() -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    lost = Answer(outcome=Outcome.LOST, code="no_answer")
    console.print(as_table(summarise(ABOUT, ["a", "b"], [0], [lost])))
    shown = console.export_text()
    for told in ("emulated", "trace time", "20x", "t.csv", "seed 3", "lost 1"):
        assert told in shown


def test_a_mixed_fleet_is_labelled_model_by_model() -> None:
    mixed = ABOUT._replace(evidence={"a": "emulated", "b": "real-cpu"})
    document = summarise(mixed, ["a", "b"], [], [])
    assert document["evidence"] == "emulated"
    assert document["models"]["b"]["evidence"] == "real-cpu"
    unknown = summarise(ABOUT._replace(evidence={"a": None}), ["a"], [], [])
    assert unknown["evidence"] is None
