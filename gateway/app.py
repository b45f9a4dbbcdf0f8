"""The cold routes of the public port: models, health, and clear errors for all else. An edge."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.desk import Desk
from gateway.openai_api import Refusal, unknown_model
from gateway.reply import retry_headers
from gateway.routes import ROUTES, allowed, dialect_of
from gateway.routing import WEIGHTS_RUNG
from placement.catalog import Adapter, ModelSpec, Tenant
from placement.clock import US, wall_us
from placement.snapshot import Rung, WeightsAt

Handler = Callable[[Request], Awaitable[Response]]


_STORED = "/v1/responses/"
"""Below this path OpenAI keeps answers; here none are kept."""


def error_response(
    why: Refusal, message: str, status: int | None = None, path: str = ""
) -> Response:
    """An error in the dialect of the path that was asked for."""
    body = dialect_of(path.encode()).error_body(why, message)
    lines = retry_headers(why, 0).decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return Response(body, status or why.value.status, headers, "application/json")


def _who(desk: Desk, request: Request) -> Tenant | str | None:
    key = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
    return desk.tenant_of(key[0].encode("latin-1"), key[1].encode("latin-1"))


def build_app(desk_of: Callable[[], Desk]) -> Starlette:
    """The app asks for the desk when it is called: desk and app know each other."""
    created = wall_us() // US

    async def models(request: Request) -> Response:
        desk = desk_of()
        who = _who(desk, request)
        if isinstance(who, str):
            return error_response(Refusal.NO_KEY, who)
        data = [
            _model_entry(desk, name, *desk.gate.names[name], created)
            for name in desk.names_for(who)
        ]
        return JSONResponse({"object": "list", "data": data})

    async def model(request: Request) -> Response:
        desk = desk_of()
        who = _who(desk, request)
        if isinstance(who, str):
            return error_response(Refusal.NO_KEY, who)
        return _one_model(desk, who, request.path_params["name"], created)

    async def stored(request: Request) -> Response:
        who = _who(desk_of(), request)
        if isinstance(who, str):
            return error_response(Refusal.NO_KEY, who)
        message = (
            "no answers of /v1/responses are stored here, whatever `store` says: there is none to "
            "retrieve, continue, cancel or delete. Keep the answer that POST /v1/responses gave, "
            "and send the whole conversation with the next request"
        )
        return error_response(Refusal.UNSUPPORTED_ROUTE, message)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> Response:
        desk = desk_of()
        managed = any(spec.managed for spec in desk.gate.catalog.models)
        nodes = [node.node_id for node in desk.gate.snapshot.nodes if node.alive]
        ok = not desk.stopping and (bool(nodes) or not managed)
        body = {"status": "ready" if ok else "not ready", "nodes": nodes}
        return JSONResponse(body, status_code=200 if ok else 503)

    routes = [
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route(_STORED + "{rest:path}", stored, methods=["GET", "POST", "DELETE"]),
        Route("/health/live", live),
        Route("/health/ready", ready),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _on_http_error})
    app.router.redirect_slashes = False  # a redirect would name the host that the client made up
    return app


def _one_model(desk: Desk, who: Tenant | None, name: str, created: int) -> Response:
    found = desk.gate.names.get(name)
    if found is None or not allowed(who, found[0], name):
        return error_response(Refusal.NO_MODEL, unknown_model(name, desk.names_for(who)))
    return JSONResponse(_model_entry(desk, name, *found, created))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if path.encode() in ROUTES:
        message = f"{path} takes POST, not {request.method}"
        return error_response(Refusal.WRONG_METHOD, message, path=path)
    if error.status_code == 405:
        message = f"{path} does not take {request.method}"
        return error_response(Refusal.WRONG_METHOD, message, path=path)
    known = ", ".join([*(r.decode() for r in ROUTES), "/v1/models", "/health/ready"])
    message = f"there is no {path[:200]} here; there is: {known}"
    return error_response(Refusal.NO_ROUTE, message, error.status_code, path)


def _model_entry(
    desk: Desk, name: str, spec: ModelSpec, adapter: Adapter | None, created: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "warmtide",
        "warmtide": warmth(desk, spec),
    }
    if adapter is not None:
        entry["parent"] = spec.id
    elif name != spec.id:
        entry["root"] = spec.id
    return entry


def warmth(desk: Desk, spec: ModelSpec) -> dict[str, Any]:
    """How near a model is to serving: its best rung, and the estimated wait."""
    gate = desk.gate
    adapters = [adapter.id for adapter in spec.adapters]
    if not spec.managed:
        ready = any(lane.ready(gate.now_us()) for lane in gate.table.lanes(spec.id))
        rung = "serving" if ready else "cold"
        return {"rung": rung, "ready": ready, "eta_ms": 0 if ready else None, "adapters": adapters}
    replicas = [r for r in gate.snapshot.replicas() if r.model_id == spec.id]
    ready = any(r.serving for r in replicas)
    standing = [r.rung for r in replicas if not (r.action_id and r.target is Rung.SERVING)]
    places = [n.weights_at.get(spec.id, WeightsAt.HOST) for n in gate.snapshot.nodes if n.alive]
    weights_at = max(places, default=WeightsAt.OBJECT)
    rung = max(standing).name.lower() if standing else WEIGHTS_RUNG[weights_at]
    eta_us = 0 if ready else gate.eta_us(spec.id)
    eta_ms = None if eta_us is None else eta_us // 1000
    return {"rung": rung, "ready": ready, "eta_ms": eta_ms, "adapters": adapters}
