"""Rows as people have them, repaired to a panel, with a note for everything that was done. Pure.

In: rows in any order, with holes, repeats and nonsense. Out: a `Panel` on an even grid, and per
stream what was wrong, where, and what became of it. Never: fills a hole, raises on bad values.

What it decides: a repeated time keeps the value that came last, as a later export corrects an
earlier one and a clock set right writes after the wrong one. Two rows are never added up: that
could invent a burst. What is no number from 0 to a thousand million million is a hole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.catalog_units import human_time
from prewarm.calendars import DAY_US, US, Calendar
from prewarm.grids import Grid, grid_of
from prewarm.repair_notes import Notes, moment
from prewarm.running_totals import increments, is_running_total
from prewarm.series import Floats, Panel
from prewarm.traces.counts import CELLS_MAX, SILENT_STREAMS
from prewarm.traces.records import Ints, TraceError

Fold = Callable[..., Floats]
VALUE_MAX = 1e15
"""Beyond it a double no longer tells neighbouring whole numbers apart for long."""
LONE_WIDTH_US = 300 * US
"""The bin of a single row, whose width nothing tells."""
ISLAND_US = 30 * DAY_US
"""A gap of less than this is a gap, however short what lies on both sides of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raw:
    """Rows in the order in which they came. `values` is rows x streams; NaN: nothing is there."""

    name: str
    """Of the file or place, for errors."""
    streams: tuple[str, ...]
    at_us: Ints
    values: Floats
    lines: Ints
    """Where each row stands, for the notes."""
    width_us: int = 0
    """0: the commonest step between two rows."""


class Cleaned(NamedTuple):
    panel: Panel
    notes: dict[str, tuple[str, ...]]
    """Of every stream; empty where nothing was wrong."""


def clean(raw: Raw, zone: str = "UTC", notes: Notes | None = None) -> Cleaned:
    """`notes`: what its reader has found already. Raises `TraceError` where no row is left, or the
    times cannot be those of counts."""
    notes = notes or Notes(raw.streams)
    if not len(raw.at_us):
        raise TraceError(raw.name, "has no row that can be read", "check the time column")
    rows = _in_order(_of_one_time(_usable(raw, notes), notes), notes)
    rows = _without_repeats(rows, notes)
    calendar, values = _on_grid(rows, zone, notes)
    values = _totals_undone(raw.streams, _silence_is_a_hole(values, notes, raw, calendar), notes)
    panel = Panel(calendar=calendar, streams=raw.streams, values=values, whole=_whole(values))
    return remarked(panel, notes)


def remarked(panel: Panel, notes: Notes | None = None) -> Cleaned:
    """With notes on what a forecast of each stream cannot know, or need not."""
    notes = notes or Notes(panel.streams)
    for at, stream in enumerate(panel.streams):
        _remark(stream, panel.values[:, at], panel.calendar, notes)
    return Cleaned(panel, notes.told())


# --- cells


def _usable(raw: Raw, notes: Notes) -> Raw:
    """Cells that count nothing become holes."""
    values = raw.values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrongs = {
            "an infinite value, now a hole": np.isinf(values),
            "a negative value, now a hole": np.isfinite(values) & (values < 0),
            "a value beyond reason, now a hole": np.isfinite(values) & (values > VALUE_MAX),
        }
    for what, wrong in wrongs.items():
        _note_cells(raw, notes, what, wrong)
        values[wrong] = np.nan
    return _replaced(raw, raw.at_us, values + 0.0, raw.lines)  # -0.0 becomes 0.0


def _note_cells(raw: Raw, notes: Notes, what: str, wrong: NDArray[np.bool_]) -> None:
    for at in np.flatnonzero(wrong.any(axis=0)):
        rows = np.flatnonzero(wrong[:, at])
        first = rows[0]
        shown = f"{raw.values[first, at]:g}"
        notes.cell(raw.streams[at], what, int(raw.lines[first]), shown, len(rows))


# --- rows


