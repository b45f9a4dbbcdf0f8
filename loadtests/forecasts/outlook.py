"""The next day of one model, hour by hour. Pure.

In: what a forecaster says after the newest bin. Out: an `Outlook`, in local time. Never: forecasts,
or says of a bin more than of its own width: a row is one bin, at that hour.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from loadtests.forecasts.document import Document, without_nan
from placement.catalog import Frozen
from prewarm.calendars import DAY_US, US, Calendar
from prewarm.forecast import LEVELS
from prewarm.scoring import at_level
from prewarm.series import Floats

HOUR_US = 3_600 * US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(Frozen, frozen=True, kw_only=True):
    """One bin to come."""

    start_s: float
    """Since 1970, UTC."""
    local: str
    ahead_s: float
    q50: float
    q90: float
    q95: float
    method: str
    """Who weighs most in the blend; empty where nobody has anything to say."""
    share: float
    """How much that is."""
    acts: bool
    why: str
    """Why it has no right to act; empty where it has."""


class Outlook(Frozen, frozen=True, kw_only=True):
    model: str
    target: str
    demand: str
    zone: str
    bin_s: float
    newest_s: float
    """Start of the newest bin."""
    newest: float
    """What was asked in it; NaN is a hole."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


class Said(Frozen, frozen=True, kw_only=True):
    """What is said of one stream at one horizon."""

    bins: int
    method: str
    share: float
    acts: bool
    why: str


def horizons_of_a_day(width_us: int) -> tuple[int, ...]:
    """Each full hour of the next day, in bins; each bin where they are wider than an hour, and one
    where a bin is a day."""
    step = max(HOUR_US // width_us, 1)
    last = max(DAY_US // width_us, 1)
    return tuple(range(step, last + 1, step))


def rows_of(
    calendar: Calendar, newest: int, said: Sequence[Said], quantiles: Floats
) -> tuple[Row, ...]:
    """`quantiles`: H x L, in the order of `said`, at the usual levels."""
    q50, q90, q95 = (at_level(quantiles, LEVELS, level) for level in (0.5, 0.9, 0.95))
    return tuple(
        Row(
            start_s=calendar.at_us(newest + one.bins) / US,
            local=local_words(calendar, newest + one.bins),
            ahead_s=one.bins * calendar.width_us / US,
            q50=float(q50[at]),
            q90=float(q90[at]),
            q95=float(q95[at]),
            method=one.method if not np.isnan(q50[at]) else "",
            share=one.share,
            acts=one.acts,
            why=one.why,
        )
        for at, one in enumerate(said)
    )


def local_words(calendar: Calendar, index: int) -> str:
    """`Tue 2024-05-07 14:00`, on the clock of the calendar's zone."""
    at_us = calendar.at_us(index)
    local = _EPOCH + timedelta(microseconds=at_us + calendar.offset_us(at_us))
    return f"{local:%a %Y-%m-%d %H:%M}"


def outlook_document(outlook: Outlook) -> Document:
    found: Document = without_nan(outlook)
    return found
