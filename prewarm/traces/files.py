"""A trace file from disk. An edge: reads the file, tells its format from the content.

In: a path. Out: `Counts` or `Requests`, or a `TraceError` that says what to do.
Never: trusts the file's name, keeps the file open, reads without a bound.
"""

import gzip
import io
import zlib
from pathlib import Path

from prewarm.traces.cells import Table, read_table
from prewarm.traces.counts import parse_burstgpt_hours, parse_counts
from prewarm.traces.records import Trace, TraceError
from prewarm.traces.requests import parse_azure, parse_mooncake

BYTES_MAX = 512_000_000
_GZIP = b"\x1f\x8b"
_AZURE = frozenset(("timestamp", "contexttokens", "generatedtokens"))


def read_trace(path: Path) -> Trace:
    """Read ServeGen, Azure, Mooncake, BurstGPT, NAB or plain counts, gzipped or not."""
    return parse_trace(path.name, _read(path))


def parse_trace(file: str, data: bytes) -> Trace:
    """The bytes of a trace file, to a trace. Pure."""
    text = _decode(file, data)
    if text.lstrip().startswith("{"):
        return parse_mooncake(file, text)
    table = read_table(file, text)
    names = {name.lower() for name in table.header}
    if names >= _AZURE:
        return parse_azure(table)
    if table.header[:2] == ("day", "hour") and len(table.header) > 2:
        return parse_burstgpt_hours(table)
    _refuse_statistics(table)
    return parse_counts(table)


def _refuse_statistics(table: Table) -> None:
    if {"model", "client", "t_s"} <= set(table.header):
        raise TraceError(
            table.file,
            "holds token statistics, no requests",
            "replay the counts beside it (clients_10min_*.csv.gz)",
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            data = opened.read(BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise TraceError(
            str(path), "there is no such file", "check the path, or fetch the public traces"
        ) from error
    except OSError as error:
        raise TraceError(
            str(path), f"cannot be read ({error.strerror})", "give a file you may read"
        ) from error
    return _within(path.name, data)


def _decode(file: str, data: bytes) -> str:
    """Text of the bytes; gzip is known by its magic, and unpacked up to the same bound."""
    if data.startswith(_GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(BYTES_MAX + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise TraceError(
                file, f"is a broken gzip file ({error})", "download it again"
            ) from error
    try:
        return _within(file, data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(
            file, "is not UTF-8 text", "give CSV or JSON lines, plain or gzipped"
        ) from error


def _within(file: str, data: bytes) -> bytes:
    if len(data) > BYTES_MAX:
        raise TraceError(
            file, f"is larger than {BYTES_MAX // 10**6} MB", "cut it to the days you need"
        )
    return data
