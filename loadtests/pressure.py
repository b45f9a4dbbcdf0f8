"""A closed-loop load generator in one process: fixed requests over kept connections. An edge.

In: an address, a request's bytes, how many connections and requests. Out: latencies. It knows
just enough HTTP to see where an answer ends, so that it costs less than what it measures.
"""

import argparse
import asyncio
import sys
from typing import cast

import httptools
import msgspec
import uvloop

from placement.clock import monotonic_us


class Told(msgspec.Struct):
    """What one round of pressure saw; latencies in wall microseconds."""

    requests: int
    failed: int
    wall_us: int
    p50_us: int
    p99_us: int


class _Round:
    def __init__(self, request: bytes, total: int) -> None:
        self.request = request
        self.left = total
        self.latencies_us: list[int] = []
        self.failed = 0
        self.open = 0
        self.over = asyncio.get_running_loop().create_future()

    def closed(self) -> None:
        self.open -= 1
        if not self.open and not self.over.done():
            self.over.set_result(None)


class _Client(asyncio.Protocol):
    """One connection: send, await the whole answer, send again."""

    def __init__(self, round_: _Round) -> None:
        self._round = round_
        self._transport: asyncio.Transport | None = None
        self._sent_us = 0
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._round.open += 1
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._done:
            self._round.latencies_us.append(monotonic_us() - self._sent_us)
            self._next()

    def on_message_complete(self) -> None:
        self._done = True
        self._round.failed += self._parser.get_status_code() != 200

    def connection_lost(self, exc: Exception | None) -> None:
        self._round.failed += not self._done or exc is not None
        self._round.closed()

    def _next(self) -> None:
        assert self._transport is not None
        if not self._round.left:
            self._done = True
            self._transport.close()
            return
        self._round.left -= 1
        self._done = False
        self._parser = httptools.HttpResponseParser(self)
        self._sent_us = monotonic_us()
        self._transport.write(self._round.request)


async def press(port: int, request: bytes, total: int, connections: int) -> Told:
    """Send `total` requests to 127.0.0.1, on each connection the next once one is answered."""
    loop = asyncio.get_running_loop()
    round_ = _Round(request, total)
    began_us = monotonic_us()
    for _ in range(connections):
        await loop.create_connection(lambda: _Client(round_), "127.0.0.1", port)
    await round_.over
    ranked = sorted(round_.latencies_us) or [0]
    return Told(
        requests=len(round_.latencies_us),
        failed=round_.failed,
        wall_us=monotonic_us() - began_us,
        p50_us=ranked[len(ranked) // 2],
        p99_us=ranked[len(ranked) * 99 // 100],
    )


def main() -> None:
    """Request bytes on stdin, one JSON document on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    request = sys.stdin.buffer.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(press(arguments.port, request, arguments.requests, arguments.connections))
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
