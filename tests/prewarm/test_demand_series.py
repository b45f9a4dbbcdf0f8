"""What the history says was asked: offered demand, masked where nobody looked, without queues."""

import random
from pathlib import Path

import numpy as np
import pytest

from placement.catalog import EngineKind, HistoryKept, ServiceTimes
from placement.engines.emulated_batch import Batch, Sequence
from placement.service_time import timing_of
from prewarm.calendars import US
from prewarm.demand_series import PRIOR_OUTPUT, PRIOR_PROMPT, panel_of_rows
from prewarm.history import History, NoHistoryError
from prewarm.history_panels import read_demand
from prewarm.occupancy import busiest_minute, peak_within
from prewarm.series import Panel, Target
from prewarm.warm_service import full_batch, warm_concurrency
from prewarm.windows import FINE_US, HistoryRow, Window
from tests.builders import catalog, model

START_US = 1_700_000_100 * US  # the beginning of a five-minute window
FIXED = ServiceTimes(prefill_us=35_000, decode_step_us=15_000)
CATALOG = catalog(model("m", service=FIXED), model("n", service=FIXED))
HOLE = np.nan


def row(
    index: int, offered: int, name: str = "m", *, width_s: int = 300, **more: float
) -> HistoryRow:
    """Requests of the lengths that are taken for granted, so that these play no part."""
    fields = {
        "retries": 0,
        "refused": 0,
        "prompt_tokens": round(PRIOR_PROMPT) * offered,
        "output_tokens": round(PRIOR_OUTPUT) * offered,
        "conc_mean": 0.0,
        "conc_max": 0,
        "conc_p50": 0,
        "conc_p95": 0,
        "covered_s": float(width_s),
        **more,
    }
    start_us = START_US + index * width_s * US
    return HistoryRow(model=name, start_us=start_us, width_s=width_s, offered=offered, **fields)  # type: ignore[arg-type]


def panel(rows: list[HistoryRow], target: Target = Target.REQUESTS, width_s: int = 300) -> Panel:
    return panel_of_rows(rows, target, width_s, "UTC", CATALOG)


def same(found: Panel, *expected: float, at: int = 0) -> None:
    np.testing.assert_array_equal(found.values[:, at], expected)


def test_refused_requests_were_asked_for_and_repeats_were_not() -> None:
    found = panel([row(0, 10, refused=4), row(1, 7, retries=5)])
    same(found, 10, 7)
    assert found.whole
    assert found.calendar.start_us == START_US


def test_an_outage_and_a_window_watched_in_part_are_holes() -> None:
    found = panel([row(0, 10), row(1, 3, covered_s=200.0), row(5, 6)])
    same(found, 10, HOLE, HOLE, HOLE, HOLE, 6)


def test_a_model_that_comes_later_was_not_asked_nothing_before() -> None:
    found = panel([row(0, 1), row(1, 2), row(1, 0, "n"), row(2, 3), row(2, 8, "n")])
    assert found.streams == ("m", "n")
    same(found, HOLE, 0, 8, at=1)


def test_wider_bins_add_up_what_the_store_keeps() -> None:
    rows = [row(i, i) for i in range(6)]
    same(panel(rows, width_s=900), 0 + 1 + 2, 3 + 4 + 5)
    with pytest.raises(ValueError, match="not made of windows"):
        panel(rows, width_s=7)


def test_the_tokens_of_those_who_were_refused_are_demand_too() -> None:
    rows = [
        row(0, 10, refused=5, prompt_tokens=500, output_tokens=50),
        # One was refused, came again and was answered: its tokens are counted once already.
        row(1, 1, refused=1, retries=1, prompt_tokens=100, output_tokens=9),
        row(2, 10, refused=10, prompt_tokens=0, output_tokens=0),
        row(3, 0),
    ]
    same(panel(rows, Target.PROMPT_TOKENS), 1000, 100, HOLE, 0)
    same(panel(rows, Target.OUTPUT_TOKENS), 100, 9, HOLE, 0)


def test_imported_requests_without_tokens_say_nothing_of_tokens() -> None:
    rows = [row(0, 10, prompt_tokens=0, output_tokens=0), row(1, 0)]
    same(panel(rows, Target.PROMPT_TOKENS), HOLE, 0)
    assert panel(rows, Target.CONCURRENCY_MEAN).values[0, 0] > 0


def test_concurrency_is_arrivals_times_warm_service_and_never_our_queues() -> None:
    # One a second; 35 ms and 200 tokens of 15 ms: 3.035 s each.
    rows = [row(0, 300), row(1, 300, conc_mean=500.0, conc_max=900, conc_p95=800)]
    found = panel(rows, Target.CONCURRENCY_MEAN)
    np.testing.assert_allclose(found.values[:, 0], [3.035, 3.035])
    assert not found.whole


