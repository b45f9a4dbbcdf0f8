"""The guard in front of a vLLM server: without the agent's token only inference comes through. ✎

Loaded by vLLM (`--middleware`) in vLLM's own environment, where Warmtide is not installed: plain
ASGI, the standard library alone, no import of ours. vLLM's development calls (sleep, wake,
collective_rpc, adapters from any path …) carry no authentication of their own. Never: reads a body.

In: every request. Out: passed on when method and path are exactly those of an open call, or with
`Authorization: Bearer` and the token from the file that WARMTIDE_TOKEN_FILE names; else 401.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_FILE = "WARMTIDE_TOKEN_FILE"

# Exact paths, as the server's router sees them: decoded, no prefixes, no patterns. What is missing
# here is closed, also what a later vLLM adds.
OPEN: dict[str, frozenset[str]] = {
    "GET": frozenset({"/health", "/metrics", "/ping", "/v1/models", "/version"}),
    "POST": frozenset(
        {
            *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"),
            *("/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize"),
            *("/v1/rerank", "/rerank", "/v1/score", "/score", "/pooling", "/classify"),
            *("/v1/audio/transcriptions", "/v1/audio/translations"),
        }
    ),
}

_BODY = b'{"error":{"message":"this call needs the node agent\'s token","type":"unauthorized",'
_BODY += b'"param":null,"code":401}}'


class Guard:
    """Wraps the server's application. Without a readable token it does not start at all."""

    def __init__(self, app: App) -> None:
        self._app = app
        token = Path(os.environ[TOKEN_FILE]).read_bytes().strip()  # noqa: TID251  vLLM's process
        if not token:
            raise ValueError(f"the file in {TOKEN_FILE} holds no token")
        self._expected = b"Bearer " + token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._open(scope) or self._known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "needs a token"})
        else:
            await _refuse(send)

    def _open(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope.get("root_path"):
            return False
        return scope["path"] in OPEN.get(scope["method"], ())

    def _known(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_BODY)),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
