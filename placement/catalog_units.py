"""Human units in, the core's integers out, and back.

In: `"16.1 GB"`, `"500 ms"`, `"22 GB/s"`, `"8B"`. Out: bytes, microseconds, bytes per second,
counts. GB is 10^9, GiB is 2^30. Never: guesses a unit; a bare number is a `UnitError` that says
what to write instead.
"""

import re
from decimal import Decimal

BYTE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
TIME_UNITS = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "min": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86_400 * 10**6,
}
COUNT_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

BYTES_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)/s$"
TIME_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(us|ms|s|min|h|d)$"
REQUESTS_PATTERN = r"^[0-9]+(\.[0-9]+)? ?/ ?(s|min|h|d)$"
COUNT_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(K|M|B|T)$"

LARGEST = 2**60
"""Nothing in a catalog is larger: an exabyte, thirty thousand years."""

REQUESTS_PER_S_MAX = 1e6
_REQUESTS = re.compile(r"(\d{1,24}(?:\.\d{1,24})?)\s?/\s?(s|min|h|d)", re.ASCII)
_QUANTITY = re.compile(r"(\d{1,24}(?:\.\d{1,24})?)\s?([A-Za-z/]{0,8})", re.ASCII)


class UnitError(ValueError):
    """A quantity that cannot be understood: what is wrong with it and what to write."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}. {remedy}")


def parse_bytes(value: object) -> int:
    """`"16 GB"` → 16_000_000_000; `"15 GiB"` → 15 · 2^30."""
    if _is_number(value):
        raise UnitError("a bare number does not say which unit", _write_bytes_instead(value))
    return _scaled(value, BYTE_UNITS, "a size", "Write for example 16 GB (10^9) or 15 GiB (2^30)")


def parse_rate(value: object) -> int:
    """`"22 GB/s"` → bytes per second."""
    if _is_number(value):
        raise UnitError("a bare number does not say which unit", "Write for example 22 GB/s")
    if isinstance(value, str) and not value.endswith("/s"):
        raise UnitError("expected bytes per second", "Write for example 22 GB/s")
    per_second = value.removesuffix("/s") if isinstance(value, str) else value
    return _scaled(per_second, BYTE_UNITS, "a rate", "Write for example 22 GB/s")


def parse_time_us(value: object) -> int:
    """`"30 s"`, `"500 ms"`, `"5 min"` → microseconds."""
    if _is_number(value):
        remedy = f"Write {value} s or {value} ms"
        raise UnitError("a bare number does not say which unit", remedy)
    return _scaled(value, TIME_UNITS, "a time", "Write for example 30 s, 500 ms or 5 min")


def parse_requests_per_s(value: object) -> float:
    """`"5/s"`, `"300/min"`, `"40/h"` → requests a second."""
    remedy = "Write for example 5/s, 300/min or 40/h"
    if _is_number(value):
        raise UnitError("a bare number does not say how often", f"Write {value}/s or {value}/h")
    match = _REQUESTS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise UnitError("expected a rate of requests", remedy)
    rate = float(match[1]) * TIME_UNITS["s"] / TIME_UNITS[match[2]]
    if not 0 < rate <= REQUESTS_PER_S_MAX:
        raise UnitError("the rate is out of range", remedy)
    return rate


def parse_count(value: object) -> int:
    """`"8B"`, `"567M"` or a plain integer → a count."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= LARGEST:
            raise UnitError("the count is out of range", "Write for example 8B, 567M or 8030261248")
        return value
    return _scaled(value, COUNT_UNITS, "a count", "Write for example 8B, 567M or 8030261248")


def write_bytes(n: int) -> str:
    """Exact text of a size: `parse_bytes(write_bytes(n)) == n`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if n and n % BYTE_UNITS[unit] == 0:
            return f"{n // BYTE_UNITS[unit]} {unit}"
    for unit in ("TB", "GB", "MB", "kB"):
        if n and n % (BYTE_UNITS[unit] // 1000) == 0 and n >= BYTE_UNITS[unit]:
            return f"{Decimal(n) / BYTE_UNITS[unit]:f} {unit}"
    return f"{n} B"


def human_bytes(n: float) -> str:
    """Rounded text of a size for people: three digits and a decimal unit."""
    for unit in ("TB", "GB", "MB", "kB"):
        if n >= BYTE_UNITS[unit]:
            return f"{n / BYTE_UNITS[unit]:.1f} {unit}".replace(".0 ", " ")
    return f"{n:.0f} B"


def human_time(us: int) -> str:
    """Rounded text of a time for people."""
    for unit in ("d", "h", "min", "s", "ms"):
        if us >= TIME_UNITS[unit]:
            return f"{us / TIME_UNITS[unit]:.4g} {unit}"
    return f"{us} us"


def _scaled(value: object, units: dict[str, int], kind: str, remedy: str) -> int:
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise UnitError(f"expected {kind}: a number and a unit", remedy)
    number, unit = match.groups()
    if not unit:
        raise UnitError("a bare number does not say which unit", remedy)
    if unit not in units:
        raise UnitError(f"unknown unit; {kind} is given in {', '.join(units)}", remedy)
    scaled = round(Decimal(number) * units[unit])
    if scaled > LARGEST:
        raise UnitError(f"{kind} out of range", remedy)
    return scaled


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _write_bytes_instead(value: object) -> str:
    """A small number was surely meant in GB; a large one in bytes."""
    if not isinstance(value, int | float) or not 0 < value <= LARGEST:
        return "Write for example 16 GB (10^9) or 15 GiB (2^30)"
    if value >= 10_000:
        return f"Write {value} B, {write_bytes(int(value))} or for example 16 GB"
    gib = max(round(value * BYTE_UNITS["GB"] / BYTE_UNITS["GiB"]), 1)
    return f"Write {value} GB or {gib} GiB"