def _of_one_time(raw: Raw, notes: Notes) -> Raw:
    """Without stray rows of another age: a clock that had not been set yet, or ran far ahead."""
    first_us, last_us = _mainland(np.sort(raw.at_us))
    inside = (raw.at_us >= first_us) & (raw.at_us <= last_us)
    if inside.all():
        return raw
    first = int(np.flatnonzero(~inside)[0])
    notes.row(
        "a row far from all others in time, left out",
        int(raw.lines[first]),
        moment(int(raw.at_us[first])),
        int(np.count_nonzero(~inside)),
    )
    return _replaced(raw, raw.at_us[inside], raw.values[inside], raw.lines[inside])


def _mainland(times: Ints) -> tuple[int, int]:
    """From when to when the most rows lie, with the islands no further off than it is long."""
    cuts = np.flatnonzero(np.diff(times) > ISLAND_US) + 1
    islands = np.split(times, cuts)
    low = high = max(range(len(islands)), key=lambda at: len(islands[at]))
    grown = True
    while grown:
        grown = False
        first, last = islands[low][0], islands[high][-1]
        reach_us = max(last - first, ISLAND_US)
        if low and first - islands[low - 1][-1] <= reach_us:
            low, grown = low - 1, True
        if high + 1 < len(islands) and islands[high + 1][0] - last <= reach_us:
            high, grown = high + 1, True
    return int(islands[low][0]), int(islands[high][-1])


def _in_order(raw: Raw, notes: Notes) -> Raw:
    """By time; rows of the same time as they came."""
    at_us = raw.at_us
    back = np.flatnonzero(np.diff(at_us) < 0) + 1
    if not len(back):
        return raw
    first = int(back[0])
    by = human_time(int(at_us[first - 1] - at_us[first]))
    line = int(raw.lines[first])
    notes.row("a step back in time, its rows put in order", line, f"{by} back", count=len(back))
    order = np.argsort(at_us, kind="stable")
    return _replaced(raw, at_us[order], raw.values[order], raw.lines[order])


def _without_repeats(raw: Raw, notes: Notes) -> Raw:
    """One row a time; of two values for one cell, the one that came last."""
    new = np.concatenate(([True], np.diff(raw.at_us) > 0))
    if new.all():
        return raw
    group = np.cumsum(new) - 1
    values = raw.values[new]
    for row in np.flatnonzero(~new):
        line = int(raw.lines[row])
        notes.row("a row repeats the time of another, one is kept", line)
        _overwrite(values[group[row]], raw.values[row], raw.streams, line, notes)
    return _replaced(raw, raw.at_us[new], values, raw.lines[new])


def _overwrite(
    kept: Floats, later: Floats, streams: tuple[str, ...], line: int, notes: Notes
) -> None:
    """In place; an empty cell corrects nothing."""
    told = ~np.isnan(later)
    for at in np.flatnonzero(told & ~np.isnan(kept) & (later != kept)):
        shown = f"{later[at]:g}, not {kept[at]:g}"
        notes.cell(streams[at], "two values for one bin, the later one kept", line, shown)
    kept[told] = later[told]


def _on_grid(raw: Raw, zone: str, notes: Notes) -> tuple[Calendar, Floats]:
    """Bins without a row are holes."""
    grid = _grid(raw, notes)
    bins = grid.bins
    if bins * max(len(raw.streams), 1) > CELLS_MAX:
        raise TraceError(
            raw.name,
            f"its times span {bins} bins of {human_time(grid.width_us)}",
            "check the time column's unit; one step should be one bin",
        )
    values = np.full((bins, len(raw.streams)), np.nan)
    new = np.concatenate(([True], np.diff(grid.places) > 0))
    values[grid.places[new]] = raw.values[new]
    for row in np.flatnonzero(~new):
        line = int(raw.lines[row])
        notes.row("a row falls into the bin of another, one is kept", line)
        _overwrite(values[grid.places[row]], raw.values[row], raw.streams, line, notes)
    if grid.moved.any():
        first = int(np.flatnonzero(grid.moved)[0])
        notes.row(
            f"a row off the grid of {human_time(grid.width_us)}, moved onto it",
            int(raw.lines[first]),
            moment(int(raw.at_us[first])),
            int(np.count_nonzero(grid.moved)),
        )
    return Calendar(grid.start_us, grid.width_us, zone), values


