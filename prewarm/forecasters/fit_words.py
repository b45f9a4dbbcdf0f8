"""What we and the process that fits say to each other: one stream's job, its answer. Pure.

In: requests, rows. Out: frames of bytes: a length, then MessagePack. Numbers travel as the bytes of
float64, nothing is pickled. Never: trusts that a read ends where a frame ends.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from placement.catalog import DemandEvent, Frozen
from prewarm.calendars import Calendar
from prewarm.forecasters.paths import FitRequest
from prewarm.series import Floats

_LENGTH_BYTES = 4


class Start(Frozen, frozen=True, kw_only=True):
    """Told once, on the command line."""

    fits: str
    """Where its table of fits is: `module:name`."""
    python_path: tuple[str, ...]
    memory_bytes: int
    folder: str
    """For temporary files; removed with the process."""


class Job(Frozen, frozen=True, kw_only=True):
    """One stream of a `FitRequest`."""

    forecaster: str
    start_us: int
    width_us: int
    zone: str
    stream: str
    first: int
    values: bytes
    ahead: int
    country: str
    events: tuple[DemandEvent, ...]


class Row(Frozen, frozen=True, kw_only=True, tag=True):
    """What is said of a stream."""

    medians: bytes
    note: str


class Useless(Frozen, frozen=True, kw_only=True, tag=True):
    """No stream can be fitted: the library is missing, the forecaster unknown."""

    why: str


Answer = Row | Useless


def job(request: FitRequest, stream: int) -> Job:
    return Job(
        forecaster=request.forecaster,
        start_us=request.calendar.start_us,
        width_us=request.calendar.width_us,
        zone=request.calendar.zone,
        stream=request.streams[stream],
        first=request.first,
        values=request.values[:, stream].tobytes(),
        ahead=request.ahead,
        country=request.country,
        events=request.events,
    )


def request_of(one: Job) -> FitRequest:
    return FitRequest(
        forecaster=one.forecaster,
        calendar=Calendar(one.start_us, one.width_us, one.zone),
        streams=(one.stream,),
        first=one.first,
        values=numbers(one.values)[:, None],
        ahead=one.ahead,
        country=one.country,
        events=one.events,
    )


def numbers(raw: bytes) -> Floats:
    return np.frombuffer(raw, np.float64)


def frame(message: Job | Answer) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def bodies(buffer: bytearray) -> Iterator[bytes]:
    """The whole frames at the head of the buffer, which are taken out of it."""
    while len(buffer) >= _LENGTH_BYTES:
        end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "big")
        if len(buffer) < end:
            return
        body = bytes(buffer[_LENGTH_BYTES:end])
        del buffer[:end]
        yield body


def read_job(body: bytes) -> Job:
    return msgspec.msgpack.decode(body, type=Job)


def read_answer(body: bytes) -> Answer:
    answer: Answer = msgspec.msgpack.decode(body, type=Row | Useless)
    return answer
