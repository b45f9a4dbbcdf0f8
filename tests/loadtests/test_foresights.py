"""Foresight in a simulated cluster: learnt from past days, or from the slice itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.foresights import learned, perfect
from loadtests.foresights.from_slice import running_peaks
from loadtests.foresights.slices import SliceCalendar
from loadtests.scenarios.setups import Wanted, build
from loadtests.simulator.port import Policy, Setup
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, ServiceTimes, World
from prewarm.calendars import DAY_US, US
from prewarm.controller import Controller
from prewarm.foresight.options import Options
from tests.builders import catalog, model
from tests.loadtests.scenes import busy_days, scenario
from tests.simulator import worlds
from tests.simulator.worlds import Ask, asked

MIN_US = 60 * US


def small(duration: str = "1 h", days: int = 3) -> Setup:
    """Models a, b and c at hour 5, when they are asked most; two days before it."""
    file = scenario(('duration = "1 h"', f'duration = "{duration}"'))
    wanted = Wanted(cell=file.cell, world=World.W, seed=1)
    return build("test", file, busy_days(days), wanted).setup


def ten_at_once(*models: str) -> Catalog:
    """A request of 100 tokens in and 20 out runs 0.1 + 20 x 0.2 = 4.1 s, ten beside each other."""
    service = ServiceTimes(prefill_us=100_000, decode_step_us=200_000)
    return catalog(*(model(m, service=service, max_num_seqs=10) for m in models))


# --- the time axis


@given(st.integers(0, 500), st.integers(1, 288))
def test_every_bin_of_the_slices_is_found_again_by_its_time(index: int, slice_bins: int) -> None:
    calendar = SliceCalendar(3_600 * US, 5 * MIN_US, slice_bins=slice_bins)
    assert calendar.index(calendar.at_us(index)) == index
    assert calendar.bins_to(index, 2) == 2 * slice_bins
    later = index + calendar.bins_to(index, 1)
    assert calendar.at_us(later) - calendar.at_us(index) == DAY_US
    assert calendar.local(later).second == calendar.local(index).second


# --- learnt from the days before


def test_the_past_is_the_same_slice_of_the_days_before() -> None:
    setup = small("20 min")
    foresight = learned(setup)
    seen = foresight.far.seen()
    asked_before = [sum(len(c) for c in setup.demand.past(back)) for back in (2, 1)]
    assert seen.shape == (8, 3)
    assert seen.reshape(2, -1).sum(axis=1).tolist() == asked_before
    assert foresight.far.setting.horizons == (1, 2, 4)  # the slice has no more bins


def test_from_the_first_moment_on_a_slice_is_expected_as_it_was() -> None:
    setup = small("20 min")
    busiest, _, quietest = setup.demand.models
    came = sum(int((chunk.stream == 0).sum()) for chunk in setup.demand.chunks())
    expected = learned(setup).outlook(setup.warmup_us)
    assert learned(setup).outlook(0).models[busiest].rate_per_s == 0, "before it nobody asks"
    assert expected.models[busiest].rate_per_s == pytest.approx(came / 1200, rel=0.15)
    assert expected.models[busiest].rate_per_s > expected.models[quietest].rate_per_s
    assert expected.share(expected.mask(busiest, 1, 10 * US)) > 0.9


def test_lengths_are_those_of_the_past() -> None:
    """Ten tokens, some 15 ms each; of unknown requests it would be two hundred."""
    expected = learned(small()).outlook(0)
    assert all(0.1 < model.service_s < 0.4 for model in expected.models.values())


def test_a_bin_that_the_slice_cuts_is_a_hole() -> None:
    seen = learned(small("12 min")).far.seen()
    assert seen.shape == (6, 3)
    assert np.isnan(seen[[2, 5]]).all()
    assert not np.isnan(seen[[0, 1, 3, 4]]).any()


def test_without_past_days_and_in_the_shortest_slice_there_is_foresight_too() -> None:
    demand = asked("a", Ask(1.0, "a"), duration_s=90)
    foresight = learned(worlds.setup(ten_at_once("a"), demand))
    assert not foresight.outlook(0).models["a"].acts
    paths = foresight.paths(0)
    assert paths is not None
    assert paths.step_us == 90 * US


@pytest.mark.parametrize("foresee", [learned, perfect])
def test_a_run_with_foresight_is_the_same_each_time(foresee: type) -> None:
    def digest() -> str:
        setup = small("20 min")
        brain = Controller(setup.catalog, "t", foresight=foresee(setup))
        return simulate(setup, Policy(brain=brain), checked=True).digest

    assert digest() == digest()


# --- learnt from the slice itself


def test_perfect_foresight_counts_what_comes_and_what_runs_at_once() -> None:
    """Twelve at second 100, one at 103: thirteen at once until 104.1, two replicas of ten."""
    rows = [Ask(100.0, "a")] * 12 + [Ask(103.0, "a"), Ask(250.0, "b")]
    setup = worlds.setup(ten_at_once("a", "b"), asked("ab", *rows, duration_s=400), warmup_us=0)
    foresight = perfect(setup, Options(width_us=100 * US, steps=4))
    before, soon = foresight.outlook(80 * US), foresight.outlook(95 * US)
    assert before.paths == 1
    assert before.models["a"].rate_per_s == 0
    assert soon.models["a"].rate_per_s == 1.3  # thirteen in ten seconds
    assert soon.models["a"].service_s == pytest.approx(4.1)
    assert before.share(before.mask("a", 1, 10 * US)) == 0
    assert before.share(before.mask("a", 2, 60 * US)) == 1
    assert before.share(before.mask("a", 3, 60 * US)) == 0
    assert soon.share(soon.mask("b", 1, 60 * US)) == 0
    assert soon.share(soon.mask("b", 1, 300 * US)) == 1
    paths = foresight.paths(0)
    assert paths is not None
    assert paths.concurrency[:, :, 0].tolist() == [[0, 13, 0, 0], [0, 0, 1, 0]]


def test_perfect_foresight_keeps_to_the_clock_of_the_simulation() -> None:
    demand = asked("a", Ask(5.0, "a"), duration_s=60)
    setup = worlds.setup(ten_at_once("a"), demand, warmup_us=60 * US)
    foresight = perfect(setup)
    assert foresight.outlook(50 * US).models["a"].rate_per_s == 0
    assert foresight.outlook(60 * US).models["a"].rate_per_s == pytest.approx(0.1)


times = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), max_size=30)


@given(times)
def test_peaks_of_each_second_are_those_of_counting_by_hand(rows: list[tuple[int, int]]) -> None:
    """In quarters of a second, so that moments meet."""
    rows.sort()
    at_us = np.array([at * US // 4 for at, _ in rows], np.int64)
    service_us = np.array([length * US // 4 for _, length in rows], np.int64)
    found = running_peaks(at_us, service_us, 10)
    for second in range(10):
        running = [
            sum(at <= quarter < at + length for at, length in rows)
            for quarter in range(4 * second, 4 * second + 4)
        ]
        assert found[second] == max(running)
