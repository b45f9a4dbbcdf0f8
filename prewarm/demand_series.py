"""Demand per model and bin, from the rows of the history. Pure.

In: rows, what of them is forecast, how wide a bin shall be, the catalog. Out: a `Panel` with a
stream a model. Never: takes a window that was not watched whole for a quiet one, or requests that
waited in our own queues for demand: the stored concurrency is not read at all.

A model has a row in every window in which a gateway watched it. So before its first row it is not
"asked nothing" but unknown, and so is everything in a window without a row.
"""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from placement.catalog import Catalog
from prewarm.calendars import DAY_US, US, Calendar
from prewarm.cleaning import Fold, coarser
from prewarm.occupancy import STEADY_S, busiest_minute, peak_within
from prewarm.series import Floats, Panel, Target
from prewarm.traces.records import Ints
from prewarm.warm_service import timing_in, warm_concurrency
from prewarm.windows import COARSE_S, FINE_S, HistoryRow

STORED_S = (FINE_S, *COARSE_S)
WATCHED = 0.999
"""Of a window; a start within it costs a fraction of a second."""
ANSWERED_MIN = 0.1
"""Where fewer of the requests were answered, their tokens do not tell what all would have taken."""
PRIOR_PROMPT, PRIOR_OUTPUT = 1000.0, 200.0
"""Tokens of a request before any are known: Azure 2023, conversations, 1155 and 211."""
_DOUBT = 5.0
"""The day's mean is believed against all of the past as if that were so many requests, and all of
the past likewise against the prior."""


class _Table(NamedTuple):
    """Rows on their grid, bins x models; NaN where nobody watched."""

    calendar: Calendar
    models: tuple[str, ...]
    offered: Floats
    answered: Floats
    prompt: Floats
    output: Floats


def panel_of_rows(
    rows: Iterable[HistoryRow], target: Target, width_s: int, zone: str, catalog: Catalog
) -> Panel:
    """Of rows in the widest width of the store that makes up a bin. For peaks, finer rows among
    them are used where they are. Raises `ValueError` on a width that is no multiple of those."""
    base_s = next((s for s in reversed(STORED_S) if width_s % s == 0), 0)
    if not base_s:
        raise ValueError(f"bins of {width_s} s are not made of windows of {FINE_S} s")
    by_width: dict[int, _Rows] = {}
    for row in rows:
        by_width.setdefault(row.width_s, _Rows(row.width_s)).add(row)
    table = _table(by_width.get(base_s, _Rows(base_s)), zone)
    panel = Panel(
        calendar=table.calendar,
        streams=table.models,
        values=_values(table, target, catalog, by_width),
        whole=target is not Target.CONCURRENCY_MEAN,
    )
    if base_s == width_s:
        return panel
    folds: dict[Target, Fold] = {Target.CONCURRENCY_MEAN: np.mean, Target.CONCURRENCY_PEAK: np.max}
    return coarser(panel, width_s * US, folds.get(target, np.sum))


