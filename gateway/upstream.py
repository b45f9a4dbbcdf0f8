"""The gateway's own HTTP/1.1 client to engines: pooled connections, one exchange at a time each.

In: a lane, a request's bytes, a listener. Out: calls on the listener, bytes as they come. A request
on a connection that had idled and died without a byte of answer is sent once more, on a new one;
whatever else breaks is the listener's to judge. Never: decodes a body, keeps a byte longer than the
read it came in.
"""

import asyncio
import logging
import ssl
from typing import Protocol, cast

import httptools

from gateway.routing import Lane

log = logging.getLogger("warmtide.gateway")

IDLE_SWEEPS = 2
"""A connection that idled through two sweeps is closed. The gateway sweeps every 2 s, and vLLM's
server closes idle connections after 5 s: ours are let go before."""
CONNECT_TIMEOUT_S = 5.0
BODILESS_BYTES_MAX = 256 * 1024
"""What an engine may send without a byte of body: heads, trailers, chunk framing."""
_Key = tuple[str, int, bool]


class Listener(Protocol):
    """Who asked. Exactly one of `on_end` and `on_failed` comes last, unless the asker aborted."""

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_failed(self, why: str) -> None: ...


class Exchange:
    """One request on its way. Abort closes the connection, which frees the engine at once."""

    __slots__ = ("aborted", "connecting", "connection", "data", "listener", "paused")

    def __init__(self, data: bytes, listener: Listener) -> None:
        self.data = data
        self.listener = listener
        self.connection: _Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.paused = False
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()
            self.connection = None

    def pause(self) -> None:
        """The client reads slowly: stop reading from the engine, TCP tells it."""
        self.paused = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        self.paused = False
        if self.connection is not None:
            self.connection.resume()


class _Connection(asyncio.Protocol):
    """Protocol and httptools callbacks in one object: no task, no queue, no copy per chunk."""

    __slots__ = (
        "_bodiless_bytes", "_done", "_exchange", "_head_done", "_headers", "_interim", "_keep",
        "_key", "_listener", "_parser", "_parts", "_paused", "_pool", "_reused", "_seen",
        "_surplus", "_transport", "idle_since",
    )  # fmt: skip

    def __init__(self, pool: "UpstreamPool", key: _Key) -> None:
        self._pool = pool
        self._key = key
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._done = False
        self._bodiless_bytes = 0
        self._head_done = False
        self._interim = False
        self._keep = False
        self._surplus = False
        self._paused = False
        self._seen = False
        self._exchange: Exchange | None = None
        self._reused = False  # had idled, and may have died of it unnoticed
        self.idle_since = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck
        self._pool.opened.add(self)

    def data_received(self, data: bytes) -> None:
        if self._listener is None or self._parser is None:
            self.abort()  # an engine that speaks unasked is not to be reused
            return
        self._seen = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not self._done:
                self._deliver()
                self._fail(f"the engine's answer is not HTTP: {error}")
                return
        self._bodiless_bytes = 0 if self._parts else self._bodiless_bytes + len(data)
        self._deliver()
        if self._done:
            self._finish()
        elif self._bodiless_bytes > BODILESS_BYTES_MAX:
            self._fail(f"the engine's headers have over {BODILESS_BYTES_MAX} bytes")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self._key, self)
        self._transport = None
        if self._listener is not None:
            if exc is None and self._until_close():
                self._finish()
            else:
                self._fail(f"the engine closed the connection{f': {exc}' if exc else ''}")

    # httptools' side

    def on_message_begin(self) -> None:
        if self._done:
            self._surplus = True  # bytes behind the answer belong to nobody: never reuse this

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else it is a trailer, or surplus
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200
        if self._done or self._interim:
            return
        self._head_done = True
        if self._listener is not None:
            self._listener.on_head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._interim and not self._done:
            self._headers = {}  # "100 Continue" and its like: the answer is still to come
            return
        if not self._done:
            self._done = True
            # Asked here: once the message is over, llhttp forgets how it was framed.
            self._keep = self._parser is not None and self._parser.should_keep_alive()

    # the pool's and the exchange's side

    def send(self, exchange: Exchange, *, reused: bool) -> None:
        assert self._listener is None, "one exchange at a time"
        assert self._transport is not None
        exchange.connection = self
        self._exchange, self._listener, self._reused = exchange, exchange.listener, reused
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._headers = {}
        self._done = self._head_done = self._interim = self._seen = False
        self._bodiless_bytes = 0
        self._transport.write(exchange.data)

    def abort(self) -> None:
        self._listener = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _deliver(self) -> None:
        parts = self._parts
        if parts and self._listener is not None:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._parts = []
            self._listener.on_data(data)

    def _finish(self) -> None:
        listener, self._listener = self._listener, None
        if self._done and self._keep and not self._surplus and self.alive:
            if self._paused:
                self.resume()
            self._pool.park(self._key, self)
        elif self._transport is not None:
            self._transport.close()
        if listener is None:
            return
        try:
            listener.on_end()
        except Exception:  # a bug of ours: whoever waits is told, and the log says what it was
            log.exception("the end of an answer could not be told")
            listener.on_failed("the gateway stumbled over the answer's end")

    def _fail(self, why: str) -> None:
        listener, self._listener = self._listener, None
        self.abort()
        if listener is None:
            return
        if self._reused and not self._seen:
            assert self._exchange is not None
            self._pool.send_fresh(self._key, self._exchange)  # it had gone stale
        else:
            listener.on_failed(why)

    def _until_close(self) -> bool:
        """A body without length or chunks ends with the connection, once its head was whole."""
        return (
            self._head_done
            and b"content-length" not in self._headers
            and b"chunked" not in self._headers.get(b"transfer-encoding", b"").lower()
            and not self._done
        )


