"""A light streaming client. An edge: sockets and time.

In: request bodies. Out: one `Answer` each, always, within the patience given.
Never: retries, waits for another request, speaks anything but HTTP/1.1.
"""

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit

import httptools

from loadtests.answers import Answer, Ending, Outcome, Reading
from placement.clock import monotonic_us

# Servers close idle connections after seconds; a younger one is not about to be closed.
IDLE_US_MAX = 1_500_000


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    __slots__ = ("_closed", "_ended", "_parser", "_reading", "_transport", "idle_since_us")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reading: Reading | None = None
        self._ended: asyncio.Future[Ending] | None = None
        self._closed = False
        self.idle_since_us = 0

    def send(self, data: bytes, reading: Reading) -> asyncio.Future[Ending]:
        """Write a request; the future tells how the exchange ended."""
        assert self._reading is None, "a connection carries one request at a time"
        assert self._transport is not None, "send comes after connection_made"
        self._parser = httptools.HttpResponseParser(self)
        self._reading = reading
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        reading.sent_us = monotonic_us()
        if self._closed:
            self._end(Ending.BROKEN)
        return self._ended

    @property
    def usable(self) -> bool:
        """Open and idle."""
        return not self._closed and self._reading is None

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self, ending: Ending) -> None:
        self._reading = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ending)

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by class, only by what they do.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._end(Ending.BROKEN)

    def connection_lost(self, _error: Exception | None) -> None:
        self._closed = True
        self._end(Ending.BROKEN)

    # --- httptools' side

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            self._reading.on_header(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reading is not None and status >= 200:
            self._reading.status = status

    def on_body(self, body: bytes) -> None:
        if self._reading is not None:
            self._reading.on_body(body, monotonic_us())

    def on_message_complete(self) -> None:
        if self._reading is None or self._parser.get_status_code() < 200:
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._end(Ending.COMPLETE)


class Client:
    """Asks one server; connections are kept and reused, and opened whenever none is idle."""

    def __init__(self, url: str, api_key: str = "") -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        base = parts.path.rstrip("/").removesuffix("/v1")
        headers = f"POST {base}/v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        headers += "content-type: application/json\r\naccept: text/event-stream\r\n"
        headers += f"authorization: Bearer {api_key}\r\n" if api_key else ""
        self._head = headers.encode("latin-1")
        self._idle: list[Connection] = []

    async def ask(
        self,
        body: bytes,
        *,
        request_id: str,
        patience_s: float,
        leave_after_s: float | None = None,
        late_us: int = 0,
    ) -> Answer:
        """Send one request and read its answer to the end, or until patience or will runs out."""
        reading = Reading()
        leaves = leave_after_s is not None and leave_after_s < patience_s
        budget = asyncio.timeout(leave_after_s if leaves else patience_s)
        ending = Ending.LEFT if leaves else Ending.TIMED_OUT
        connection: Connection | None = None
        try:
            async with budget:
                connection = self._idle_one() or await self._opened()
                ending = await connection.send(self._framed(body, request_id), reading)
        except OSError as error:  # TimeoutError is one, too
            if not budget.expired():
                code = f"no_connection {type(error).__name__}"
                return Answer(outcome=Outcome.LOST, code=code, late_us=late_us)
        finally:
            self._give_back(connection)
        return reading.answer(ending, late_us)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _framed(self, body: bytes, request_id: str) -> bytes:
        own = f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        return self._head + own.encode("latin-1") + body

    def _idle_one(self) -> Connection | None:
        """The connection used last; those idle for long are closed, not trusted."""
        oldest_us = monotonic_us() - IDLE_US_MAX
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since_us >= oldest_us:
                return connection
            connection.close()
        return None

    async def _opened(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, self._host, self._port, ssl=self._tls
        )
        return connection

    def _give_back(self, connection: Connection | None) -> None:
        """Keep a connection whose exchange is whole; leaving closes it, and the server notices."""
        if connection is None:
            return
        if connection.usable:
            connection.idle_since_us = monotonic_us()
            self._idle.append(connection)
        else:
            connection.close()
