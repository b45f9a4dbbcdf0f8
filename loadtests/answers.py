"""One streamed answer, read as a client sees it: first token, last token, how it ended. Pure.

In: status, headers and body bytes, each with the wall microsecond it came at. Out: `Answer`.
Never: touches a socket, takes a heartbeat or an empty delta for a token.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum

import msgspec

LINE_BYTES_MAX = 1 << 20
BODY_BYTES_MAX = 1 << 16


class Outcome(StrEnum):
    """What became of a request; exactly one each."""

    ANSWERED = "answered"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    CUT = "cut"
    LOST = "lost"


class Ending(Enum):
    """How the exchange ended on the wire."""

    COMPLETE = "the response is whole"
    BROKEN = "the connection closed or spoke nonsense"
    LEFT = "the client left on purpose"
    TIMED_OUT = "the client's patience ran out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client saw of one request. Spans are wall microseconds, `held_ms` is trace time."""

    outcome: Outcome
    code: str = ""
    ttft_us: int | None = None
    itl_us: float | None = None
    tokens: int = 0
    rung: str = ""
    held_ms: float = 0.0
    late_us: int = 0


class _Delta(msgspec.Struct):
    content: object = None
    refusal: object = None
    reasoning: object = None
    reasoning_content: object = None
    tool_calls: object = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Error(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | str | None = None


_EVENT = msgspec.json.Decoder(_Event)


def _has_token(event: _Event) -> bool:
    for choice in event.choices:
        delta = choice.delta
        if choice.text or (
            delta is not None
            and (
                delta.content
                or delta.tool_calls
                or delta.reasoning_content
                or delta.reasoning
                or delta.refusal
            )
        ):
            return True
    return False


class Reading:
    """Fed by a connection as bytes come; asked once for the `Answer`."""

    __slots__ = (
        "_begun",
        "_body",
        "_done",
        "_error",
        "_events",
        "_first_us",
        "_held_ms",
        "_last_us",
        "_line",
        "_rung",
        "_tokens",
        "sent_us",
        "status",
    )

    def __init__(self) -> None:
        self.sent_us = 0
        self.status = 0
        self._line = b""
        self._body = b""
        self._begun = False
        self._done = False
        self._error = ""
        self._events = 0
        self._first_us = 0
        self._last_us = 0
        self._tokens = 0
        self._rung = ""
        self._held_ms = 0.0

    @property
    def events(self) -> int:
        """Events with text so far."""
        return self._events

    def on_header(self, name: bytes, value: bytes) -> None:
        """Warmtide's own headers; everybody else's pass by."""
        name = name.lower()
        if name == b"x-warmtide-rung":
            self._rung = value.decode("latin-1")
        elif name == b"x-warmtide-held-ms":
            self._held_ms = _number(value)

    def on_body(self, data: bytes, now_us: int) -> None:
        if self.status != 200:
            self._body = (self._body + data)[:BODY_BYTES_MAX]
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > LINE_BYTES_MAX:
            self._line, self._error = b"", "endless_event"
        for line in lines:
            if line.startswith(b"data:"):
                self._on_data(line[5:].strip(), now_us)
            elif line.startswith(b": warmtide "):
                self._on_comment(line)

    def _on_data(self, data: bytes, now_us: int) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            self._error = self._error or "malformed_event"
            return
        if event.error is not None:
            self._error = self._error or _code_of(event.error)
            return
        self._begun = True
        if event.usage is not None:
            self._tokens = event.usage.completion_tokens
        if _has_token(event):
            self._events += 1
            self._first_us = self._first_us or now_us
            self._last_us = now_us

    def _on_comment(self, line: bytes) -> None:
        """`: warmtide replica=R rung=parked held-ms=1234`: after a heartbeat sent the headers."""
        for part in line[len(b": warmtide ") :].split():
            key, _, value = part.partition(b"=")
            if key == b"rung":
                self._rung = value.decode("latin-1")
            elif key == b"held-ms":
                self._held_ms = _number(value)

    def answer(self, ending: Ending, late_us: int) -> Answer:
        """Judge the exchange. TTFT and ITL stand whenever a token came, however it ended."""
        outcome, code = self._judged(ending)
        tokens = self._tokens or self._events
        spread = tokens > 1 and self._last_us > self._first_us
        return Answer(
            outcome=outcome,
            code=code,
            ttft_us=self._first_us - self.sent_us if self._first_us else None,
            itl_us=(self._last_us - self._first_us) / (tokens - 1) if spread else None,
            tokens=tokens if self._events else 0,
            rung=self._rung,
            held_ms=self._held_ms,
            late_us=late_us,
        )

    def _judged(self, ending: Ending) -> tuple[Outcome, str]:
        if self.status not in (0, 200):
            return Outcome.REFUSED, f"{self.status} {_code_in(self._body)}".strip()
        if self._error:
            # A held stream's 200 went out with a heartbeat: until the engine spoke it is a refusal.
            outcome = Outcome.CUT if self._begun else Outcome.REFUSED
            return outcome, f"{self.status} {self._error}"
        if self._done:
            return Outcome.ANSWERED, ""
        if ending is Ending.LEFT:
            return Outcome.CANCELLED, ""
        if not self._begun:
            # No engine spoke and nobody refused: a heartbeat's 200 alone is no outcome.
            return Outcome.LOST, "no_answer"
        return Outcome.CUT, "broken_stream" if ending is not Ending.TIMED_OUT else "client_timeout"


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


class _Body(msgspec.Struct):
    error: _Error | str | None = None


def _code_in(body: bytes) -> str:
    """The code of an OpenAI error body, or nothing."""
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeError):
        return ""
    return "" if error is None else _code_of(error)


def _code_of(error: _Error | str) -> str:
    if isinstance(error, str):
        return "error"
    return str(error.code or error.type or "error")
