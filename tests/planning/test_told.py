"""Reasons in words, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.plan import Reason, ReasonCode
from placement.planning.told import number, seconds, told, told_numbers


def test_a_prewarm_says_how_likely_what_it_saves_and_what_it_costs() -> None:
    numbers = {
        "probability": 0.34,
        "horizon_s": 45.0,
        "saved_s": 1.3,
        "waiters": 4.2,
        "h2d_s": 0.5,
        "bytes": 16.1e9,
    }
    why = told(Reason(code=ReasonCode.PREWARM, numbers=numbers), futures=128)
    assert why == (
        "prewarm: it may be needed soon; needed within 45 s in 34 % of 128 futures; "
        "saves 1.3 s for 4.2 requests; moves 16.1 GB, 500 ms of the PCIe link to the GPU"
    )


def test_whose_need_it_serves_is_named() -> None:
    numbers = {"gain": 180.0, "loss": 2.5, "waited_s": 20.0}
    why = told(Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model="big"))
    assert why == (
        "make room: it gives its room away, for big; waited 20 s; worth 180 GPU-seconds; "
        "others may lose 2.5 GPU-seconds"
    )


def test_the_residency_plan_counts_in_waiting() -> None:
    numbers = {"value": 12.0, "replica": 2.0, "start_cost": 3.0, "loss": 0.5, "start_s": 26.0}
    why = told(Reason(code=ReasonCode.RESIDENCY, numbers=numbers))
    waiting = "request-seconds of waiting"
    assert why == (
        "residency: the residency plan wants it so; replicas: 2 is its place among them; "
        f"a start takes 26 s; worth 12 {waiting}; costs 3 {waiting}; others may lose 0.5 {waiting}"
    )
    assert told_numbers({"value": 12.0}) == f"worth 12 {waiting}"


def test_a_scale_out_says_who_waits_and_what_a_replica_is_worth() -> None:
    numbers = {
        "held": 3.0,
        "asked": 40.0,
        "rate_per_s": 2.125,
        "climb_s": 1.3,
        "coming": 1.0,
        "slots": 32.0,
        "waiting": 8.0,
        "price": 9.0,
        "gain_gpus": 4.0,
        "loss_s": 0.0,
    }
    assert told(Reason(code=ReasonCode.SATURATED, numbers=numbers)) == (
        "saturated: more is asked than its replicas take; requests: 3 held, 40 held or running, "
        "8 expected to find no slot; replicas: 1 there or coming, 32 slots; 2.12 requests a second "
        "expected; a climb takes 1.3 s; worth 4 idle GPUs; costs others 0 s of waiting; price = 9"
    )


def test_numbers_that_nobody_knows_are_shown_with_their_units() -> None:
    numbers = {
        "strange_gpu_s": 2.0, "odd_bytes": 3e9, "late_us": 2500.0, "slow_ms": 20.0, "far_s": 90.0,
        "come_per_s": 0.5, "share": 0.25, "inf": float("inf"), "nan": float("nan"),
    }  # fmt: skip
    why = told(Reason(code=ReasonCode.OPERATOR, numbers=numbers))
    assert why == (
        "operator: an operator wants it; strange_gpu_s = 2 GPU-seconds; odd_bytes = 3 GB; "
        "late_us = 2.5 ms; slow_ms = 20 ms; far_s = 1.5 min; come_per_s = 0.5 a second; "
        "share = 0.25; inf = inf; nan = nan"
    )


KEYS = st.sampled_from(
    ["held", "asked", "probability", "horizon_s", "paths", "saved_s", "waiters", "value", "loss"]
) | st.text(st.characters(codec="ascii"), max_size=8)


@pytest.mark.parametrize("code", ReasonCode)
@given(numbers=st.dictionaries(KEYS, st.floats()), futures=st.integers(0, 200))
def test_every_code_and_any_numbers_make_one_line_that_hides_none(
    code: ReasonCode, numbers: dict[str, float], futures: int
) -> None:
    why = told(Reason(code=code, numbers=numbers), futures)
    assert why.startswith(f"{code.replace('_', ' ')}: ")
    unknown = {"horizon_s", "paths"} if "probability" not in numbers else set[str]()
    for key in unknown & set(numbers):
        assert f"{key} = " in why


@given(st.floats())
def test_any_number_has_a_text(value: float) -> None:
    assert number(value)
    assert seconds(value).endswith(("s", "min", "h", "d"))
