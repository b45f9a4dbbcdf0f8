"""A new model is expected to be as announced, as its like, or as any other, until it tells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import EngineKind, ModelId, ModelSpec
from prewarm.calendars import US, Calendar
from prewarm.forecast import LEVELS, Setting
from prewarm.prior import ALONE_PER_S, Hints, Prior, hints_of
from prewarm.series import Floats

HOUR = Calendar(start_us=0, width_us=3600 * US)
"""A day is 24 bins: levels are compared after a day."""
Q50, Q90 = LEVELS.index(0.5), LEVELS.index(0.9)
NAN = float("nan")


def prior(
    streams: int, expected: dict[int, float] | None = None, like: dict[int, int] | None = None
) -> Prior:
    setting = Setting(
        calendar=HOUR, streams=tuple(f"m{i}" for i in range(streams)), horizons=(1, 4)
    )
    rates, twins = np.full(streams, NAN), np.full(streams, -1, np.int64)
    for stream, rate in (expected or {}).items():
        rates[stream] = rate
    for stream, twin in (like or {}).items():
        twins[stream] = twin
    return Prior(setting, Hints(rates, twins))


def seen(known: Prior, bins: int, *values: float) -> None:
    for _ in range(bins):
        known.update(np.array(values))


def nothing(streams: int) -> Floats:
    return np.full((streams, 2), NAN)


# Where it comes from


def test_with_no_other_model_there_is_an_answer_and_it_is_wide() -> None:
    (bands,) = prior(1).quantiles()
    assert bands.shape == (2, len(LEVELS))
    assert (np.diff(bands, axis=1) > 0).all()
    assert bands[0][Q90] > ALONE_PER_S * 3600
    assert bands[0][Q90] > 10 * bands[0][Q50]


def test_a_model_like_any_other_is_expected_between_them() -> None:
    known = prior(4)
    seen(known, 30, 1000.0, 2000.0, 4000.0, NAN)
    bands = known.quantiles()[3][0]
    assert 100 < bands[Q50] < 2000
    assert bands[Q90] > 4000


def test_more_models_that_agree_make_it_narrower() -> None:
    few, many = prior(2), prior(31)
    seen(few, 30, 1000.0, NAN)
    seen(many, 30, *[1000.0] * 30, NAN)
    spread = [np.log(p.quantiles()[-1][0][Q90] / p.quantiles()[-1][0][Q50]) for p in (few, many)]
    assert spread[1] < spread[0] / 1.5


def test_a_rate_that_the_operator_expects_goes_before_what_others_are_asked() -> None:
    known = prior(3, expected={2: 50.0})
    seen(known, 30, 9000.0, 9000.0, NAN)
    bands = known.quantiles()[2][0]
    assert 20 < bands[Q50] < 50 < bands[Q90] < 300


def test_a_model_like_another_follows_its_forecast() -> None:
    known = prior(3, like={2: 0})
    seen(known, 30, 100.0, 7.0, NAN)
    forecasts = nothing(3)
    forecasts[0] = [50.0, 400.0]
    soon, later = known.quantiles(forecasts)[2]
    # The counts' own noise is a little larger at the lower level: the ratio of eight nearly holds.
    assert later[Q50] / soon[Q50] == pytest.approx(8.0, rel=0.05)
    assert soon[Q50] < 50 < soon[Q90]


def test_a_rate_and_a_likeness_say_how_much_and_when() -> None:
    known = prior(2, expected={1: 10.0}, like={1: 0})
    seen(known, 30, 1000.0, NAN)
    forecasts = nothing(2)
    forecasts[0] = [1000.0, 4000.0]  # as usual, then four times that
    bands, flat = known.quantiles(forecasts)[1], prior(1, expected={0: 10.0}).quantiles()[0]
    assert bands[0] == pytest.approx(flat[0])
    assert bands[1][Q50] / bands[0][Q50] == pytest.approx(4.0, rel=0.2)


def test_without_a_forecast_of_its_like_the_level_of_it_serves_and_without_that_all_others() -> (
    None
):
    known = prior(2, like={1: 0})
    assert np.isfinite(known.quantiles()).all()
    seen(known, 30, 1000.0, NAN)
    assert 300 < known.quantiles()[1][0][Q50] < 1000


def test_an_announced_launch_goes_before_all_else_in_its_bins() -> None:
    known = prior(2, expected={1: 10.0})
    launches = nothing(2)
    launches[1] = [NAN, 5000.0]
    before, within = known.quantiles(launches=launches)[1]
    assert before[Q90] < 100
    assert within[Q50] < 5000 < within[Q90]


# The model's own bins


def test_zeros_before_the_launch_say_nothing_about_it() -> None:
    known = prior(1)
    seen(known, 200, 0.0)
    launches = np.full((1, 2), 500.0)
    known.update(np.array([480.0]), launches[:, 0])
    assert 200 < known.quantiles(launches=launches)[0][0][Q50] < 600


def test_after_its_launch_a_model_is_known_by_what_it_was_asked() -> None:
    known = prior(1)
    for _ in range(20):
        known.update(np.array([1000.0]), np.array([200.0]))
    known.update(np.array([1000.0]))
    assert 400 < known.quantiles()[0][0][Q50] < 1000
    assert known.weight()[0] > 0.7


@pytest.mark.parametrize("level", [0.0, 1.0, 5000.0])
def test_its_own_bins_take_over_whatever_was_said(level: float) -> None:
    known = prior(1, expected={0: 100.0})
    seen(known, 200, level)
    median = known.quantiles()[0][0][Q50]
    assert level * 0.5 - 0.1 <= median <= level + 0.5
    assert known.weight()[0] > 0.8


def test_its_own_weight_grows_with_its_bins_and_holes_do_not_count() -> None:
    known = prior(1, expected={0: 100.0})
    assert known.weight()[0] == 0.0
    seen(known, 1, 80.0)
    once = known.weight()[0]
    seen(known, 5, NAN)
    assert known.weight()[0] == once
    seen(known, 5, 80.0)
    assert once < known.weight()[0] < 1


def test_twins_are_compared_in_bins_that_both_were_seen() -> None:
    known = prior(2, like={1: 0})
    seen(known, 30, 100.0, NAN)
    for _ in range(40):
        known.update(np.array([100.0, 20.0]))
        known.update(np.array([NAN, 20.0]))  # nobody looked at the other one
    forecasts = nothing(2)
    forecasts[0] = 100.0
    assert 10 < known.quantiles(forecasts)[1][0][Q50] < 25, "a fifth of it, less what scatters"


def test_the_bands_hold_for_models_drawn_from_the_popularity_that_they_assume() -> None:
    """Nine in ten of the fresh models are asked at most their 0.9 quantile, in every age."""
    rng = np.random.default_rng(7)
    old, fresh = 60, 400
    levels = np.exp(rng.normal(4.0, 2.0, old + fresh))
    known = prior(old + fresh)

    def bin_of() -> Floats:
        drawn: Floats = rng.poisson(levels * rng.gamma(2.0, 0.5, old + fresh)).astype(np.float64)
        return drawn

    for _ in range(30):
        known.update(np.concatenate([bin_of()[:old], np.full(fresh, NAN)]))
    for age in range(25):
        bands = known.quantiles()[old:, 0]
        values = bin_of()
        if age in (0, 1, 6, 24):
            held = (values[old:] <= bands[:, Q90]).mean()
            assert 0.86 <= held <= 0.99, f"after {age} bins"
        known.update(values)


@given(
    st.lists(
        st.tuples(*[st.one_of(st.just(NAN), st.floats(0, 1e9)) for _ in range(4)]), max_size=40
    ),
    st.floats(1e-3, 1e9),
)
def test_whatever_is_seen_there_are_bands_and_they_are_in_order(
    bins: list[tuple[float, float, float, float]], expected: float
) -> None:
    known = prior(3, expected={1: expected}, like={2: 0})
    for *values, launch in bins:
        known.update(np.array(values), np.array([NAN, NAN, launch]))
    bands = known.quantiles()
    assert np.isfinite(bands).all()
    assert (bands >= 0).all()
    assert (np.diff(bands, axis=2) >= 0).all()
    assert ((known.weight() >= 0) & (known.weight() < 1)).all()


# What the catalog says


def test_hints_are_per_bin_and_by_the_place_of_the_streams() -> None:
    models = [
        ModelSpec(id=ModelId("a"), engine=EngineKind.EMULATED),
        ModelSpec(id=ModelId("b"), engine=EngineKind.EMULATED, like="a", expected_per_s=0.5),
        ModelSpec(id=ModelId("c"), engine=EngineKind.EMULATED, like="unseen"),
    ]
    hints = hints_of(models, ("b", "a", "c", "gone"), 300 * US)
    assert hints.expected[0] == 150.0
    assert np.isnan(hints.expected[1:]).all()
    assert list(hints.like) == [1, -1, -1, -1]
