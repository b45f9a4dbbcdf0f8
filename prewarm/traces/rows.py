"""A counts file as people have it, cell by cell, to raw rows for `cleaning`. Pure.

In: the text of a table. Out: times and numbers with their lines, and notes on what could not be
read. Never: refuses a file for a bad cell or row; what is no table at all is a `TraceError`.
"""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from math import isnan
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from prewarm.cleaning import Raw
from prewarm.repair_notes import Notes, shown
from prewarm.traces.cells import US_PER, csv_rows
from prewarm.traces.counts import burstgpt_hour_us, refuse_statistics
from prewarm.traces.records import HOUR_US, US, TraceError

TIME_NAMES = {
    "t_s", "t_ms", "t_us", "t_min", "t_h", "t", "ts", "time", "timestamp", "date", "datetime",
    "start", "start_us",
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US = timedelta(microseconds=1)
_FINER = ((1e17, 1e-3), (1e14, 1.0), (1e11, 1e3))
"""Seconds beyond the year 5000 are milliseconds, or finer, since 1970: microseconds in one."""
_TIME_US_MAX = 2**53
"""285 years from 1970 in either direction: within what calendars and clocks of zones can say."""
_NAN = float("nan")

_Line = tuple[int, list[str]]


class _Column(NamedTuple):
    """Where a stream's numbers stand in a row, and where its hole marks do (0: nowhere)."""

    stream: str
    at: int
    marks_at: int


def parse_rows(file: str, text: str, zone: str) -> tuple[Raw, Notes]:
    """A time column and one column a stream; or BurstGPT's `day,hour` and streams."""
    header, rows = _table(file, text)
    if header[:2] == ["day", "hour"] and len(header) > 2:
        columns = [c for c in _columns(header, 1, 2) if c.stream != "all"]
        columns = columns or _columns(header, 1, 2)
        return _raw(file, rows, columns, _hours, HOUR_US)
    refuse_statistics(file, header)
    at = _time_column(header)
    columns = [c for c in _columns(header, at, 0) if c.stream]
    if not columns:
        raise TraceError(
            file,
            "has no column of counts",
            "give a time column first, then one column of counts per stream, as in 't_s,c0,c1'",
            line=1,
        )
    return _raw(file, rows, columns, _moments(header[at], at, zone), 0)


# --- the table


def _table(file: str, text: str) -> tuple[list[str], list[_Line]]:
    text = text.replace("\0", "")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [(at, [c.strip() for c in row]) for at, row in csv_rows(file, reader)]
    rows = [(at, row) for at, row in lines if any(row)]
    if not rows:
        raise TraceError(file, "is empty", "give a table with a header and rows")
    header = rows[0][1]
    if len(header) < 2:
        raise TraceError(
            file, "is no table", "give CSV with a time column and one column a stream", line=1
        )
    if _is_moment(header[_time_column(header)]):
        raise TraceError(
            file, "has no header", "name the columns in the first line, as in 't_s,c0,c1'", line=1
        )
    return header, rows[1:]


def _time_column(header: list[str]) -> int:
    """The first one with the name of a time; else the first of all."""
    return next((at for at, name in enumerate(header) if name.lower() in TIME_NAMES), 0)


def _columns(header: list[str], time_at: int, first_at: int) -> list[_Column]:
    """Every named column but the time and the marks; a name that comes twice is numbered."""
    names = {at: name for at, name in enumerate(header) if at >= first_at and at != time_at}
    marks = {n.removesuffix("_hole"): at for at, n in names.items() if n.endswith("_hole")}
    found: list[_Column] = []
    taken: set[str] = set()
    for at, name in names.items():
        if name and not name.endswith("_hole"):
            stream = _unlike(name.removesuffix("_requests"), taken)
            taken.add(stream)
            found.append(_Column(stream, at, _mark_of(stream, marks)))
    return found


def _unlike(name: str, taken: set[str]) -> str:
    number = 2
    fresh = name
    while fresh in taken:
        fresh, number = f"{name} ({number})", number + 1
    return fresh


def _mark_of(stream: str, marks: dict[str, int]) -> int:
    """`x_hole` marks `x` and everything that is told of it, as `x_output_tokens`."""
    return next((at for n, at in marks.items() if stream == n or stream.startswith(f"{n}_")), 0)


# --- rows

_When = Callable[[list[str], int], int | None]
"""The time of a row, given that of the row before it; None: it cannot be read."""


def _raw(
    file: str, rows: Sequence[_Line], columns: list[_Column], when: _When, width_us: int
) -> tuple[Raw, Notes]:
    notes = Notes([column.stream for column in columns])
    at_us: list[int] = []
    lines: list[int] = []
    values: list[list[float]] = []
    width = max(column.at for column in columns) + 1
    for line, row in rows:
        at = when(row, at_us[-1] if at_us else -_TIME_US_MAX)
        if at is None:
            notes.row("a row without a time that can be read, left out", line, shown(row[0]))
            continue
        if len(row) < width:
            notes.row("a row that is cut short, its missing cells are holes", line)
        at_us.append(at)
        lines.append(line)
        values.append(_cells(row + [""] * (width - len(row)), columns, line, notes))
    raw = Raw(
        name=file,
        streams=tuple(column.stream for column in columns),
        at_us=np.array(at_us, np.int64),
        values=np.array(values, np.float64).reshape(len(at_us), len(columns)),
        lines=np.array(lines, np.int64),
        width_us=width_us,
    )
    return raw, notes


def _cells(row: list[str], columns: list[_Column], line: int, notes: Notes) -> list[float]:
    found: list[float] = []
    for stream, at, marks_at in columns:
        cell = row[at]
        marked = marks_at and marks_at < len(row) and row[marks_at] not in ("0", "0.0", "")
        if not cell or marked:
            found.append(_NAN)
            continue
        value = _number(cell)
        if isnan(value):  # written so, or no number at all
            notes.cell(stream, "a cell that is no number, now a hole", line, shown(cell))
        found.append(value)
    return found


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return _NAN


def _is_moment(cell: str) -> bool:
    """What stands in a column of times, and is no name of one. Streams may be called "0" or "1"."""
    return not isnan(_number(cell)) or _clock_us(cell, UTC, 0) is not None


# --- times


def _hours(row: list[str], _before_us: int) -> int | None:
    try:
        day, hour = int(row[0]), int(row[1])
    except (ValueError, IndexError):
        return None
    return burstgpt_hour_us(day, hour) if 0 <= day <= 100_000 and 0 <= hour < 24 else None


def _moments(column: str, at: int, zone: str) -> _When:
    unit_us = next((us for end, us in US_PER.items() if column.lower().endswith(end)), 0)
    place = UTC if zone == "UTC" else ZoneInfo(zone)

    def when(row: list[str], before_us: int) -> int | None:
        cell = row[at] if at < len(row) else ""
        number = _number(cell)
        found = _clock_us(cell, place, before_us) if isnan(number) else _us(number, unit_us)
        return found if found is not None and abs(found) < _TIME_US_MAX else None

    return when


def _us(number: float, unit_us: int) -> int | None:
    """In the unit that the column's name ends in; else seconds, or what their size tells."""
    if abs(number) > 1e19:
        return None
    if unit_us:
        return round(number * unit_us)
    return round(number * next((us for least, us in _FINER if number >= least), US))


def _clock_us(cell: str, zone: tzinfo, before_us: int) -> int | None:
    """ISO 8601. Without a zone it is local time, and the hour that comes twice when summer ends is
    the second one if the row before has passed the first."""
    try:
        found = datetime.fromisoformat(cell)
        if found.tzinfo is not None:
            return (found - _EPOCH) // _ONE_US
        first, second = (
            (found.replace(tzinfo=zone, fold=fold) - _EPOCH) // _ONE_US for fold in (0, 1)
        )
    except (ValueError, OverflowError):
        return None
    return second if first <= before_us < second else first
