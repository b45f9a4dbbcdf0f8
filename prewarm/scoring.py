"""How good forecasts were, one horizon at a time, all streams together. Pure.

In: what was asked, quantiles that stand by the bin that they are of, which bins count. Out: a
`Score` for each stream, the randomised PIT, means over streams. Never: scores a hole or a bin for
which there is no forecast, draws a random number: uniform ones are handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.calendars import DAY_US, Calendar
from prewarm.forecast import LEVELS
from prewarm.scores import Score
from prewarm.series import Bools, Floats

SCORED_REQUESTS_MIN = 100
"""Streams that were asked for less in all their scored bins are listed, not averaged."""
WEEK_POINTS_MIN = 100
"""A week with fewer scored bins says nothing about coverage."""
ROUNDING = 1e-6
"""Forecasts are made in single precision: what is off by less, of a value and a request, is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a score depends on beside the numbers."""

    week_bins: int
    levels: tuple[float, ...] = LEVELS
    whole: bool = True
    waiting_to_idle: float = 9.0
    """Cost of a unit short over that of a unit idle."""


def newsvendor(price: float) -> float:
    """The quantile to buy where a unit short costs `price` times a unit idle."""
    return price / (1 + price)


def week_bins(calendar: Calendar) -> int:
    return max(7 * DAY_US // calendar.width_us, 1)


def score(
    values: Floats, quantiles: Floats, scored: Bools, uniform: Floats, rules: Rules
) -> list[Score]:
    """One forecaster at one horizon: a score for each stream.

    `values`, `scored` (bins that count) and `uniform` (draws between 0 and 1) are T x S,
    `quantiles` T x S x L.
    """
    counts = countable(values, quantiles, scored)
    n = counts.sum(axis=0)
    asked = np.where(counts, values, 0.0)
    mean = _ratio(asked.sum(axis=0), n)
    median, q90, q95 = (at_level(quantiles, rules.levels, level) for level in (0.5, 0.9, 0.95))
    u = pit(values, quantiles, uniform, rules)

    def loss(forecast: Floats, short: float, idle: float) -> Floats:
        each = _two_sided(values - forecast, short, idle)
        return _ratio(_ratio(np.where(counts, each, 0.0).sum(axis=0), n), mean)

    def cost(price: float) -> Floats:
        """Of buying the newsvendor's quantile at this price of waiting to idle."""
        bought = at_level(quantiles, rules.levels, newsvendor(price))
        return loss(bought, price, 1.0)

    error = np.where(counts, np.abs(values - median), 0.0)
    busy = asked > 0
    relative = np.divide(error, asked, out=np.zeros_like(error), where=busy)
    columns = {
        "n": n,
        "wape": _ratio(error.sum(axis=0), asked.sum(axis=0)),
        "mape": _ratio(relative.sum(axis=0), busy.sum(axis=0)),
        "pinball_q50": loss(median, 0.5, 0.5),
        "pinball_q90": loss(q90, 0.9, 0.1),
        "pinball_q95": loss(q95, 0.95, 0.05),
        "coverage_q90": coverage(u, counts, 0.9),
        "coverage_q95": coverage(u, counts, 0.95),
        "worst_week_q90": worst_week(u, counts, 0.9, rules.week_bins),
        "decision_cost": cost(rules.waiting_to_idle),
        "decision_cost_quarter": cost(rules.waiting_to_idle / 4),
        "decision_cost_fourfold": cost(rules.waiting_to_idle * 4),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Score(**dict(zip(columns, row, strict=True))) for row in rows]


def countable(values: Floats, quantiles: Floats, scored: Bools) -> Bools:
    """The bins that count and have both a value and a forecast."""
    counts: Bools = scored & ~np.isnan(values) & ~np.isnan(quantiles[..., -1])
    return counts


def at_level(quantiles: Floats, levels: tuple[float, ...], level: float) -> Floats:
    """The quantile of any level: on the line between its neighbours, the outermost beyond them."""
    place = float(np.interp(level, levels, range(len(levels))))
    below, above = int(np.floor(place)), int(np.ceil(place))
    low, high = quantiles[..., below], quantiles[..., above]
    found: Floats = low if below == above else low + (place - below) * (high - low)
    return found


