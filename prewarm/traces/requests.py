"""Request traces to `Requests`: Azure's CSV and Mooncake's JSON lines.

In: the text of a file. Out: rows in order of time. Never: reads a file, caps a length.
"""

import msgspec
import numpy as np

from prewarm.traces.cells import Table, moment_us, whole
from prewarm.traces.records import Ints, Requests, TraceError

_WHERE = "write one object a line with timestamp (ms), input_length, output_length, hash_ids"


def parse_azure(table: Table) -> Requests:
    """`TIMESTAMP,ContextTokens,GeneratedTokens`, in any order of columns."""
    places = {name.lower(): i for i, name in enumerate(table.header)}
    time, prompt, output = (places[n] for n in ("timestamp", "contexttokens", "generatedtokens"))
    rows: Ints = np.array(
        [
            (
                moment_us(table.file, line, "TIMESTAMP", row[time]),
                whole(table.file, line, "ContextTokens", row[prompt]),
                whole(table.file, line, "GeneratedTokens", row[output]),
            )
            for line, row in table.rows
        ],
        np.int64,
    )
    return _in_order(rows[:, 0], rows[:, 1], rows[:, 2], ())


class _Row(msgspec.Struct):
    """Mooncake's own shape; unknown keys are let pass, as the format grows."""

    timestamp: int | float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def parse_mooncake(file: str, text: str) -> Requests:
    """JSON lines with the time in milliseconds and the ids of 512-token prefix blocks."""
    decoder = msgspec.json.Decoder(_Row)
    rows: list[_Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise TraceError(file, f"is not a request ({error})", _WHERE, line=number) from error
        _check(file, number, row)
        rows.append(row)
    if not rows:
        raise TraceError(file, "has no requests", _WHERE)
    return _in_order(
        np.array([round(row.timestamp * 1000) for row in rows], np.int64),
        np.array([row.input_length for row in rows], np.int64),
        np.array([row.output_length for row in rows], np.int64),
        tuple(row.hash_ids for row in rows),
    )


def _check(file: str, line: int, row: _Row) -> None:
    """Numbers within reason, so that no later sum overflows."""
    for column in ("timestamp", "input_length", "output_length"):
        if not 0 <= getattr(row, column) < 10**12:
            raise TraceError(file, "is out of range", _WHERE, line=line, column=column)


def _in_order(
    at_us: Ints, prompt: Ints, output: Ints, blocks: tuple[tuple[int, ...], ...]
) -> Requests:
    """Sort by time, keeping the file's order among equals."""
    order = np.argsort(at_us, kind="stable")
    found = Requests(
        start_us=int(at_us[order[0]]),
        at_us=at_us,
        streams=("requests",),
        stream=np.zeros(len(at_us), np.int64),
        prompt_tokens=prompt,
        output_tokens=output,
        prefix_blocks=blocks if any(blocks) else (),
    )
    return found.rows(order)
