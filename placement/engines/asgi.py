"""Raw ASGI under uvicorn's HTTP protocol, for many small servers in one process. ✎

In: uvicorn's protocol and one `handle(request)` per server. Out: requests read whole, answers
written, clients that leave noticed at once, and connections that can be cut. Never: routes.
"""

import asyncio
import hmac
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

LOG = logging.getLogger("warmtide.engine")
LOOPBACK = "127.0.0.1"
BODY_BYTES_MAX = 64 * 2**20
_JSON = (b"content-type", b"application/json")


class Connection(HttpToolsProtocol):
    """uvicorn's protocol that says when its client left, and lends its transport for cuts."""

    on_gone: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()


class Request:
    """One request with its body, and the ways to answer it."""

    __slots__ = ("_send", "body", "connection", "headers", "method", "path", "query")

    def __init__(self, scope: dict[str, Any], body: bytes, send: Callable[..., Any]) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: list[tuple[str, str]] = parse_qsl(scope["query_string"].decode("latin-1"))
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.connection: Connection = scope["state"]["connection"]
        self.body = body
        self._send = send

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key == name), b"")

    def may(self, token: str) -> bool:
        """Whether the request carries this bearer token."""
        expected = b"Bearer " + token.encode()
        return hmac.compare_digest(self.header(b"authorization"), expected)

    async def reply(self, status: int, body: bytes, content_type: bytes = _JSON[1]) -> None:
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def reply_json(self, status: int, value: object) -> None:
        await self.reply(status, msgspec.json.encode(value))

    async def begin_events(self) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, chunk: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})

    def half_write(self, chunk: bytes) -> None:
        """The first half of a chunk, then the end of the connection: a stream half written."""
        half = chunk[: len(chunk) // 2]
        self.connection.transport.write(b"%x\r\n" % len(chunk) + half)
        self.connection.transport.close()

    def cut(self) -> None:
        """As when the process died: what was not sent is lost."""
        self.connection.transport.abort()


Handler = Callable[[Request], Awaitable[None]]


class Door:
    """Makes protocols whose requests go to a handler."""

    def __init__(self) -> None:
        # One configuration for all servers of the process: only the handler differs.
        self._config = Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=600,
        )
        self._config.load()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)

    def protocol(self, handle: Handler, connections: ServerState) -> Callable[[], Connection]:
        state = {"handle": handle}
        return lambda: Connection(self._config, connections, state)

    async def _app(
        self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        handle: Handler = scope["state"]["handle"]
        body = await _read(receive)
        if body is None:
            return
        request = Request(scope, body, send)
        if len(body) > BODY_BYTES_MAX:
            await request.reply_json(413, {"detail": "request body is too large"})
            return
        try:
            await handle(request)
        except Exception:
            LOG.exception("a bug in an engine of ours: %s %s", request.method, request.path)
            raise


async def _read(receive: Callable[[], Awaitable[dict[str, Any]]]) -> bytes | None:
    """The whole body (or more than is allowed of it); None if the client left meanwhile."""
    parts, size = [], 0
    while size <= BODY_BYTES_MAX:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        size += len(parts[-1])
        if not message["more_body"]:
            break
    return b"".join(parts)


def abort_all(connections: ServerState) -> None:
    """As the kernel does when a process dies."""
    for connection in list(connections.connections):
        connection.transport.abort()


def run_later(delay_s: float, act: Callable[[], None]) -> asyncio.TimerHandle:
    """At least a millisecond ahead: timers are no finer, and a zero delay would spin."""
    return asyncio.get_running_loop().call_later(max(delay_s, 0.001), act)


def bind(port: int) -> socket.socket:
    """Bound but not listening: the number is known, connections are refused."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        raise ValueError(f"port {port} cannot be bound on {LOOPBACK}: {error}") from error
    bound.setblocking(False)
    return bound


def announce(ready_file: Path, port: int) -> None:
    """Atomically: whoever sees the file sees all of it."""
    partial = ready_file.with_name(f"{ready_file.name}.{os.getpid()}.partial")
    partial.write_bytes(msgspec.json.encode({"pid": os.getpid(), "port": port}))
    partial.replace(ready_file)