def test_lengths_are_those_of_the_last_day_and_never_of_what_is_to_come() -> None:
    days = [row(i, 1) for i in range(576)]
    days += [row(576 + i, 1, output_tokens=20) for i in range(576)]
    values = panel(days, Target.CONCURRENCY_MEAN).values[:, 0] * 300
    np.testing.assert_allclose(values[:576], 3.035, rtol=1e-9)
    assert (np.diff(values[576 : 576 + 288]) < 0).all(), "they are learnt in the course of a day"
    # Of 288 in the last day all are short; five more are taken as all of the past was, 110.
    assert values[-1] == pytest.approx(0.035 + 0.015 * (288 * 20 + 5 * 110) / 293, rel=0.01)
    np.testing.assert_array_equal(
        values[:600], panel(days[:600], Target.CONCURRENCY_MEAN).values[:, 0] * 300
    )


def test_a_model_that_somebody_else_runs_has_no_concurrency_of_ours() -> None:
    other = catalog(model("m", engine=EngineKind.EXTERNAL, endpoints=("http://x",)))
    for known in (other, catalog(model("else"))):
        found = panel_of_rows([row(0, 5)], Target.CONCURRENCY_MEAN, 300, "UTC", known)
        same(found, HOLE)


def test_a_peak_is_taken_from_the_finest_rows_that_fill_the_window() -> None:
    """All thirty requests of five minutes came in one window of ten seconds."""
    burst = [row(i, 30 if i == 12 else 0, width_s=10) for i in range(30)]
    steady = [row(0, 30)]
    spread = panel(steady, Target.CONCURRENCY_PEAK).values[0, 0]
    found = panel([*burst, *steady], Target.CONCURRENCY_PEAK)
    # 30 in 10 s, each for 3.035 s: 9.1 at once on average while it lasts.
    assert found.values[0, 0] > 9
    assert found.values[0, 0] > 2 * spread
    assert found.whole
    partly = panel([*burst[:20], *steady], Target.CONCURRENCY_PEAK)
    assert partly.values[0, 0] == spread, "finer rows with a gap might miss the peak"


def test_who_came_before_the_window_is_still_there_in_it() -> None:
    """Forty come in the last ten seconds of a window, and each stays for 200 x 0.3 = 60 s."""
    slow = catalog(model("m", service=ServiceTimes(prefill_us=0, decode_step_us=300_000)))
    rows = [row(i, 40 if i == 29 else 0, width_s=10) for i in range(90)]
    rows += [row(0, 40), row(1, 0), row(2, 0)]
    found = panel_of_rows(rows, Target.CONCURRENCY_PEAK, 300, "UTC", slow)
    assert 40 <= found.values[0, 0] <= 50
    assert 40 <= found.values[1, 0] <= 50
    assert found.values[2, 0] == 0


def test_quiet_windows_have_no_peak_and_one_request_has_one() -> None:
    found = panel([row(0, 0), row(1, 1)], Target.CONCURRENCY_PEAK)
    assert found.values[0, 0] == 0
    assert found.values[1, 0] >= 1


def test_nothing_at_all_is_an_empty_panel() -> None:
    for target in Target:
        found = panel([], target)
        assert found.values.shape == (0, 0)


# --- the reckoning of service, against an engine that batches step by step


@pytest.mark.parametrize(
    ("rate", "prompt", "output"), [(0.1, 1000, 200), (1, 1000, 200), (4, 1000, 200), (3, 200, 800)]
)
def test_warm_service_is_that_of_the_emulated_engine(rate: float, prompt: int, output: int) -> None:
    spec = model(max_num_seqs=256, kv_cache_bytes=60_000_000_000, itl_slo_us=10**9)
    timing = timing_of(spec, "H100-80GB")
    emulated_s = _emulated(Batch(timing, 10**9, 10**4), rate, prompt, output)
    ours = warm_concurrency(spec, timing, *(np.array([float(x)]) for x in (rate, prompt, output)))
    assert ours.service_s[0] == pytest.approx(emulated_s, rel=0.1)
    assert ours.concurrency[0] == pytest.approx(rate * ours.service_s[0])


