"""The scoreboard: every forecaster at every horizon, what it is worth and whether it may act. Pure.

In: a `Trial`. Out: `Place`s, ours first, then by loss. Never: leaves out one that failed.
"""

from math import isnan

from loadtests.forecasts.document import Document, Trial, without_nan
from loadtests.forecasts.findings import COSTS, LAST_VALUE, OURS, UNSCORED, Field, earns_the_right
from placement.catalog import Frozen
from prewarm.scores import Score

BLEND = "blend"
"""How a back-test calls ours: what all of the built-in ones took together, as they learn as one."""


class Place(Frozen, frozen=True, kw_only=True):
    """One forecaster at one horizon, means over the streams that count."""

    horizon: str
    forecaster: str
    share: float
    """Of the blend. Ours is the blend: NaN."""
    pinball: float
    cost_quarter: float
    cost: float
    cost_fourfold: float
    coverage_q90: float
    coverage_q95: float
    n: int
    staleness_s: float
    fit_s: float
    error: str
    """Why it said nothing, in words; empty where it spoke."""
    right_to_act: bool
    """No dearer than last value at the catalog's price, at a quarter and at four times of it."""


def scoreboard(trial: Trial) -> list[Place]:
    return [place for field in trial.table for place in _places(field, trial)]


def _places(field: Field, trial: Trial) -> list[Place]:
    last = field.others[LAST_VALUE].score if LAST_VALUE in field.others else UNSCORED
    rest = [_place(field, trial, name, one.score, last) for name, one in field.others.items()]
    rest.sort(key=lambda place: (isnan(place.pinball), place.pinball, place.forecaster))
    return [_place(field, trial, OURS, field.ours.score, last), *rest]


def _place(field: Field, trial: Trial, name: str, score: Score, last: Score) -> Place:
    found = trial.found
    quarter, usual, fourfold = (getattr(score, cost) for cost in COSTS.values())
    return Place(
        horizon=field.word,
        forecaster=name,
        share=field.method_share.get(name, 0.0) if name != OURS else float("nan"),
        pinball=score.pinball,
        cost_quarter=quarter,
        cost=usual,
        cost_fourfold=fourfold,
        coverage_q90=score.coverage_q90,
        coverage_q95=score.coverage_q95,
        n=score.n,
        staleness_s=found.staleness_s.get(name, 0.0),
        fit_s=found.fit_s.get(BLEND if name == OURS else name, 0.0),
        error=found.troubles.get(name, "" if score.n else "nothing could be scored"),
        right_to_act=earns_the_right(score, last),
    )


def scoreboard_document(trial: Trial) -> Document:
    return {
        "trace": trial.name,
        "demand": trial.demand,
        "waiting_to_idle": trial.waiting_to_idle,
        "places": [without_nan(place) for place in scoreboard(trial)],
    }
