"""Weighted quantiles, against the slow way to say what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.selection.weighted import weighted_quantiles
from prewarm.series import Floats

LEVELS = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
ROUNDING = 1e-6

values_of = st.one_of(st.just(0.0), st.integers(1, 5).map(float), st.floats(0, 1e9, width=32))
weights_of = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-6, 1e3))
samples = st.lists(st.tuples(values_of, weights_of), min_size=1, max_size=40)


def slowly(values: Floats, weights: Floats, level: float) -> float:
    """Sort, sum up, stop where enough of the weight has come."""
    so_far, enough = 0.0, min(level, 1.0) * weights.sum()
    order = np.argsort(values, kind="stable")
    for value, weight in zip(values[order], weights[order], strict=True):
        so_far += weight
        if so_far >= enough * (1 - 1e-12) and so_far > 0:
            return float(value)
    raise AssertionError("all of the weight is enough")


@given(samples)
def test_it_is_what_the_slow_way_finds(sample: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*sample, strict=True))
    found = weighted_quantiles(values, weights, LEVELS)
    if not weights.any():
        assert (found == 0).all()
        return
    for level, value in zip(LEVELS.tolist(), found.tolist(), strict=True):
        low, high = (slowly(values, weights, level + by) for by in (-ROUNDING, ROUNDING))
        assert np.float32(low) <= value <= np.float32(high)


@given(st.lists(samples, min_size=2, max_size=4))
def test_every_row_is_found_as_if_it_were_alone(rows: list[list[tuple[float, float]]]) -> None:
    shortest = min(len(row) for row in rows)
    together = np.array([row[:shortest] for row in rows])
    values, weights = together[..., 0], together[..., 1]
    found = weighted_quantiles(values, weights, LEVELS)
    for row, alone in enumerate(found):
        assert (alone == weighted_quantiles(values[row], weights[row], LEVELS)).all()


def test_a_lone_sample_is_every_quantile_however_little_it_weighs() -> None:
    found = weighted_quantiles(np.array([[7.0]]), np.array([[1e-30]]), LEVELS)
    assert (found == 7.0).all()


def test_samples_without_weight_do_not_count() -> None:
    values, weights = np.array([1.0, 5.0, 9.0]), np.array([0.0, 2.0, 0.0])
    assert (weighted_quantiles(values, weights, LEVELS) == 5.0).all()


def test_between_nothing_and_a_burst_lies_nothing() -> None:
    # Nine parts of ten are zeros: 0.9 of the weight does not exceed 0, 0.91 does.
    values, weights = np.array([40.0, 0.0, 0.0]), np.array([1.0, 4.0, 5.0])
    found = weighted_quantiles(values, weights, np.array([0.5, 0.89, 0.91]))
    assert found.tolist() == [0.0, 0.0, 40.0]


@pytest.mark.parametrize("shape", [(3, 2, 5), (1, 5), (0, 2, 5)])
def test_levels_take_the_place_of_samples(shape: tuple[int, ...]) -> None:
    found = weighted_quantiles(np.ones(shape), np.ones(shape), LEVELS)
    assert found.shape == (*shape[:-1], len(LEVELS))
    assert (found == 1.0).all()