def _emulated(batch: Batch, rate: float, prompt: int, output: int) -> float:
    """Mean seconds of requests that come at random for five minutes."""
    draws, at_s = random.Random(7), 0.0
    came: dict[int, int] = {}
    ended: dict[int, int] = {}
    while (at_s := at_s + draws.expovariate(rate)) < 300:
        at_us = round(at_s * US)
        ended |= {p.seq_id: p.at_us for p in batch.advance(at_us) if p.finished}
        came[len(came)] = at_us
        batch.add(Sequence(len(came) - 1, prompt, output, at_us))
    ended |= {p.seq_id: p.at_us for p in batch.advance(10**12) if p.finished}
    return float(np.mean([ended[i] - came[i] for i in came])) / US


def test_a_replica_is_filled_as_far_as_slots_memory_and_itl_allow() -> None:
    context = np.array([1000.0])
    timing = timing_of(model(), "H100-80GB")

    def full(slots: int, kv_bytes: int = 10**13, itl_us: int = 10**9) -> float:
        spec = model(max_num_seqs=slots, kv_cache_bytes=kv_bytes, itl_slo_us=itl_us)
        return float(full_batch(spec, timing, context)[0])

    assert full(100) == 80
    # 131,072 bytes a token: 13.1 GB hold a hundred requests of a thousand tokens.
    assert full(1000, kv_bytes=13_107_200_000) == 100
    assert full(1000, itl_us=timing.step_us(40, 40_000) + 1) == pytest.approx(40, abs=0.5)
    assert full_batch(model(itl_slo_us=1), timing, context)[0] == 1


def test_demand_beyond_one_replica_goes_on_growing_in_step() -> None:
    spec = model(max_num_seqs=50)
    timing = timing_of(spec, "H100-80GB")
    rates = np.array([50.0, 100.0, 200.0])
    lengths = np.full(3, 1000.0), np.full(3, 200.0)
    found = warm_concurrency(spec, timing, rates, *lengths).concurrency
    np.testing.assert_allclose(found / rates, found[0] / rates[0])


# --- the reckoning of peaks, against simulated queues


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize(("rate", "stay_s"), [(0.5, 10), (1, 20), (5, 10), (20, 5)])
def test_the_peak_is_that_of_simulated_queues(rate: float, stay_s: float, changing: bool) -> None:
    """Steady arrivals, and such as change from minute to minute as much as Azure's."""
    mean, rates, stay = np.array([rate * stay_s]), np.array([rate]), np.array([stay_s])
    if changing:
        mean = busiest_minute(mean, rates, stay, 300)
    ours = peak_within(mean, stay, 60 if changing else 300)[0]
    peaks = _simulated_peaks(rate, stay_s, dispersion=12 if changing else 1)
    assert ours == pytest.approx(np.median(peaks), rel=0.1)


def _simulated_peaks(rate: float, stay_s: float, dispersion: float) -> np.ndarray:
    """Of 400 windows of five minutes, after some minutes of warming up."""
    draws = np.random.default_rng(3)
    minutes = 405 * 5
    relative = (dispersion - 1) / (rate * 60)
    rates = draws.gamma(1 / relative, rate * relative, minutes) if relative else [rate] * minutes
    came = np.concatenate(
        [60 * at + draws.uniform(0, 60, draws.poisson(60 * r)) for at, r in enumerate(rates)]
    )
    times = np.concatenate([came, came + draws.exponential(stay_s, len(came))])
    steps = np.repeat([1, -1], len(came))
    order = np.argsort(times)
    running, windows = np.cumsum(steps[order]), (times[order] // 300).astype(int)
    peaks = np.zeros(windows.max() + 1)
    np.maximum.at(peaks, windows, running)
    return peaks[5:405]


# --- from the store


def test_the_store_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(path, HistoryKept())
    windows = [
        Window(
            model="m",
            start_us=START_US + index * FINE_US,
            width_s=10,
            offered=2,
            prompt_tokens=2000,
            output_tokens=400,
            levels_us={1: FINE_US},
        )
        for index in [*range(30), *range(60, 90)]
    ]
    history.add(windows, START_US + 90 * FINE_US)
    history.close(5)
    found = read_demand(path, Target.REQUESTS, CATALOG)
    same(found.panel, 60, HOLE, 60)
    assert found.notes["m"][0].startswith("1 of 3 bins are holes")
    same(
        read_demand(path, Target.REQUESTS, CATALOG, width_s=10, to_us=START_US + 3 * FINE_US).panel,
        2,
        2,
        2,
    )
    peak = read_demand(path, Target.CONCURRENCY_PEAK, CATALOG).panel
    assert peak.values[0, 0] >= 1
    with pytest.raises(NoHistoryError):
        read_demand(tmp_path / "none.db", Target.REQUESTS, CATALOG)
