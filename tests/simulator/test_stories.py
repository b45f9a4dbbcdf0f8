"""One behaviour each: a few models, a few requests, and what became of them."""

from loadtests.simulator.port import Ending
from placement.edges import climb_us
from placement.snapshot import WeightsAt
from tests.builders import catalog, model
from tests.simulator.worlds import Ask, asked, played


def test_a_cold_model_is_held_started_and_served() -> None:
    whole = catalog(model())
    run = played(whole, asked(["small"], Ask(1, "small"), Ask(90, "small")))
    assert list(run.ending) == [Ending.ANSWERED] * 2
    assert list(run.cold) == [1, 0]
    start_us = climb_us(whole.models[0], WeightsAt.HOST)
    assert start_us < run.ttft_us[0] < start_us + 100_000
    assert run.ttft_us[1] < 100_000
    assert run.held == 1
    assert run.tokens_out == 40
