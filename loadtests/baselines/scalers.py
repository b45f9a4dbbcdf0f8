"""`queue-scaler`: KEDA and its autoscaler on queue depth, as vLLM's production stack sets them up.

In: `Facts` of the controller, round after round. Out: a `Decision`. State is each model's wanted
scale and its recent recommendations. Never: places anything by what it would cost others.
"""

from collections import deque
from dataclasses import dataclass, field
from math import ceil

from loadtests.baselines.on_demand import WHY_START, FreeRoom, end_failed, have
from placement.catalog import ModelSpec
from placement.plan import Reason, ReasonCode
from placement.planning.demand import ModelDemand
from placement.planning.draft import Facts
from placement.planning.writing import Decision, Ids, Planning
from placement.snapshot import Phase

US = 1_000_000

# docs.vllm.ai/projects/production-stack, "Autoscaling with KEDA": pollingInterval 15,
# cooldownPeriod 360, trigger vllm:num_requests_waiting with threshold 5; to scale to zero a second
# trigger keeps one replica while anything came in the last minute. (keda.sh, ScaledObject
# specification: KEDA's own defaults are 30 s and 300 s.)
POLL_US = 15 * US
COOLDOWN_US = 360 * US
THRESHOLD = 5
TRAFFIC_US = 60 * US

# kubernetes.io, "Horizontal Pod Autoscaling": sync every 15 s; a ratio within a tenth of 1 changes
# nothing; up at once by the larger of 4 pods and 100 % in 15 s; down to the highest recommendation
# of the last 300 s.
TOLERANCE = 0.1
UP_PODS = 4
UP_FACTOR = 2
STABLE_US = 300 * US


@dataclass(slots=True)
class Scale:
    """One model's ScaledObject: how many replicas it wants."""

    wanted: int = 0
    active_us: int = -COOLDOWN_US
    recommended: deque[tuple[int, int]] = field(default_factory=deque)
    """Time and count, over the last five minutes."""

    def poll(self, spec: ModelSpec, queue: int, *, active: bool, now_us: int) -> None:
        """Every 15 s: KEDA wakes from zero and sends to zero, its autoscaler does the rest."""
        if active:
            self.active_us = now_us
        if self.wanted == 0:
            self.wanted = max(spec.min_replicas, 1) if active else spec.min_replicas
            self.recommended.clear()
            return
        if not spec.min_replicas and now_us - self.active_us >= COOLDOWN_US:
            self.wanted = 0
            return
        count = min(max(self._recommended(queue), spec.min_replicas, 1), spec.max_replicas)
        self.recommended.append((now_us, count))
        while self.recommended[0][0] <= now_us - STABLE_US:
            self.recommended.popleft()
        stable = max(count for _, count in self.recommended)
        self.wanted = count if count > self.wanted else min(stable, self.wanted)

    def _recommended(self, queue: int) -> int:
        """The queue in portions of the threshold, unless that is about what there is already."""
        if abs(queue / (self.wanted * THRESHOLD) - 1) <= TOLERANCE:
            return self.wanted
        return min(ceil(queue / THRESHOLD), max(self.wanted + UP_PODS, self.wanted * UP_FACTOR))


class QueueScaler:
    """`decide` is called every round; it looks at demand only every 15 s."""

    def __init__(self) -> None:
        self._scales: dict[str, Scale] = {}
        self._next_poll_us = 0

    def decide(self, facts: Facts, ids: Ids) -> Decision:
        if facts.now_us >= self._next_poll_us:
            self._next_poll_us = (facts.now_us // POLL_US + 1) * POLL_US
            for spec in facts.models.values():
                self._poll(facts, spec)
        planning = Planning(facts, ids)
        room = FreeRoom(planning.draft)
        for spec in facts.models.values():
            self._follow(planning, room, spec)
        end_failed(planning)
        return planning.decision()

    def _poll(self, facts: Facts, spec: ModelSpec) -> None:
        demand = facts.demand.get(spec.id) or ModelDemand(model_id=spec.id)
        came = demand.last_arrival_us and facts.now_us - demand.last_arrival_us < TRAFFIC_US
        scale = self._scales.setdefault(spec.id, Scale())
        active = bool(came or demand.held)
        scale.poll(spec, demand.held, active=active, now_us=facts.now_us)

    def _follow(self, planning: Planning, room: FreeRoom, spec: ModelSpec) -> None:
        """Pods that find no free GPUs stay pending; those that go let their requests end."""
        draft, wanted = planning.draft, self._scales[spec.id].wanted
        there = have(draft, spec)
        count = len(there.serving) + len(there.coming)
        for _ in range(wanted - count):
            climb = room.start(spec)
            if climb is None:
                planning.want(spec, "pending: no GPUs are free")
                break
            planning.take(spec, climb, WHY_START)
        newest = sorted(there.serving, key=lambda r: (-r.since_us, r.replica_id))
        for replica in newest[: max(count - wanted, 0)]:
            planning.drain(replica, Reason(code=ReasonCode.EXCESS))
        for replica in draft.of_model(spec.id):
            drained = replica.phase is Phase.DRAINING and not replica.action_id
            if drained and not draft.busy(replica):
                planning.step_down(replica, None, Reason(code=ReasonCode.EXCESS))
