"""A trace file from disk. An edge: reads the file, tells its format from the content.

In: a path. Out: `Counts` or `Requests`, or a `TraceError` that says what to do.
Never: trusts the file's name, keeps the file open, reads without a bound.
"""

import csv
import gzip
import io
import zlib
from pathlib import Path

from prewarm.traces.cells import read_table
from prewarm.traces.counts import parse_burstgpt_hours, parse_counts
from prewarm.traces.records import Requests, Trace, TraceError
from prewarm.traces.requests import parse_azure, parse_mooncake

BYTES_MAX = 512_000_000
_GZIP = b"\x1f\x8b"
_AZURE = frozenset(("timestamp", "contexttokens", "generatedtokens"))


def read_trace(path: Path) -> Trace:
    """Read ServeGen, Azure, Mooncake, BurstGPT, NAB or plain counts, gzipped or not."""
    return parse_trace(path.name, _read(path))


def read_text(path: Path) -> str:
    """Text of a file, unpacked if it is gzipped. Raises `TraceError`."""
    return _decode(path.name, _read(path))


def parse_trace(file: str, data: bytes) -> Trace:
    """The bytes of a trace file, to a trace. Pure."""
    text = _decode(file, data)
    requests = parse_requests(file, text)
    if requests is not None:
        return requests
    table = read_table(file, text)
    if table.header[:2] == ("day", "hour") and len(table.header) > 2:
        return parse_burstgpt_hours(table)
    return parse_counts(table)


def parse_requests(file: str, text: str) -> Requests | None:
    """A trace with one row a request; None where the text is of another kind. Pure."""
    if text.lstrip().startswith("{"):
        return parse_mooncake(file, text)
    first = text.lstrip().partition("\n")[0]
    if {name.strip().lower() for row in csv.reader([first]) for name in row} >= _AZURE:
        return parse_azure(read_table(file, text))
    return None


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
