"""Which errors go together: ranks for a number of futures, joint over models. Pure and seeded.

In: where past values lay in their forecasts, a generator. Out: ranks between 0 and 1 for each path,
horizon and stream. Never: changes what a forecast says of one model alone: of each model every
rank is taken once, so that only which of them meet in one path is learnt from the past.

A path takes all errors that were made from one past moment on, of all models and horizons. So
models burst together as they did, and a burst that lasted lasts. Between paths that share a moment,
and where something is not known of it, chance decides: without a past ranks are independent.
"""

import numpy as np

from prewarm.foresight.options import Together
from prewarm.series import Floats

_TIE = 1e-9


def joint_ranks(
    errors: Floats, paths: int, rng: np.random.Generator, together: Together = Together.JOINT
) -> Floats:
    """`errors` as `Far.errors` has them, N x H x S. Shape paths x H x S."""
    count, horizons, streams = errors.shape
    if together is Together.POINT:
        return np.full((paths, horizons, streams), 0.5)
    ranks = even(_drawn(errors, paths, rng) if count else rng.random((paths, horizons, streams)))
    if together is Together.INDEPENDENT:
        own = rng.random((paths, streams)).argsort(axis=0)
        ranks = np.take_along_axis(ranks, own[:, None, :], axis=0)
    return ranks


def even(values: Floats) -> Floats:
    """Along the first axis: the smallest half a part above 0, the largest half a part below 1."""
    found: Floats = (values.argsort(axis=0).argsort(axis=0) + 0.5) / len(values)
    return found


def _drawn(errors: Floats, paths: int, rng: np.random.Generator) -> Floats:
    rounds = -(-paths // len(errors))
    order = np.concatenate([rng.permutation(len(errors)) for _ in range(rounds)])[:paths]
    chance = rng.random((paths, *errors.shape[1:]))
    drawn = errors[order]
    return np.where(np.isnan(drawn), chance, drawn + _TIE * chance)