class _Rows:
    """Rows of one width, a few numbers of each: there may be millions. Mutated by `add`."""

    def __init__(self, width_s: int) -> None:
        self.width_us = width_s * US
        self.models: dict[str, int] = {}
        """In the order in which they came."""
        self._numbers = array("q")

    def add(self, row: HistoryRow) -> None:
        place = self.models.setdefault(row.model, len(self.models))
        watched = row.covered_s >= WATCHED * row.width_s
        answered = row.offered + row.retries - row.refused
        self._numbers.extend(
            (
                row.start_us,
                place,
                watched,
                row.offered,
                answered,
                row.prompt_tokens,
                row.output_tokens,
            )
        )

    def columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Starts, places of models, whether watched, counts (rows x 4)."""
        found: Ints = np.frombuffer(self._numbers, np.int64).reshape(-1, 7)
        return found[:, 0], found[:, 1], found[:, 2], found[:, 3:]


def _table(rows: _Rows, zone: str) -> _Table:
    starts_us, places, watched, counts = rows.columns()
    models = tuple(sorted(rows.models))
    if not models:
        return _Table(Calendar(0, rows.width_us, zone), models, *np.empty((4, 0, 0)))
    sorted_place = np.array([models.index(model) for model in rows.models], np.int64)
    first_us, last_us = int(starts_us.min()), int(starts_us.max())
    found = np.full((4, (last_us - first_us) // rows.width_us + 1, len(models)), np.nan)
    seen = watched == 1
    at = (starts_us[seen] - first_us) // rows.width_us
    found[:, at, sorted_place[places[seen]]] = counts[seen].T
    return _Table(Calendar(first_us, rows.width_us, zone), models, *found)


def _values(table: _Table, target: Target, catalog: Catalog, by_width: dict[int, _Rows]) -> Floats:
    match target:
        case Target.REQUESTS:
            return table.offered
        case Target.PROMPT_TOKENS:
            return _tokens(table, table.prompt)
        case Target.OUTPUT_TOKENS:
            return _tokens(table, table.output)
        case Target.CONCURRENCY_MEAN:
            return _running(table, catalog).concurrency
        case Target.CONCURRENCY_PEAK:
            return _peaks(table, _running(table, catalog), by_width)


# --- tokens


def _tokens(table: _Table, counted: Floats) -> Floats:
    """What all offered requests would have taken: those that were refused as much as the others.

    Unknown where requests came and no tokens are known: nobody counted them, or nobody answered.
    """
    asked = table.offered > 0
    share = np.divide(table.answered, table.offered, out=np.ones_like(counted), where=asked)
    total = np.round(counted / np.clip(share, ANSWERED_MIN, 1))
    unknown = asked & ((share < ANSWERED_MIN) | (table.prompt + table.output == 0))
    return np.where(unknown, np.nan, total)


def _lengths(table: _Table, counted: Floats, prior: float) -> Floats:
    """Mean tokens of a request, of the last day up to each bin."""
    known = (table.prompt + table.output > 0) & (table.answered > 0)
    requests = np.cumsum(np.where(known, table.answered, 0.0), axis=0)
    tokens = np.cumsum(np.where(known, counted, 0.0), axis=0)
    bins = DAY_US // table.calendar.width_us
    always = (tokens + _DOUBT * prior) / (requests + _DOUBT)
    day_requests, day_tokens = _last(requests, bins), _last(tokens, bins)
    return (day_tokens + _DOUBT * always) / (day_requests + _DOUBT)


def _last(sums: Floats, bins: int) -> Floats:
    """Of running sums, what the last bins added."""
    found = sums.copy()
    found[bins:] -= sums[:-bins]
    return found


# --- concurrency


class _Running(NamedTuple):
    rate_per_s: Floats
    service_s: Floats
    concurrency: Floats


def _running(table: _Table, catalog: Catalog) -> _Running:
    """Arrivals x warm service time; holes for a model whose engines are not ours to time."""
    rate_per_s = table.offered / (table.calendar.width_us / US)
    prompt = _lengths(table, table.prompt, PRIOR_PROMPT)
    output = _lengths(table, table.output, PRIOR_OUTPUT)
    concurrency, service_s = np.full_like(rate_per_s, np.nan), np.full_like(rate_per_s, np.nan)
    for at, model in enumerate(table.models):
        timed = timing_in(catalog, model)
        if timed is not None:
            concurrency[:, at], service_s[:, at] = warm_concurrency(
                *timed, rate_per_s[:, at], prompt[:, at], output[:, at]
            )
    return _Running(rate_per_s, service_s, concurrency)


def _peaks(table: _Table, running: _Running, by_width: dict[int, _Rows]) -> Floats:
    """From the finest rows that fill a window; without any, from its mean and how much traffic
    changes from minute to minute."""
    width_s = table.calendar.width_us // US
    rate, service_s = running.rate_per_s, running.service_s
    busy = busiest_minute(running.concurrency, rate, service_s, width_s)
    peaks = peak_within(busy, service_s, min(width_s, STEADY_S))
    for finer_s in sorted((s for s in by_width if s < width_s), reverse=True):
        if width_s % finer_s == 0:
            finer = _arrivals(by_width[finer_s], table)
            _take_finer(peaks[finer.first :], service_s[finer.first :], finer)
    return peaks


class _Finer(NamedTuple):
    first: int
    """The window of the table in which they begin."""
    arrivals: Floats
    """Windows x parts x models."""
    width_s: int


def _arrivals(rows: _Rows, table: _Table) -> _Finer:
    """The finer rows inside the table's windows, from the first window that has any."""
    calendar = table.calendar
    starts_us, places, watched, counts = rows.columns()
    parts = calendar.width_us // rows.width_us
    windows = len(table.offered)
    first = min(max(calendar.index(int(starts_us.min(initial=2**62))), 0), windows)
    columns = {model: at for at, model in enumerate(table.models)}
    column = np.array([columns.get(model, -1) for model in rows.models], np.int64)[places]
    at = (starts_us - calendar.at_us(first)) // rows.width_us
    found = np.full(((windows - first) * parts, len(columns)), np.nan)
    used = (watched == 1) & (column >= 0) & (at >= 0) & (at < len(found))
    found[at[used], column[used]] = counts[used, 0]
    return _Finer(first, found.reshape(-1, parts, len(columns)), rows.width_us // US)


def _take_finer(peaks: Floats, service_s: Floats, finer: _Finer) -> None:
    """In place: the largest peak of the finer rows, of windows that these fill."""
    parts = finer.arrivals.shape[1]
    for at in range(peaks.shape[1]):
        stay_s = np.repeat(service_s[:, at], parts)
        means = _occupancy(finer.arrivals[:, :, at].ravel(), stay_s, finer.width_s)
        found = peak_within(means, stay_s, finer.width_s).reshape(-1, parts).max(axis=1)
        peaks[:, at] = np.where(np.isnan(found), peaks[:, at], found)


def _occupancy(arrivals: Floats, service_s: Floats, width_s: int) -> Floats:
    """Who came within the last service time is still there. Of a time that nobody watched it is
    taken to have been like the rest of it."""
    seen = ~np.isnan(arrivals)
    edges = np.arange(len(arrivals) + 1)
    came = np.concatenate(([0.0], np.cumsum(np.where(seen, arrivals, 0.0))))
    watched = np.concatenate(([0.0], np.cumsum(seen * float(width_s))))
    ends = edges[1:]
    begins = np.maximum(ends - np.maximum(service_s / width_s, 1.0), 0.0)
    count = came[1:] - np.interp(begins, edges, came)
    time_s = watched[1:] - np.interp(begins, edges, watched)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(seen, count / time_s * service_s, np.nan)
