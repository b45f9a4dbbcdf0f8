"""The admin port: status page, status, metrics, history, facts of a plan, catalog. An edge.

It has a port and a token of its own. The page itself is open and holds no data: it asks for the
token and then for `/status`.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.app import error_response
from gateway.checks import UnfitError
from gateway.desk import Desk
from gateway.metrics import exposition
from gateway.openai_api import Refusal
from gateway.recorder import Recorder
from gateway.status_document import status_document
from placement.catalog_file import CatalogError
from placement.planning.recorded import recorded, written
from prewarm.history import NoHistoryError, read_rows
from prewarm.loop import Loop
from prewarm.windows import COARSE_S, FINE_S, US, HistoryRow

CONSOLE = Path(__file__).parent / "console"
PAGE = {"/": "index.html", "/console.js": "console.js", "/console.css": "console.css"}
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
HISTORY_ROWS_MAX = 100_000

Apply = Callable[[str, str], Awaitable[dict[str, Any]]]


class _Guard:
    """Only holders of the admin token see more than the empty page."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = scheme.lower() == b"bearer" and hmac.compare_digest(given, self._token)
        if scope["type"] == "http" and not known and scope["path"] not in PAGE:
            message = "the admin port wants `Authorization: Bearer` and the token in admin.token"
            await error_response(Refusal.NO_KEY, message)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class NodesChangedError(Exception):
    """A reload changes models, tenants, policy and telemetry; the fleet itself only a restart."""


class _Admin:
    """The handlers, and what they look at."""

    def __init__(
        self, desk_of: Callable[[], Desk], loop: Loop, recorder: Recorder, apply: Apply
    ) -> None:
        self._desk_of = desk_of
        self._loop = loop
        self._recorder = recorder
        self._apply = apply

    async def page(self, request: Request) -> Response:
        return FileResponse(CONSOLE / PAGE[request.url.path], headers=PAGE_HEADERS)

    async def status(self, _: Request) -> Response:
        return JSONResponse(status_document(self._desk_of(), self._loop, self._recorder.state()))

    async def metrics(self, _: Request) -> Response:
        text = exposition(self._desk_of().gate, self._recorder.state())
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def history(self, request: Request) -> Response:
        try:
            asked = _asked(request, self._desk_of().gate.now_us())
        except ValueError as error:
            return error_response(Refusal.BAD_REQUEST, str(error))
        try:
            rows = await asyncio.to_thread(_rows, self._recorder.path, asked)
        except NoHistoryError as error:
            return error_response(Refusal.NO_ROUTE, str(error))
        return Response(msgspec.json.encode({"rows": rows}), media_type="application/json")

    async def facts(self, _: Request) -> Response:
        """What the newest plan was made from, as a record that `warmtide plan` explains."""
        facts = self._loop.controller.decided_on
        if facts is None:
            message = "no plan has been made yet; ask again in a second"
            return error_response(Refusal.NO_ROUTE, message)
        source = f"a running gateway, catalog {facts.catalog.version}"
        record = recorded(facts, source=source, policy=facts.catalog.policy.kind)
        return Response(written(record), media_type="application/json")

    async def catalog(self, _: Request) -> Response:
        catalog = self._desk_of().gate.catalog
        return Response(msgspec.json.encode(catalog), media_type="application/json")

    async def change(self, request: Request) -> Response:
        name = unquote(request.headers.get("x-catalog-name", "the posted catalog"))
        try:
            text = (await request.body()).decode("utf-8")
            changed = await self._apply(text, name)
        except UnicodeDecodeError:
            return error_response(Refusal.BAD_REQUEST, "a catalog is UTF-8 text")
        except (NodesChangedError, UnfitError) as error:
            return error_response(Refusal.BAD_REQUEST, str(error), 409)
        except CatalogError as error:
            problems = [msgspec.to_builtins(p) for p in error.problems]
            return JSONResponse({"problems": problems}, status_code=400)
        return JSONResponse(changed)


def build_admin(
    desk_of: Callable[[], Desk], loop: Loop, recorder: Recorder, token: str, apply: Apply
) -> Starlette:
    admin = _Admin(desk_of, loop, recorder, apply)
    return Starlette(
        routes=[
            *(Route(path, admin.page) for path in PAGE),
            Route("/status", admin.status),
            Route("/metrics", admin.metrics),
            Route("/history", admin.history),
            Route("/plan/facts", admin.facts),
            Route("/catalog", admin.catalog),
            Route("/catalog", admin.change, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={HTTPException: _on_error},
    )


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    there = "the admin port has / (a page), /status, /metrics, /history, /plan/facts and /catalog"
    return error_response(Refusal.NO_ROUTE, there, error.status_code)


class _Asked(msgspec.Struct, frozen=True):
    width_s: int
    model: str | None
    from_us: int


def _asked(request: Request, now_us: int) -> _Asked:
    """`?width_s=10|60|300&last_s=N&model=M`. Raises `ValueError` with what was wrong."""
    given = request.query_params
    widths = (FINE_S, *COARSE_S)
    width_s, last_s = given.get("width_s", "60"), given.get("last_s", "3600")
    if width_s not in map(str, widths):
        raise ValueError(f"width_s is one of {', '.join(map(str, widths))}, not {width_s[:20]}")
    if not (last_s.isascii() and last_s.isdigit()) or len(last_s) > 10:
        raise ValueError("last_s is a whole number of seconds")
    return _Asked(int(width_s), given.get("model"), now_us - int(last_s) * US)


def _rows(path: Path, asked: _Asked) -> list[HistoryRow]:
    """The newest ones, if there are too many: the others are not even read."""
    found = read_rows(
        path,
        asked.width_s,
        model=asked.model,
        from_us=asked.from_us,
        newest=HISTORY_ROWS_MAX,
    )
    return list(found)
