"""HTTP/1.1 towards clients: one object per connection, httptools callbacks, no task per request.

In: bytes of a connection. Out: whole requests handed to a `Desk`, one at a time in their order;
bytes of answers. Never: knows a model, decodes a body, buffers more than one request beside a
bounded pipeline and one read.
"""

import asyncio
import logging
from collections import deque
from typing import Protocol, cast

import httptools

from gateway.openai_api import Refusal
from gateway.routes import dialect_of
from gateway.wire import Answering, RefuseError, Request, plain_response, without_origin

log = logging.getLogger("warmtide.gateway")

HEADER_BYTES_MAX = 64 * 1024
HEADER_OVERHEAD_BYTES = 32
URL_BYTES_MAX = 8 * 1024
FRAMING_BYTES_MAX = HEADER_BYTES_MAX + 2 * URL_BYTES_MAX
"""The parser gathers an unfinished name or value without end and copies it with every read: so many
bytes may arrive with neither a request nor a piece of a body beginning among them."""
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
CLOSING_TICKS = 30
LINGER_TICKS = 5
LINGER_BYTES_MAX = 2 * BODY_BYTES_MAX
"""Who was refused may go on sending for so long, or so much, to nobody's ears."""
WRITE_HIGH_BYTES = 256 * 1024


class Desk(Protocol):
    """Where whole requests go. Of a body in pieces it hears before, and may raise `RefuseError`.
    `tick` counts the sweeps over its connections."""

    tick: int

    def take(self, connection: "HotProtocol", request: Request) -> None: ...
    def expect(self, request: Request) -> None: ...
    def refused(self, why: Refusal) -> None:
        """What came was no request; it has been answered all the same."""