class UpstreamPool:
    """Idle connections by address, newest first. Bounded by what the lanes' slots allow."""

    def __init__(self) -> None:
        self._idle: dict[_Key, list[_Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None
        self._sweeps = 0
        self.opened: set[_Connection] = set()

    def send(self, lane: Lane, head: bytes, body: bytes, listener: Listener) -> Exchange:
        """Send now if a connection idles, else as soon as one is open. Never raises."""
        exchange = Exchange(head + body, listener)
        connection = self._take(lane.address)
        if connection is None:
            self.send_fresh(lane.address, exchange)
        else:
            connection.send(exchange, reused=True)
        return exchange

    def send_fresh(self, key: _Key, exchange: Exchange) -> None:
        """Send on a new connection."""
        task = asyncio.get_running_loop().create_task(self._connect(key, exchange))
        exchange.connecting = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def park(self, key: _Key, connection: _Connection) -> None:
        connection.idle_since = self._sweeps
        self._idle.setdefault(key, []).append(connection)

    def forget(self, key: _Key, connection: _Connection) -> None:
        self.opened.discard(connection)
        idle = self._idle.get(key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[key]

    def sweep(self) -> None:
        """Close connections that idled too long. Called every few seconds."""
        self._sweeps += 1
        for idle in list(self._idle.values()):
            for connection in [c for c in idle if self._sweeps - c.idle_since >= IDLE_SWEEPS]:
                connection.abort()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self.opened):
            connection.abort()
        await asyncio.sleep(0)

    def _take(self, key: _Key) -> _Connection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.alive:
                return connection
        return None

    async def _connect(self, key: _Key, exchange: Exchange) -> None:
        host, port, tls = key
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, key), host, port, ssl=self._tls_context(tls)
                )
        except Exception as error:  # whatever broke, somebody waits to be told
            exchange.connecting = None
            if not exchange.aborted:
                exchange.listener.on_failed(
                    f"cannot connect to the engine at {host}:{port}: {error}"
                )
            return
        exchange.connecting = None
        if exchange.aborted:
            connection.abort()
            return
        connection.send(exchange, reused=False)
        if exchange.paused:
            connection.pause()

    def _tls_context(self, tls: bool) -> ssl.SSLContext | None:
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls if tls else None
