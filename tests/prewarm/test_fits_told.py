"""What a back-test tells of slow forecasters: their fits are not the cost of a bin."""

from math import isnan

import numpy as np
import pytest

from prewarm import backtest as module
from prewarm.backtest import Ask, backtest
from prewarm.calendars import US, Calendar
from prewarm.forecasters import background
from prewarm.forecasters.background import InPlace
from prewarm.forecasters.paths import FitRequest, Path
from prewarm.series import Panel

DAY = 24
FIT_US = 90 * US


class Watch:
    """A clock that gains a millisecond with every look."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        self.now_us += 1000
        return self.now_us


def panel(days: int) -> Panel:
    values = np.random.default_rng(2).poisson(20, (days * DAY, 1)).astype(np.float64)
    return Panel(calendar=Calendar(0, 3600 * US), streams=("a",), values=values)


def test_a_fit_is_told_apart_from_the_bin_in_which_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watch()

    def slow(request: FitRequest) -> Path:
        watch.now_us += FIT_US
        return Path(
            forecaster="prophet",
            first=request.first + len(request.values),
            medians=np.full((1, request.ahead), 20.0),
            notes=("",),
        )

    monkeypatch.setattr(module, "monotonic_us", watch)
    monkeypatch.setattr(background, "monotonic_us", watch)
    monkeypatch.setattr(module, "InPlace", lambda: InPlace({"prophet": slow}))
    ask = Ask(horizons=(1,), score_from=3 * DAY, forecasters=("prophet",))
    found, _ = backtest(panel(6), ask)
    assert found.fit_s["prophet"] == pytest.approx(90.001)
    # A look before and one after each bin; the two looks around a fit leave a second gap.
    assert 1.0 < found.update_ms < 2.0
    assert found.fit_s["blend"] < 1.0


def test_who_was_never_fitted_has_no_age() -> None:
    """Two days have to be seen first."""
    ask = Ask(horizons=(1,), score_from=6, forecasters=("prophet",))
    found, _ = backtest(panel(1), ask)
    assert isnan(found.staleness_s["prophet"])
    assert found.staleness_s["ewma"] == 0
