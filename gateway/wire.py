"""What a connection and those who answer on it agree on. Pure.

In: nothing. Out: the shape of an answer under way, a refusal as an exception, the forms of a URL.
Never: reads or writes a byte of a connection.
"""

from typing import Protocol

from gateway.openai_api import Refusal


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
