"""Who goes now, who is held, who is refused: one queue per model, quotas per tenant.

In: arrivals, releases, changes of the routing table, with the time and the estimated wait.
Out: verdicts. State is the queues and counts; nothing here awaits, logs or reads a clock.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.openai_api import Refusal
from gateway.routing import Lane, RoutingTable, pick
from placement.catalog import ModelSpec, Tenant
from placement.planning.demand import ModelDemand, RateMeter

US = 1_000_000
WANTED_US = 30 * US
"""A model stays wanted this long after the time at which a refused client was told to come back."""


class Ticket(ABC):
    """One request's place in the hall. `journey` subclasses it; the counts live with its owner."""

    __slots__ = ("arrived_us", "cold", "deadline_us", "excluded", "held_since_us", "spec", "tenant")

    def __init__(
        self, spec: ModelSpec, tenant: Tenant | None, arrived_us: int, deadline_us: int
    ) -> None:
        self.spec = spec
        self.tenant = tenant
        self.arrived_us = arrived_us
        self.deadline_us = deadline_us
        self.held_since_us = 0
        self.cold = False
        """Held on arrival because no replica served. Losing one later does not make it so."""
        self.excluded: frozenset[str] = frozenset()

    @abstractmethod
    def go(self, lane: Lane) -> None:
        """A held request got a lane, its slot already taken."""


@dataclass(frozen=True, slots=True)
class Held:
    """Waits in its model's queue; `eta_us` is the estimated wait, 0 where replicas are busy."""

    eta_us: int


@dataclass(frozen=True, slots=True)
class No:
    """Refused, and after how many seconds trying again makes sense (0: never)."""

    why: Refusal
    message: str
    retry_after_us: int = 0


Verdict = Lane | Held | No
EtaOf = Callable[[str], int | None]
"""Estimated microseconds until a replica of a model serves; None: nothing can serve it."""