def _grid(raw: Raw, notes: Notes) -> Grid:
    if len(raw.at_us) > 1 or raw.width_us:
        return grid_of(raw.at_us, raw.width_us)
    text = f"a single row: taken for a bin of {human_time(LONE_WIDTH_US)}"
    for stream in raw.streams:
        notes.say(stream, text)
    return grid_of(raw.at_us, LONE_WIDTH_US)


def _replaced(raw: Raw, at_us: Ints, values: Floats, lines: Ints) -> Raw:
    return Raw(
        name=raw.name,
        streams=raw.streams,
        at_us=at_us,
        values=values,
        lines=lines,
        width_us=raw.width_us,
    )


# --- streams


def _silence_is_a_hole(values: Floats, notes: Notes, raw: Raw, calendar: Calendar) -> Floats:
    """Many streams that all stop at once are a collector that stopped, not a quiet night."""
    zeros = np.count_nonzero(values == 0, axis=1)
    silent = (zeros >= SILENT_STREAMS) & ~(np.nan_to_num(values) > 0).any(axis=1)
    if silent.any():
        first = moment(calendar.at_us(int(np.flatnonzero(silent)[0])))
        text = (
            f"{np.count_nonzero(silent)} bins in which all streams were 0 are holes, the first at "
            f"{first}"
        )
        for stream in raw.streams:
            notes.say(stream, text)
        values[silent] = np.nan
    return values


def _totals_undone(streams: tuple[str, ...], values: Floats, notes: Notes) -> Floats:
    for at, stream in enumerate(streams):
        column = values[:, at]
        if not is_running_total(column):
            continue
        values[:, at], resets = increments(column)
        notes.say(
            stream,
            f"a running total with {resets} resets, turned into what was added in each bin; "
            "export increments if it is none",
        )
    return values


def _remark(stream: str, values: Floats, calendar: Calendar, notes: Notes) -> None:
    seen = values[~np.isnan(values)]
    if not len(seen):
        notes.say(stream, "all bins are holes: there is nothing to forecast from")
        return
    if len(seen) < len(values):
        notes.say(stream, _holes(values, calendar))
    if len(seen) == 1:
        notes.say(stream, f"a single value, {seen[0]:g}: nothing is known of its variation")
    elif not seen.any():
        notes.say(stream, "nothing but zeros")
    elif seen.min() == seen.max():
        notes.say(stream, f"always {seen[0]:g}")


def _holes(values: Floats, calendar: Calendar) -> str:
    holes = np.concatenate(([False], np.isnan(values), [False]))
    starts = np.flatnonzero(~holes[:-1] & holes[1:])
    lengths = np.flatnonzero(holes[:-1] & ~holes[1:]) - starts
    longest = int(np.argmax(lengths))
    return (
        f"{lengths.sum()} of {len(values)} bins are holes, the longest of {lengths[longest]} bins "
        f"from {moment(calendar.at_us(int(starts[longest])))}"
    )


def _whole(values: Floats) -> bool:
    return bool(np.all(np.isnan(values) | (values == np.floor(values))))


def coarser(panel: Panel, width_us: int, fold: Fold = np.sum) -> Panel:
    """Sums, or what else is made of the bins in a wider one; one hole makes a hole of all.
    Raises `ValueError` on a width that is no multiple."""
    times, rest = divmod(width_us, panel.calendar.width_us)
    if rest or not times:
        narrow = human_time(panel.calendar.width_us)
        raise ValueError(f"bins of {human_time(width_us)} are not made of whole bins of {narrow}")
    calendar = panel.calendar
    aligned = calendar.start_us % calendar.width_us == 0
    skipped = -calendar.start_us // calendar.width_us % times if aligned else 0
    bins = max((len(panel) - skipped) // times, 0)
    parts = panel.values[skipped : skipped + bins * times]
    return Panel(
        calendar=Calendar(calendar.at_us(skipped), width_us, calendar.zone),
        streams=panel.streams,
        values=fold(parts.reshape(bins, times, len(panel.streams)), axis=1),
        whole=panel.whole,
    )
