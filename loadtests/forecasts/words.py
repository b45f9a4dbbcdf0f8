"""Scores as people read them, the same on the screen and in a report. Pure.

In: scores. Out: cells of a table. Never: says 0 where nothing is known.
"""

from math import isnan, nan

from loadtests.forecasts.findings import OURS, Field, ratio
from loadtests.forecasts.outlook import Row
from placement.catalog_units import human_time
from prewarm.calendars import US
from prewarm.scores import Score

HEADS = (
    "forecaster", "share", "pinball", "WAPE", "MAPE", "q90 holds", "q95 holds", "worst week",
    "cost", "bins", "÷ ours",
)  # fmt: skip


def field_rows(field: Field) -> list[tuple[list[str], bool]]:
    """Ours, then everyone, the least loss first; with each whether it does better than ours. The
    best simple baseline bears a star."""
    ours = field.ours.score
    rows = [(_cells(OURS, nan, ours, ours), False)]
    for name in _by_loss(field):
        score = field.others[name].score
        marked = f"{name} *" if name == field.best_simple else name
        cells = _cells(marked, field.method_share.get(name, 0.0), score, ours)
        rows.append((cells, score.pinball < ours.pinball))
    return rows


def _by_loss(field: Field) -> list[str]:
    """Those that said nothing last."""
    loss = {name: one.score.pinball for name, one in field.others.items()}
    return sorted(loss, key=lambda name: (isnan(loss[name]), loss[name], name))


def _cells(name: str, share: float, score: Score, ours: Score) -> list[str]:
    return [
        name,
        percent(share),
        number(score.pinball, 4),
        number(score.wape, 3),
        number(score.mape, 3),
        percent(score.coverage_q90),
        percent(score.coverage_q95),
        percent(score.worst_week_q90),
        number(score.decision_cost, 3),
        str(score.n),
        number(ratio(score.pinball, ours.pinball), 3),
    ]


OUTLOOK_HEADS = ("local time", "ahead", "median", "q90", "q95", "most weight", "share", "may act")


def outlook_cells(row: Row) -> list[str]:
    return [
        row.local,
        human_time(round(row.ahead_s * US)),
        *(number(value, 1) for value in (row.q50, row.q90, row.q95)),
        row.method or "–",
        percent(row.share),
        "yes" if row.acts else f"no: {row.why}",
    ]


def number(value: float, digits: int) -> str:
    return "–" if isnan(value) else f"{value:.{digits}f}"


def percent(share: float) -> str:
    return "–" if isnan(share) else f"{100 * share:.1f} %"
