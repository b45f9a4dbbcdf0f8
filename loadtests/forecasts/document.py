"""The JSON of a back-test: what a program reads of it. Pure.

In: a `Trial`. Out: plain dictionaries; what could not be scored is null, never NaN.
Never: rounds, leaves a forecaster out.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import msgspec

from loadtests.forecasts.asked import Horizon
from loadtests.forecasts.findings import LAST_VALUE, Field, Loss, fields, left_out, losses
from placement.catalog import Frozen
from prewarm.scores import Backtest, HorizonResult, Score, StreamResult
from prewarm.series import Panel

Document = dict[str, Any]
RECORDED = "recorded"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """A back-test with the words around it."""

    name: str
    demand: str
    """`recorded`, or `generated` where our own generator stood in."""
    panel: Panel
    notes: dict[str, tuple[str, ...]]
    """What was wrong with the data, per stream."""
    horizons: tuple[Horizon, ...]
    waiting_to_idle: float
    seed: int
    simple: tuple[str, ...]
    found: Backtest

    @property
    def words(self) -> list[str]:
        return [horizon.word for horizon in self.horizons]

    @property
    def table(self) -> list[Field]:
        return fields(self.found, self.words, self.simple)


def document(trial: Trial) -> Document:
    found = trial.found
    calendar = trial.panel.calendar
    whole = {
        "trace": trial.name,
        "demand": trial.demand,
        "bin_s": calendar.width_us / 1e6,
        "bins": len(trial.panel),
        "zone": calendar.zone,
        "first_scored": found.first_scored,
        "score_from_s": found.first_scored * calendar.width_us / 1e6,
        "waiting_to_idle": trial.waiting_to_idle,
        "seed": trial.seed,
        "streams": [_stream(one, trial) for one in found.streams],
        "aggregate": [_field(one, trial.simple) for one in trial.table],
        "not_averaged": left_out(found),
        "lost": [_loss(one) for one in losses(found, trial.table)],
        "fit_s": found.fit_s,
        "update_ms": found.update_ms,
        "predict_ms": found.predict_ms,
        "staleness_s": found.staleness_s,
        "notes": told_of_all(trial),
    }
    return {key: without_nan(value) for key, value in whole.items()}


def told_of_all(trial: Trial) -> list[str]:
    """What holds for the whole file."""
    if not len(trial.panel):
        return ["there is no bin to score"]
    notes = []
    if not any(result.score.n for one in trial.found.streams for result in one.horizons):
        notes.append("nothing could be scored: too little was observed after the first scored bin")
    silent = left_out(trial.found)
    if silent:
        notes.append(f"{len(silent)} streams were asked too little to be averaged")
    return notes


def _stream(one: StreamResult, trial: Trial) -> Document:
    """`fit_s` and the milliseconds are a stream's share of what all of them took together."""
    count = len(trial.found.streams)
    return {
        "stream": one.stream,
        "scored": one.scored,
        "notes": [*trial.notes.get(one.stream, ()), *one.notes],
        "horizons": [
            _horizon(word, result, trial.simple)
            for word, result in zip(trial.words, one.horizons, strict=True)
        ],
        "fit_s": sum(trial.found.fit_s.values()) / count,
        "update_ms": trial.found.update_ms / count,
        "predict_ms": trial.found.predict_ms / count,
    }


def _horizon(word: str, one: HorizonResult, simple: tuple[str, ...]) -> Document:
    scores = {name: _score(score) for name, score in one.forecasters.items()}
    return {
        "horizon": word,
        **_score(one.score),
        "clipped": one.clipped,
        "acted_share": one.acted_share,
        "method_share": one.method_share,
        "baselines": {name: score for name, score in scores.items() if name in simple},
        "forecasters": {name: score for name, score in scores.items() if name not in simple},
    }


def _field(one: Field, simple: tuple[str, ...]) -> Document:
    scores = {
        name: {
            "streams": other.streams,
            **_score(other.score),
            "wape_of_all": other.wape_of_all,
        }
        for name, other in one.others.items()
    }
    return {
        "horizon": one.word,
        "streams": one.ours.streams,
        **_score(one.ours.score),
        "wape_of_all": one.ours.wape_of_all,
        "clipped": one.clipped,
        "acted_share": one.acted_share,
        "method_share": one.method_share,
        "best_simple": one.best_simple or None,
        "pinball_over_best_simple": one.against(one.best_simple),
        "pinball_over_last_value": one.against(LAST_VALUE),
        "wape_over_best_simple": one.against_best_wape,
        "baselines": {name: score for name, score in scores.items() if name in simple},
        "forecasters": {name: score for name, score in scores.items() if name not in simple},
    }


def _loss(one: Loss) -> Document:
    return {
        "stream": one.stream,
        "horizon": one.word,
        "pinball": one.ours,
        "best_simple": one.name,
        "best_simple_pinball": one.theirs,
        "pinball_over_best_simple": one.ratio,
        "pinball_over_last_value": one.against_last,
    }


def _score(one: Score) -> Document:
    found: Document = msgspec.to_builtins(one)
    return {**found, "pinball": one.pinball}


def without_nan(value: Any) -> Any:
    """The same with null wherever there is no finite number."""
    match value:
        case float() if not isfinite(value):
            return None
        case dict():
            return {key: without_nan(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_nan(inner) for inner in value]
        case Frozen():
            return without_nan(msgspec.to_builtins(value))
        case _:
            return value
