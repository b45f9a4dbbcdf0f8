"""What a back-test comes to: per horizon, all streams together, and what is lost. Pure.

In: a `Backtest`. Out: `Field`s (ours beside everyone, the best simple baseline named) and `Loss`es,
worst first. Never: averages over streams that were hardly asked, leaves out a stream that is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import NamedTuple

from prewarm.scores import Backtest, HorizonResult, Score, StreamResult
from prewarm.scoring import SCORED_REQUESTS_MIN, Pooled, pooled

LAST_VALUE = "last_value"
OURS = "ours"
SCORED_ALIKE = 0.98
"""A baseline that said something about fewer of the bins than this is no bar: it may have been
silent where it is hard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Everyone at one horizon, all streams that count together."""

    word: str
    horizon_s: int
    ours: Pooled
    others: dict[str, Pooled]
    best_simple: str
    """By mean pinball loss; empty where no simple baseline was scored throughout."""
    best_wape: str
    method_share: dict[str, float]
    acted_share: float
    clipped: int

    def against(self, name: str) -> float:
        """Our mean pinball loss over theirs: below 1 we gain. NaN where there is none."""
        other = self.others.get(name)
        return nan if other is None else ratio(self.ours.score.pinball, other.score.pinball)

    @property
    def against_best_wape(self) -> float:
        other = self.others.get(self.best_wape)
        return nan if other is None else ratio(self.ours.score.wape, other.score.wape)


COSTS = {"r/4": "decision_cost_quarter", "r": "decision_cost", "4r": "decision_cost_fourfold"}
"""By price of waiting to idle, r the catalog's."""


def earns_the_right(score: Score, last: Score) -> bool:
    """Whether a forecaster is no dearer than last value at any of the three prices."""
    return all(getattr(score, cost) <= getattr(last, cost) for cost in COSTS.values())


class Loss(NamedTuple):
    """A stream on which the best simple baseline of its trace and horizon does better than ours."""

    stream: str
    word: str
    ours: float
    theirs: float
    name: str
    against_last: float

    @property
    def ratio(self) -> float:
        return ratio(self.ours, self.theirs)


def ratio(ours: float, theirs: float) -> float:
    """Both losing nothing is a draw."""
    if ours == theirs:
        return 1.0
    return ours / theirs if theirs > 0 else (nan if isnan(theirs) else float("inf"))


def counted(found: Backtest) -> list[StreamResult]:
    return [one for one in found.streams if one.scored >= SCORED_REQUESTS_MIN]


def left_out(found: Backtest) -> list[str]:
    """Streams that are listed and not averaged."""
    return [one.stream for one in found.streams if not one.scored >= SCORED_REQUESTS_MIN]


def fields(found: Backtest, words: Sequence[str], simple: Sequence[str]) -> list[Field]:
    return [_field(found, at, word, simple) for at, word in enumerate(words)]


def _field(found: Backtest, at: int, word: str, simple: Sequence[str]) -> Field:
    streams = counted(found)
    results = [one.horizons[at] for one in streams]
    requests = [one.scored for one in streams]
    names = dict.fromkeys(name for one in results for name in one.forecasters)
    worst = found.worst_weeks_q90[at] if found.worst_weeks_q90 else nan
    ours = pooled([one.score for one in results], requests, worst)
    others = {name: pooled([_of(one, name) for one in results], requests, nan) for name in names}
    bars = [
        name
        for name in simple
        if name in others and others[name].score.n >= SCORED_ALIKE * ours.score.n > 0
    ]
    return Field(
        word=word,
        horizon_s=found.streams[0].horizons[at].horizon_s if found.streams else 0,
        ours=ours,
        others=others,
        best_simple=_least({name: others[name].score.pinball for name in bars}),
        best_wape=_least({name: others[name].score.wape for name in bars}),
        method_share=mean_shares([one.method_share for one in results]),
        acted_share=_mean([one.acted_share for one in results]),
        clipped=sum(one.clipped for one in results),
    )


UNSCORED = Score(n=0, **dict.fromkeys((f for f in Score.__struct_fields__ if f != "n"), nan))
"""Of a forecaster that was not there."""


def _of(one: HorizonResult, name: str) -> Score:
    return one.forecasters.get(name, UNSCORED)


def _least(losses: dict[str, float]) -> str:
    """Of equals the one that was named first, the plainest."""
    known = {name: loss for name, loss in losses.items() if not isnan(loss)}
    return min(known, key=lambda name: known[name], default="")


def mean_shares(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """How much each forecaster was of the blend, streams weighing alike; the largest first."""
    names = dict.fromkeys(name for one in shares for name in one)
    means = {name: sum(one.get(name, 0.0) for one in shares) / len(shares) for name in names}
    return dict(sorted(means.items(), key=lambda pair: (-pair[1], pair[0])))


def losses(found: Backtest, table: Sequence[Field]) -> list[Loss]:
    """Worst first."""
    lost = [
        Loss(
            stream=one.stream,
            word=field.word,
            ours=result.score.pinball,
            theirs=_of(result, field.best_simple).pinball,
            name=field.best_simple,
            against_last=ratio(result.score.pinball, _of(result, LAST_VALUE).pinball),
        )
        for one in counted(found)
        for result, field in zip(one.horizons, table, strict=True)
        if field.best_simple
    ]
    return sorted((one for one in lost if one.ratio > 1), key=lambda one: -one.ratio)


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's, at 95 %: where a coverage may truly lie, were the bins independent."""
    if not n or isnan(share):
        return nan, nan
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else nan
