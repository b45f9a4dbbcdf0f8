"""Where whole requests arrive: authenticate, parse, look up, begin a journey. An edge.

In: requests from connections. Out: journeys, or one clear refusal each. Never: awaits.
"""

import hashlib
import itertools
import re
import secrets
from typing import Any, NamedTuple

from gateway.asgi import AsgiAnswer
from gateway.gate import Gate
from gateway.hot_protocol import HotProtocol
from gateway.journey import Journey
from gateway.openai_api import BadBodyError, Head, Refusal, error_body, unknown_model
from gateway.reply import Reply
from gateway.routes import ROUTES, Route, allowed, who_serves
from gateway.telemetry import OutcomeKind, Record
from gateway.wire import RefuseError, Request, plain_response
from placement.catalog import ModelSpec, Tenant

US = 1_000_000
DEADLINE_US_MAX = 3600 * US
_LOCAL_PAGE = re.compile(rb"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?")
FOREIGN_PAGE = (
    "a page of another site asked, in somebody's browser: without tenants only pages of this "
    "machine may. Declare tenants and send a key, or ask from a server"
)
TIMEOUT_HEADER = "x-request-timeout-ms"
_TIMEOUT_HEADER = TIMEOUT_HEADER.encode()


class Denied(NamedTuple):
    """A request that goes no further: why, in whose words, about which field and model."""

    why: Refusal
    message: str
    param: str | None = None
    model_id: str = ""


class Desk:
    """Takes whole requests. Hot routes become journeys at once, all else goes to the ASGI app."""

    def __init__(self, gate: Gate, app: Any) -> None:
        self.gate = gate
        self._app = app
        self._prefix = secrets.token_hex(6).encode()
        self._count = itertools.count(1)
        self.stopping = False
        self.tick = 0

    def take(self, connection: HotProtocol, request: Request) -> None:
        route = ROUTES.get(request.path)
        if route is None or request.method != b"POST":
            AsgiAnswer(self._app, connection, request).begin()
            return
        request_id = self._request_id(request)
        verdict = self._admit(request, route)
        if isinstance(verdict, Denied):
            self._deny(verdict, connection, request, route, request_id)
            return
        head, spec, tenant, timeout_us = verdict
        gate = self.gate
        now_us = gate.now_us()
        retry = _is_retry(request.header.get(b"x-stainless-retry-count", b""))
        gate.arrived(spec.id, now_us, retry=retry)
        journey = Journey(
            gate,
            connection,
            request,
            route,
            head,
            spec,
            tenant,
            request_id,
            now_us,
            now_us + timeout_us,
        )
        journey.begin(retry=retry)

    def _admit(
        self, request: Request, route: Route
    ) -> Denied | tuple[Head, ModelSpec, Tenant | None, int]:
        if self.stopping:
            return Denied(Refusal.STOPPING, "the gateway is stopping: try again in a moment")
        header = request.header
        if b"origin" in header and self._of_a_foreign_page(header[b"origin"]):
            return Denied(Refusal.FORBIDDEN, FOREIGN_PAGE)
        tenant = self.tenant_of(header.get(b"authorization", b""), header.get(b"x-api-key", b""))
        if isinstance(tenant, str):
            return Denied(Refusal.NO_KEY, tenant)
        try:
            head = route.read(request.body)
        except BadBodyError as error:
            return Denied(Refusal.BAD_REQUEST, str(error))
        found = self.gate.names.get(head.model)
        if found is None:
            known = self.names_for(tenant)
            return Denied(Refusal.NO_MODEL, unknown_model(head.model, known), "model")
        spec = found[0]
        timeout_us = _timeout_us(request, spec)
        denied = _unfit(tenant, spec, head, route, timeout_us)
        if denied is None:
            return head, spec, tenant, timeout_us
        if denied.why is Refusal.UNSUPPORTED_ROUTE:
            specs = [(name, self.gate.names[name][0]) for name in self.names_for(tenant)]
            return denied._replace(message=f"{denied.message}; {who_serves(route, specs)}")
        return denied

    def expect(self, request: Request) -> None:
        """Strangers could fill the memory with bodies, each of them below the limit."""
        header = request.header
        tenant = self.tenant_of(header.get(b"authorization", b""), header.get(b"x-api-key", b""))
        if isinstance(tenant, str):
            raise RefuseError(Refusal.NO_KEY, tenant)

    def refused(self, why: Refusal) -> None:
        """What a connection refused by itself: malformed, too large, too slow."""
        refused = OutcomeKind.REFUSED
        self.gate.record(Record(model_id="", outcome=refused, code=why.value.code, demand=False))

    def _of_a_foreign_page(self, origin: bytes) -> bool:
        """Without tenants, being on this machine is the only key, and every page of the web that a
        browser here shows has it: it may send a body as plain text, or name its host 127.0.0.1."""
        return not self.gate.catalog.tenants and _LOCAL_PAGE.fullmatch(origin) is None

    def names_for(self, tenant: Tenant | None) -> list[str]:
        """The names that a tenant may know of."""
        names = self.gate.names.items()
        return [name for name, (spec, _) in names if allowed(tenant, spec, name)]

    def tenant_of(self, authorization: bytes, api_key: bytes = b"") -> Tenant | str | None:
        """The tenant of a key; None where no tenants are declared; else what is wrong with it.

        `api_key` is how Anthropic's clients send it: it counts where nothing is authorized."""
        known = self.gate.tenant_by_header.get(authorization)
        if known is not None or not self.gate.catalog.tenants:
            return known
        scheme, _, key = authorization.partition(b" ")
        if api_key and not authorization:
            key = api_key
        elif not key:
            return (
                "no API key was sent: add the header `Authorization: Bearer YOUR_KEY` "
                "(or `x-api-key: YOUR_KEY`)"
            )
        elif scheme.lower() != b"bearer":
            return "the Authorization header must be `Bearer YOUR_KEY`"
        digest = hashlib.sha256(key.strip()).digest()
        tenant = self.gate.tenant_by_key.get(digest)
        if tenant is None:
            return "this API key is not known here"
        if authorization:
            self.gate.remember(authorization, tenant)
        return tenant

    def _deny(
        self,
        denied: Denied,
        connection: HotProtocol,
        request: Request,
        route: Route,
        request_id: bytes,
    ) -> None:
        why = denied.why
        headers = b"www-authenticate: Bearer\r\n" if why is Refusal.NO_KEY else b""
        reply = Reply(connection, request, request_id, route.dialect, stream=False)
        reply.refuse(why, denied.message, US, param=denied.param, headers=headers)
        self.gate.record(
            Record(
                model_id=denied.model_id,
                outcome=OutcomeKind.REFUSED,
                operation=route.operation,
                code=why.value.code,
                demand=False,
            )
        )
        connection.done(keep_alive=reply.keep_alive)

    def _request_id(self, request: Request) -> bytes:
        given = request.header.get(b"x-request-id", b"")
        if 0 < len(given) <= 128 and given.isascii() and given.decode().isprintable():
            return given
        return b"req-%b-%x" % (self._prefix, next(self._count))


