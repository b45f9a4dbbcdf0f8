"""A mock engine that answers at once: what is left is the cost of who stands before it. An edge.

`python -m loadtests.mock_engine --port 9000 [--chunks 16] [--model NAME]` on 127.0.0.1. Streams are
written chunk by chunk without pauses, each its own write: the worst case for a relay. It lists one
model and answers for any.
"""

import argparse
import asyncio
import sys
from typing import cast

import httptools
import msgspec
import uvloop


class _Head(msgspec.Struct):
    model: str = ""
    stream: bool = False


_HEAD = msgspec.json.Decoder(_Head)


class MockEngine(asyncio.Protocol):
    """Speaks just enough OpenAI for a benchmark."""

    chunks = 16
    listed = b""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._body = b""
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if not self._body:  # probes of all kinds, and GET /v1/models
            self._write_json(self.listed)
            return
        head = _HEAD.decode(self._body)
        if not head.stream:
            self._write_json(_WHOLE)
            return
        asyncio.get_running_loop().create_task(self._stream(self._transport))

    def _write_json(self, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async def _stream(self, transport: asyncio.Transport) -> None:
        transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for _ in range(self.chunks):
            transport.write(_EVENT)
            await asyncio.sleep(0)  # each chunk is its own write
        transport.write(_LAST)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WHOLE = (
    b'{"id":"chatcmpl-mock","object":"chat.completion","created":1,"model":"mock","choices":[{'
    b'"index":0,"message":{"role":"assistant","content":"a mock answer of some length"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":16,'
    b'"total_tokens":26}}'
)
_EVENT = _framed(
    b'data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1,"model":"mock",'
    b'"choices":[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n'
)
_LAST = (
    _framed(
        b'data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1,"model":"mock",'
        b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    + b"0\r\n\r\n"
)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(MockEngine, "127.0.0.1", port)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--model", default="mock", help="the name that it lists")
    arguments = parser.parse_args()
    MockEngine.chunks = arguments.chunks
    listed = {"id": arguments.model, "object": "model"}
    MockEngine.listed = msgspec.json.encode({"object": "list", "data": [listed]})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.port))


if __name__ == "__main__":
    main()
