"""The line through the forecasters: it learns, starts at the last value, and stays near them."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prewarm.selection.regression import ROOT_OF_NOTHING, STRAY, Regression
from prewarm.series import Floats
from tests.prewarm.said import HOLE, HOUR_US, setting

AHEAD = 2
DAYS = 14
BINS = DAYS * 24


class Taught:
    """A regression on one horizon; its features are two opinions and a constant, a row a stream."""

    def __init__(self, streams: int, unit: float = 1.0) -> None:
        told = setting(streams=streams, horizons=(AHEAD,), width_us=HOUR_US)
        self._unit = np.full(streams, unit)
        self._inner = Regression(told, features=3)

    def hears(self, values: Sequence[float] | Floats, opinions: Floats) -> Floats:
        """The next bin, and what is thought of the one two bins later: S, and S x 2. Out: S."""
        constant = np.ones((len(opinions), 1))
        self._inner.learn(np.asarray(values, np.float64), self._unit)
        features = np.hstack([opinions, constant])[None]
        found: Floats = self._inner.points(features, self._unit)[0]
        return found


def opinions_of(streams: int, seed: int = 3) -> Floats:
    """Bins x streams x 2, on the root scale."""
    return np.random.default_rng(seed).uniform(2.0, 4.0, (BINS, streams, 2))


def halfway(opinions: Floats) -> Floats:
    """What comes is half way between the two. Bins x streams; holes before anyone had spoken."""
    found: Floats = np.full(opinions.shape[:2], HOLE)
    found[AHEAD:] = opinions[:-AHEAD].mean(axis=2)
    return found


def test_it_learns_how_much_to_make_of_each() -> None:
    opinions = opinions_of(2)
    values = halfway(opinions)
    values[AHEAD:, 1] = opinions[:-AHEAD, 1, 1]  # of the other stream the second is always right
    taught = Taught(2)
    off = np.array(
        [
            taught.hears(value, said) - [said[0].mean(), said[1, 1]]
            for value, said in zip(values, opinions, strict=True)
        ]
    )
    assert np.abs(off[-48:]).max() < 0.05
    assert np.abs(off[:24]).max() > 0.3, "it had something to learn"


def test_at_first_it_repeats_the_last_value() -> None:
    taught, opinions = Taught(2), opinions_of(2)
    for said in opinions[:48]:
        assert taught.hears([HOLE, HOLE], said) == pytest.approx(said[:, 0])


def test_a_hole_neither_teaches_nor_breaks() -> None:
    """For four days the second opinion is right; nobody looks at the first stream."""
    opinions = opinions_of(2)
    opinions[:, 1] = opinions[:, 0]
    values = halfway(opinions)
    values[200:296, 1] = opinions[200 - AHEAD : 296 - AHEAD, 1, 1]
    values[200:296, 0] = HOLE
    taught = Taught(2)
    found = np.array([taught.hears(v, said) for v, said in zip(values, opinions, strict=True)])
    off = np.abs(found - opinions.mean(axis=2))
    assert not np.isnan(found).any()
    assert off[190:, 0].max() < 0.05
    assert off[290:, 1].max() > 0.2


def test_streams_whose_opinions_begin_late_learn_from_then_on() -> None:
    opinions = opinions_of(1)
    values = halfway(opinions)
    opinions[:24] = HOLE
    taught = Taught(1)
    found = np.array([taught.hears(v, said) for v, said in zip(values, opinions, strict=True)])
    assert np.isnan(found[:24]).all()
    assert np.abs(found[-48:] - opinions[-48:].mean(axis=2)).max() < 0.05


def test_one_wild_bin_moves_it_little() -> None:
    opinions = opinions_of(2)
    opinions[:, 1] = opinions[:, 0]
    noise = np.random.default_rng(4).normal(0, 0.2, BINS)[:, None]
    values = halfway(opinions) + noise
    values[300, 1] = 40.0  # of the same stream, but for one bin that is 37 above the usual
    taught = Taught(2)
    found = np.array([taught.hears(v, said) for v, said in zip(values, opinions, strict=True)])
    struck = np.abs(found[300:, 1] - found[300:, 0])
    assert 0 < struck.max() < 0.2


roots = st.floats(ROOT_OF_NOTHING, 1e6)
streams_of = st.integers(1, 3)


@given(st.data())
def test_it_never_strays_far_from_what_the_others_say(data: st.DataObject) -> None:
    streams, bins = data.draw(streams_of), 12
    unit = data.draw(st.floats(0.7, 1e3))
    opinions = data.draw(arrays(np.float64, (bins, streams, 2), elements=roots))
    values = data.draw(
        arrays(np.float64, (bins, streams), elements=st.one_of(st.just(HOLE), roots))
    )
    taught = Taught(streams, unit)
    for value, said in zip(values, opinions, strict=True):
        found = taught.hears(value, said)
        rounding = 1e-9 * said.max()
        assert (found >= said.min(axis=1) - STRAY * unit - rounding).all()
        assert (found <= said.max(axis=1) + STRAY * unit + rounding).all()
        assert (found >= ROOT_OF_NOTHING).all()
