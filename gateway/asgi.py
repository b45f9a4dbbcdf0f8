"""The cold routes: whole requests handed to an ASGI app (Starlette). An edge."""

import asyncio
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.hot_protocol import HotProtocol
from gateway.openai_api import Refusal, error_body
from gateway.wire import REASONS, Request, plain_response

Scope = dict[str, Any]


class AsgiAnswer:
    """One request through the app, as a task that ends when the client leaves."""

    __slots__ = ("_app", "_chunked", "_connection", "_left", "_request", "_started", "_task")

    def __init__(self, app: Any, connection: HotProtocol, request: Request) -> None:
        self._app = app
        self._connection = connection
        self._request = request
        self._left = asyncio.Event()
        self._started = False
        self._chunked = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._connection.answering = self
        self._task = asyncio.get_running_loop().create_task(self._run())

    def client_left(self) -> None:
        self._left.set()
        if self._task is not None:
            self._task.cancel()

    def half_closed(self) -> bool:
        return True

    @property
    def waiting(self) -> bool:
        return False

    def stop(self) -> None:
        self._connection.abort()

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def _run(self) -> None:
        try:
            await self._app(self._scope(), self._receive(), self._send)
        except Exception:
            if not self._started:
                body = error_body(Refusal.INTERNAL, "the gateway could not answer this call")
                self._connection.write(plain_response(500, body, close=True))
            self._connection.close()
            raise
        keep = self._request.keep_alive and self._request.version == "1.1"
        self._connection.done(keep_alive=keep)

    def _scope(self) -> Scope:
        request = self._request
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": request.version,
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": list(request.header.items()),
            "client": self._connection.peer,
            "server": None,
        }

    def _receive(self) -> Any:
        given = False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": self._request.body, "more_body": False}
            await self._left.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._write_head(message["status"], message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._request.method == b"HEAD":
            return
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._connection.write(framed if more else framed + b"0\r\n\r\n")
        elif body:
            self._connection.write(body)

    def _write_head(self, status: int, headers: Any) -> None:
        self._started = True
        lines = [b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Status"))]
        lines += [b"%b: %b" % (name, value) for name, value in headers]
        self._chunked = not any(name.lower() == b"content-length" for name, _ in headers)
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        self._connection.write(b"\r\n".join((*lines, b"", b"")))