def pit(values: Floats, quantiles: Floats, uniform: Floats, rules: Rules) -> Floats:
    """Where each value lay in its forecast, between 0 and 1: uniform if the forecasts are right.

    u = F(y-) + v (F(y) - F(y-)): F goes straight from quantile to quantile, what lies beyond the
    outermost levels sits on them, nothing lies below 0. For counts F(y-) is F(y - 1). For other
    values it is the limit from below: u is drawn only where quantiles coincide, as at 0. A quantile
    that misses the value by its rounding alone is that value.
    """
    at = values[..., None]
    quantiles = np.where(np.abs(quantiles - at) <= ROUNDING * (1 + at), at, quantiles)
    below = values - 1 if rules.whole else values
    low = _distribution(below, quantiles, rules.levels, closed=rules.whole)
    low = np.where(values <= 0, 0.0, low)
    high = _distribution(values, quantiles, rules.levels, closed=True)
    unknown = np.isnan(values) | np.isnan(quantiles[..., -1])
    return np.where(unknown, np.nan, low + uniform * (high - low))


def _distribution(y: Floats, quantiles: Floats, levels: tuple[float, ...], closed: bool) -> Floats:
    """P(demand <= y), or P(demand < y) when not closed."""
    at = y[..., None]
    reached = (quantiles <= at if closed else quantiles < at).sum(axis=-1)
    last = len(levels) - 1
    below, above = np.clip(reached - 1, 0, last), np.clip(reached, 0, last)
    low, high = (np.take_along_axis(quantiles, p[..., None], -1)[..., 0] for p in (below, above))
    level_low, level_high = (np.array(levels)[p] for p in (below, above))
    part = np.divide(y - low, high - low, out=np.zeros_like(y), where=high > low)
    inside = level_low + part * (level_high - level_low)
    found: Floats = np.where(reached == 0, 0.0, np.where(reached > last, 1.0, inside))
    return found


def coverage(u: Floats, counts: Bools, level: float) -> Floats:
    """For each stream the share of its bins that lay within the level."""
    return _ratio((counts & (u <= level)).sum(axis=0), counts.sum(axis=0))


def worst_week(u: Floats, counts: Bools, level: float, week: int) -> Floats:
    """For each stream the lowest coverage of a week."""
    worst = np.full(counts.shape[1], np.nan)
    for mine in _weeks(counts, week):
        enough = counts[mine].sum(axis=0) >= WEEK_POINTS_MIN
        worst = np.where(enough, np.fmin(worst, coverage(u[mine], counts[mine], level)), worst)
    return worst


def worst_week_of_all(u: Floats, counts: Bools, level: float, week: int) -> float:
    """The same of all streams together."""
    shares = [
        float((u[mine] <= level)[counts[mine]].mean())
        for mine in _weeks(counts, week)
        if counts[mine].sum() >= WEEK_POINTS_MIN
    ]
    return min(shares, default=np.nan)


def _weeks(counts: Bools, week: int) -> list[slice]:
    """Runs of seven days, from the first bin that counts for anyone."""
    bins = np.flatnonzero(counts.any(axis=1))
    starts = range(int(bins[0]), len(counts), week) if len(bins) else ()
    return [slice(first, first + week) for first in starts]


COSTS = ("decision_cost", "decision_cost_quarter", "decision_cost_fourfold")


class Pooled(NamedTuple):
    """One forecaster and horizon over many streams."""

    streams: int
    """So many were asked for enough to be averaged."""
    score: Score
    """Losses weigh each stream alike, coverage each bin."""
    wape_of_all: float
    """WAPE of all bins of all these streams: it weighs each request alike."""


def pooled(scores: Sequence[Score], requests: Sequence[float], worst_week_q90: float) -> Pooled:
    """Over the streams that were asked for enough; `requests`: in their scored bins. The worst week
    cannot be read from scores: `worst_week_of_all` finds it."""
    told = zip(scores, requests, strict=True)
    kept = [(s, r) for s, r in told if r >= SCORED_REQUESTS_MIN and s.n]
    alike = [1.0 for _ in kept]
    bins = [float(s.n) for s, _ in kept]

    def mean(name: str, weights: list[float]) -> float:
        return _mean([float(getattr(s, name)) for s, _ in kept], weights)

    losses = ("wape", "mape", "pinball_q50", "pinball_q90", "pinball_q95", *COSTS)
    return Pooled(
        streams=len(kept),
        score=Score(
            n=sum(s.n for s, _ in kept),
            worst_week_q90=worst_week_q90,
            **{name: mean(name, alike) for name in losses},
            **{name: mean(name, bins) for name in ("coverage_q90", "coverage_q95")},
        ),
        wape_of_all=mean("wape", [r for _, r in kept]),
    )


def _two_sided(off: Floats, short: float, idle: float) -> Floats:
    found: Floats = np.where(off > 0, short * off, -idle * off)
    return found


def _ratio(of: NDArray[np.number], to: NDArray[np.number]) -> Floats:
    found: Floats = np.divide(of, to, out=np.full(np.shape(of), np.nan), where=to > 0)
    return found


def _mean(values: list[float], weights: list[float]) -> float:
    return float(np.average(values, weights=weights)) if values else np.nan
