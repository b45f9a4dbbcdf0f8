"""A new level is noticed within bins, noise is not, and bands widen until all is learnt again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.change import CLIP, WIDER, WIDER_BINS, ChangeWatch, Errors
from prewarm.forecast import LEVELS
from prewarm.series import Floats

STREAMS = 100


def poisson(rng: np.random.Generator, level: float) -> Floats:
    return rng.poisson(level, STREAMS).astype(np.float64)


def gauss(rng: np.random.Generator, level: float) -> Floats:
    return np.maximum(level * (1 + 0.2 * rng.normal(0, 1, STREAMS)), 0)


def heavy(rng: np.random.Generator, level: float) -> Floats:
    return np.maximum(level * (1 + 0.2 * rng.standard_t(3, STREAMS)), 0)


KINDS = {"poisson": (poisson, 20.0), "gauss": (gauss, 400.0), "t3": (heavy, 400.0)}


def first_shifts(kind: str, factor: float, bins: int, seed: int) -> Floats:
    """When each stream's shift is found, of one that comes after 300 bins; NaN: within `bins` not.

    The forecast stays what was right before it.
    """
    draw, level = KINDS[kind]
    rng = np.random.default_rng([seed, *map(ord, kind)])
    sample = np.concatenate([draw(rng, level) for _ in range(200)])
    quantiles = np.tile(np.quantile(sample, LEVELS), (STREAMS, 1))
    watch, errors = ChangeWatch(STREAMS), Errors(STREAMS, LEVELS)
    for _ in range(300):
        watch.update(errors.standardised(draw(rng, level), quantiles))
    found = np.full(STREAMS, np.nan)
    for after in range(1, bins + 1):
        values = draw(rng, level * factor)
        shifted = watch.update(errors.standardised(values, quantiles)).shifted
        found[shifted & np.isnan(found)] = after
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_level_twice_or_half_as_high_is_found_within_a_dozen_bins(
    kind: str, factor: float
) -> None:
    found = first_shifts(kind, factor, bins=12, seed=1)
    assert not np.isnan(found).any()
    assert np.median(found) <= 6


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_hardly_ever_a_shift(kind: str) -> None:
    found = first_shifts(kind, 1.0, bins=500, seed=2)
    # 50 000 bins; one false alarm in ten thousand is what the thresholds were chosen for.
    assert np.isfinite(found).sum() <= 15


def test_a_rare_model_that_goes_on_as_it_was_neither_shifts_nor_drifts() -> None:
    """Its median is 0: judged by that, every request would be an error to the same side."""
    rng = np.random.default_rng(3)
    sample = rng.poisson(0.2, 100_000)
    quantiles = np.tile(np.quantile(sample, LEVELS), (STREAMS, 1))
    watch, errors = ChangeWatch(STREAMS), Errors(STREAMS, LEVELS)
    changes = [watch.update(errors.standardised(poisson(rng, 0.2), quantiles)) for _ in range(1000)]
    assert sum(c.shifted.sum() for c in changes) <= 30
    assert np.mean([c.drifting.mean() for c in changes]) <= 0.02


def test_a_small_lasting_bias_is_drift_and_not_a_shift() -> None:
    rng = np.random.default_rng(4)
    watch = ChangeWatch(STREAMS)
    shifts, drifting = 0, np.zeros(STREAMS, np.bool_)
    for _ in range(800):
        changes = watch.update(rng.normal(0.3, 1, STREAMS))
        shifts += int(changes.shifted.sum())
        drifting |= changes.drifting
    assert drifting.mean() > 0.8
    assert shifts < STREAMS


def test_drift_ends_when_the_forecasts_are_right_again() -> None:
    watch = ChangeWatch(1)
    off = [watch.update(np.array([0.3])).drifting[0] for _ in range(600)]
    right = [watch.update(np.array([0.0])).drifting[0] for _ in range(1000)]
    assert off[-1]
    assert right[0]
    assert not right[-1]


def test_a_hole_changes_nothing() -> None:
    watch = ChangeWatch(2)
    for _ in range(3):
        watch.update(np.array([2.5, 2.5]))
    before = watch.widening().copy(), watch.since.copy()
    for _ in range(500):
        changes = watch.update(np.array([np.nan, np.nan]))
        assert not changes.shifted.any()
    assert (watch.widening() == before[0]).all()
    assert (watch.since == before[1]).all()
    # 2.5 - 0.5 a bin: 6 before the holes, above 10 with the third bin after them.
    after = [watch.update(np.array([2.5, 2.5])).shifted[0] for _ in range(3)]
    assert after == [False, False, True]


def test_one_wild_bin_is_no_shift_but_widens_the_bands() -> None:
    watch = ChangeWatch(1)
    assert not watch.update(np.array([50.0])).shifted[0]
    assert watch.widening()[0] == 1 + WIDER
    for _ in range(WIDER_BINS):
        watch.update(np.array([0.0]))
    assert watch.widening()[0] == pytest.approx(1 + WIDER / 2), "half of it, a half-life on"


def test_a_shift_widens_and_is_counted_from() -> None:
    watch = ChangeWatch(1)
    bins = 0
    while not watch.update(np.array([2.0])).shifted[0]:
        bins += 1
    assert bins == 6, "1.5 a bin: above 10 with the seventh"
    assert watch.since[0] == 0
    assert watch.widening()[0] == 1 + WIDER
    watch.update(np.array([0.0]))
    assert watch.since[0] == 1


def test_a_constant_series_is_no_change() -> None:
    watch, errors = ChangeWatch(1), Errors(1, LEVELS)
    quantiles = np.full((1, len(LEVELS)), 7.0)
    for _ in range(1000):
        changes = watch.update(errors.standardised(np.array([7.0]), quantiles))
        assert not changes.shifted[0]
        assert not changes.drifting[0]


def test_where_nothing_was_forecast_there_is_no_error() -> None:
    errors = Errors(2, LEVELS)
    quantiles = np.full((2, len(LEVELS)), np.nan)
    quantiles[1] = 3.0
    found = errors.standardised(np.array([3.0, np.nan]), quantiles)
    assert np.isnan(found).all()
    assert errors.standardised(np.array([3.0, 3.0]), quantiles)[1] == pytest.approx(0.0, abs=1e-12)


@given(st.lists(st.lists(st.floats(allow_nan=True), min_size=3, max_size=3), max_size=40))
def test_streams_do_not_know_of_each_other_and_bands_stay_within_bounds(
    bins: list[list[float]],
) -> None:
    together, alone = ChangeWatch(3), [ChangeWatch(1) for _ in range(3)]
    for z in bins:
        changes = together.update(np.array(z))
        apart = [watch.update(np.array([z[s]])) for s, watch in enumerate(alone)]
        assert list(changes.shifted) == [c.shifted[0] for c in apart]
        assert list(changes.drifting) == [c.drifting[0] for c in apart]
        assert ((together.widening() >= 1) & (together.widening() <= 1 + WIDER)).all()
    assert list(together.since) == [watch.since[0] for watch in alone]


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_the_clip_bounds_what_a_bin_can_do(z: float, further: float) -> None:
    one, other = ChangeWatch(1), ChangeWatch(1)
    one.update(np.array([np.copysign(CLIP, z)]))
    other.update(np.array([np.copysign(CLIP + further, z)]))
    assert (one._up, one._down) == (other._up, other._down)
