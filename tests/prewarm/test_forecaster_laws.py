"""What holds of every built-in forecaster, whatever it is shown: bounds, holes, bad input."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.forecast import Setting
from prewarm.forecasters.registry import POINTS, forecaster
from prewarm.series import Floats
from tests.prewarm.said import HOLE, HOUR_US, column, last_points, panel, points, setting

HORIZONS = (1, 3, 6)
STREAMS = 3

cells = st.one_of(st.just(0.0), st.just(HOLE), st.integers(1, 40).map(float), st.floats(1e-9, 1e9))


@st.composite
def demand(draw: Callable[[st.SearchStrategy[float]], float]) -> Floats:
    """Up to ten days of four bins: a day that repeats, with cells that do not."""
    day = np.array([[draw(cells) for _ in range(STREAMS)] for _ in range(4)])
    values = np.tile(day, (10, 1))
    for _ in range(int(draw(st.integers(0, 25).map(float)))):
        bin_ = int(draw(st.integers(0, len(values) - 1).map(float)))
        values[bin_, int(draw(st.integers(0, STREAMS - 1).map(float)))] = draw(cells)
    return values[: int(draw(st.integers(1, len(values)).map(float)))]


def told() -> Setting:
    return setting(streams=STREAMS, horizons=HORIZONS)


@pytest.mark.parametrize("name", POINTS)
@given(values=demand())
def test_no_point_is_negative_or_infinite(name: str, values: Floats) -> None:
    said = points(POINTS[name], values, told())
    assert said.shape == (len(values), STREAMS, len(HORIZONS))
    assert np.all(np.isnan(said) | ((said >= 0) & (said < np.inf)))


@pytest.mark.parametrize("name", POINTS)
@given(values=demand())
def test_each_stream_is_forecast_as_if_it_were_alone(name: str, values: Floats) -> None:
    together = points(POINTS[name], values[:, [2, 0, 1]], told())
    for place, stream in enumerate((2, 0, 1)):
        alone = points(POINTS[name], values[:, [stream]], setting(horizons=HORIZONS))
        rounding = 1e-9 * max(np.nan_to_num(values).max(), 1.0)
        assert together[:, [place]] == pytest.approx(alone, abs=rounding, nan_ok=True)


@pytest.mark.parametrize("name", POINTS)
@given(values=demand(), share=st.floats(0, 1))
def test_a_fit_on_the_past_and_updates_say_the_same(
    name: str, values: Floats, share: float
) -> None:
    first = int(share * len(values))
    online, fitted = forecaster(name)(told()), forecaster(name)(told())
    for row in values:
        online.update(row)
    fitted.fit(panel(values[:first], told()))
    for row in values[first:]:
        fitted.update(row)
    assert np.array_equal(online.predict(), fitted.predict(), equal_nan=True)


@pytest.mark.parametrize("name", POINTS)
@given(values=demand())
def test_quantiles_ascend_and_are_never_negative(name: str, values: Floats) -> None:
    trailing = forecaster(name)(told())
    trailing.fit(panel(values, told()))
    quantiles = trailing.predict()
    known = ~np.isnan(quantiles)
    assert np.array_equal(known, np.broadcast_to(known[:, :, :1], known.shape))
    assert np.all((quantiles >= 0) & (quantiles < np.inf) | ~known)
    assert np.all((np.diff(quantiles, axis=2) >= 0) | ~known[:, :, 1:])


@pytest.mark.parametrize("name", POINTS)
def test_sixty_days_of_zeros_are_forecast_as_zero(name: str) -> None:
    hourly = setting(horizons=(1, 4), width_us=HOUR_US)
    trailing = forecaster(name)(hourly)
    trailing.fit(panel(np.zeros((60 * 24, 1)), hourly))
    assert np.all(trailing.predict() == 0)


@pytest.mark.parametrize("name", POINTS)
def test_where_nobody_ever_looked_there_is_nothing_to_say(name: str) -> None:
    assert np.isnan(points(POINTS[name], np.full((120, 1), HOLE), setting())).all()


@pytest.mark.parametrize("name", POINTS)
def test_a_lone_point_is_all_that_there_is(name: str) -> None:
    # Later the seasons may see it again; whatever is said lies between nothing and it.
    said = points(POINTS[name], column([HOLE, 5, *[HOLE] * 60]), setting(horizons=(1, 2)))
    assert np.all(np.isnan(said) | ((said >= 0) & (said <= 5 + 1e-9)))


@pytest.mark.parametrize("name", POINTS)
def test_after_a_hole_of_days_forecasts_go_on(name: str) -> None:
    values = [4.0] * 40 + [HOLE] * 14 + [4.0] * 3
    assert last_points(POINTS[name], values, setting()) == pytest.approx([4.0])
