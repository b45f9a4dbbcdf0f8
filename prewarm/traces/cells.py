"""Cells of a trace file to whole numbers and microseconds, or an error that names the cell.

In: a table's rows with their line numbers. Out: ints. Never: reads a file, guesses a value.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from prewarm.traces.records import US, TraceError

_WHOLE = re.compile(r"([0-9]{1,15})(?:\.0*)?\Z")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?(?:[eE][+-]?[0-9]{1,2})?\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US = timedelta(microseconds=1)
US_PER = {"_ms": 1000, "_us": 1, "_min": 60 * US, "_h": 3600 * US}


class Table(NamedTuple):
    """A CSV file: its name for messages, its header, its rows with line numbers."""

    file: str
    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]


def read_table(file: str, text: str) -> Table:
    """Split a CSV text; every row must be as wide as the header."""
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = [(line, [c.strip() for c in row]) for line, row in csv_rows(file, reader) if any(row)]
    if not rows:
        raise TraceError(file, "is empty", "give a trace with a header and rows")
    header = tuple(rows[0][1])
    if any(_NUMBER.match(name) for name in header):
        raise TraceError(
            file, "has no header", "name the columns in the first line, as in 't_s,c0,c1'", line=1
        )
    if len(set(header)) < len(header) or "" in header:
        raise TraceError(file, "has an unnamed or doubled column", "name each column once", line=1)
    if len(rows) == 1:
        raise TraceError(file, "has a header but no rows", "check that the file is whole")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise TraceError(
                file,
                f"has {len(row)} cells where the header has {len(header)}",
                "check for a stray comma or a cut file",
                line=line,
            )
    return Table(file, header, rows[1:])


def csv_rows(file: str, reader: "Iterator[list[str]]") -> Iterator[tuple[int, list[str]]]:
    """Rows with their line numbers; a quoting mistake becomes our own error."""
    line = 0
    while True:
        line = getattr(reader, "line_num", line) + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TraceError(
                file, f"is not CSV ({error})", "write plain comma-separated text", line=line
            ) from error
        yield line, row


def whole(file: str, line: int, column: str, cell: str) -> int:
    """A count or a length: a whole number, not negative. "53.0" passes, "5.5" does not."""
    match = _WHOLE.match(cell)
    if match is None:
        raise TraceError(
            file,
            f"{_shown(cell)} is not a count",
            "counts are whole numbers from 0; leave the cell empty where nothing was measured",
            line=line,
            column=column,
        )
    return int(match[1])


def moment_us(file: str, line: int, column: str, cell: str) -> int:
    """A time: a number in the unit that the column's name ends in (seconds if none), or ISO 8601.

    Without a zone it is read as UTC.
    """
    if _NUMBER.match(cell):
        scale = next((us for end, us in US_PER.items() if column.lower().endswith(end)), US)
        return round(float(cell) * scale)
    try:
        found = datetime.fromisoformat(cell)
    except ValueError as error:
        raise TraceError(
            file,
            f"{_shown(cell)} is not a time",
            "write seconds from the start, or ISO 8601 such as 2024-05-01T08:00:00Z",
            line=line,
            column=column,
        ) from error
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _ONE_US


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
