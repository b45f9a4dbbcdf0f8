"""Counts files to `Counts`: ServeGen clients and models, BurstGPT hours, NAB, or one's own.

In: the table of a file. Out: a regular grid of bins with holes. Never: reads a file, fills a hole.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import mode
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewarm.traces.cells import Table, moment_us, whole
from prewarm.traces.records import DAY_US, HOUR_US, Counts, Ints, TraceError

# A row in which this many streams are all zero is a collection hole, not a quiet night.
SILENT_STREAMS = 10
# 14 days of 10 s bins of 400 streams; more is a mistake in the time column, not a trace.
CELLS_MAX = 50_000_000
# BurstGPT's day 0 reads as a Wednesday; the first one of the epoch was day 6.
_WEDNESDAY_US = 6 * DAY_US


def parse_counts(table: Table) -> Counts:
    """A time column first (seconds or ISO), then one column per stream."""
    refuse_statistics(table.file, table.header)
    columns = _stream_columns(table.header)
    if not columns:
        raise TraceError(
            table.file,
            "has no column of counts",
            "give a time column first, then one column of counts per stream, as in 't_s,c0,c1'",
            line=1,
        )
    name = table.header[0]
    times = [moment_us(table.file, line, name, row[0]) for line, row in table.rows]
    return _on_grid(table, times, _width_us(table, times), columns)


def refuse_statistics(file: str, header: Sequence[str]) -> None:
    """ServeGen's token table lies beside its counts, and looks like them."""
    if {"model", "client", "t_s"} <= set(header):
        raise TraceError(
            file,
            "holds token statistics, no requests",
            "replay the counts beside it (clients_10min_*.csv.gz)",
        )


def parse_burstgpt_hours(table: Table) -> Counts:
    """`day,hour,...`; a column `all` is the sum of the others and is left out."""
    times = []
    for line, row in table.rows:
        day = whole(table.file, line, "day", row[0])
        hour = whole(table.file, line, "hour", row[1])
        if hour > 23 or day > 100_000:
            raise TraceError(
                table.file,
                "is no hour of a day",
                "hours run from 0 to 23",
                line=line,
                column="hour",
            )
        times.append(burstgpt_hour_us(day, hour))
    columns = [_Column(name, at, 0) for at, name in enumerate(table.header) if at > 1]
    parts = [column for column in columns if column.name != "all"]
    return _on_grid(table, times, HOUR_US, parts or columns)


def burstgpt_hour_us(day: int, hour: int) -> int:
    return _WEDNESDAY_US + day * DAY_US + hour * HOUR_US


class _Column(NamedTuple):
    """Where a stream's counts stand in a row, and where its hole marks do (0: nowhere)."""

    name: str
    at: int
    marks_at: int


def _stream_columns(header: tuple[str, ...]) -> list[_Column]:
    """The streams. Beside `x_requests` columns, token columns are none; `x_hole` marks holes."""
    places = {name: at for at, name in enumerate(header) if at}
    marks = {n.removesuffix("_hole"): at for n, at in places.items() if n.endswith("_hole")}
    found = [
        _Column(stream, at, marks.get(stream, 0))
        for name, at in places.items()
        if (stream := name.removesuffix("_requests")) != name
    ]
    return found or [
        _Column(name, at, marks.get(name, 0))
        for name, at in places.items()
        if not name.endswith("_hole")
    ]


def _width_us(table: Table, times: list[int]) -> int:
    """The commonest step between two rows; steps must go forward."""
    if len(times) < 2:
        raise TraceError(table.file, "has a single row", "give two bins at least")
    steps = [later - earlier for earlier, later in pairwise(times)]
    for (line, _), step in zip(table.rows[1:], steps, strict=True):
        if step <= 0:
            raise TraceError(
                table.file,
                "does not come after the row before it",
                "sort the rows by time and keep one row per bin",
                line=line,
                column=table.header[0],
            )
    return mode(steps)


def _on_grid(table: Table, times: list[int], width_us: int, columns: list[_Column]) -> Counts:
    """Put each row into its bin; bins without a row are holes."""
    bins = round((times[-1] - times[0]) / width_us) + 1
    if bins < 1 or bins * len(columns) > CELLS_MAX:
        raise TraceError(
            table.file,
            f"its times span {bins} bins of {width_us / 1e6:g} s",
            "check the time column's unit and order; one step should be one bin",
            column=table.header[0],
        )
    counts: Ints = np.zeros((bins, len(columns)), np.int64)
    holes: NDArray[np.bool_] = np.ones((bins, len(columns)), np.bool_)
    filled: set[int] = set()
    for (line, row), at_us in zip(table.rows, times, strict=True):
        place = round((at_us - times[0]) / width_us)
        if not 0 <= place < bins or place in filled:
            raise TraceError(
                table.file,
                f"falls into a bin of {width_us / 1e6:g} s that another row has taken",
                "sort the rows by time and keep one row per bin",
                line=line,
                column=table.header[0],
            )
        filled.add(place)
        for stream, count in _measured(table, line, row, columns):
            counts[place, stream] = count
            holes[place, stream] = False
    if len(columns) >= SILENT_STREAMS:
        holes[~counts.any(axis=1)] = True
    return Counts(
        start_us=times[0],
        width_us=width_us,
        streams=tuple(column.name for column in columns),
        counts=counts,
        holes=holes,
    )


def _measured(
    table: Table, line: int, row: list[str], columns: list[_Column]
) -> Iterator[tuple[int, int]]:
    """The cells of a row that hold a count, as (stream, count); empty and marked ones do not."""
    for stream, column in enumerate(columns):
        cell = row[column.at]
        marked = column.marks_at and row[column.marks_at] not in ("0", "0.0", "")
        if cell and not marked:
            yield stream, whole(table.file, line, column.name, cell)
