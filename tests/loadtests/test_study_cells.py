"""From a run to figures, and from figures to a comparison. Arithmetic in the comments."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.simulator.port import Ending, Moment
from loadtests.study.cells import cell_of
from loadtests.study.document import document
from loadtests.study.sketch import MOMENTS_MAX, SHARES, sketch_of
from loadtests.study.summary import summary
from loadtests.validation.figures import T6
from tests.loadtests.runs import cell, run_of, setup

KEYS = {
    "policy", "world", "seed", "hour", "alpha", "rps", "cv", "ttft_ms", "itl_attainment",
    "share_under_100ms", "share_under_slo", "held", "refused", "served", "gpu_hours",
    "gpu_hours_serving", "hbm_gb_hours_idle", "prewarm", "loads_gb", "evictions", "models",
    "demand", "digest",
}  # fmt: skip


def test_a_cell_has_every_key_and_names_its_place() -> None:
    found = msgspec.to_builtins(cell_of(setup(), run_of((0, 10, 5)), "reactive", "generated"))
    assert set(found) >= KEYS
    assert (found["hour"], found["alpha"], found["rps"], found["cv"]) == (
        "busiest", 1.0, 6.0, "original",
    )  # fmt: skip
    assert set(found["prewarm"]) == {"hits", "misses", "wasted_gb"}


def test_who_was_refused_counts_999_seconds_and_kept_no_objective() -> None:
    # Ten requests: eight at 50 ms, one at 300 ms, one refused.
    fates = [(0, 50, 20)] * 8 + [(1, 300, 60), (1, None, 0)]
    found = cell_of(setup(), run_of(*fates), "p", "generated")
    assert (found.requests, found.served, found.refused) == (10, 9, 1)
    # Nearest rank: the fifth, the tenth and the tenth of ten.
    assert (found.ttft_ms.p50, found.ttft_ms.p95, found.ttft_ms.p99) == (50.0, 999e3, 999e3)
    assert found.share_under_100ms == pytest.approx(0.8)
    assert found.share_under_slo == pytest.approx(0.9)  # 300 ms keeps 500 ms; the refused does not
    assert found.itl_attainment == pytest.approx(0.8)  # 60 ms breaks 50 ms


def test_models_are_told_apart_and_one_that_nobody_asked_has_no_figures() -> None:
    found = cell_of(setup(), run_of((0, 50, 20), (1, 700, 20)), "p", "generated").models
    assert [found[name].requests for name in "abc"] == [1, 1, 0]
    assert (found["a"].share_under_slo, found["b"].share_under_slo) == (1.0, 0.0)
    assert found["c"].ttft_ms.p99 is None
    assert found["c"].share_under_100ms is None


def test_who_was_cut_is_neither_served_nor_refused() -> None:
    run = run_of((0, 50, 20), (0, None, 0))
    run.ending[1] = Ending.CUT
    found = cell_of(setup(), run, "p", "generated")
    assert (found.served, found.refused, found.cut) == (1, 0, 1)


def test_costs_are_in_hours_and_gigabytes() -> None:
    run = run_of((0, 50, 20))
    run.gpu_us_paid, run.gpu_us_serving = 16 * 3_600_000_000, 4 * 3_600_000_000
    run.hbm_idle_byte_us = 2 * 10**9 * 1_800_000_000  # 2 GB for half an hour
    run.loads_bytes, run.wasted_bytes = 27 * 10**9, 3 * 10**9
    found = cell_of(setup(), run, "p", "generated")
    assert (found.gpu_hours, found.gpu_hours_serving, found.hbm_gb_hours_idle) == (16.0, 4.0, 1.0)
    assert (found.loads_gb, found.prewarm.wasted_gb) == (27.0, 3.0)


@given(st.lists(st.one_of(st.none(), st.integers(0, 900_000)), min_size=1, max_size=50))
def test_a_distribution_rises_and_ends_at_the_longest_wait(waits: list[int | None]) -> None:
    times = sketch_of(run_of(*((0, wait, 1) for wait in waits))).ttft_ms
    assert len(times) == len(SHARES)
    assert list(times) == sorted(times)
    assert times[-1] == max(999_000 if wait is None else wait for wait in waits)


def test_a_long_timeline_is_thinned_and_keeps_its_end() -> None:
    run = run_of((0, 10, 1))
    for at in range(1000):
        run.timeline.append(
            Moment(
                at_us=at * 1_000_000,
                gpus_there=16,
                gpus_serving=at % 16,
                hbm_idle_bytes=0,
                held=at,
                in_flight=0,
                rungs=(0, 3, 4),
            )
        )
    found = sketch_of(run)
    assert len(found.at_s) <= MOMENTS_MAX
    assert (found.at_s[-1], found.held[-1]) == (999.0, 999)
    assert [row[0] for row in found.rungs] == [0, 3, 4]


# --- comparing


def test_gains_are_taken_pair_by_pair_and_losses_are_counted() -> None:
    cells = [
        cell("reactive", 1000.0, rps=5.0),
        cell("warmserve", 100.0, rps=5.0),  # ten times lower
        cell("reactive", 600.0, rps=10.0),
        cell("warmserve", 200.0, rps=10.0),  # three times
        cell("reactive", 50.0, rps=15.0),
        cell("warmserve", 100.0, rps=15.0),  # twice as high
        cell("warmserve", 1.0, rps=20.0),  # nothing to compare with
        cell("reactive", 9.0, rps=5.0, world="S"),
    ]
    found = summary(cells)["W"]["policies"]["warmserve"]["p99_ratio_to_reactive"]
    assert found == {"worst": 0.5, "median": 3.0, "best": 10.0, "compared": 3, "lost": 1}
    assert summary(cells)["S"]["policies"]["reactive"]["p99_ratio_to_reactive"]["median"] == 1.0


def test_a_seed_is_compared_with_itself_alone() -> None:
    cells = [cell("reactive", 100.0, seed=0), cell("warmserve", 10.0, seed=1)]
    assert summary(cells)["W"]["policies"]["warmserve"]["p99_ratio_to_reactive"] is None


def test_whoever_beats_the_oracle_is_a_violation_of_the_bound() -> None:
    cells = [
        cell("oracle", 50.0, seed=0),
        cell("reactive", 60.0, seed=0),
        cell("oracle", 50.0, seed=1),
        cell("reactive", 49.0, seed=1),
    ]
    found = summary(cells)["W"]["policies"]["reactive"]["oracle"]
    assert (found["compared"], found["violations"]) == (2, 1)


def test_the_published_ordering_is_judged_over_cells_that_all_of_them_ran() -> None:
    best_first = T6.best_first
    shares = dict(zip(best_first, (0.9, 0.8, 0.3, 0.2), strict=True))
    cells = [cell(policy, 10.0, share_under_100ms=share) for policy, share in shares.items()]
    # A cell that only one of them ran must not count: it would turn the order round.
    cells.append(cell(best_first[-1], 10.0, share_under_100ms=1.0, rps=25.0))
    judged = summary(cells)["W"]["claims"]["T6"]
    assert judged == {"holds": True, "share_under_100ms": pytest.approx(shares)}
    assert summary(cells)["W"]["ordering_under_100ms"] == list(best_first)
    turned = [cell(p, 10.0, share_under_100ms=1 - s) for p, s in shares.items()]
    assert summary(turned)["W"]["claims"]["T6"]["holds"] is False
    assert summary(cells[:3])["W"]["claims"] == {}


def test_the_document_says_that_all_of_it_is_simulated() -> None:
    found = document("s", "what\nfor?", [cell("reactive", 10.0)], "azure", ["oracle: no memory"])
    assert (found["evidence"], found["question"]) == ("simulated", "what for?")
    assert found["cells"][0]["world"] == "W"
    assert found["failed"] == ["oracle: no memory"]
    empty = document("s", "q?", [], "azure", ["all of them"])
    assert (empty["cells"], empty["summary"], empty["demand"]) == ([], {}, None)
