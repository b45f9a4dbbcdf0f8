"""Our gateway in a simulation: admission and routing as they are, their edge replaced.

In: requests, snapshots, ends. Out: requests sent or refused, demand facts for the control loop.
Never: decides (admission and routing do), knows an engine. `gateway.gate` and `gateway.journey`
are what it stands in for.
"""

from collections import deque
from collections.abc import Callable, Iterable

from gateway.admission import Admission, EtaOf, Held, No, Verdict, demand_of
from gateway.openai_api import Refusal
from gateway.routing import Lane, RoutingTable
from loadtests.simulator.port import SimRequest, Stage
from placement.catalog import Catalog, ModelSpec
from placement.planning.demand import ModelDemand, RateMeter
from placement.snapshot import ClusterSnapshot


class OwnFront:
    """Everything of the gateway that has a say in who goes where and when."""

    def __init__(self, catalog: Catalog, stage: Stage, eta_of: EtaOf) -> None:
        self.table = RoutingTable()
        self.admission = Admission(self.table, eta_of, catalog.policy.held_per_model_max)
        self.rates = RateMeter(catalog.policy.rate_half_life_us)
        self._stage = stage
        self._specs: dict[str, ModelSpec] = {m.id: m for m in catalog.models}
        self._snapshot = ClusterSnapshot(version=0)
        self._watches = {m.deadline_us: Watch(self.expire, stage) for m in catalog.models}

    # --- requests

    def arrive(self, request: SimRequest) -> None:
        now_us = request.arrived_us
        self.rates.arrive(request.spec.id, now_us)
        verdict = self.admission.arrive(request, now_us)
        if not isinstance(verdict, No):
            self._watches[request.spec.deadline_us].add(request)
        self._follow(request, verdict)

    def go(self, request: SimRequest, lane: Lane) -> None:
        """A lane's slot is taken for this request: send it."""
        request.held_since_us = 0
        request.lane = lane
        self._stage.send(request, lane.lane_id)

    def _follow(self, request: SimRequest, verdict: Verdict) -> None:
        if isinstance(verdict, Lane):
            self.go(request, verdict)
        elif isinstance(verdict, Held):
            self._stage.poke()
        else:
            if verdict.why is Refusal.LOADING:
                self._stage.poke()
            self._stage.refuse(request, verdict.why)

    def ended(self, request: SimRequest, replica_id: str) -> None:  # noqa: ARG002
        if request.first_us > 0:
            self.rates.ended(request.spec.id, request.prompt_tokens, request.output_tokens)
        self._free_slot(request)

    def lost(self, request: SimRequest, replica_id: str) -> None:  # noqa: ARG002
        """Nothing of an answer has come: elsewhere, or back to the head of the queue."""
        self._free_slot(request)
        self._follow(request, self.admission.again(request, self._stage.now_us))

    def expire(self, request: SimRequest) -> None:
        """No first token by the deadline, wherever it waits."""
        if request.replica_id:
            self._stage.refuse(request, Refusal.DEADLINE)
            self._free_slot(request)
        else:
            self.admission.leave(request)
            self._stage.refuse(request, Refusal.DEADLINE)

    def _free_slot(self, request: SimRequest) -> None:
        lane = request.lane
        assert lane is not None, f"request {request.index} was never sent"
        if self.admission.release(lane):
            self.admission.wake(request.spec.id, self._stage.now_us)

    # --- the control loop's ground

    def demand(self, now_us: int) -> tuple[ModelDemand, ...]:
        admission, rates = self.admission, self.rates
        return tuple(demand_of(spec, admission, rates, now_us) for spec in self._specs.values())

    def in_flight(self) -> dict[str, int]:
        return self.table.in_flight()

    def fence(self, replica_ids: Iterable[str]) -> bool:
        return self.table.fence(replica_ids)

    def unfence(self, replica_ids: Iterable[str]) -> None:
        self.table.unfence(replica_ids)
        self.on_snapshot(self._snapshot)

    def on_snapshot(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        for model_id in sorted(self.table.update(snapshot, self._specs)):
            self.admission.wake(model_id, self._stage.now_us)


class Watch:
    """Deadlines of requests that are given equally long: they fall due in order of arrival."""

    def __init__(self, expire: Callable[[SimRequest], None], stage: Stage) -> None:
        self._expire = expire
        self._stage = stage
        self._young: deque[SimRequest] = deque()
        self._set = False

    def add(self, request: SimRequest) -> None:
        young = self._young
        while young and young[0].first_us:
            young.popleft()
        young.append(request)
        if not self._set:
            self._set = True
            self._stage.at(young[0].deadline_us, self._ring)

    def _ring(self) -> None:
        """A first token at the very deadline is in time: let this moment's come first."""
        self._stage.at(self._stage.now_us, self._refuse_late)

    def _refuse_late(self) -> None:
        young, now_us = self._young, self._stage.now_us
        while young and (young[0].first_us or young[0].deadline_us <= now_us):
            request = young.popleft()
            if not request.first_us:
                self._expire(request)
        self._set = bool(young)
        if young:
            self._stage.at(young[0].deadline_us, self._ring)
