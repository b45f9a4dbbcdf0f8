"""HTTP/1.1 towards clients: one object per connection, httptools callbacks, no task per request.

In: bytes of a connection. Out: whole requests handed to a `Desk`, one at a time in their order;
bytes of answers. Never: knows a model, decodes a body, buffers more than one request beside a
bounded pipeline and one read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from gateway.openai_api import Refusal, error_body

log = logging.getLogger("warmtide.gateway")

HEADER_BYTES_MAX = 64 * 1024
HEADER_OVERHEAD_BYTES = 32
URL_BYTES_MAX = 8 * 1024
BODY_BYTES_MAX = 32 * 1024 * 1024
PIPELINE_MAX = 8
PIPELINE_BYTES_MAX = 1024 * 1024
"""With so many requests, or bytes of them, waiting behind one answer, reading pauses. Not before:
who reads nothing does not notice that its client left."""
PIPELINE_BURST_MAX = 32
"""A read may bring more of them at once than there was room for; not more than this."""
TICK_WALL_S = 2.0
"""Stalled and idle connections are looked for this often, and timed in such ticks: a clock reading
for every read of every connection would buy nothing."""
HEAD_TICKS = 5
BODY_TICKS = 30
IDLE_TICKS = 60
WRITE_HIGH_BYTES = 256 * 1024

REASONS = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


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


class Desk(Protocol):
    """Where whole requests go. `tick` counts the sweeps over its connections."""

    tick: int

    def take(self, connection: "HotProtocol", request: Request) -> None: ...


class HotProtocol(asyncio.Protocol):
    """A client's connection. Answers are written by whoever took the request, then `done()`."""

    __slots__ = (
        "_body", "_body_bytes", "_desk", "_header_bytes", "_open", "_parser", "_pipeline",
        "_pipeline_bytes", "_request", "_since_tick", "_transport", "_unread", "_url", "answering",
        "closing", "peer",
    )  # fmt: skip

    def __init__(self, desk: Desk, connections: "set[HotProtocol]") -> None:
        self._desk = desk
        self._open = connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._pipeline: deque[Request] = deque()
        self._pipeline_bytes = 0
        self._unread = False  # the client leaves so much unread that no more is written
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0
        self._since_tick = self._desk.tick
        self.answering: Answering | None = None
        self.closing = False
        self.peer: tuple[str, int] | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.peer = transport.get_extra_info("peername")
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            self._parser.feed_data(data)
        except _RefuseError as error:
            self._refuse(error.why, error.message)
        except httptools.HttpParserError as error:
            inner = error.__context__  # what a callback of ours raised
            if isinstance(inner, _RefuseError):
                self._refuse(inner.why, inner.message)
            elif inner is not None:
                self._on_bug(inner)
            else:
                self._refuse(Refusal.BAD_HTTP, f"this is not a valid HTTP/1.1 request: {error}")

    def eof_received(self) -> bool:
        """The client closed its sending side: it left, or it is `nc -N`; an error serves both."""
        if self.answering is not None:
            return self.answering.half_closed()
        if self._request is not None:
            self._refuse(Refusal.BAD_REQUEST, "the connection was closed before the request ended")
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        self._pipeline.clear()
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.client_left()

    def pause_writing(self) -> None:
        self._unread = True
        if self.answering is not None:
            self.answering.pause()

    def resume_writing(self) -> None:
        self._unread = False
        if self.answering is not None:
            self.answering.resume()

    # --- httptools' side

    def on_message_begin(self) -> None:
        self._request = Request()
        self._url = b""
        self._body = []
        self._body_bytes = self._header_bytes = 0
        self._since_tick = self._desk.tick

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_BYTES_MAX:
            raise _RefuseError(Refusal.HEADERS_TOO_LARGE, f"the URL is over {URL_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        assert request is not None
        self._header_bytes += len(name) + len(value) + HEADER_OVERHEAD_BYTES
        if self._header_bytes > HEADER_BYTES_MAX:
            raise _RefuseError(
                Refusal.HEADERS_TOO_LARGE,
                f"the headers have over {HEADER_BYTES_MAX} bytes "
                f"({HEADER_OVERHEAD_BYTES} are counted for each beside its own)",
            )
        request.header[name.lower()] = value

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None
        request.method = self._parser.get_method()
        if self._parser.should_upgrade():
            raise _RefuseError(
                Refusal.BAD_HTTP, "upgrades and tunnels are not offered here: use plain HTTP/1.1"
            )
        header = request.header
        length = header.get(b"content-length")
        if length is not None:
            if b"transfer-encoding" in header:
                raise _RefuseError(
                    Refusal.BAD_HTTP, "send either content-length or transfer-encoding, not both"
                )
            if not length.isdigit():
                raise _RefuseError(Refusal.BAD_HTTP, "content-length must be a whole number")
            if int(length) > BODY_BYTES_MAX:
                raise _RefuseError(
                    Refusal.TOO_LARGE,
                    f"the body has {int(length)} bytes; at most {BODY_BYTES_MAX} are taken",
                )
        if header.get(b"expect", b"").lower() == b"100-continue" and not self.answering:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body:
            self._since_tick = self._desk.tick
        if self._body_bytes > BODY_BYTES_MAX:
            raise _RefuseError(Refusal.TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        if self.closing:
            return  # an earlier request of the same read ended the connection
        url = self._url
        mark = url.find(b"?")
        request.path, request.query = (url, b"") if mark < 0 else (url[:mark], url[mark + 1 :])
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        request.keep_alive = self._parser.should_keep_alive()
        if not request.keep_alive or b"connection" in request.header:
            request.version = self._parser.get_http_version()
        if self.answering is None and not self._pipeline:
            self._take(request)
        else:
            self._queue(request)

    # --- the answer's side

    @property
    def pipelined(self) -> int:
        """Whole requests that wait for the answer before them."""
        return len(self._pipeline)

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def done(self, *, keep_alive: bool) -> None:
        """The current answer is written whole: take the next request, or close."""
        self.answering = None
        self._since_tick = self._desk.tick
        if not keep_alive or self.closing:
            self.close()
        elif self._pipeline:
            request = self._pipeline.popleft()
            self._pipeline_bytes -= len(request.body)
            if self._transport is not None and self.alive and not self._pipeline_full:
                self._transport.resume_reading()  # nothing, where it is not paused
            self._take(request)

    def close(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """The answer broke: a client must not take what it got for the whole."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def close_when_idle(self) -> None:
        """The server stops: finish what runs, send off who waits, take nothing new."""
        self.closing = True
        if self.answering is None:
            self.close()
        elif self.answering.waiting:
            self.answering.stop()

    def stop(self) -> None:
        """What runs has had its time: its client is told."""
        if self.answering is not None:
            self.answering.stop()

    def expire(self) -> None:
        """Called once a tick: end connections whose client stalls or idles too long."""
        if self.answering is not None or self.closing:
            return
        waited = self._desk.tick - self._since_tick
        if self._request is None:
            if waited > IDLE_TICKS:
                self.close()
            return
        limit = BODY_TICKS if self._body or self._request.method else HEAD_TICKS
        if waited > limit:
            message = f"no whole request within {limit * TICK_WALL_S:.0f} s"
            self._refuse(Refusal.TOO_SLOW, message)

    def _take(self, request: Request) -> None:
        try:
            self._desk.take(self, request)
        except Exception as error:  # whatever broke, a client waits to be told
            self._on_bug(error)
        if self._unread and self.answering is not None:
            self.answering.pause()

    def _queue(self, request: Request) -> None:
        if len(self._pipeline) >= PIPELINE_BURST_MAX:
            raise _RefuseError(
                Refusal.BAD_HTTP,
                f"over {PIPELINE_BURST_MAX} requests are pipelined on one connection",
            )
        self._pipeline.append(request)
        self._pipeline_bytes += len(request.body)
        if self._transport is not None and self.alive and self._pipeline_full:
            self._transport.pause_reading()  # nothing, where it is paused

    @property
    def _pipeline_full(self) -> bool:
        return len(self._pipeline) >= PIPELINE_MAX or self._pipeline_bytes >= PIPELINE_BYTES_MAX

    def _on_bug(self, error: BaseException) -> None:
        """A fault of the gateway's own. What it leaves half done is freed, the client is told."""
        log.error("a request met a bug of the gateway", exc_info=error)
        answering, self.answering = self.answering, None
        if answering is None:
            self._refuse(Refusal.INTERNAL, "the gateway failed on this request; its log says why")
            return
        self.abort()
        try:
            answering.client_left()
        except Exception:
            log.exception("and could not free what the request had taken")

    def _refuse(self, why: Refusal, message: str) -> None:
        """Answer what cannot be a request, then close: the framing is no longer to be trusted."""
        if self.answering is not None:
            self.closing = True  # the running answer is finished first, then the connection closes
            return
        self.write(plain_response(why.value.status, error_body(why, message), close=True))
        self.close()


class _RefuseError(Exception):
    """Raised inside parser callbacks; httptools wraps it, `data_received` unwraps it."""

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


ProtocolFactory = Callable[[], HotProtocol]