class HotProtocol(asyncio.Protocol):
    """A client's connection. Answers are written by whoever took the request, then `done()`."""

    __slots__ = (
        "_body", "_body_bytes", "_desk", "_framing_bytes", "_header_bytes", "_ignored_bytes",
        "_last_words", "_lingering", "_open", "_parser", "_pipeline", "_pipeline_bytes",
        "_request", "_since_tick", "_transport", "_unread", "_unsent_bytes", "_url", "answering",
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
        self._body: bytes | bytearray = b""
        self._body_bytes = self._header_bytes = self._framing_bytes = self._unsent_bytes = 0
        self._ignored_bytes = 0
        self._last_words = b""  # a refusal that waits for the answers before it
        self._lingering = False
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
        if self.closing or self._last_words:
            self._ignored_bytes += len(data)
            if self._lingering and self._ignored_bytes > LINGER_BYTES_MAX:
                self.abort()
            return
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._framing_bytes > FRAMING_BYTES_MAX:
                self._refuse(
                    Refusal.HEADERS_TOO_LARGE,
                    f"over {FRAMING_BYTES_MAX} bytes came without a whole head or any of a body",
                )
        except RefuseError as error:
            self._refuse(error.why, error.message)
        except httptools.HttpParserError as error:
            inner = error.__context__  # what a callback of ours raised
            if isinstance(inner, RefuseError):
                self._refuse(inner.why, inner.message)
            elif inner is not None:
                self._on_bug(inner)
            else:
                self._refuse(Refusal.BAD_HTTP, f"this is not a valid HTTP/1.1 request: {error}")

    def eof_received(self) -> bool:
        """The client closed its sending side: it left, or it is `nc -N`; an error serves both."""
        if self.answering is not None:
            return self.answering.half_closed()
        if self._request is not None and not self._last_words:
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
        self._regulate()
        if self.answering is not None:
            self.answering.pause()

    def resume_writing(self) -> None:
        self._unread = False
        self._regulate()
        if self.answering is not None:
            self.answering.resume()
        else:  # not at once: asyncio's transport may not be closed from in here
            asyncio.get_running_loop().call_soon(self._go_on)

    # --- httptools' side

    def on_message_begin(self) -> None:
        self._request = Request()
        self._url = b""
        self._body_bytes = self._header_bytes = self._framing_bytes = 0
        self._since_tick = self._desk.tick

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_BYTES_MAX:
            raise RefuseError(Refusal.HEADERS_TOO_LARGE, f"the URL is over {URL_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        assert request is not None
        if request.method:
            return  # a trailer: what it says came too late to be about this request
        self._header_bytes += len(name) + len(value) + HEADER_OVERHEAD_BYTES
        if self._header_bytes > HEADER_BYTES_MAX:
            raise RefuseError(
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
            raise RefuseError(
                Refusal.BAD_HTTP, "upgrades and tunnels are not offered here: use plain HTTP/1.1"
            )
        header = request.header
        length = header.get(b"content-length")
        if length is not None:
            if b"transfer-encoding" in header:
                raise RefuseError(
                    Refusal.BAD_HTTP, "send either content-length or transfer-encoding, not both"
                )
            if not length.isdigit():
                raise RefuseError(Refusal.BAD_HTTP, "content-length must be a whole number")
            if int(length) > BODY_BYTES_MAX:
                raise RefuseError(
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
            raise RefuseError(Refusal.TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes")
        self._framing_bytes = 0
        if not self._body:
            self._body = body  # mostly the whole of it
            return
        if isinstance(self._body, bytes):
            self._desk.expect(cast(Request, self._request))
            self._body = bytearray(self._body)
        self._body += body

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        if self.closing:
            return  # an earlier request of the same read ended the connection
        url = self._url if self._url.startswith(b"/") else without_origin(self._url)
        mark = url.find(b"?")
        request.path, request.query = (url, b"") if mark < 0 else (url[:mark], url[mark + 1 :])
        request.body = bytes(self._body)  # of bytes: themselves
        self._body = b""
        request.keep_alive = self._parser.should_keep_alive()
        if not request.keep_alive or b"connection" in request.header:
            request.version = self._parser.get_http_version()
            if request.version not in ("1.1", "1.0"):
                raise RefuseError(Refusal.BAD_HTTP, "HTTP/1.1 and HTTP/1.0 are spoken here")
        if self.answering is None and not self._pipeline and not self._unread:
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
        elif not self._unread:
            self._next()

    def close(self) -> None:
        self.closing = True
        self._since_tick = self._desk.tick
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
        if self.answering is not None:
            return
        waited = self._desk.tick - self._since_tick
        if self.closing:
            self._expire_closing(waited)
            return
        if self._request is None or self._unread:
            if waited > IDLE_TICKS:
                self.close()
            return
        limit = BODY_TICKS if self._body or self._request.method else HEAD_TICKS
        if waited > limit:
            message = f"no whole request within {limit * TICK_WALL_S:.0f} s"
            self._refuse(Refusal.TOO_SLOW, message)

    def _expire_closing(self, waited: int) -> None:
        """The last bytes of an answer are not kept for who takes none of them."""
        assert self._transport is not None
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self._since_tick = self._desk.tick
        elif waited > (LINGER_TICKS if self._lingering else CLOSING_TICKS):
            self.abort()

    def _go_on(self) -> None:
        if self.answering is None and not self._unread and not self.closing:
            self._next()

    def _next(self) -> None:
        """What waited behind the last answer: requests, then perhaps a refusal."""
        if self._pipeline:
            request = self._pipeline.popleft()
            self._pipeline_bytes -= len(request.body)
            self._regulate()
            self._take(request)
        elif self._last_words:
            self._linger()

    def _linger(self) -> None:
        """Say the last words, then let the client finish: closed while bytes of its request are on
        their way, a connection is reset, and the words are lost with it."""
        assert self._transport is not None
        self.closing = True
        self._since_tick = self._desk.tick
        self._lingering = True
        self.write(self._last_words)
        self._transport.write_eof()
        self._transport.resume_reading()

    def _regulate(self) -> None:
        """Nothing is read for who reads nothing, or has a full pipeline. Either call may repeat."""
        if self._transport is None or not self.alive:
            return
        if self._unread or self._pipeline_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _take(self, request: Request) -> None:
        try:
            self._desk.take(self, request)
        except Exception as error:  # whatever broke, a client waits to be told
            self._on_bug(error)
        if self._unread and self.answering is not None:
            self.answering.pause()

    def _queue(self, request: Request) -> None:
        if len(self._pipeline) >= PIPELINE_BURST_MAX:
            raise RefuseError(
                Refusal.BAD_HTTP,
                f"over {PIPELINE_BURST_MAX} requests are pipelined on one connection",
            )
        self._pipeline.append(request)
        self._pipeline_bytes += len(request.body)
        self._regulate()

    @property
    def _pipeline_full(self) -> bool:
        return len(self._pipeline) >= PIPELINE_MAX or self._pipeline_bytes >= PIPELINE_BYTES_MAX

    def _on_bug(self, error: BaseException) -> None:
        """A fault of the gateway's own. What it leaves half done is freed, the client is told."""
        log.error("a request met a bug of the gateway", exc_info=error)
        answering, self.answering = self.answering, None
        if answering is None:
            self._pipeline.clear()  # this request's turn it is, and it is the last
            self._refuse(Refusal.INTERNAL, "the gateway failed on this request; its log says why")
            return
        self.abort()
        try:
            answering.client_left()
        except Exception:
            log.exception("and could not free what the request had taken")

    def _refuse(self, why: Refusal, message: str) -> None:
        """Answer what cannot be a request, then close: the framing is no longer to be trusted."""
        body = dialect_of(without_origin(self._url)).error_body(why, message)
        self._last_words = plain_response(why.value.status, body, close=True)
        self._desk.refused(why)
        if self.answering is None and not self._pipeline:  # else those are answered first
            self._next()
