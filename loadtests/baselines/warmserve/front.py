"""WarmServe's own gateway (4.5): requests look for an instance, and create one where there is none.

In: arrivals, ends, snapshots. Out: requests sent or refused, creations submitted on the request
path. State is who sleeps and who waits for an instance to come up. Never: keeps an order among
sleepers beyond who asks first.
"""

from collections.abc import Iterable

from gateway.openai_api import Refusal
from loadtests.baselines.warmserve.brain import WarmServe
from loadtests.baselines.warmserve.flags import BATCH, PASS_US, US
from loadtests.baselines.warmserve.instances import Instance
from loadtests.simulator.front import Watch
from loadtests.simulator.port import SimRequest, Stage
from placement.catalog import ModelId
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot

RETRY_US = US
READINESS_POLL_US = 50_000


class OwnGateway:
    """A `Front` that shares its instances with the policy."""

    def __init__(self, stage: Stage, policy: WarmServe) -> None:
        self._stage = stage
        self._policy = policy
        self._held = dict.fromkeys(policy.specs, 0)
        self._sent = dict.fromkeys(policy.specs, 0)
        self._boarding: dict[str, dict[int, SimRequest]] = {}
        """Given to an instance that is not up yet, by the request's index."""
        self._open: set[str] = set()
        self._watches = {
            spec.deadline_us: Watch(self._expire, stage) for spec in policy.specs.values()
        }
        policy.on_ready, policy.on_gone = self._on_ready, self._on_gone
        stage.at(0, self._pass)

    def _pass(self) -> None:
        """The manager's own loops, which no event sets off or delays."""
        self._stage.submit(self._policy.pass_at(self._stage.now_us))
        self._stage.at(self._stage.now_us + PASS_US, self._pass)

    # --- requests

    def arrive(self, request: SimRequest) -> None:
        request.cold = not any(i.ready for i in self._policy.instances.of(request.spec.id))
        self._watches[request.spec.deadline_us].add(request)
        self._ask(request)

    def ended(self, request: SimRequest, replica_id: str) -> None:
        self._left(request, replica_id)
        instance = self._policy.instances.by_id.get(replica_id)
        if instance is not None and instance.draining and not instance.in_flight:
            self._stage.poke()

    def lost(self, request: SimRequest, replica_id: str) -> None:
        self._left(request, replica_id)
        self._ask(request)

    def _left(self, request: SimRequest, replica_id: str) -> None:
        self._sent[request.spec.id] -= 1
        instance = self._policy.instances.by_id.get(replica_id)
        if instance is not None:
            instance.in_flight -= 1

    def _ask(self, request: SimRequest) -> None:
        """The emptiest instance with a slot, up or not; else a new one; else sleep a second."""
        model_id = request.spec.id
        instances = self._policy.instances.of(model_id)
        least = min(instances, key=lambda i: i.in_flight, default=None)
        if least is not None and least.in_flight < BATCH:
            self._board(request, least)
            return
        if all(i.ready for i in instances):  # else one is being created already
            created = self._policy.create_for(model_id, self._stage.now_us)
            if created is not None:
                instance, plan = created
                self._stage.submit(plan)
                if instance.replica_id in self._policy.instances.by_id:
                    self._board(request, instance)
                    return
        self._sleep(request)

    def _sleep(self, request: SimRequest) -> None:
        self._hold(request)
        self._stage.at(self._stage.now_us + RETRY_US, lambda: self._wake(request))

    def _wake(self, request: SimRequest) -> None:
        if not request.first_us:  # else its deadline came first
            self._held[request.spec.id] -= 1
            self._ask(request)

    def _hold(self, request: SimRequest) -> None:
        request.held_since_us = request.held_since_us or self._stage.now_us
        self._held[request.spec.id] += 1

    def _expire(self, request: SimRequest) -> None:
        """No first token by its deadline: while it slept, waited for an instance, or ran."""
        sent_to = request.replica_id
        self._stage.refuse(request, Refusal.DEADLINE)
        if sent_to:
            self.ended(request, sent_to)
            return
        self._held[request.spec.id] -= 1
        for replica_id, waiting in self._boarding.items():
            if waiting.pop(request.index, None) is not None:
                self._policy.instances.by_id[replica_id].in_flight -= 1

    # --- instances

    def _board(self, request: SimRequest, instance: Instance) -> None:
        instance.in_flight += 1
        if instance.replica_id in self._open:
            self._send(request, instance)
            return
        self._hold(request)
        self._boarding.setdefault(instance.replica_id, {})[request.index] = request

    def _send(self, request: SimRequest, instance: Instance) -> None:
        self._sent[request.spec.id] += 1
        self._stage.send(request, instance.replica_id)

    def _on_gone(self, instance: Instance) -> None:
        """Its launch failed, or its node is lost: whoever waited for it asks again."""
        self._open.discard(instance.replica_id)
        for request in self._boarding.pop(instance.replica_id, {}).values():
            self._held[request.spec.id] -= 1
            self._sleep(request)

    def _on_ready(self, instance: Instance) -> None:
        """Readiness is looked for every 50 ms, counted from the creation."""
        polls = -(-(self._stage.now_us - instance.created_us) // READINESS_POLL_US)
        at_us = instance.created_us + polls * READINESS_POLL_US
        self._stage.at(at_us, lambda: self._flush(instance))

    def _flush(self, instance: Instance) -> None:
        if self._policy.instances.by_id.get(instance.replica_id) is not instance:
            return
        self._open.add(instance.replica_id)
        for request in self._boarding.pop(instance.replica_id, {}).values():
            self._held[request.spec.id] -= 1
            self._send(request, instance)

    # --- what the control loop asks of its ground

    def on_snapshot(self, snapshot: ClusterSnapshot) -> None:
        self._policy.see(snapshot)

    def demand(self, now_us: int) -> tuple[ModelDemand, ...]:  # noqa: ARG002
        return tuple(
            ModelDemand(model_id=ModelId(m), held=held, in_flight=self._sent[m])
            for m, held in self._held.items()
        )

    def in_flight(self) -> dict[str, int]:
        return {k: i.in_flight for k, i in self._policy.instances.by_id.items()}

    def fence(self, replica_ids: Iterable[str]) -> bool:
        """Whoever steps down here drains already, or never was an instance."""
        known = (self._policy.instances.by_id.get(r) for r in replica_ids)
        return not any(i is not None and i.in_flight for i in known)

    def unfence(self, replica_ids: Iterable[str]) -> None:
        """Nothing was closed."""