class AdminDesk:
    """Takes the admin port's requests: all of them go to its app, none becomes a journey."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.stopping = False
        self.tick = 0

    def take(self, connection: HotProtocol, request: Request) -> None:
        if self.stopping:
            body = error_body(Refusal.STOPPING, "the gateway is stopping")
            connection.write(plain_response(Refusal.STOPPING.value.status, body, close=True))
            connection.done(keep_alive=False)
            return
        AsgiAnswer(self._app, connection, request).begin()

    def expect(self, request: Request) -> None:
        """The admin port is on loopback: who is there has other ways to fill the memory."""

    def refused(self, why: Refusal) -> None:
        """The admin port's requests are nobody's demand: they are not counted."""


def _unfit(
    tenant: Tenant | None, spec: ModelSpec, head: Head, route: Route, timeout_us: int
) -> Denied | None:
    """Why a request for a known model goes no further, if it does not."""
    asked, task = head.model, route.task
    if not allowed(tenant, spec, asked):
        assert tenant is not None
        message = f"tenant {tenant.id} may not use `{asked}`"
        return Denied(Refusal.FORBIDDEN, message, "model", spec.id)
    if task is not None and task not in spec.tasks:
        message = f"`{asked}` does not serve {task}; it serves: {', '.join(spec.tasks)}"
        return Denied(Refusal.WRONG_TASK, message, "model", spec.id)
    if spec.engine not in route.kinds and spec.managed:
        message = f"the engine of `{asked}` ({spec.engine}) does not serve {route.path}"
        return Denied(Refusal.UNSUPPORTED_ROUTE, message, "model", spec.id)
    if head.needs_state and spec.managed:
        message = f"`{head.needs_state}`: no answers are kept here, send the whole conversation"
        return Denied(Refusal.BAD_REQUEST, message, head.needs_state, spec.id)
    if timeout_us <= 0:
        message = f"{TIMEOUT_HEADER} must be a whole number of milliseconds above zero"
        return Denied(Refusal.BAD_REQUEST, message, TIMEOUT_HEADER, spec.id)
    return None


def _is_retry(count: bytes) -> bool:
    """Retries are no demand of their own. What is no count is taken for a first try."""
    return count.isdigit() and count.strip(b"0") != b""


def _timeout_us(request: Request, spec: ModelSpec) -> int:
    """How long the client waits for the first byte; 0 where its header makes no sense."""
    given = request.header.get(_TIMEOUT_HEADER)
    if given is None:
        return spec.deadline_us
    if not given.isdigit():
        return 0
    return min(int(given[:12]) * 1000, DEADLINE_US_MAX)
