"""Totals cut into bins: what was watched counts, what was not is a hole."""

import numpy as np

from prewarm.calendars import US
from prewarm.foresight.bins import Bins
from prewarm.series import Floats

WIDTH_US = 60 * US


def counts(looks: list[tuple[int, int]], begins_s: int = 0) -> list[float]:
    """Of (second, total offered), the first of which is the first look."""
    bins = Bins(begins_s * US, WIDTH_US)
    (first_s, first), *rest = looks
    bins.begin(np.array([first]), first_s * US)
    over: list[Floats] = []
    for at_s, total in rest:
        over += bins.add(np.array([total]), at_s * US)
    return [float(one[0]) for one in over]


def every(seconds: range, per_second: int = 1, before: int = 0) -> list[tuple[int, int]]:
    return [(s, before + per_second * s) for s in seconds]


def test_every_bin_has_what_came_in_it() -> None:
    assert counts(every(range(0, 181, 5), per_second=2)) == [120, 120, 120]


def test_who_begins_amidst_a_bin_has_not_seen_it() -> None:
    found = counts(every(range(30, 181, 5), before=500))
    assert np.isnan(found[0])
    assert found[1:] == [60, 60]


def test_a_pause_is_a_hole_in_each_bin_that_it_touches() -> None:
    looks = every(range(0, 61, 5)) + every(range(170, 301, 5))
    found = counts(looks)
    assert found[0] == 60
    assert np.isnan(found[1:3]).all()
    assert found[3:] == [60, 60]


def test_bins_before_the_first_look_are_holes() -> None:
    found = counts(every(range(240, 301)))
    assert np.isnan(found[:4]).all()
    assert found[4:] == [59]  # the second look is the first that knows of this bin
