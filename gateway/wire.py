"""What a connection and those who answer on it agree on. Pure.

In: nothing. Out: a request, the shape of an answer under way, a whole response, a refusal as an
exception, the forms of a URL. Never: reads or writes a byte of a connection.
"""

import http
from typing import Protocol

from gateway.openai_api import Refusal

REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}


class Request:
    """One request, whole. Header names are lower case; of repeated headers the last one counts."""

    __slots__ = ("body", "header", "keep_alive", "method", "path", "query", "version")

    def __init__(self) -> None:
        self.method = b""
        self.path = b""
        self.query = b""
        self.version = "1.1"
        self.header: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True


class Answering(Protocol):
    """Whoever works on a connection's current request."""

    @property
    def waiting(self) -> bool:
        """Held: nothing of an answer is under way."""

    def stop(self) -> None:
        """The gateway ends: tell the client, at once."""

    def client_left(self) -> None: ...
    def half_closed(self) -> bool: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def without_origin(url: bytes) -> bytes:
    """`http://host/path` asks for the same as `/path`; what is neither stays as it is."""
    scheme, found, rest = url.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return url
    at = rest.find(b"/")
    return b"/" if at < 0 else rest[at:]


class RefuseError(Exception):
    """Raised inside parser callbacks; httptools wraps it, the connection unwraps it."""

    def __init__(self, why: Refusal, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message


def plain_response(status: int, body: bytes, *, headers: bytes = b"", close: bool = False) -> bytes:
    """A whole JSON response. `headers` are further header lines, each ending in CRLF."""
    reason = REASONS.get(status, b"Status")
    return b"".join(
        (
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            % (status, reason, len(body)),
            headers,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            body,
        )
    )
