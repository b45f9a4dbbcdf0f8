"""What a back-test's trail tells of one stream, and of each week. Pure.

In: a `Trail`. Out: `Strand`s, the weeks in which the q90 held least. Never: shifts anything: a
trail's forecasts already stand by the bins that they are of.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtests.forecasts.document import Trial
from loadtests.forecasts.plots import Strand
from prewarm.scoring import WEEK_POINTS_MIN, week_bins

if TYPE_CHECKING:
    from prewarm.backtest import Trail

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Week(NamedTuple):
    """One week of one horizon, all streams together: how often the q90 held."""

    word: str
    began: str
    q90: float


def strand_of(trail: "Trail", stream: int, horizon: int, name: str, word: str) -> Strand:
    return Strand(
        stream=name,
        word=word,
        first=trail.first,
        actual=trail.actual[:, stream],
        q50=trail.q50[:, stream, horizon],
        q90=trail.q90[:, stream, horizon],
        q95=trail.q95[:, stream, horizon],
        chosen=trail.chosen[:, stream, horizon],
        acted=trail.acted[:, stream, horizon],
    )


def worst_weeks(trail: "Trail", trial: Trial) -> list[Week]:
    """For each horizon the week in which the q90 held least. Ties count as held: no draw here."""
    found = []
    for place, horizon in enumerate(trial.horizons):
        weeks = list(_weeks(trail, trial, place, horizon.word))
        found += sorted(weeks, key=lambda week: week.q90)[:1]
    return found


def _weeks(trail: "Trail", trial: Trial, place: int, word: str) -> Iterator[Week]:
    calendar = trial.panel.calendar
    width = week_bins(calendar)
    q90 = trail.q90[:, :, place]
    known = ~np.isnan(trail.actual) & ~np.isnan(q90)
    for first in range(0, len(q90), width):
        mine = known[first : first + width]
        if mine.sum() < WEEK_POINTS_MIN:
            continue
        held = trail.actual[first : first + width] <= q90[first : first + width]
        began = _EPOCH + timedelta(microseconds=calendar.at_us(trail.first + first))
        yield Week(word, f"{began:%Y-%m-%d}", float(held[mine].mean()))
