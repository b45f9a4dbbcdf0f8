"""How serving capacity is reckoned, and how demand is thinned to it. Arithmetic in the comments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.scenarios.capacity import gpu_seconds, sensible_batch
from loadtests.scenarios.level import LoadGoal, by_load, by_rate, never_silent, zipf_shares
from placement.catalog import EngineKind, ModelId, ModelSpec, ServiceTimes
from placement.service_time import timing_of
from prewarm.traces.records import US

A100 = "A100-80GB"
FIXED = ModelSpec(
    id=ModelId("fixed"),
    engine=EngineKind.EMULATED,
    weights_bytes=26_000_000_000,
    gpus=2,
    max_num_seqs=32,
    service=ServiceTimes(prefill_us=70_000, decode_step_us=20_000),
)
ROOFLINE = ModelSpec(
    id=ModelId("roofline"),
    engine=EngineKind.EMULATED,
    weights_bytes=16_000_000_000,
    parameters=8_000_000_000,
    kv_bytes_per_token=131_072,
    kv_cache_bytes=10_000_000_000,
    max_num_seqs=32,
)


def test_with_fixed_times_only_slots_are_scarce() -> None:
    # 0.8 * 32 = 25 side by side; each holds its slot 70 ms + 100 * 20 ms = 2.07 s, on two GPUs.
    assert gpu_seconds(FIXED, A100, 700, 100) == pytest.approx(2 * 2.07 / 25)


def test_by_the_roofline_a_request_costs_its_prefill_and_its_share_of_each_step() -> None:
    # Prefill: 10 ms + 700 * 2 * 8e9 / (312e12 * 0.5) = 10 + 71.8 ms.
    # A step of 25 requests of 800 tokens: 3 ms + 16e9 / (0.8 * 2e12) = 13 ms for the weights,
    # 25 * 800 * 131072 / 1.6e12 = 1.638 ms for the KV cache. 200 steps, a 25th of each.
    expected = 0.010 + 0.0718 + 200 * (0.013 + 0.001638) / 25
    assert gpu_seconds(ROOFLINE, A100, 700, 200) == pytest.approx(expected, rel=0.002)


def test_a_batch_is_bounded_by_slots_then_by_the_kv_cache_then_by_the_itl_objective() -> None:
    timing = timing_of(ROOFLINE, A100)
    assert sensible_batch(ROOFLINE, timing, 800) == 25
    # The cache holds 10e9 / 131072 = 76293 tokens: nineteen requests of 4000.
    assert sensible_batch(ROOFLINE, timing, 4000) == 19
    # A step of b requests of 2000 tokens takes 13 ms + b * 0.164 ms: 15 ms is reached at b = 12.
    quick = ModelSpec(
        **{f: getattr(ROOFLINE, f) for f in ROOFLINE.__struct_fields__} | {"itl_slo_us": 15_000}
    )
    assert sensible_batch(quick, timing, 2000) == 12


def test_a_model_that_cannot_keep_its_objective_still_runs_one_request() -> None:
    assert sensible_batch(ROOFLINE, timing_of(ROOFLINE, A100), 10_000_000) == 1


def test_shares_fall_as_published() -> None:
    # (k+1)^-1: 1, 1/2, 1/3; their sum is 11/6.
    assert zipf_shares(3, 1.0).tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_a_rate_is_the_mean_over_the_hour_whatever_the_trace_had() -> None:
    hour = np.array([[600, 6], [0, 0], [0, 0], [1200, 0], [0, 0], [0, 0]], np.float64)
    level = by_rate(hour, 600 * US, 9.0, np.array([2 / 3, 1 / 3]))
    assert (hour * level.factors).sum(axis=0).tolist() == pytest.approx([6.0 * 3600, 3.0 * 3600])


def test_whoever_is_silent_in_that_hour_is_asked_evenly() -> None:
    counts = np.array([[4, 0], [2, 0]])
    assert never_silent(counts).tolist() == [[4.0, 1.0], [2.0, 1.0]]


def test_the_goal_that_binds_first_decides() -> None:
    # Ten GPUs; a request costs 1 s of one. Bins of 100 s: loads 0.1, 0.1, 0.4, so mean 0.2.
    counts = np.array([[100.0], [100.0], [400.0]])
    one = np.ones(1)
    flat = by_load(counts, 100 * US, one, one, 10, LoadGoal(mean=0.3, peak=0.9))
    assert flat.told["binding"] == "mean"
    assert flat.factors.tolist() == pytest.approx([1.5])
    assert flat.told["peak_load"] == pytest.approx(0.6)
    steep = by_load(counts, 100 * US, one, one, 10, LoadGoal(mean=0.9, peak=0.8))
    assert steep.told["binding"] == "peak"
    assert steep.factors.tolist() == pytest.approx([2.0])
    assert steep.told["mean_load"] == pytest.approx(0.4)


@given(
    st.lists(st.lists(st.integers(0, 10_000), min_size=3, max_size=3), min_size=1, max_size=20),
    st.lists(st.floats(0.01, 10.0), min_size=3, max_size=3),
)
def test_neither_goal_is_ever_exceeded(rows: list[list[int]], costs: list[float]) -> None:
    counts = np.array(rows, np.float64)
    if not counts.any():
        counts[0, 0] = 1.0
    cost_s = np.array(costs)
    level = by_load(counts, 600 * US, np.ones(3), cost_s, 32, LoadGoal(mean=0.35, peak=0.9))
    load = (counts * level.factors) @ cost_s / 600 / 32
    assert load.mean() <= 0.35 * 1.000001
    assert load.max() <= 0.9 * 1.000001
    assert load.mean() >= 0.35 * 0.999999 or load.max() >= 0.9 * 0.999999
