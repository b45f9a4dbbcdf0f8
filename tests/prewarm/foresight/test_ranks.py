"""Which errors meet in one path."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.foresight.options import Together
from prewarm.foresight.ranks import joint_ranks
from prewarm.series import Floats


def errors(count: int, streams: int, seed: int = 0) -> Floats:
    """Streams 0 and 1 always err alike, the others for themselves; two horizons."""
    found = np.random.default_rng(seed).random((count, 2, streams))
    found[:, :, 1] = found[:, :, 0]
    return found


def correlation(ranks: Floats, one: int, other: int) -> float:
    return float(np.corrcoef(ranks[:, 0, one], ranks[:, 0, other])[0, 1])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    st.integers(0, 200),
    st.integers(1, 5),
    st.sampled_from([8, 64, 128]),
    st.floats(0, 1),
    st.sampled_from([Together.JOINT, Together.INDEPENDENT]),
)
def test_of_each_model_every_rank_is_taken_once(
    count: int, streams: int, paths: int, unknown: float, how: Together
) -> None:
    past = rng(1).random((count, 2, streams))
    past[rng(2).random(past.shape) < unknown] = np.nan
    ranks = joint_ranks(past, paths, rng(), how)
    wanted = (np.arange(paths) + 0.5) / paths
    assert np.allclose(np.sort(ranks, axis=0), wanted[:, None, None])


def test_models_that_erred_together_do_so_in_the_paths() -> None:
    ranks = joint_ranks(errors(150, 3), 128, rng())
    assert correlation(ranks, 0, 1) > 0.95
    assert abs(correlation(ranks, 0, 2)) < 0.3


def test_independent_ranks_break_them_up_and_keep_what_lasts() -> None:
    past = errors(150, 3)
    past[:, 1] = past[:, 0]  # an error at the first horizon is there at the second
    ranks = joint_ranks(past, 128, rng(), Together.INDEPENDENT)
    assert abs(correlation(ranks, 0, 1)) < 0.3
    assert np.array_equal(ranks[:, 0].argsort(axis=0), ranks[:, 1].argsort(axis=0))


def test_a_point_has_no_ranks() -> None:
    assert (joint_ranks(errors(9, 2), 8, rng(), Together.POINT) == 0.5).all()


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_past_ranks_are_independent(count: int) -> None:
    ranks = joint_ranks(errors(count, 2), 128, rng())
    assert abs(correlation(ranks, 0, 1)) < 0.3


def test_few_errors_serve_several_paths_each() -> None:
    ranks = joint_ranks(errors(10, 2), 128, rng())
    assert 0.9 < correlation(ranks, 0, 1) < 1.0


def test_the_same_seed_draws_the_same() -> None:
    past = errors(50, 3)
    assert np.array_equal(joint_ranks(past, 64, rng(4)), joint_ranks(past, 64, rng(4)))
    assert not np.array_equal(joint_ranks(past, 64, rng(4)), joint_ranks(past, 64, rng(5)))
