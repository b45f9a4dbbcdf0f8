"""Past demand from elsewhere, as rows of the history. Pure.

In: a repaired panel, which model each column is of, the time. Out: rows in the widths of the store
that were watched whole, and what could not be used, in words. Never: a row for a hole, for a window
that is not over, or for one that the store would drop at once; overwrites what a gateway measured
unless it is told to.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.catalog import Frozen, HistoryKept
from placement.catalog_units import human_time
from prewarm.calendars import US, Calendar
from prewarm.cleaning import coarser
from prewarm.repair_notes import moment
from prewarm.series import Floats, Panel
from prewarm.traces.records import Ints
from prewarm.windows import COARSE_S, HistoryRow

_PROMPT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("output_tokens",)
ONE_STREAM = "requests"
"""The column that token columns without a name of their own belong to."""


class CannotImportError(Exception):
    """The panel cannot be stored; the text says why and what to do."""


class Parts(NamedTuple):
    """The columns that make up a model's demand. Several names of one model add up."""

    requests: list[str]
    prompt_tokens: list[str]
    output_tokens: list[str]


class Naming(NamedTuple):
    models: dict[str, Parts]
    unknown: tuple[str, ...]
    """Columns that are of no model."""


def name_columns(
    streams: Iterable[str], mapped: Mapping[str, str], known: Mapping[str, str] | None
) -> Naming:
    """`known`: every name of a model to its id; None: no catalog is at hand, any name will do."""
    names = tuple(streams)
    found: dict[str, Parts] = {}
    unknown: list[str] = []
    for name in names:
        base, kind = _kind(name, names)
        model = mapped.get(base, base)
        if known is not None:
            model = known.get(model, "")
        if not model:
            unknown.append(name)
            continue
        found.setdefault(model, Parts([], [], []))[kind].append(name)
    return Naming(found, tuple(unknown))


def _kind(name: str, names: tuple[str, ...]) -> tuple[str, int]:
    """Whose column it is, and of what: requests, prompt tokens, output tokens."""
    for kind, ends in ((1, _PROMPT), (2, _OUTPUT)):
        for end in ends:
            if name.endswith(end):
                base = name.removesuffix(end).removesuffix("_") or ONE_STREAM
                if base in names:
                    return base, kind
    return name, 0


class Prepared(Frozen, frozen=True, kw_only=True):
    """Rows to store, by width, and remarks for people."""

    rows: dict[int, list[HistoryRow]]
    remarks: tuple[str, ...] = ()


def prepare(name: str, panel: Panel, naming: Naming, kept: HistoryKept, now_us: int) -> Prepared:
    """`name`: of the source, for errors. Raises `CannotImportError`."""
    remarks: list[str] = []
    panel = _aligned(panel, remarks)
    end_us = panel.calendar.at_us(len(panel) - 1)
    if end_us > now_us:
        raise CannotImportError(
            f"{name}: its last window starts at {moment(end_us)}, which is still to come: check "
            "the time zone and the time column; nothing was imported"
        )
    first_s = _width_s(name, panel)
    rows: dict[int, list[HistoryRow]] = {}
    for width_s in COARSE_S:
        if width_s >= first_s:
            wide = coarser(panel, width_s * US)
            keep_us = kept.minutes_us if width_s == 60 else kept.five_us
            rows[width_s] = _rows(wide, naming, now_us - keep_us, now_us, remarks)
    return Prepared(rows=rows, remarks=tuple(remarks))


def _width_s(name: str, panel: Panel) -> int:
    """The finest width of the store that whole bins of the panel make."""
    width_us = panel.calendar.width_us
    found = next((s for s in COARSE_S if (s * US) % width_us == 0), 0)
    if not found:
        raise CannotImportError(
            f"{name}: its rows are {human_time(width_us)} apart: the history keeps windows of "
            "1 min and 5 min, which wider ones cannot be split into; export with a step of 5 min"
        )
    return found


def _aligned(panel: Panel, remarks: list[str]) -> Panel:
    """The store's windows begin at whole multiples of their width."""
    calendar = panel.calendar
    start_us = round(calendar.start_us / calendar.width_us) * calendar.width_us
    if start_us == calendar.start_us:
        return panel
    by = human_time(abs(start_us - calendar.start_us))
    remarks.append(f"all windows moved by {by}, onto whole {human_time(calendar.width_us)}")
    return Panel(
        calendar=Calendar(start_us, calendar.width_us, calendar.zone),
        streams=panel.streams,
        values=panel.values,
        whole=panel.whole,
    )


def _rows(
    panel: Panel, naming: Naming, from_us: int, now_us: int, remarks: list[str]
) -> list[HistoryRow]:
    calendar = panel.calendar
    starts = calendar.start_us + np.arange(len(panel), dtype=np.int64) * calendar.width_us
    kept, over = starts >= from_us, starts + calendar.width_us <= now_us
    wide = human_time(calendar.width_us)
    if not kept.all():
        old = np.count_nonzero(~kept)
        remarks.append(f"{old} windows of {wide} older than the history keeps them, left out")
    if not over.all():
        remarks.append(f"{np.count_nonzero(~over)} windows of {wide} not over yet, left out")
    used = kept & over
    found: list[HistoryRow] = []
    for model, parts in naming.models.items():
        found += _rows_of(model, panel, parts, starts, used)
    return found


def _rows_of(
    model: str, panel: Panel, parts: Parts, starts: Ints, used: NDArray[np.bool_]
) -> list[HistoryRow]:
    offered = _sum(panel, parts.requests)
    prompt = np.nan_to_num(_sum(panel, parts.prompt_tokens))
    output = np.nan_to_num(_sum(panel, parts.output_tokens))
    width_s = panel.calendar.width_us // US
    return [
        HistoryRow(
            model=model,
            start_us=int(starts[at]),
            width_s=width_s,
            offered=round(offered[at]),
            retries=0,
            refused=0,
            prompt_tokens=round(prompt[at]),
            output_tokens=round(output[at]),
            conc_mean=0.0,
            conc_max=0,
            conc_p50=0,
            conc_p95=0,
            covered_s=float(width_s),
        )
        for at in np.flatnonzero(used & ~np.isnan(offered))
    ]


def _sum(panel: Panel, names: list[str]) -> Floats:
    """One hole makes a hole of the sum; of no columns it is nothing."""
    places = [panel.streams.index(name) for name in names]
    total: Floats = panel.values[:, places].sum(axis=1)
    return total


class Merge(NamedTuple):
    write: list[HistoryRow]
    kept: int
    """Windows that the gateway measured itself, and that stay as they are."""
    kept_partly: int
    """Of these, the ones that it watched in part only: holes."""
    replaced: list[HistoryRow]
    """Of those to write, the ones in whose place something measured stands."""


def merge(
    rows: Iterable[HistoryRow], measured: Mapping[tuple[int, str], bool], *, replace: bool
) -> Merge:
    """`measured`: what stands there of a gateway's own, and whether it was watched whole."""
    write: list[HistoryRow] = []
    there: list[HistoryRow] = []
    for row in rows:
        (there if (row.start_us, row.model) in measured else write).append(row)
    if replace:
        return Merge([*write, *there], 0, 0, there)
    partly = sum(not measured[row.start_us, row.model] for row in there)
    return Merge(write, len(there), partly, [])
