"""How an answer is written to a client: heads, chunks, whole responses, retry advice. An edge.

In: what a journey wants said. Out: bytes on its connection, framed for HTTP/1.1 or 1.0. Never:
decides what to say.
"""

from gateway.dialects import Dialect
from gateway.hot_protocol import HotProtocol
from gateway.openai_api import Refusal
from gateway.routing import Lane
from gateway.wire import REASONS, Request

US = 1_000_000
RETRY_AFTER_MAX_S = 120
"""The official client waits no longer than this, whatever Retry-After says."""


def whereabouts(lane: Lane, rung: str, held_us: int) -> bytes:
    """Headers: the replica that served, the rung it climbed from, how long the request was held."""
    return b"%b%b\r\nx-warmtide-held-ms: %d\r\n" % (
        lane.served_here,
        rung.encode(),
        held_us // 1000,
    )


def whereabouts_comment(lane: Lane, rung: str, held_us: int) -> bytes:
    """The same for a stream whose headers are gone: clients skip lines with a colon first."""
    note = f": warmtide replica={lane.lane_id} rung={rung} held-ms={held_us // 1000}"
    return f"{note}\n\n".encode()


class Reply:
    """One response. Once `committed`, its status is settled and errors become events."""

    __slots__ = (
        "_chunked", "_connection", "_dialect", "_request", "_request_id", "_stream", "committed",
    )  # fmt: skip

    def __init__(
        self,
        connection: HotProtocol,
        request: Request,
        request_id: bytes,
        dialect: Dialect,
        *,
        stream: bool,
    ) -> None:
        self._connection = connection
        self._request = request
        self._request_id = request_id
        self._dialect = dialect
        self._stream = stream
        self._chunked = request.version == "1.1"
        self.committed = False

    @property
    def keep_alive(self) -> bool:
        """An HTTP/1.0 answer ends with its connection."""
        return self._request.keep_alive and self._chunked and not self._connection.closing

    def commit(self, headers: bytes) -> None:
        """Send a 200's head ahead of a body that comes in pieces."""
        self.committed = True
        kind = b"text/event-stream; charset=utf-8" if self._stream else b"application/json"
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b"connection: close\r\n"
        self._connection.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncache-control: no-cache\r\n"
            b"x-request-id: %b\r\n%b%b\r\n" % (kind, self._request_id, framing, headers)
        )

    def chunk(self, data: bytes) -> None:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.write(data)

    def finish(self) -> None:
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")

    def heartbeat(self, eta_us: int | None) -> None:
        """Tell a waiting stream that it is not forgotten. The first one commits the 200."""
        if not self.committed:
            self.commit(b"x-warmtide-held: true\r\n")
        note = b"" if eta_us is None else b" eta-ms=%d" % (eta_us // 1000)
        self.chunk(b": keep-alive model is getting ready%b\n\n" % note)

    def refuse(
        self,
        why: Refusal,
        message: str,
        retry_after_us: int = 0,
        *,
        param: str | None = None,
        headers: bytes = b"",
    ) -> None:
        """An error of the gateway's own, as a response, or as an event after a heartbeat."""
        if self.committed:
            self.end_with_error(why, message)
        else:
            headers += retry_headers(why, retry_after_us)
            body = self._dialect.error_body(why, message, param, self._request_id)
            self.whole(why.value.status, body, headers)

    def end_with_error(self, why: Refusal, message: str, sequence: int = 0) -> None:
        """What went wrong after the 200 was out, as the last event of the stream. `sequence` is its
        number where the dialect numbers events."""
        self.chunk(self._dialect.error_event(why, message, self._request_id, sequence))
        self.finish()

    def whole(
        self, status: int, body: bytes, headers: bytes, kind: bytes = b"application/json"
    ) -> None:
        """A response of known length in one write."""
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self._connection.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n"
            b"x-request-id: %b\r\n%b%b\r\n%b"
            % (
                status,
                REASONS.get(status, b"Status"),
                kind,
                len(body),
                self._request_id,
                headers,
                close,
                body,
            )
        )


def retry_headers(why: Refusal, retry_after_us: int) -> bytes:
    """`Retry-After` in whole seconds; where waiting cannot help the official client is told so."""
    if why.value.status >= 500 and not why.value.retry:
        return b"x-should-retry: false\r\n"
    if not why.value.retry or retry_after_us <= 0:
        return b""
    seconds = max(1, -(-retry_after_us // US))
    line = b"retry-after: %d\r\n" % seconds
    return line + b"x-should-retry: false\r\n" if seconds > RETRY_AFTER_MAX_S else line
