"""Peaks of concurrency, against queues that are simulated request by request."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.foresight.near import clumping
from prewarm.foresight.peaks import peak_at, silence
from prewarm.series import Floats

LEVELS = np.array([0.5, 0.9])


class Queue(NamedTuple):
    """Gamma renewals, lognormal lengths of a CV of 0.95, ample replicas."""

    rate_per_s: float
    service_s: float
    cv: float


class Seen(NamedTuple):
    dispersion: float
    peaks: Floats
    """Quantiles of the peak in windows of this length, at `LEVELS`."""
    running: Floats
    """What ran when each window began."""


def simulated(queue: Queue, window_s: float, seconds: int = 20_000) -> Seen:
    rng = np.random.default_rng(0)
    shape = 1 / queue.cv**2
    gaps = rng.gamma(shape, 1 / (shape * queue.rate_per_s), int(queue.rate_per_s * seconds))
    at = np.cumsum(gaps)
    ends = at + rng.lognormal(np.log(queue.service_s) - 0.32, 0.8, len(at))
    times = np.concatenate((at, ends))
    order = np.argsort(times)
    levels = np.cumsum(np.repeat([1, -1], len(at))[order])
    starts = np.arange(100, at[-1] - 100, window_s)
    first, last = (np.searchsorted(times[order], s) for s in (starts, starts + window_s))
    running = levels[first - 1].astype(np.float64)
    pairs = zip(first.tolist(), last.tolist(), strict=True)
    inside = np.array([levels[a:b].max(initial=0) for a, b in pairs])
    counts = np.bincount((at // 5).astype(np.int64))
    off, of = clumping(counts[:-1], counts[1:])
    quantiles = np.quantile(np.maximum(running, inside), LEVELS)
    return Seen(float(off.sum() / of.sum()), quantiles, running)


@pytest.mark.parametrize("window_s", [10.0, 60.0, 300.0])
@pytest.mark.parametrize(
    "queue",
    [Queue(4.0, 5.0, 2.0), Queue(4.0, 5.0, 1.0), Queue(15.0, 3.0, 2.0), Queue(1.0, 6.0, 2.0)],
)
def test_peaks_are_those_of_a_queue_with_ample_replicas(queue: Queue, window_s: float) -> None:
    seen = simulated(queue, window_s)
    said = [
        peak_at(
            np.full((1, 1), level),
            np.array([[queue.rate_per_s]]),
            np.array([queue.service_s]),
            np.array([seen.dispersion]),
            window_s,
            running=np.array([running]),
        )[0, 0]
        for level in LEVELS
        for running in seen.running[:200]
    ]
    means = np.array(said).reshape(len(LEVELS), -1).mean(axis=1)
    assert means == pytest.approx(seen.peaks, rel=0.15, abs=1.5)


def test_silence_is_poissons_where_nothing_clumps_and_likelier_where_it_does() -> None:
    two = np.array([2.0])
    assert silence(two, np.array([1.0]))[0] == pytest.approx(np.exp(-2), rel=1e-3)
    # Negative binomial of mean 2 and variance 6: 3 to the power of -2 / (3 - 1).
    assert silence(two, np.array([3.0]))[0] == pytest.approx(1 / 3)


ranks = st.floats(0.004, 0.996)
rates = st.floats(0, 100)


@given(ranks, rates, st.floats(0.01, 60), st.floats(1, 16), st.floats(0.5, 900), st.integers(0, 90))
def test_a_peak_holds_what_runs_and_grows_with_rank_and_window(
    rank: float, rate: float, service_s: float, dispersion: float, window_s: float, running: int
) -> None:
    def peak(at: float, window: float) -> float:
        shapes = np.full((1, 1), at), np.full((1, 1), rate)
        others = np.array([service_s]), np.array([dispersion])
        return float(peak_at(*shapes, *others, window, running=float(running))[0, 0])

    found = peak(rank, window_s)
    assert found == int(found)
    assert found >= running
    assert peak(min(rank + 0.1, 0.999), window_s) >= found


@given(rates, st.floats(0.01, 60), st.floats(1, 16))
def test_as_many_paths_are_silent_as_silence_is_likely(
    rate: float, service_s: float, dispersion: float
) -> None:
    paths = 128
    levels = ((np.arange(paths) + 0.5) / paths)[:, None]
    shape = np.full((paths, 1), rate)
    peaks = peak_at(levels, shape, np.array([service_s]), np.array([dispersion]), 10.0)
    wanted = float(silence(np.array(rate * 10.0), np.array(dispersion)))
    assert abs(float((peaks == 0).mean()) - wanted) <= 0.5 / paths + 1e-9
