"""Bands find back to what they promise, within bounds, and nothing is made of nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prewarm.forecast import LEVELS
from prewarm.scoring import Rules
from prewarm.selection.conformal import NARROWEST, WIDEST, Conformal
from prewarm.series import Floats

Z = np.array(
    [-2.33, -1.64, -1.28, -0.84, -0.52, -0.25, 0, 0.25, 0.52, 0.84, 1.28, 1.64, 1.96, 2.33]
)
"""The normal quantiles of `LEVELS`."""
Q10, Q50, Q90, Q95 = (LEVELS.index(level) for level in (0.1, 0.5, 0.9, 0.95))
MIDDLE = 1000.0
BINS = 3_000


class Stream:
    """Forecasts that do not change, corrected bin by bin, of streams that do what they like."""

    def __init__(self, streams: int = 1, horizons: tuple[int, ...] = (1,)) -> None:
        self.conformal = Conformal(streams, horizons, Rules(week_bins=1, whole=False))
        self._calm = np.ones(streams)
        self._rng = np.random.default_rng(2)
        self._now = -1

    def bin(self, values: Floats, raw: Floats) -> Floats:
        """What came, and what is said of bins to come: S, S x H x L. Out: the same, corrected."""
        self._now += 1
        self.conformal.learn(self._now, values, self._rng.random(len(values)))
        return self.conformal.correct(self._now, raw, self._calm)


def bands_of(deviation: float, streams: int = 1, horizons: int = 1) -> Floats:
    found: Floats = np.tile(MIDDLE + deviation * Z, (streams, horizons, 1))
    return found


def held(values: Floats, said: Floats, level: int, ahead: int) -> float:
    """Share of values within the level that was said so many bins before, after the first third."""
    first = len(values) // 3
    return float((values[first:] <= said[first - ahead : len(values) - ahead, :, level]).mean())


@pytest.mark.parametrize("width", [0.7, 1.0, 1.3], ids=["too narrow", "right", "too wide"])
@pytest.mark.parametrize("horizons", [(1,), (4,)])
def test_coverage_comes_back_to_what_is_promised(width: float, horizons: tuple[int, ...]) -> None:
    rng, stream = np.random.default_rng(1), Stream(horizons=horizons)
    values = rng.normal(MIDDLE, 100.0, (BINS, 1))
    raw = bands_of(width * 100.0)
    said = np.array([stream.bin(value, raw)[:, 0] for value in values])
    for level, promised in ((Q10, 0.1), (Q90, 0.9), (Q95, 0.95)):
        assert held(values, said, level, horizons[0]) == pytest.approx(promised, abs=0.02)
    if width == 0.7:
        asis = (values <= raw[0, 0, Q90]).mean()
        assert asis == pytest.approx(0.815, abs=0.02), "1.28 * 0.7 deviations hold less"


def after(stream: Stream, values: Floats, raw: Floats) -> Floats:
    """The bands of the next bin, S x H x L, once all of these have come."""
    found = raw
    for value in values:
        found = stream.bin(value, raw)
    return found


def test_streams_that_err_alike_are_corrected_together_and_sooner() -> None:
    values = np.random.default_rng(3).normal(MIDDLE, 100.0, (100, 20))
    together = after(Stream(20), values, bands_of(70.0, streams=20))[:, 0, Q90] - MIDDLE
    assert together.mean() > 70 * 1.28 * 1.05
    assert together.std() < together.mean() / 10, "a hundred bins of one stream are little proof"
    mixed = np.concatenate([bands_of(70.0), bands_of(100.0, streams=19)])
    first = after(Stream(20), values, mixed)[0, 0, Q90] - MIDDLE
    assert 70 * 1.28 < first < together[0], "half of each step is a stream's own"


def test_a_stream_of_zeros_stays_at_zero() -> None:
    stream = Stream()
    stream.conformal = Conformal(1, (1,), Rules(week_bins=1, whole=True))
    nothing = np.zeros((1, 1, len(LEVELS)))
    for _ in range(500):
        assert (stream.bin(np.zeros(1), nothing) == 0).all()


@pytest.mark.parametrize(("deviation", "factor"), [(10.0, WIDEST), (1000.0, NARROWEST)])
def test_it_goes_no_further_than_the_bounds_and_says_so(deviation: float, factor: float) -> None:
    """A tenth, and ten times, of the true deviation."""
    stream = Stream()
    values = np.random.default_rng(4).normal(MIDDLE, 100.0, (1_500, 1))
    found = after(stream, values, bands_of(deviation))
    assert found[0, 0, Q90] - MIDDLE == pytest.approx(deviation * 1.28 * factor, rel=0.02)
    assert stream.conformal.clipped[0, 0] > 100


def test_it_comes_back_from_the_bounds_as_fast_as_it_went_there() -> None:
    stream = Stream()
    values = np.random.default_rng(5).normal(MIDDLE, 100.0, (6_500, 1))
    struck = after(stream, values[:5_000], bands_of(10.0))
    assert struck[0, 0, Q90] - MIDDLE == pytest.approx(10 * 1.28 * WIDEST, rel=0.02)
    calm = after(stream, values[5_000:], bands_of(100.0))
    assert calm[0, 0, Q90] - MIDDLE == pytest.approx(100 * 1.28, rel=0.15)


def test_what_would_fall_below_nothing_ends_at_it_and_is_counted() -> None:
    stream = Stream()
    raw = np.linspace(0.5, 9.0, len(LEVELS))[None, None]
    stream._calm = np.full(1, 1.5)
    found = stream.bin(np.array([3.0]), raw)
    assert found[0, 0, 0] == 0.0
    assert found[0, 0, -1] > 9.0
    assert stream.conformal.clipped.tolist() == [[1]]


def test_a_hole_and_a_stream_without_forecasts_change_nothing() -> None:
    stream = Stream(2)
    raw = np.concatenate([bands_of(70.0), np.full((1, 1, len(LEVELS)), np.nan)])
    for value in (np.nan, np.nan, np.nan):
        known, unknown = stream.bin(np.array([value, 5.0]), raw)
        assert (known == raw[0]).all()
        assert np.isnan(unknown).all()


def test_asking_twice_is_no_second_forecast() -> None:
    once, twice = Stream(), Stream()
    rng = np.random.default_rng(6)
    for value in rng.normal(MIDDLE, 100.0, (200, 1)):
        one = once.bin(value, bands_of(70.0))
        twice.bin(value, bands_of(70.0))
        other = twice.conformal.correct(twice._now, bands_of(70.0), np.ones(1))
        assert (one == other).all()


amounts = st.one_of(st.just(0.0), st.floats(0, 50), st.floats(0, 1e15))


@given(st.data())
def test_levels_never_cross_and_nothing_is_negative(data: st.DataObject) -> None:
    stream = Stream(2, (1, 2))
    raws = data.draw(arrays(np.float64, (12, 2, 2, len(LEVELS)), elements=amounts))
    values = data.draw(arrays(np.float64, (12, 2), elements=amounts))
    stream._calm = data.draw(arrays(np.float64, 2, elements=st.floats(1.0, 1.25)))
    for raw, value in zip(np.sort(raws, axis=-1), values, strict=True):
        found = stream.bin(value, raw)
        assert (np.isfinite(found) & (found >= 0)).all()
        assert (np.diff(found, axis=-1) >= 0).all()
        reach = (raw[..., -1] - raw[..., Q50]) * WIDEST * 1.25
        assert (found[..., -1] <= (raw[..., Q50] + reach) * (1 + 1e-9)).all()
