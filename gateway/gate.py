"""What all journeys share: the clock, the routing table, admission, the upstream pool. An edge.

In: snapshots from the fleet, the catalog. Out: lanes for requests, demand facts for the control
loop, whose `Ground` this is. Never: awaits on the hot path.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.admission import Admission, EtaOf, Ticket, demand_of
from gateway.queues import STALE_AFTER, QueueDepth, queue_depth
from gateway.routing import Lane, RoutingTable, pick
from gateway.telemetry import OutcomeKind, Record, Telemetry
from gateway.tracing import CONTEXT_HEADERS, Trace, Tracing
from gateway.upstream import UpstreamPool
from gateway.wire import Request
from placement.catalog import Adapter, Catalog, ModelSpec, Tenant
from placement.clock import Clock
from placement.engines.readings import Readings
from placement.planning.demand import ModelDemand, RateMeter
from placement.snapshot import ClusterSnapshot
from prewarm.windows import WindowBook

log = logging.getLogger("warmtide.gateway")

US = 1_000_000
PATROL_WALL_S = 0.1
LANE_REST_US = 500_000
REMEMBERED_MAX = 1024
LANE_REST_US_MAX = 30 * US
GONE_WALL_S = 0.75
"""Who fails twice in a row may be a process that is gone. Its agent looks every half second: until
then nobody knows, and asking it again only uses up attempts."""
UNWATCHED_WALL_S = 5.0
"""A process that was stopped for longer saw nothing meanwhile: a hole in the history."""


class Watched(Protocol):
    """Whoever keeps a deadline of its own once told to."""

    def arm(self) -> None: ...


def _context_lines(given: dict[bytes, bytes], trace: Trace | None) -> bytes:
    """Trace context towards an engine: our span's, or the client's as it came."""
    context = {name: given[name] for name in CONTEXT_HEADERS if name in given}
    if trace is not None:
        baggage = {k: v for k, v in context.items() if k == b"baggage"}
        context = trace.headers | baggage
    return b"".join(b"%b: %b\r\n" % line for line in context.items())


class Gate:
    """What every journey needs, and the `Ground` that the control loop stands on."""

    def __init__(self, catalog: Catalog, clock: Clock, secret_of: Callable[[str], str]) -> None:
        self.clock = clock
        self.now_us = clock.now_us
        self.pool = UpstreamPool()
        self.table = RoutingTable()
        self.telemetry = Telemetry()
        self.rates = RateMeter(catalog.policy.rate_half_life_us)
        self.windows = WindowBook(clock.now_us(), clock.trace_us(UNWATCHED_WALL_S))
        self.readings: dict[str, Readings] = {}
        """What each lane's engine last said of itself."""
        self.tracing: Tracing | None = None
        self.eta_of: EtaOf = lambda _: None
        self.poke: Callable[[], None] = lambda: None
        self.admission = Admission(
            self.table, lambda model_id: self.eta_of(model_id), catalog.policy.held_per_model_max
        )
        self.snapshot = ClusterSnapshot(version=0)
        self.specs: dict[str, ModelSpec] = {}
        """Models of the catalog, and of earlier ones while their last requests are served."""
        self._departed: set[str] = set()
        self._secret_of = secret_of
        self._secrets: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._young: list[Watched] = []
        self._patrol: asyncio.TimerHandle | None = None
        self.load(catalog)

    def load(self, catalog: Catalog) -> None:
        """Take a catalog, at start or while serving. Running requests keep what they began with."""
        self.catalog = catalog
        self.names: dict[str, tuple[ModelSpec, Adapter | None]] = catalog.names()
        self.tenant_by_key: dict[bytes, Tenant] = {
            bytes.fromhex(digest.removeprefix("sha256:")): tenant
            for tenant in catalog.tenants
            for digest in tenant.key_sha256
        }
        self.tenant_by_header: dict[bytes, Tenant] = {}
        """Of keys that were checked: a digest each time would cost as much as routing."""
        self.admission.held_max = catalog.policy.held_per_model_max
        self.specs.update({spec.id: spec for spec in catalog.models})
        self._departed = self.specs.keys() - {spec.id for spec in catalog.models}
        self.windows.watch(self.specs, self.now_us())
        for name in {spec.api_key_env for spec in catalog.models if spec.api_key_env}:
            self._secrets[name] = self._secret_of(name)
        for model_id in self.table.update_external(catalog):
            self.admission.wake(model_id, self.now_us())
        self.on_snapshot(self.snapshot)

    def remember(self, authorization: bytes, tenant: Tenant) -> None:
        """Whose this header is, until the catalog changes or too many are known."""
        if len(self.tenant_by_header) >= REMEMBERED_MAX:
            self.tenant_by_header.clear()
        self.tenant_by_header[authorization] = tenant

    # --- services to journeys

    def call_after(self, trace_us: int, act: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(self.clock.wall_s(trace_us), 0.0), act)

    def watch(self, journey: Watched, patience_us: int) -> None:
        """See to it that a journey's deadline is kept.

        Most requests end within a moment, and a timer each would cost more than routing them: who
        is still under way at the next patrol gets one.
        """
        if self.clock.wall_s(patience_us) < 2 * PATROL_WALL_S:
            journey.arm()
            return
        self._young.append(journey)
        if self._patrol is None:
            self._patrol = self._loop.call_later(PATROL_WALL_S, self._arm_young)

    def _arm_young(self) -> None:
        young, self._young = self._young, []
        self._patrol = None
        for journey in young:
            journey.arm()

    def eta_us(self, model_id: str) -> int | None:
        return self.eta_of(model_id)

    def elsewhere(self, ticket: Ticket, but: Lane) -> Lane | None:
        """Another lane for a request whose engine answered with an error; its slot is taken."""
        lanes = self.table.lanes(ticket.spec.id)
        excluded = ticket.excluded | {but.lane_id}
        lane = pick(lanes, excluded, self.now_us())
        if lane is not None:
            ticket.excluded = excluded
            lane.in_flight += 1
        return lane

    def on_lane_failed(self, lane: Lane, why: str) -> None:
        """Let a lane rest that broke, longer each time in a row, and try it again by itself.

        What else fails while it rests is the same incident; an answer that ends well ends the row.
        """
        now_us = self.now_us()
        if lane.down_until_us > now_us:
            return
        lane.failures += 1
        rest_us = min(LANE_REST_US * 2 ** min(lane.failures - 1, 8), LANE_REST_US_MAX)
        if lane.failures > 1:
            rest_us = max(rest_us, self.clock.trace_us(GONE_WALL_S))
        lane.down_until_us = now_us + rest_us
        log.warning("%s rests for %.1f s: %s", lane.lane_id, rest_us / US, why)
        self._wake_rested(lane)
        self.poke()

    def _wake_rested(self, lane: Lane) -> None:
        """Give a lane's next requests to it once it has rested. uvloop's timers are rounded to the
        millisecond, so one may ring early, and at a large time scale early by much."""
        left_us = lane.down_until_us - self.now_us()
        if left_us > 0:
            self.call_after(left_us + 1000, lambda: self._wake_rested(lane))
        else:
            self.admission.wake(lane.spec.id, self.now_us())

    def arrived(self, model_id: str, now_us: int, *, retry: bool) -> None:
        """A journey begins: demand, unless its client only asks again."""
        if not retry:
            self.rates.arrive(model_id, now_us)
        self.windows.arrive(model_id, now_us, retry=retry)

    def ended(self, record: Record, now_us: int) -> None:
        """A journey is over."""
        if record.outcome is OutcomeKind.ANSWERED:
            self.rates.ended(record.model_id, record.prompt_tokens, record.output_tokens)
        self.windows.depart(
            record.model_id,
            now_us,
            refused=record.outcome is OutcomeKind.REFUSED,
            prompt_tokens=record.prompt_tokens,
            output_tokens=record.output_tokens,
        )
        self.telemetry.add(record)

    def record(self, record: Record) -> None:
        self.telemetry.add(record)

    def open_lanes(self) -> list[Lane]:
        """Every way to an engine that takes requests now."""
        return [x for model_id in self.specs for x in self.table.lanes(model_id) if x.open]

    def queue_depth(self, model_id: str, now_us: int) -> QueueDepth:
        """Requests of a model that wait, here and in its engines."""
        open_ids = [lane.lane_id for lane in self.table.lanes(model_id) if lane.open]
        lanes = {i: self.readings.get(i, Readings()) for i in open_ids}
        return queue_depth(self.admission.held(model_id), lanes, now_us, self.readings_fresh_us())

    def readings_fresh_us(self) -> int:
        """How old an engine's readings may be. Engines are asked at most once a wall second."""
        return STALE_AFTER * max(self.catalog.telemetry.scrape_us, self.clock.trace_us(1.0))

    def upstream_head(
        self,
        lane: Lane,
        path: bytes,
        request_id: bytes,
        request: Request,
        length: int,
        trace: Trace | None,
        further: tuple[bytes, ...],
    ) -> bytes:
        """The request line and headers towards an engine, `further` of the client's among them; its
        credentials stay here."""
        head = b"%b%b%b%d\r\nx-request-id: %b\r\n" % (
            lane.line_start,
            path,
            lane.line_end,
            length,
            request_id,
        )
        given = request.header
        if trace is not None or b"traceparent" in given or b"baggage" in given:
            head += _context_lines(given, trace)
        for header in further:
            if header in given:
                head += b"%b: %b\r\n" % (header, given[header])
        secret = self._secrets.get(lane.spec.api_key_env, "") if lane.spec.api_key_env else ""
        if secret:
            head += b"authorization: Bearer %b\r\n" % secret.encode()
            if further:  # Anthropic's own server looks here
                head += b"x-api-key: %b\r\n" % secret.encode()
        return head + b"\r\n"

    # --- the control loop's ground

    def demand(self, now_us: int) -> tuple[ModelDemand, ...]:
        if self._departed:
            self._forget_departed()
        admission, rates = self.admission, self.rates
        return tuple(demand_of(spec, admission, rates, now_us) for spec in self.specs.values())

    def _forget_departed(self) -> None:
        placed = {replica.model_id for replica in self.snapshot.replicas()}
        for model_id in self._departed - placed:
            busy = any(lane.in_flight for lane in self.table.lanes(model_id))
            if not busy and not self.admission.held(model_id):
                self._departed.discard(model_id)
                self.table.forget(model_id)
                del self.specs[model_id]
        self.windows.watch(self.specs, self.now_us())

    def in_flight(self) -> dict[str, int]:
        return self.table.in_flight()

    def fence(self, replica_ids: Iterable[str]) -> bool:
        return self.table.fence(replica_ids)

    def unfence(self, replica_ids: Iterable[str]) -> None:
        self.table.unfence(replica_ids)
        self.on_snapshot(self.snapshot)

    def on_snapshot(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        for model_id in self.table.update(snapshot, self.specs):
            self.admission.wake(model_id, self.now_us())
