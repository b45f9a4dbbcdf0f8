"""Quantiles around a point: by hand, and bin by bin as over a whole back-test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.forecasters.registry import POINTS
from prewarm.forecasters.residuals import Trailing, aligned, quantiles_of, window_bins
from prewarm.series import Floats
from tests.prewarm.said import HOLE, MIN10_US, column, panel, points, setting

LEVELS = (0.5, 0.75, 1.0)


def quantiles(values: list[float], horizons: tuple[int, ...] = (1,), roots: bool = False) -> Floats:
    told = setting(horizons=horizons, levels=LEVELS)
    trailing = Trailing(POINTS["last_value"], told, roots)
    trailing.fit(panel(column(values), told))
    found: Floats = trailing.predict()[0]
    return found


def test_three_days_are_so_many_bins() -> None:
    assert window_bins(setting(width_us=MIN10_US).calendar) == 432


def test_the_quantiles_of_the_residuals_are_added_to_the_point() -> None:
    # Off by 2, -1 and 4. Median 2; three quarters lie halfway from 2 to 4.
    assert quantiles([10, 12, 11, 15])[0].tolist() == [17, 18, 19]


def test_each_horizon_has_residuals_of_its_own() -> None:
    # Two bins on: 11 - 10 = 1, 15 - 12 = 3. Median 2; three quarters 2.5.
    assert quantiles([10, 12, 11, 15], horizons=(1, 2))[1].tolist() == [17, 17.5, 18]


def test_the_point_stands_alone_until_something_is_known_of_its_residuals() -> None:
    assert quantiles([10])[0].tolist() == [10, 10, 10]
    assert np.isnan(quantiles([HOLE])).all()


def test_a_hole_is_no_residual() -> None:
    # 12 - 10, then 15 - 12 across the hole, made in the hole's bin.
    assert quantiles([10, 12, HOLE, 15])[0].tolist() == [17.5, 17.75, 18]


def test_no_quantile_lies_below_nothing() -> None:
    assert quantiles([10, 0])[0].tolist() == [0, 0, 0]


def test_residuals_of_roots_make_a_band_as_wide_as_the_hour_is_busy() -> None:
    # Roots 2, 4, 3, 5: off by 2, -1 and 2. All of it 2 above the root of 25, or of 100.
    assert quantiles([4, 16, 9, 25], roots=True)[0].tolist() == [49, 49, 49]
    # And 5 more from 5 to 10: of -1, 2, 2 and 5 the median is 2, three quarters 2 + 0.25 x 3.
    assert quantiles([4, 16, 9, 25, 100], roots=True)[0].tolist() == [144, 12.75**2, 225]
    # A root does not fall below nothing either: off by -4.
    assert quantiles([16, 0], roots=True)[0].tolist() == [0, 0, 0]


def test_what_is_older_than_three_days_is_forgotten() -> None:
    # Twelve bins are three days: the jump by 90 is the oldest residual, and then it is gone.
    assert quantiles([10, 100, *[100] * 11])[0].tolist() == [100, 100, 190]
    assert quantiles([10, 100, *[100] * 12])[0].tolist() == [100, 100, 100]


def test_forecasts_stand_by_the_bin_that_they_are_of() -> None:
    made = np.array([[[1.0, 10.0]], [[2.0, 20.0]], [[3.0, 30.0]]])
    found = aligned(made, (1, 2))
    assert np.array_equal(found[:, 0, 0], [HOLE, 1, 2], equal_nan=True)
    assert np.array_equal(found[:, 0, 1], [HOLE, HOLE, 10], equal_nan=True)


@pytest.mark.parametrize("roots", [False, True])
@pytest.mark.parametrize("name", ["last_value", "day", "ewma"])
@given(seed=st.integers(0, 2**32 - 1), horizons=st.sampled_from([(1,), (1, 2), (2, 7)]))
def test_a_whole_back_test_says_what_is_said_bin_by_bin(
    name: str, roots: bool, seed: int, horizons: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.poisson(4, (40, 3)).astype(np.float64)
    values[rng.random(values.shape) < 0.1] = HOLE
    told = setting(streams=3, horizons=horizons)
    trailing, online = Trailing(POINTS[name], told, roots), []
    for row in values:
        trailing.update(row)
        online.append(trailing.predict())
    of_bins = aligned(points(POINTS[name], values, told), horizons)
    window = window_bins(told.calendar)
    found = quantiles_of(of_bins, values, horizons, window, roots=roots)
    for place, ahead in enumerate(horizons):
        before = np.array(online)[:-ahead, :, place]
        assert np.array_equal(found[ahead:, :, place], before, equal_nan=True)
        assert np.isnan(found[:ahead, :, place]).all()
