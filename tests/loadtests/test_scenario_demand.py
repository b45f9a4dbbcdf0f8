"""What a scenario asks of a cluster: how much, when, of whom; in the slice and before it."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.errors import AskedError
from loadtests.scenarios import demand as demand_module
from loadtests.scenarios.demand import Traced
from loadtests.scenarios.setups import Wanted, build
from loadtests.scenarios.shape import CellEntry, ScenarioFile
from loadtests.scenarios.traced import traced as find_trace
from loadtests.simulator.port import Demand
from loadtests.trace_places import GENERATED, traces_folder
from placement.catalog import World
from prewarm.traces.records import DAY_US, HOUR_US, US, Requests
from tests.loadtests.scenes import busy_days, scenario, traced, with_lengths

PER_VOLUME = (
    ("rps = 6.0, alpha = 1.0, ", ""),
    ('shares = "zipf"', 'shares = "volume", load = {mean = 0.1, peak = 0.9}'),
)


def demand_of(
    file: ScenarioFile, found: Traced | None = None, cell: CellEntry | None = None, seed: int = 1
) -> Demand:
    wanted = Wanted(cell=cell or file.cell, world=World.W, seed=seed)
    return build("test", file, found or busy_days(), wanted).setup.demand


def all_of(demand: Demand) -> Requests:
    return joined(list(demand.chunks()), demand)


def joined(chunks: list[Requests], demand: Demand) -> Requests:
    def column(name: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        return np.concatenate([np.zeros(0, np.int64), *(getattr(one, name) for one in chunks)])

    return Requests(
        start_us=0,
        at_us=column("at_us"),
        streams=demand.models,
        stream=column("stream"),
        prompt_tokens=column("prompt_tokens"),
        output_tokens=column("output_tokens"),
    )


def asked(requests: Requests, start_us: int = 0, stop_us: int = DAY_US) -> list[int]:
    within = (requests.at_us >= start_us) & (requests.at_us < stop_us)
    found: list[int] = np.bincount(
        requests.stream[within], minlength=len(requests.streams)
    ).tolist()
    return found


def test_each_model_gets_its_share_of_the_rate() -> None:
    # 6 a second for an hour, dealt 6/11, 3/11, 2/11; a bin may be off by one.
    found = asked(all_of(demand_of(scenario())))
    for got, meant in zip(found, (6 / 11, 3 / 11, 2 / 11), strict=True):
        assert abs(got - 21_600 * meant) <= 6


def test_the_busiest_and_the_quietest_hour_are_found_in_the_days_of_the_trace() -> None:
    busy = demand_of(scenario())
    quiet = demand_of(scenario(("busiest", "quietest")))
    assert (busy.start_us, quiet.start_us) == (2 * DAY_US + 5 * HOUR_US, 2 * DAY_US + 9 * HOUR_US)


def test_the_days_before_are_at_the_same_scale() -> None:
    counts = busy_days().counts.counts.copy()
    counts[:144] *= 3  # the first day was three times as busy
    demand = demand_of(scenario(), traced(counts))
    yesterday = asked(joined(list(demand.past(1)), demand))
    before = asked(joined(list(demand.past(2)), demand))
    today = asked(all_of(demand))
    assert all(abs(a - b) <= 6 for a, b in zip(today, yesterday, strict=True))
    assert all(abs(3 * a - b) <= 24 for a, b in zip(today, before, strict=True))


def test_the_rate_is_meant_over_the_hour_though_less_of_it_is_run() -> None:
    counts = busy_days().counts.counts.copy()
    counts[2 * 144 + 32 : 2 * 144 + 36] = 0  # all of the hour's requests fall into 20 minutes
    demand = demand_of(scenario(('duration = "1 h"', 'duration = "20 min"')), traced(counts))
    assert demand.duration_us == 1200 * US
    assert sum(asked(all_of(demand))) == pytest.approx(21_600, abs=6)


@pytest.mark.parametrize("cv", [1.0, 2.0, 4.0])
def test_gaps_drawn_anew_have_the_asked_cv_and_keep_the_length(cv: float) -> None:
    file = scenario()
    usual = all_of(demand_of(file))
    drawn = all_of(demand_of(file, cell=file.cell.model_copy(update={"cv": cv})))
    assert asked(drawn) == asked(usual)
    assert (drawn.at_us[0], drawn.at_us[-1]) == (usual.at_us[0], usual.at_us[-1])
    gaps = np.diff(drawn.at_us)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_a_cv_changes_nothing_of_the_past() -> None:
    file = scenario()
    redrawn = demand_of(file, cell=file.cell.model_copy(update={"cv": 4.0}))
    usual = demand_of(file)
    ours, theirs = (joined(list(d.past(1)), d) for d in (redrawn, usual))
    assert np.array_equal(ours.at_us, theirs.at_us)


def test_lengths_are_cut_to_the_published_bounds_and_stay_pairs() -> None:
    found = with_lengths(busy_days(), [50, 5000], [1, 4000])
    requests = all_of(demand_of(scenario(), found))
    pairs = Counter(
        zip(requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
    )
    assert set(pairs) == {(50, 3), (1024, 1023)}
    assert min(pairs.values()) > 0.45 * len(requests)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 1.0, 4.0]))
def test_requests_come_in_order_within_the_slice_whatever_the_seed(
    seed: int, cv: float | None
) -> None:
    file = scenario()
    demand = demand_of(file, cell=file.cell.model_copy(update={"cv": cv}), seed=seed)
    for requests in (all_of(demand), joined(list(demand.past(1)), demand)):
        assert (np.diff(requests.at_us) >= 0).all()
        assert requests.at_us[0] >= 0
        assert requests.at_us[-1] < demand.duration_us


def test_one_seed_is_one_demand_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    first = all_of(demand_of(scenario()))
    monkeypatch.setattr(demand_module, "CHUNK_REQUESTS", 100)
    demand = demand_of(scenario())
    assert len(list(demand.chunks())) == 6  # a bin each
    again, other = all_of(demand), all_of(demand_of(scenario(), seed=2))
    assert np.array_equal(first.at_us, again.at_us)
    assert np.array_equal(first.prompt_tokens, again.prompt_tokens)
    assert not np.array_equal(first.at_us, other.at_us)


def test_a_long_slice_of_many_requests_is_read_in_bounded_memory() -> None:
    # 5.4 million requests of four numbers are 173 MB if they are held together.
    file = scenario(("rps = 6.0", "rps = 300.0"), (', hour = "busiest"', ""), ("1 h", "5 h"))
    demand = demand_of(file, traced(np.full((3 * 144, 3), 10)))
    tracemalloc.start()
    total = sum(len(chunk) for chunk in demand.chunks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == pytest.approx(5_400_000, rel=0.001)
    assert peak < 60e6


def test_a_crowd_comes_and_goes_and_history_knows_nothing_of_it() -> None:
    crowd = (
        'changes = [{model = "c", at = "20 min", lasts = "10 min", plus_rps = 50.0}]\n[shapes.s]'
    )
    demand = demand_of(scenario(("[shapes.s]", crowd)))
    usual, requests = all_of(demand_of(scenario())), all_of(demand)
    before, within, after = (0, 1200 * US), (1200 * US, 1800 * US), (1800 * US, HOUR_US)
    assert asked(requests, *before) == asked(usual, *before)
    assert asked(requests, *after) == asked(usual, *after)
    more = np.array(asked(requests, *within)) - asked(usual, *within)
    assert more.tolist() == [0, 0, 30_000]
    assert len(joined(list(demand.past(1)), demand)) < 22_000


def test_a_level_falls_by_thinning() -> None:
    fall = 'changes = [{model = "a", at = "30 min", lasts = "1 h", times = 0.25}]\n[shapes.s]'
    requests = all_of(demand_of(scenario(("[shapes.s]", fall))))
    first, second = (asked(requests, *span) for span in ((0, 1800 * US), (1800 * US, HOUR_US)))
    assert second[0] == pytest.approx(first[0] / 4, rel=0.08)
    assert second[1] == pytest.approx(first[1], abs=6)


def test_nobody_asks_for_a_model_before_its_release() -> None:
    file = scenario(('{id = "b", shape = "s"}', '{id = "b", shape = "s", released = "30 min"}'))
    demand = demand_of(file)
    requests = all_of(demand)
    assert asked(requests, 0, 1800 * US)[1] == 0
    assert asked(requests, 1800 * US, HOUR_US)[1] > 2_000
    assert asked(joined(list(demand.past(1)), demand))[1] == 0
    assert asked(joined(list(demand.past(1)), demand))[0] > 10_000


# --- whose trace


def test_models_take_the_busiest_streams_unless_they_name_one() -> None:
    counts = np.tile([1, 50, 20, 30], (3 * 144, 1))
    file = scenario(
        *PER_VOLUME, ('{id = "a", shape = "s"}', '{id = "a", shape = "s", stream = "c2"}')
    )
    found = asked(all_of(demand_of(file, traced(counts))))
    # "a" has c2 (20); c1 (50) and c3 (30) go to the others; c0 is left out.
    assert found[1] / found[0] == pytest.approx(2.5, rel=0.01)
    assert found[2] / found[0] == pytest.approx(1.5, rel=0.01)


def test_demand_is_thinned_to_a_share_of_capacity_and_the_factor_is_told() -> None:
    # Without fixed times a request of 100 in, 10 out costs an 8B-class GPU
    # 10 + 100 * 2 * 8e9 / 156e12 = 20.3 ms and ten steps' 25th of 13.2 ms: 25.5 ms.
    file = scenario(*PER_VOLUME, ("mean = 0.1", "mean = 0.05"))
    wanted = Wanted(cell=file.cell, world=World.W, seed=1)
    counts = np.tile([100, 100, 100], (3 * 144, 1))
    built = build("test", file, traced(counts), wanted)
    assert built.level["binding"] == "mean"
    assert built.level["mean_load"] == pytest.approx(0.05)
    # 0.05 * 16 GPUs = 0.8 GPU-seconds a second: 31 requests a second.
    assert len(all_of(built.setup.demand)) / 3600 == pytest.approx(0.8 / 0.0255, rel=0.02)


def test_a_trace_with_too_few_streams_or_days_says_so() -> None:
    file = scenario()
    wanted = Wanted(cell=file.cell, world=World.W, seed=1)
    built = build("test", file, busy_days(days=2, streams=2), wanted)
    assert "1 of the models are never asked" in " ".join(built.notes)
    assert "holds 1 days before the slice" in " ".join(built.notes)
    assert asked(all_of(built.setup.demand))[2] == 0


def test_a_counts_file_replaces_the_demand(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = "\n".join(f"{600 * i},{10},{20}" for i in range(3 * 144))
    file.write_text(f"t_s,x,y\n{rows}\n")
    found = find_trace("servegen m-large", 3, Path("/nowhere"), file)
    assert found.told == "mine.csv"
    assert found.counts.streams == ("x", "y")


def test_without_traces_the_generator_serves_and_is_named(tmp_path: Path) -> None:
    found = find_trace("servegen m-large", 5, tmp_path, None)
    assert (found.told, found.lengths_told) == (GENERATED, GENERATED)
    assert len(found.counts.streams) == 5


def test_real_traces_are_read_where_they_lie_and_holes_are_bridged() -> None:
    folder = traces_folder(None, Path(__file__).parent)
    if not (folder / "servegen").is_dir():
        pytest.skip("no real traces on this machine: our generator is tested above")
    found = find_trace("servegen m-large + m-small", 40, folder, None)
    assert found.told == "servegen m-large + m-small"
    assert found.lengths_told == "azure 2023 conv"
    assert found.holes == 37 * 43  # 37 rows in which all 43 clients of m-small are zero
    column = found.counts.streams.index("m-small/c5")
    assert found.counts.counts[1032, column] > 0


def test_more_requests_than_memory_holds_are_refused_before_one_is_drawn() -> None:
    with pytest.raises(AskedError, match="ask for a lower rate"):
        demand_of(scenario(), cell=CellEntry(rps=1e6, alpha=1.0))