class Admission:
    """All models' queues. `held_max` bounds each; `eta_of` asks the controller."""

    def __init__(self, table: RoutingTable, eta_of: EtaOf, held_max: int) -> None:
        self.table = table
        self.held_max = held_max
        self._eta_of = eta_of
        self._queues: dict[str, deque[Ticket]] = {}
        self._tenants: dict[str, int] = {}
        self._wanted_until_us: dict[str, int] = {}

    def arrive(self, ticket: Ticket, now_us: int) -> Verdict:
        """Decide for a new request, or again for one whose attempt failed."""
        tenant = ticket.tenant
        if tenant is not None and self._over_quota(tenant):
            message = f"tenant {tenant.id} has {tenant.max_in_flight} requests running or waiting"
            return No(Refusal.TENANT_LIMIT, message, US)
        verdict = self._place(ticket, now_us)
        if tenant is not None and not isinstance(verdict, No):
            self._tenants[tenant.id] = self._tenants.get(tenant.id, 0) + 1
        return verdict

    def again(self, ticket: Ticket, now_us: int) -> Verdict:
        """An attempt failed before its first byte: elsewhere, or back to the head of the queue."""
        return self._place(ticket, now_us, first=True)

    def depart(self, ticket: Ticket) -> None:
        """The request ended, however it ended: its tenant's count goes down."""
        tenant = ticket.tenant
        if tenant is not None:
            count = self._tenants[tenant.id] - 1
            assert count >= 0, "a tenant's request ended twice"
            self._tenants[tenant.id] = count

    def leave(self, ticket: Ticket) -> None:
        """A held request is gone: deadline passed, or the client left."""
        queue = self._queues.get(ticket.spec.id)
        if queue is not None and ticket in queue:
            queue.remove(ticket)

    def release(self, lane: Lane) -> bool:
        """A slot came back. True if somebody waits for it: then `wake` this model."""
        assert lane.in_flight > 0, "a slot was released twice"
        lane.in_flight -= 1
        return bool(self._queues.get(lane.spec.id))

    def wake(self, model_id: str, now_us: int) -> None:
        """Send off as many held requests of a model as there are free slots, oldest first."""
        queue = self._queues.get(model_id)
        if queue is None:
            return
        passed: list[Ticket] = []
        try:
            while queue:
                ticket = queue.popleft()
                lane = pick(self.table.lanes(model_id), ticket.excluded, now_us)
                if lane is None:
                    passed.append(ticket)
                    if not ticket.excluded:
                        break
                    continue
                lane.in_flight += 1
                ticket.go(lane)
        finally:  # a bug in sending one must not lose the others
            queue.extendleft(reversed(passed))

    def held(self, model_id: str) -> int:
        return len(self._queues.get(model_id, ()))

    def oldest_held_us(self, model_id: str) -> int:
        queue = self._queues.get(model_id)
        return queue[0].arrived_us if queue else 0

    def wanted(self, model_id: str, now_us: int) -> bool:
        """Somebody was refused only because the climb takes longer than they could wait."""
        return self._wanted_until_us.get(model_id, 0) > now_us

    def _over_quota(self, tenant: Tenant) -> bool:
        return 0 < tenant.max_in_flight <= self._tenants.get(tenant.id, 0)

    def _place(self, ticket: Ticket, now_us: int, *, first: bool = False) -> Verdict:
        model_id = ticket.spec.id
        queue = self._queues.get(model_id)
        if not queue or first:
            lane = pick(self.table.lanes(model_id), ticket.excluded, now_us)
            if lane is not None:
                lane.in_flight += 1
                return lane
        if queue is None:
            queue = self._queues[model_id] = deque()
        if len(queue) >= self.held_max and not first:
            message = f"{len(queue)} requests already wait for `{model_id}`"
            return No(Refusal.OVERLOADED, message, max(self._eta_of(model_id) or US, US))
        verdict = self._hold(ticket, now_us, first=first)
        if isinstance(verdict, Held):
            queue.appendleft(ticket) if first else queue.append(ticket)
        return verdict

    def _hold(self, ticket: Ticket, now_us: int, *, first: bool) -> Verdict:
        model_id = ticket.spec.id
        if self.table.has_open(model_id) and ticket.spec.managed:
            return self._held(ticket, 0, now_us)
        if not ticket.spec.managed:
            return self._hold_external(ticket, now_us)
        eta_us = self._eta_of(model_id)
        if eta_us is None:
            message = f"no node of the fleet can serve `{model_id}` now"
            return No(Refusal.NO_CAPACITY, message, 30 * US)
        if now_us + eta_us > ticket.deadline_us:
            self._wanted_until_us[model_id] = now_us + eta_us + WANTED_US
            message = f"`{model_id}` is being loaded and is ready in about {eta_us / US:.0f} s"
            return No(Refusal.LOADING, message, eta_us)
        ticket.cold = ticket.cold or not first
        return self._held(ticket, eta_us, now_us)

    def _hold_external(self, ticket: Ticket, now_us: int) -> Verdict:
        """Nobody here can start an external engine: wait for a busy one, not for a dead one."""
        lanes = [lane for lane in self.table.lanes(ticket.spec.id) if lane.open]
        alive = [x for x in lanes if x.ready(now_us) and x.lane_id not in ticket.excluded]
        if alive:
            return self._held(ticket, 0, now_us)
        message = f"none of the {len(lanes)} endpoints of `{ticket.spec.id}` answers"
        waits = [lane.down_until_us - now_us for lane in lanes]
        return No(Refusal.NO_CAPACITY, message, max(min(waits, default=US), US))

    def _held(self, ticket: Ticket, eta_us: int, now_us: int) -> Held:
        ticket.held_since_us = ticket.held_since_us or now_us
        return Held(eta_us)


def demand_of(spec: ModelSpec, admission: Admission, rates: RateMeter, now_us: int) -> ModelDemand:
    """What the control loop is told of a model, by a live gateway and by a simulated one."""
    rate_per_s = rates.rate_per_s(spec.id, now_us)
    answered, prompt_tokens, output_tokens = rates.answered(spec.id)
    return ModelDemand(
        model_id=spec.id,
        held=admission.held(spec.id),
        in_flight=sum(lane.in_flight for lane in admission.table.lanes(spec.id)),
        oldest_held_us=admission.oldest_held_us(spec.id),
        rate_per_s=rate_per_s,
        last_arrival_us=rates.last_us.get(spec.id, 0),
        wanted=admission.wanted(spec.id, now_us),
        offered=rates.offered(spec.id),
        answered=answered,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )
