"""Spans of time as people type them. Pure.

In: `8d`, `1.5h`, `20m`, `90 s`, `600`. Out: microseconds. Never: guesses what else was meant.
"""

import re

from loadtests.errors import AskedError
from prewarm.traces.records import US

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(us|ms|s|m|min|h|d|w)?\Z")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def span_us(text: str, option: str) -> int:
    """A bare number is in seconds."""
    match = _SPAN.match(text.strip())
    if match is None:
        raise AskedError(f"{option}: {text!r} is no time span; write 8d, 1.5h, 20m or 90s")
    return round(float(match[1]) * _UNITS_S[match[2] or "s"] * US)
