"""The admin port: status, catalog reload. Own port, own token. An edge."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.app import error_response, warmth
from gateway.checks import UnfitError
from gateway.desk import Desk
from gateway.metrics import exposition
from gateway.openai_api import Refusal
from gateway.telemetry import Histogram, ModelTelemetry, percentile
from placement.catalog import ModelSpec
from placement.catalog_file import CatalogError
from placement.snapshot import NodeState
from prewarm.loop import Loop

Apply = Callable[[str, str], Awaitable[dict[str, Any]]]


class _Guard:
    """Only holders of the admin token come in."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = scheme.lower() == b"bearer" and hmac.compare_digest(given, self._token)
        if scope["type"] == "http" and not known:
            message = "the admin port wants `Authorization: Bearer` and the token in admin.token"
            await error_response(Refusal.NO_KEY, message)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class NodesChangedError(Exception):
    """A reload may change models, tenants and policy; nodes only by a restart."""


def build_admin(desk_of: Callable[[], Desk], loop: Loop, token: str, apply: Apply) -> Starlette:
    async def status(_: Request) -> Response:
        return JSONResponse(status_document(desk_of(), loop))

    async def metrics(_: Request) -> Response:
        return Response(exposition(desk_of().gate), media_type=CONTENT_TYPE_LATEST)

    async def catalog(request: Request) -> Response:
        if request.method == "GET":
            return Response(
                msgspec.json.encode(desk_of().gate.catalog), media_type="application/json"
            )
        name = request.headers.get("x-catalog-name", "the posted catalog")
        try:
            text = (await request.body()).decode("utf-8")
            changed = await apply(text, name)
        except UnicodeDecodeError:
            return error_response(Refusal.BAD_REQUEST, "a catalog is UTF-8 text")
        except (NodesChangedError, UnfitError) as error:
            return error_response(Refusal.BAD_REQUEST, str(error), 409)
        except CatalogError as error:
            problems = [msgspec.to_builtins(p) for p in error.problems]
            return JSONResponse({"problems": problems}, status_code=400)
        return JSONResponse(changed)

    async def on_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(
            Refusal.NO_ROUTE, "the admin port has /status, /metrics and /catalog", error.status_code
        )

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/catalog", catalog, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={HTTPException: on_error},
    )


def status_document(desk: Desk, loop: Loop) -> dict[str, Any]:
    """All that `warmtide status` shows, as one document. Times are trace times."""
    gate = desk.gate
    return {
        "time_scale": gate.clock.scale,
        "now_us": gate.now_us(),
        "catalog_version": gate.catalog.version,
        "snapshot_version": gate.snapshot.version,
        "stopping": desk.stopping,
        "models": [_model(desk, spec) for spec in gate.catalog.models],
        "refused_unknown": dict(
            gate.telemetry.models[""].refused if "" in gate.telemetry.models else {}
        ),
        "nodes": [_node(node) for node in gate.snapshot.nodes],
        "pending": [msgspec.to_builtins(a) for a in loop.controller.pending()],
        "wants": [msgspec.to_builtins(w) for w in loop.plan.wants],
        "outcomes": [msgspec.to_builtins(o) for o in loop.outcomes[-20:]],
    }


def _model(desk: Desk, spec: ModelSpec) -> dict[str, Any]:
    gate = desk.gate
    seen = gate.telemetry.models.get(spec.id, ModelTelemetry())
    lanes = list(gate.table.lanes(spec.id))
    return {
        "model": spec.id,
        "engine": spec.engine,
        **warmth(desk, spec),
        "replicas": [
            msgspec.to_builtins(r) for r in gate.snapshot.replicas() if r.model_id == spec.id
        ],
        "lanes_ready": sum(lane.ready(gate.now_us()) for lane in lanes),
        "held": gate.admission.held(spec.id),
        "in_flight": sum(lane.in_flight for lane in lanes),
        "offered": seen.offered,
        "outcomes": dict(seen.outcomes),
        "refused": dict(seen.refused),
        "cold_starts": dict(seen.cold_starts),
        "tokens": {"prompt": seen.prompt_tokens, "output": seen.output_tokens},
        "ttft_ms": _percentiles_ms(seen.ttft),
        "itl_ms": _percentiles_ms(seen.itl),
        "held_ms": _percentiles_ms(seen.held),
    }


def _percentiles_ms(spans: Histogram) -> dict[str, float | None]:
    def ms(share: float) -> float | None:
        found = percentile(spans.latest_us, share)
        return None if found is None else found / 1000

    return {"p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99)}


def _node(node: NodeState) -> dict[str, Any]:
    return {
        "node": node.node_id,
        "alive": node.alive,
        "gpus": [msgspec.to_builtins(g) for g in node.gpus],
        "host_bytes": node.host_bytes,
        "host_reserved_bytes": node.host_reserved_bytes,
        "replicas": len(node.replicas),
    }
