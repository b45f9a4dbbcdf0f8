"""One locust user's HTTP client: asks, reads as a client sees it, leaves when it should. An edge.

In: `Visit`s. Out: one `Heard` each, always. Never: sends a request twice, waits for longer than its
patience between two bytes, keeps a connection whose answer was not read to its end.
"""

from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

import gevent
import msgspec
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPSocketPoolResponse

from loadtests.answers import Answer, Ending, Outcome, Reading
from loadtests.errors import AskedError
from loadtests.visits import Kind, Visit
from placement.clock import monotonic_us

CONNECT_PATIENCE_S = 10.0
CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"


class Heard(NamedTuple):
    """What became of a visit. `stopped`: the load test itself ended in the middle of it."""

    answer: Answer
    wall_us: int
    length_bytes: int
    stopped: bool = False


class _Whole(msgspec.Struct):
    choices: list[object]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Client:
    """Kept connections of one user, as many as it asks at once."""

    def __init__(self, url: str, key: str, *, patience_s: float, at_once: int = 1) -> None:
        parts = urlsplit(url)
        self._base = parts.path.rstrip("/").removesuffix("/v1")
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._http = HTTPClient.from_url(
            url,
            concurrency=at_once,
            connection_timeout=CONNECT_PATIENCE_S,
            network_timeout=patience_s,
        )

    def ask(self, visit: Visit) -> Heard:
        """Send one request and read its answer to the end, or until it is time to leave."""
        exchange, path = _Exchange(visit), self._base + CHAT_PATH
        time_to_leave = gevent.Timeout(visit.leave.after_s)
        try:
            with time_to_leave:
                response = self._http.request("POST", path, visit.body, self._headers)
                try:
                    ending = exchange.read(response)
                finally:
                    response.release()
        except gevent.Timeout as timeout:
            if timeout is not time_to_leave:
                raise
            ending = Ending.LEFT
        except gevent.GreenletExit:
            return exchange.heard(Ending.LEFT, stopped=True)
        except TimeoutError:
            ending = Ending.TIMED_OUT
        except (OSError, HTTPException):
            ending = Ending.BROKEN
        return exchange.heard(ending)

    def models(self) -> list[str]:
        """Names that the address lists. Raises `AskedError`."""
        try:
            with self._http.request("GET", self._base + MODELS_PATH, "", self._headers) as response:
                body = response.read()
                status = response.status_code
        except (OSError, HTTPException) as error:
            raise AskedError(f"nobody answers at {self._url} ({error})") from error
        if status != 200:
            hint = ": give keys, see --tenants-file" if status in (401, 403) else ""
            raise AskedError(f"{self._url} answered {status} to GET {MODELS_PATH}{hint}")
        try:
            return [model.id for model in msgspec.json.decode(body, type=_Models).data]
        except (msgspec.DecodeError, UnicodeError) as error:
            raise AskedError(f"{self._url} did not answer with a list of models") from error

    def close(self) -> None:
        self._http.close()


class _Exchange:
    """A request on its way, with what has been heard of its answer."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._reading = Reading()
        self._reading.sent_us = monotonic_us()
        self._length_bytes = 0
        self._whole = False

    def read(self, response: HTTPSocketPoolResponse) -> Ending:
        self._reading.status = response.status_code
        if self._visit.kind is Kind.STREAM and response.status_code == 200:
            return self._read_events(response)
        body = response.read()
        self._length_bytes = len(body)
        self._reading.on_body(body, monotonic_us())
        self._whole = response.status_code == 200 and _is_an_answer(body)
        return Ending.COMPLETE

    def _read_events(self, response: HTTPSocketPoolResponse) -> Ending:
        leave_after = self._visit.leave.after_events
        while line := response.readline(b"\n"):
            self._length_bytes += len(line)
            self._reading.on_body(line, monotonic_us())
            if leave_after is not None and self._reading.events >= leave_after:
                return Ending.LEFT
        return Ending.COMPLETE

    def heard(self, ending: Ending, *, stopped: bool = False) -> Heard:
        answer = self._reading.answer(ending, 0)
        if self._whole:
            answer = Answer(outcome=Outcome.ANSWERED)
        spent_us = monotonic_us() - self._reading.sent_us
        return Heard(answer, spent_us, self._length_bytes, stopped)


def _is_an_answer(body: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(body, type=_Whole).choices)
    except (msgspec.DecodeError, UnicodeError):
        return False
