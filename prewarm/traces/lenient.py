"""Any file of past demand, to a panel with notes. An edge: reads the file.

In: a path, a bin width if others than the file's are wanted, the zone of times without one. Out: a
`Cleaned`: the panel, and per stream what was repaired. Never: refuses a file for bad values; what
is no table, or no trace, is a `TraceError`.

A counts file is read leniently, cell by cell. A trace with one row a request (Azure, Mooncake) is
binned into three streams: requests and both kinds of tokens.
"""

from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from prewarm.calendars import US
from prewarm.cleaning import Cleaned, Raw, clean, coarser
from prewarm.traces.files import parse_requests, read_text
from prewarm.traces.records import Requests, TraceError
from prewarm.traces.rows import parse_rows

REQUESTS_BIN_US = 10 * US
"""The bins of request traces where none are asked for: theirs last an hour."""


def read_panel(path: Path, *, bin_us: int | None = None, zone: str = "UTC") -> Cleaned:
    """Raises `TraceError`."""
    _check(zone)
    text = read_text(path)
    requests = parse_requests(path.name, text)
    if requests is not None:
        return clean(binned(path.name, requests, bin_us or REQUESTS_BIN_US), zone)
    raw, notes = parse_rows(path.name, text, zone)
    found = clean(raw, zone, notes)
    return found if bin_us is None else _widened(path.name, found, bin_us)


def binned(name: str, requests: Requests, width_us: int) -> Raw:
    """Requests and tokens per bin, from the first request on, as far as bins are full."""
    places = (requests.at_us - requests.start_us) // width_us
    bins = max(int((requests.at_us[-1] - requests.start_us) // width_us), 1)
    columns = {
        "requests": None,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
    }
    sums = [
        np.bincount(places, weights=weights, minlength=bins)[:bins] for weights in columns.values()
    ]
    return Raw(
        name=name,
        streams=tuple(columns),
        at_us=requests.start_us + np.arange(bins, dtype=np.int64) * width_us,
        values=np.stack(sums, axis=1).astype(np.float64),
        lines=np.arange(1, bins + 1),
        width_us=width_us,
    )


def _widened(name: str, found: Cleaned, bin_us: int) -> Cleaned:
    try:
        return Cleaned(coarser(found.panel, bin_us), found.notes)
    except ValueError as error:
        raise TraceError(name, str(error), "ask for a multiple of the file's own step") from None


def _check(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TraceError(
            f"zone {zone!r}", "is not known", "give an IANA name such as Europe/Berlin"
        ) from None
