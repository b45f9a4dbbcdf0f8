"""One request's day: parsed, admitted, perhaps held, sent, relayed, recorded. An edge.

In: a whole request from a client's connection. Out: bytes to the client, exactly one outcome to
telemetry, exactly one release of whatever was taken. Until the first engine byte a failed attempt
goes elsewhere; after it the stream ends with an error event. Silence counts against the engine only
while the client reads; a client that reads nothing for ten deadlines is taken to have left.
"""

import asyncio

from gateway.admission import Held, No, Ticket, Verdict
from gateway.gate import Gate
from gateway.hot_protocol import HotProtocol
from gateway.openai_api import Head, Refusal, Usage, replace_model
from gateway.relay import NO_EVENTS, Relay
from gateway.reply import Reply
from gateway.routes import Route, allowed, who_serves
from gateway.routing import Lane, upstream_name
from gateway.telemetry import OutcomeKind, Record
from gateway.tracing import Trace
from gateway.upstream import Exchange
from gateway.usage import ask_for_usage
from gateway.wire import Request
from placement.catalog import ModelSpec, Tenant

US = 1_000_000
HEARTBEAT_FIRST_US = 5 * US
HEARTBEAT_NEXT_US = 10 * US
ATTEMPTS_MAX = 4
UNREAD_DEADLINES = 10


