"""Back-tests as tests write them: losses by forecaster, and everything else plain."""

import numpy as np

from loadtests.forecasts.asked import Horizon
from loadtests.forecasts.document import Trial
from prewarm.calendars import US, Calendar
from prewarm.scores import Backtest, HorizonResult, Score, StreamResult
from prewarm.series import Panel

SIMPLE = ("last_value", "mean_hour", "day")
TEN_MINUTES_US = 600 * US


def score(pinball: float, n: int = 1000, **more: float) -> Score:
    """The same loss at each of the three quantiles, so that their mean is it too."""
    usual = {
        "wape": 3 * pinball,
        "mape": 3 * pinball,
        "coverage_q90": 0.9,
        "coverage_q95": 0.95,
        "worst_week_q90": 0.85,
        "decision_cost": 10 * pinball,
        "decision_cost_quarter": 5 * pinball,
        "decision_cost_fourfold": 20 * pinball,
    }
    return Score(
        n=n, pinball_q50=pinball, pinball_q90=pinball, pinball_q95=pinball, **{**usual, **more}
    )


def result(ours: float | Score, horizon_s: int = 3600, **others: float | Score) -> HorizonResult:
    """A baseline given by its loss is scored on as many bins as ours."""
    mine = _score(ours, 1000)
    return HorizonResult(
        horizon_s=horizon_s,
        score=mine,
        clipped=2,
        acted_share=0.75,
        method_share={"ewma": 0.75, "day": 0.25},
        forecasters={name: _score(one, mine.n) for name, one in others.items()},
    )


def _score(one: float | Score, n: int) -> Score:
    return one if isinstance(one, Score) else score(one, n)


def stream(name: str, *horizons: HorizonResult, scored: float = 5000.0) -> StreamResult:
    return StreamResult(stream=name, scored=scored, notes=(), horizons=horizons)


def found(*streams: StreamResult) -> Backtest:
    return Backtest(
        width_s=600,
        first_scored=1152,
        streams=streams,
        fit_s={"ewma": 0.5, "day": 0.25},
        update_ms=0.5,
        predict_ms=0.7,
        staleness_s={"ewma": 0.0, "day": 0.0},
    )


def trial(*streams: StreamResult, words: tuple[str, ...] = ("60m",)) -> Trial:
    names = tuple(one.stream for one in streams)
    return Trial(
        name="counts.csv",
        demand="recorded",
        panel=Panel(
            calendar=Calendar(0, TEN_MINUTES_US),
            streams=names,
            values=np.full((2016, len(names)), 5.0),
        ),
        notes=dict.fromkeys(names, ()),
        horizons=tuple(Horizon(word, 6 * (at + 1)) for at, word in enumerate(words)),
        waiting_to_idle=9.0,
        seed=0,
        simple=SIMPLE,
        found=found(*streams),
    )
