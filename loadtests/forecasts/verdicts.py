"""Every target of the forecasts on every trace and horizon: met, or how far off. Pure.

In: an `Outcome`, one trace's back-test. Out: `Verdict`s. Never: takes what could not be found for
met.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

from loadtests.forecasts.cases import (
    AGAINST_LAST,
    AGAINST_SIMPLE,
    COVERAGE_BINS_MIN,
    COVERAGE_SLACK,
    SHORT_AGAINST_LAST,
    WORST_WEEK_Q90,
    Case,
)
from loadtests.forecasts.document import Trial
from loadtests.forecasts.findings import LAST_VALUE, Field
from loadtests.forecasts.trails import Week
from loadtests.forecasts.words import number, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One trace."""

    case: Case
    trial: Trial
    table: Sequence[Field]
    worst_weeks: Sequence[Week]
    plot: str
    """A file beside the report; empty where nothing was drawn."""
    took_s: float


class Verdict(NamedTuple):
    """One target on one trace and horizon."""

    what: str
    where: str
    found: str
    beyond: float
    """How far on the wrong side of the bar; NaN where nothing was found."""

    @property
    def met(self) -> bool:
        return self.beyond <= 0


def judged(outcome: Outcome) -> Iterator[Verdict]:
    """Every target that holds for this trace."""
    case = outcome.case
    for field in outcome.table:
        where = f"{case.title}, {field.word}"
        best, last = field.against(field.best_simple), field.against(LAST_VALUE)
        if case.named:
            yield _below("pinball ÷ best simple ≤ 0.90", where, best, AGAINST_SIMPLE)
        bar = SHORT_AGAINST_LAST if case.short else AGAINST_LAST
        yield _below(f"pinball ÷ last value ≤ {bar:g}", where, last, bar)
        if not case.short:
            yield _below("WAPE ÷ best simple ≤ 1", where, field.against_best_wape, 1.0)
        yield from _held(field, where)
        if not case.short and not isnan(field.ours.score.worst_week_q90):
            worst = field.ours.score.worst_week_q90
            what = "worst week of q90 ≥ 80 %"
            yield Verdict(what, where, percent(worst), WORST_WEEK_Q90 - worst)


def _below(what: str, where: str, found: float, most: float) -> Verdict:
    return Verdict(what, where, number(found, 3), found - most)


def _held(field: Field, where: str) -> Iterator[Verdict]:
    score = field.ours.score
    if score.n >= COVERAGE_BINS_MIN:
        for name, share, level in (
            ("q90", score.coverage_q90, 0.90),
            ("q95", score.coverage_q95, 0.95),
        ):
            beyond = abs(share - level) - COVERAGE_SLACK
            yield Verdict(f"{name} holds within ± 2 points", where, percent(share), beyond)