class Journey(Ticket):
    """State of one request. Callbacks come from the connection, admission, upstream and timers."""

    __slots__ = (
        "_alarm", "_attempts", "_body", "_connection", "_ended", "_exchange", "_gate", "_head",
        "_heartbeat", "_held_us", "_keep_usage", "_lane", "_relay", "_reply", "_request", "_retry",
        "_route", "_rung", "_trace", "_unread_since_us", "request_id",
    )  # fmt: skip

    def __init__(
        self,
        gate: Gate,
        connection: HotProtocol,
        request: Request,
        route: Route,
        head: Head,
        spec: ModelSpec,
        tenant: Tenant | None,
        request_id: bytes,
        now_us: int,
        deadline_us: int,
    ) -> None:
        super().__init__(spec, tenant, now_us, deadline_us)
        self.request_id = request_id
        self._gate = gate
        self._connection = connection
        self._request = request
        self._route = route
        self._head = head
        self._body = request.body
        self._retry = self._keep_usage = False
        self._trace: Trace | None = None
        self._lane: Lane | None = None
        self._exchange: Exchange | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._attempts = 0
        self._ended = False
        self._reply = Reply(connection, request, request_id, route.dialect, stream=head.stream)
        self._relay: Relay | None = None
        self._unread_since_us = self._held_us = 0
        self._rung = "serving"

    # --- admission

    def begin(self, *, retry: bool) -> None:
        """Ask for a lane; go, wait, or be refused."""
        self._connection.answering = self
        self._retry = retry
        gate = self._gate
        if gate.tracing is not None:
            self._trace = gate.tracing.begin(self._request, self._route.operation, self._head.model)
        try:
            self._write_body()
        except RecursionError:
            self.tenant = None  # nothing was counted
            self._refuse(Refusal.BAD_REQUEST, "the body is nested too deeply to be a request")
            return
        verdict = gate.admission.arrive(self, self.arrived_us)
        if isinstance(verdict, No):
            self.tenant = None  # nothing was counted
        else:
            gate.watch(self, self.deadline_us - self.arrived_us)
        self._follow(verdict)

    def _write_body(self) -> None:
        """What engines get, whichever it will be: once, on the stack that took the client's."""
        asked = self._head
        name = upstream_name(self.spec, asked.model)
        if name != asked.model:
            self._body = replace_model(self._body, name)
        if asked.stream and self._route.asks_usage and self.spec.managed:
            fuller = ask_for_usage(self._body, asked.stream_options)
            if fuller is not None:
                self._body, self._keep_usage = fuller, True

    def _follow(self, verdict: Verdict) -> None:
        if isinstance(verdict, No):
            if verdict.why is Refusal.LOADING:
                self._gate.poke()  # the climb is due all the same: who was refused comes back
            self._refuse(verdict.why, verdict.message, verdict.retry_after_us)
        elif isinstance(verdict, Held):
            self._wait()
        else:
            self.go(verdict)

    def go(self, lane: Lane) -> None:
        """A lane's slot is ours: send."""
        if self.held_since_us:
            self._held_us += self._gate.now_us() - self.held_since_us
            self.held_since_us = 0
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if self.cold:
            self._rung = lane.climbed_from
        self._lane = lane
        self._attempts += 1
        route, body = self._route, self._body
        events = None
        if self._head.stream:
            events = route.dialect.events(keep_usage=self._keep_usage)
        self._relay = Relay(self._reply, route, lane, self._rung, self._held_us, events)
        head = self._gate.upstream_head(
            lane,
            self._request.path,
            self.request_id,
            self._request,
            len(body),
            self._trace,
            route.headers,
        )
        if self._trace is not None:
            self._trace.sent(lane.lane_id, self._rung)
        self._exchange = self._gate.pool.send(lane, head, body, self)
        if self._unread_since_us:
            self._exchange.pause()

    def _wait(self) -> None:
        self._gate.poke()
        if self._head.stream:
            quiet_us = HEARTBEAT_NEXT_US if self._reply.committed else HEARTBEAT_FIRST_US
            self._heartbeat = self._gate.call_after(quiet_us, self._on_heartbeat)

    def _on_heartbeat(self) -> None:
        self._reply.heartbeat(self._gate.eta_us(self.spec.id))
        self._heartbeat = self._gate.call_after(HEARTBEAT_NEXT_US, self._on_heartbeat)

    def arm(self) -> None:
        """Set the alarm for the deadline, unless the request has ended already."""
        if not self._ended:
            left_us = self.deadline_us - self._gate.now_us()
            self._alarm = self._gate.call_after(left_us, self._on_alarm)

    def _on_alarm(self) -> None:
        """The deadline to the first engine byte; after it, the longest silence that is borne."""
        now_us = self._gate.now_us()
        if self._unread_since_us and self._lane is not None:
            self._on_unread(now_us)
            return
        relay = self._relay
        if relay is not None and relay.begun:
            quiet_until_us = relay.last_us + self.spec.deadline_us
            if now_us < quiet_until_us:
                self._alarm = self._gate.call_after(quiet_until_us - now_us, self._on_alarm)
                return
            self._break("the engine went silent in mid-answer")
            return
        where = "a replica" if self.held_since_us else "the engine"
        message = f"the deadline passed while waiting for {where} of `{self.spec.id}`"
        self._refuse(Refusal.DEADLINE, message)

    def _on_unread(self, now_us: int) -> None:
        """The silence is the client's: the engine was told to pause. Bear it, but not for ever."""
        deadline_us = self.spec.deadline_us
        left_us = self._unread_since_us + UNREAD_DEADLINES * deadline_us - now_us
        if left_us > 0:
            self._alarm = self._gate.call_after(min(left_us, deadline_us), self._on_alarm)
            return
        self._connection.abort()
        self._end(OutcomeKind.CANCELLED)

    # --- upstream's listener

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        if self._relay is not None:
            self._relay.head(status, headers)

    def on_data(self, data: bytes) -> None:
        relay = self._relay
        if not self._ended and relay is not None:
            relay.data(data, self._gate.now_us())
            if relay.fault:
                self._on_fault(relay)

    def on_end(self) -> None:
        relay = self._relay
        if self._ended or relay is None:
            return
        self._exchange = None
        relay.conclude()
        if relay.fault:
            self.on_failed(relay.fault)
        elif relay.error_status:
            self._on_engine_error(relay)
        else:
            outcome, usage = relay.finish()
            self._end(outcome, usage=usage, at_us=relay.last_us)

    def _on_fault(self, relay: Relay) -> None:
        """An answer that is none, though its engine lives: the engine stays, the answer ends."""
        if relay.begun:
            self._break(relay.fault)
        else:
            self._refuse(Refusal.ENGINE_FAILED, relay.fault)

    def on_failed(self, why: str) -> None:
        """The attempt broke. Nothing reached the client: elsewhere. Something did: say so, end."""
        if self._ended:
            return
        self._abort_exchange()
        lane = self._lane
        assert lane is not None
        self._gate.on_lane_failed(lane, why)
        if self._begun:
            self._break(f"the engine broke off: {why}")
            return
        self._let_go_of_lane()
        if self._attempts >= ATTEMPTS_MAX:
            message = f"{self._attempts} attempts failed; last: {why}"
            self._refuse(Refusal.ENGINE_FAILED, message, US)
            return
        self.excluded = self.excluded | {lane.lane_id} if not self.spec.managed else self.excluded
        self._follow(self._gate.admission.again(self, self._gate.now_us()))

    def _on_engine_error(self, relay: Relay) -> None:
        """A client's mistake goes through as the engine put it; an engine's trouble elsewhere."""
        lane, status = self._lane, relay.error_status
        assert lane is not None
        if (status >= 500 or status == 429) and self._attempts < ATTEMPTS_MAX:
            other = self._gate.elsewhere(self, lane)
            if other is not None:
                self._let_go_of_lane()
                self.go(other)
                return
        told = "" if self.spec.managed else relay.lacks_route()
        if told:
            self._refuse_route(told)
            return
        relay.pass_error_on()
        self._end(OutcomeKind.REFUSED, f"engine_{status}")

    def _refuse_route(self, told: str) -> None:
        """An external server does not have the route: say who would serve it."""
        names = self._gate.names.items()
        known = [(name, spec) for name, (spec, _) in names if allowed(self.tenant, spec, name)]
        where = who_serves(self._route, known)
        message = f"the server of `{self._head.model}` does not serve it; {where} (it said {told})"
        self._refuse(Refusal.UNSUPPORTED_ROUTE, message)

    def _break(self, message: str, why: Refusal = Refusal.ENGINE_FAILED) -> None:
        """The answer had begun and cannot be ended well: say so inside it."""
        if self._head.stream:
            sequence = 0 if self._relay is None else self._relay.events.sequence
            self._reply.end_with_error(why, message, sequence)
        else:
            self._connection.abort()
        self._end(OutcomeKind.CUT, why.value.code)

    # --- the client's side

    @property
    def _begun(self) -> bool:
        """Engine bytes are with the client."""
        return self._relay is not None and self._relay.begun

    @property
    def waiting(self) -> bool:
        return self.held_since_us > 0

    def stop(self) -> None:
        message = "the gateway is stopping: try again in a moment"
        if self._begun:
            self._break(message, Refusal.STOPPING)
        else:
            self._refuse(Refusal.STOPPING, message, US)

    def client_left(self) -> None:
        """Clients may leave at the last event: they need not wait for the end of its framing."""
        relay = self._relay
        if relay is not None and relay.whole and not self._unread_since_us:
            outcome, usage = relay.told()
            self._end(outcome, usage=usage, at_us=relay.last_us)
        else:
            self._end(OutcomeKind.CANCELLED)

    def half_closed(self) -> bool:
        """A closed sending side is how leaving looks; whoever only half left is told the rule."""
        self._connection.closing = True
        if not self._reply.committed:
            message = "the connection was half closed: keep it open until the answer has come"
            self._reply.refuse(Refusal.HALF_CLOSED, message)
        self.client_left()
        return False

    def pause(self) -> None:
        self._unread_since_us = self._unread_since_us or self._gate.now_us()
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self._unread_since_us = 0
        if self._relay is not None:
            self._relay.last_us = self._gate.now_us()  # from here on, silence is the engine's
        if self._exchange is not None:
            self._exchange.resume()

    def _refuse(self, why: Refusal, message: str, retry_after_us: int = 0) -> None:
        self._reply.refuse(why, message, retry_after_us)
        self._end(OutcomeKind.REFUSED, why.value.code)

    # --- the end

    def _abort_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()

    def _let_go_of_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None and self._gate.admission.release(lane):
            self._gate.admission.wake(lane.spec.id, self._gate.now_us())

    def _end(
        self, outcome: OutcomeKind, code: str = "", usage: Usage | None = None, at_us: int = 0
    ) -> None:
        """Once, on every path: free what was taken, record, hand the connection back."""
        if self._ended:
            return
        self._ended = True
        gate = self._gate
        for timer in (self._alarm, self._heartbeat):
            if timer is not None:
                timer.cancel()
        self._abort_exchange()
        now_us = at_us or gate.now_us()
        if self.held_since_us:
            self._held_us += now_us - self.held_since_us
            gate.admission.leave(self)
        replica = self._lane.lane_id if self._lane is not None else ""
        if outcome is OutcomeKind.ANSWERED and self._lane is not None:
            self._lane.failures = 0
        self._let_go_of_lane()
        gate.admission.depart(self)
        try:
            record = self._to_record(outcome, code, usage, now_us)
            gate.ended(record, now_us)
            if self._trace is not None:
                self._trace.end(record, replica)
        finally:
            if self._connection.answering is self:
                self._connection.done(keep_alive=self._reply.keep_alive)

    def _to_record(
        self, outcome: OutcomeKind, code: str, usage: Usage | None, now_us: int
    ) -> Record:
        events = NO_EVENTS if self._relay is None else self._relay.events
        return Record(
            model_id=self.spec.id,
            outcome=outcome,
            operation=self._route.operation,
            code=code,
            duration_us=now_us - self.arrived_us,
            retry=self._retry,
            cold=self.cold,
            rung=self._rung if self._attempts else "",
            held_us=self._held_us,
            ttft_us=events.first_us - self.arrived_us if events.first_us else 0,
            itl_us=events.itl_us(usage),
            prompt_tokens=usage.prompt_tokens if usage is not None else 0,
            output_tokens=usage.completion_tokens if usage is not None else 0,
        )
