"""A range query to a Prometheus, or to what speaks its HTTP API. An edge.

In: where, which query, from when to when in steps. Out: raw rows, a column for each value of one
label. Never: reads without a bound in bytes and time, asks for more points at once than a
Prometheus gives, follows a redirect with a token, takes a missing or stale sample for zero.
"""

import re
from collections.abc import Callable, Iterator
from math import isnan

import httpx
import msgspec
import numpy as np

from placement.catalog import Frozen
from placement.catalog_units import human_time
from placement.clock import monotonic_us
from prewarm.calendars import US
from prewarm.cleaning import Raw
from prewarm.traces.counts import CELLS_MAX

POINTS_MAX = 11_000
"""Per series and request; a Prometheus refuses more."""
BYTES_MAX = 64_000_000
CONNECT_WALL_S = 5.0
_SAID_MAX = 300
_TIME_MAX_S = 1e12
"""What lies beyond is no time, and left out like all that was not asked for."""
_RANGE = re.compile(r"\[((?:[0-9]+(?:ms|[smhdwy]))+)\]")
_SPAN = re.compile(r"([0-9]+)(ms|[smhdwy])")
_UNIT_US = {
    "ms": 1000,
    "s": US,
    "m": 60 * US,
    "h": 3600 * US,
    "d": 86_400 * US,
    "w": 7 * 86_400 * US,
    "y": 365 * 86_400 * US,
}


class PrometheusError(Exception):
    """No usable answer; the text says what came instead and what to do."""


class Asked(Frozen, frozen=True, kw_only=True):
    """Windows [start_us, end_us) of step_us each, all multiples of it."""

    url: str
    query: str
    start_us: int
    end_us: int
    step_us: int
    label: str = "model"
    suffix: str = ""
    """Put behind each model's name: a column of tokens beside one of requests."""
    timeout_wall_s: float = 60.0


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815 -- Prometheus' own key
    result: list[_Series] = []


class _Answer(msgspec.Struct):
    """The envelope of every answer; `data` where it went well, `error` where not."""

    status: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    errorType: str = ""  # noqa: N815
    error: str = ""
    warnings: list[str] = []


def overlapping(query: str, step_us: int) -> str:
    """A range in the query that is not the step: windows would overlap or leave gaps."""
    for found in _RANGE.finditer(query):
        span_us = sum(int(number) * _UNIT_US[unit] for number, unit in _SPAN.findall(found[1]))
        if span_us != step_us:
            return found[1]
    return ""


def range_query(asked: Asked, token: str, tell: Callable[[str], None]) -> Raw:
    """The value at a moment is what the step before it counted. Raises `PrometheusError`."""
    found: dict[str, dict[int, float]] = {}
    headers = {"accept": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    timeout = httpx.Timeout(asked.timeout_wall_s, connect=CONNECT_WALL_S)
    with httpx.Client(headers=headers, timeout=timeout, trust_env=False) as client:
        for first_us, last_us in _chunks(asked):
            tell(f"asking {asked.url} for {human_time(last_us - first_us + asked.step_us)}")
            for name, samples in _series(asked, _data(client, asked, first_us, last_us)):
                found.setdefault(name, {}).update(samples)
    return _raw(asked, found)


def _chunks(asked: Asked) -> Iterator[tuple[int, int]]:
    """First and last moment of each request: the ends of windows."""
    first_us = asked.start_us + asked.step_us
    while first_us <= asked.end_us:
        last_us = min(first_us + (POINTS_MAX - 1) * asked.step_us, asked.end_us)
        yield first_us, last_us
        first_us = last_us + asked.step_us


def joined(answers: list[Raw]) -> Raw:
    """The columns of several queries over the same windows."""
    first = answers[0]
    return Raw(
        name=first.name,
        streams=tuple(stream for raw in answers for stream in raw.streams),
        at_us=first.at_us,
        values=np.hstack([raw.values for raw in answers]),
        lines=first.lines,
        width_us=first.width_us,
    )


# --- one request


def _data(client: httpx.Client, asked: Asked, first_us: int, last_us: int) -> list[_Series]:
    url = f"{asked.url.rstrip('/')}/api/v1/query_range"
    fields = {
        "query": asked.query,
        "start": f"{first_us / US:.3f}",
        "end": f"{last_us / US:.3f}",
        "step": f"{asked.step_us / US:g}",
    }
    try:
        with client.stream("GET", url, params=fields) as reply:
            body = _body(reply, asked)
            return _matrix(reply, body, url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise PrometheusError(f"{asked.url}: {error}; write for example http://host:9090") from None
    except httpx.TimeoutException:
        raise _slow(asked) from None
    except httpx.HTTPError as error:
        raise PrometheusError(
            f"{asked.url} cannot be asked: {str(error) or type(error).__name__}"
        ) from None


def _body(reply: httpx.Response, asked: Asked) -> bytes:
    """All of it, within bounds: a server that trickles is as good as none."""
    deadline_us = monotonic_us() + int(asked.timeout_wall_s * US)
    body = bytearray()
    for part in reply.iter_bytes():
        body += part
        if len(body) > BYTES_MAX:
            raise PrometheusError(
                f"{asked.url} answers with more than {BYTES_MAX // 10**6} MB: sum by the label "
                "that names the model, or ask for less at once (--start)"
            )
        if monotonic_us() > deadline_us:
            raise _slow(asked)
    return bytes(body)


def _slow(asked: Asked) -> PrometheusError:
    return PrometheusError(
        f"{asked.url} did not answer within {asked.timeout_wall_s:g} s: ask for less (--start), or "
        "wait longer (--timeout)"
    )


def _matrix(reply: httpx.Response, body: bytes, url: str) -> list[_Series]:
    where = f"{url} ({reply.status_code})"
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError:
        said = body[:_SAID_MAX].decode(errors="replace").strip() or "nothing"
        raise PrometheusError(f"{where} says no Prometheus answer: {said}{_hint(reply)}") from None
    if answer.status != "success":
        kind = f"{answer.errorType}: " if answer.errorType else ""
        raise PrometheusError(f"{where} says {kind}{answer.error[:_SAID_MAX]}")
    try:
        data = msgspec.json.decode(answer.data, type=_Data)
    except msgspec.MsgspecError as error:
        raise PrometheusError(
            f"{where}: the answer is not of the documented form: {error}"
        ) from None
    if data.resultType != "matrix":
        raise PrometheusError(f"{where} answers with a {data.resultType}, not a matrix")
    return data.result


def _hint(reply: httpx.Response) -> str:
    if reply.status_code in (401, 403):
        return "; give a token with --token-env or --token-file"
    if reply.is_redirect:
        return f"; it sends elsewhere, to {reply.headers.get('location', '')}: give that address"
    return ""


# --- its series


def _series(asked: Asked, series: list[_Series]) -> Iterator[tuple[str, dict[int, float]]]:
    seen: set[str] = set()
    for one in series:
        name = one.metric.get(asked.label)
        if name is None:
            there = ", ".join(sorted(one.metric)) or "none at all"
            raise PrometheusError(
                f"a series has no label {asked.label!r} (it has {there}): name the one that holds "
                f"the model with --label, as in 'sum by ({asked.label}) (...)'"
            )
        if name in seen:
            raise PrometheusError(
                f"several series have {asked.label}={name!r}: add them up in the query, as in "
                f"'sum by ({asked.label}) (...)'"
            )
        seen.add(name)
        yield name + asked.suffix, _by_moment(one.values)


def _by_moment(samples: list[tuple[float, str]]) -> dict[int, float]:
    return {round(at_s * US): _value(told) for at_s, told in samples if abs(at_s) < _TIME_MAX_S}


def _value(told: str) -> float:
    try:
        return float(told)
    except ValueError:
        return float("nan")


def _raw(asked: Asked, found: dict[str, dict[int, float]]) -> Raw:
    """On the windows that were asked for; where a series has no sample, nothing is known."""
    streams = tuple(sorted(found))
    starts = range(asked.start_us, asked.end_us, asked.step_us)
    if len(starts) * len(streams) > CELLS_MAX:
        raise PrometheusError(
            f"{asked.url} knows {len(streams)} series, too many for {len(starts)} windows each: "
            "ask for less at once (--start), or for fewer models in the query"
        )
    values = np.full((len(starts), len(streams)), np.nan)
    for at, stream in enumerate(streams):
        for end_us, value in found[stream].items():
            place = (end_us - asked.start_us) // asked.step_us - 1
            if 0 <= place < len(starts) and not isnan(value):
                values[place, at] = value
    return Raw(
        name=asked.url,
        streams=streams,
        at_us=np.array(starts, np.int64),
        values=values,
        lines=np.arange(1, len(starts) + 1),
        width_us=asked.step_us,
    )
