"""Service times: the published points they were taken from, and laws that hold for every model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import ServiceTimes
from placement.service_time import kv_tokens, longest_tokens, timing_of
from tests.builders import GB, model

TIMING = timing_of(model(), "H100-80GB")
counts = st.integers(0, 200)


def test_an_8b_model_prefills_about_24k_tokens_a_second_on_an_h100() -> None:
    per_s = 10_000 / (TIMING.prefill_us(10_000) / 1_000_000)
    assert 22_000 < per_s < 26_000


def test_an_8b_model_decodes_at_about_75_tokens_a_second_on_an_a100() -> None:
    step_us = timing_of(model(), "A100-80GB").step_us(1, 100)
    assert 11_000 < step_us < 15_000, "measured 13.3 ms"


def test_fixed_figures_replace_the_hardware_model() -> None:
    spec = model(service=ServiceTimes(prefill_us=35_000, decode_step_us=15_000))
    timing = timing_of(spec, "any GPU")
    assert timing.prefill_us(3000) == 35_000
    assert timing.run_us(10, 32, 100_000) == 150_000


def test_kv_heads_are_sharded_so_two_gpus_hold_twice_the_tokens() -> None:
    one = model(gpus=1, kv_cache_bytes=10 * GB)
    two = model(gpus=2, kv_cache_bytes=10 * GB)
    assert kv_tokens(two) == 2 * kv_tokens(one) or kv_tokens(two) == 2 * kv_tokens(one) + 1
    assert longest_tokens(model(kv_cache_bytes=131_072 * 100)) == 100


def test_an_unknown_gpu_type_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="H100-80GB"):
        timing_of(model(), "Abacus")


@given(steps=st.integers(1, 500), sequences=st.integers(1, 64), context=st.integers(0, 10**6))
def test_a_run_is_the_sum_of_its_steps(steps: int, sequences: int, context: int) -> None:
    one_by_one = sum(TIMING.step_us(sequences, context + i * sequences) for i in range(steps))
    assert one_by_one <= TIMING.run_us(steps, sequences, context) <= one_by_one + steps


@given(prefill=counts, more=counts, sequences=counts, context=counts)
def test_more_work_never_ends_earlier(
    prefill: int, more: int, sequences: int, context: int
) -> None:
    one = TIMING.iteration_us(prefill, 1, sequences, context)
    assert TIMING.iteration_us(prefill + more, 1, sequences, context) >= one
    assert TIMING.iteration_us(prefill, 1, sequences, context + more) >= one


@given(run_us=st.integers(0, 10**9), sequences=st.integers(1, 256), context=st.integers(0, 10**7))
def test_steps_within_a_time_are_the_most_whose_run_fits(
    run_us: int, sequences: int, context: int
) -> None:
    steps = TIMING.steps_within(run_us, sequences, context)
    assert TIMING.run_us(steps, sequences, context) <= run_us
    assert TIMING.run_us(steps + 1, sequences, context) > run_us
