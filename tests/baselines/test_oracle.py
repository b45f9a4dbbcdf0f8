"""The bound of the relaxation: its law, and that it is one."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.baselines.oracle import oracle, share_bytes
from loadtests.baselines.registry import POLICIES
from loadtests.simulator.port import Ending, Run, Setup
from loadtests.simulator.world import simulate
from placement.catalog import World
from placement.feasibility import usable_hbm_bytes
from tests.baselines.small import HandMade, Row, nodes, served, small_setup
from tests.builders import GB, catalog

US = 1_000_000


def setup_of(rows: list[Row], gpus: int, **changes: Any) -> Setup:
    spec = served("m", World.W, **changes)
    wide = served("wide", World.W, gpus=2)
    return Setup(
        scenario="bound",
        world=World.W,
        seed=0,
        catalog=catalog(spec, wide, nodes=nodes(1, gpus)),
        demand=HandMade(("m", "wide"), rows),
        warmup_us=0,
    )


def test_a_request_alone_starts_at_once_and_runs_as_on_an_idle_replica() -> None:
    run = oracle(setup_of([(5.0, "m", 100, 11)], gpus=2))
    # 35 ms to the first token, then ten steps of 15 ms.
    assert list(run.ttft_us) == [35_000]
    assert list(run.itl_us) == [15_000]
    assert (run.held, run.tokens_in, run.tokens_out) == (0, 100, 11)
    simulated = simulate(
        setup_of([(5.0, "m", 100, 11)], gpus=2), POLICIES["static"](setup_of([], gpus=2))
    )
    assert list(simulated.itl_us) == [15_000]


def test_a_gpus_worth_of_requests_runs_at_once_and_the_next_waits_for_an_end() -> None:
    # One GPU: 2 slots of a replica that fills it. Each takes 35 + 64 · 15 = 995 ms.
    rows: list[Row] = [(0.0, "m", 100, 65)] * 3
    setup = setup_of(rows, gpus=1, max_num_seqs=2)
    assert share_bytes(setup.catalog.models[0]) * 2 <= usable_hbm_bytes(80 * GB)
    run = oracle(setup)
    assert list(run.ttft_us) == [35_000, 35_000, 995_000 + 35_000]
    assert run.held == 1
    # GPU time is what was occupied: three halves of a GPU for 0.995 s.
    assert run.gpu_us_serving == pytest.approx(1.5 * 995_000, rel=1e-3)


def test_a_small_request_does_not_overtake_a_large_one_that_waits() -> None:
    # Two GPUs. `m` takes a whole one, `wide` a sixteenth of one: the second `m` does not fit beside
    # the first and the small one. The next small one would, but it came later.
    rows: list[Row] = [
        (0.0, "wide", 100, 65),
        (0.0, "m", 100, 65),
        (0.1, "m", 100, 65),
        (0.2, "wide", 100, 65),
    ]
    run = oracle(setup_of(rows, gpus=2, max_num_seqs=1))
    # The first two end at 995 ms.
    assert list(run.ttft_us) == [35_000, 35_000, 895_000 + 35_000, 795_000 + 35_000]


def test_what_fits_no_engine_is_refused_here_too() -> None:
    run = oracle(setup_of([(0.0, "m", 100_000, 10)], gpus=1))
    assert list(run.ending) == [Ending.REFUSED]


rows_of_a_minute = st.lists(
    st.tuples(
        st.floats(0, 20), st.sampled_from(["m", "wide"]), st.integers(1, 500), st.integers(1, 400)
    ),
    max_size=60,
)


@given(rows_of_a_minute, st.integers(2, 6), st.integers(1, 4))
def test_more_gpus_never_make_any_request_start_later(
    rows: list[Row], gpus: int, more: int
) -> None:
    few = oracle(setup_of(rows, gpus, max_num_seqs=3))
    many = oracle(setup_of(rows, gpus + more, max_num_seqs=3))
    assert all(b <= a for a, b in zip(few.ttft_us, many.ttft_us, strict=True))


@given(rows_of_a_minute, st.integers(2, 4))
def test_bytes_never_exceed_the_gpus_and_nobody_overtakes(rows: list[Row], gpus: int) -> None:
    setup = setup_of(rows, gpus, max_num_seqs=3)
    run = oracle(setup)
    first = [35_000] * len(run.ttft_us)
    starts = np.array(run.arrived_us) + np.array(run.ttft_us, np.int64) - np.array(first, np.int64)
    assert all(a <= b for a, b in pairwise(starts))
    sizes = [share_bytes(spec) for spec in setup.catalog.models]
    tokens = [row[3] for row in sorted(rows, key=lambda r: r[0])]
    spans = [
        (int(start), int(start) + 35_000 + (n - 1) * 15_000, sizes[m])
        for start, n, m in zip(starts, tokens, run.model, strict=True)
    ]
    for at, _, _ in spans:
        used = sum(size for start, end, size in spans if start <= at < end)
        assert used <= gpus * usable_hbm_bytes(80 * GB)


def late(run: Run, share: float) -> float:
    return float(np.percentile(np.array(run.ttft_us, np.int64), share))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", list(World))
def test_no_policy_is_better_at_any_percentile(world: World, seed: int) -> None:
    bound = oracle(small_setup(world, seed, seconds=120))
    for name in ("static", "warmserve", "warmserve+gateway", "reactive"):
        setup = small_setup(world, seed, seconds=120)
        run = simulate(setup, POLICIES[name](setup))
        assert len(run.ttft_us) == len(bound.ttft_us)
        for share in (1, 25, 50, 90, 99, 100):
            assert late(bound, share) <= late(run, share), f"{name} beats it, seed={seed}"


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_the_timeline_adds_up(seed: int) -> None:
    run = oracle(small_setup(World.W, seed, seconds=60))
    assert run.timeline[0].in_flight == run.timeline[0].held == 0
    assert all(m.held >= 0 and m.in_flight >= 0 for m in run.timeline)
    assert max(m.gpus_serving for m in run.timeline) <= 8
