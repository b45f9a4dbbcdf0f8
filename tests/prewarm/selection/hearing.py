"""A selector that is told bins and asked after each, as tests use it."""

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from prewarm.events import Uplift
from prewarm.forecast import Setting
from prewarm.prior import Prior
from prewarm.selection.members import NOBODY, Guests
from prewarm.selection.selector import Selector
from prewarm.series import Floats
from tests.prewarm.said import HOLE

SEED = 11


def selector(
    told: Setting,
    *,
    guests: Guests = NOBODY,
    uplift: Uplift | None = None,
    prior: Prior | None = None,
) -> Selector:
    rng = np.random.default_rng(SEED)
    return Selector(told, rng, guests=guests, uplift=uplift, prior=prior)


def heard(one: Selector, values: Iterable[Floats]) -> Floats:
    """What it says after each bin. Shape T x S x H x L."""
    said = []
    for value in values:
        one.update(value)
        said.append(one.predict())
    return np.array(said)


cells = st.one_of(st.just(0.0), st.just(HOLE), st.integers(1, 40).map(float), st.floats(1e-9, 1e15))
