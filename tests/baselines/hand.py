"""A stage and a cluster moved by hand: the test says what the world would."""

from collections.abc import Callable, Iterable
from typing import Any

from gateway.openai_api import Refusal
from gateway.routing import Lane
from loadtests.simulator.agenda import Agenda
from loadtests.simulator.port import Brain, SimRequest
from placement.catalog import ModelId, ModelSpec, NodeId, ReplicaId
from placement.edges import gpu_bytes
from placement.plan import Action, Drain, Evict, Outcome, OutcomeStatus, Plan, Promote, Start, Warm
from placement.snapshot import ClusterSnapshot, GpuState, NodeState, Phase, ReplicaState, Rung
from prewarm.controller import Ended
from tests.builders import GB


class HandStage:
    """Requests end up in `sent` and `refused`, plans in `submitted`; time moves by `until`."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.sent: list[tuple[int, str]] = []
        self.refused: list[tuple[int, Refusal]] = []
        self.submitted: list[Action] = []
        self.pokes = 0
        self.on_plan: Callable[[Plan], None] = lambda _: None

    @property
    def now_us(self) -> int:
        return self.agenda.now_us

    def at(self, when_us: int, act: Callable[[], None]) -> None:
        self.agenda.at(when_us, act)

    def send(self, request: SimRequest, replica_id: str) -> None:
        request.replica_id = replica_id
        self.sent.append((request.index, replica_id))

    def refuse(self, request: SimRequest, why: Refusal) -> None:
        request.first_us = -1
        self.refused.append((request.index, why))

    def poke(self) -> None:
        self.pokes += 1

    def submit(self, plan: Plan) -> None:
        self.submitted += plan.actions
        self.on_plan(plan)

    def until(self, now_us: int) -> None:
        """Everything that falls before this moment, and at it."""
        self.agenda.run_before(now_us + 1)


def request(index: int, spec: ModelSpec, at_us: int = 0) -> SimRequest:
    def go(_request: SimRequest, _lane: Lane) -> None:
        raise AssertionError("this gateway knows no lanes")

    return SimRequest(index, 0, spec, 100, 10, at_us, go)


def replica(
    name: str,
    model_id: str,
    gpu_ids: tuple[int, ...],
    rung: Rung = Rung.WARM,
    node_id: str = "n0",
    **changes: Any,
) -> ReplicaState:
    """At rest and ready unless told otherwise."""
    given: dict[str, Any] = {"phase": Phase.READY, "endpoint": f"{node_id}:{name}"}
    return ReplicaState(
        replica_id=ReplicaId(name),
        model_id=ModelId(model_id),
        node_id=NodeId(node_id),
        gpu_ids=gpu_ids,
        rung=rung,
        **{**given, **changes},
    )


class HandCluster:
    """Nodes of GPUs of 80 GB, and replicas that stand where the test puts them. Bytes are reserved
    for models in `specs`."""

    def __init__(self, nodes: int = 1, gpus: int = 4, specs: Iterable[ModelSpec] = ()) -> None:
        self.gpus = gpus
        self._specs = {spec.id: spec for spec in specs}
        self.node_ids = [f"n{i}" for i in range(nodes)]
        self.replicas: dict[str, ReplicaState] = {}
        self.version = 0

    def put(self, *replicas: ReplicaState) -> ClusterSnapshot:
        self.replicas |= {r.replica_id: r for r in replicas}
        return self.snapshot()

    def gone(self, name: str) -> ClusterSnapshot:
        del self.replicas[name]
        return self.snapshot()

    def _gpu(self, node_id: str, g: int) -> GpuState:
        here = (r for r in self.replicas.values() if r.node_id == node_id and g in r.gpu_ids)
        held = sum(
            gpu_bytes(self._specs[r.model_id], r.rung) for r in here if r.model_id in self._specs
        )
        return GpuState(gpu_id=g, hbm_bytes=80 * GB, reserved_bytes=held)

    def snapshot(self) -> ClusterSnapshot:
        self.version += 1
        return ClusterSnapshot(
            version=self.version,
            nodes=tuple(
                NodeState(
                    node_id=NodeId(node_id),
                    alive=True,
                    gpus=tuple(self._gpu(node_id, g) for g in range(self.gpus)),
                    host_bytes=1000 * GB,
                    host_reserved_bytes=0,
                    replicas=tuple(r for r in self.replicas.values() if r.node_id == node_id),
                )
                for node_id in self.node_ids
            ),
        )


def told(action: Action) -> str:
    """An action in one line."""
    match action:
        case Start():
            return f"start {action.model_id} on {list(action.gpu_ids)} to {action.to.name.lower()}"
        case Promote():
            dropped = [v.replica_id for v in action.victims]
            return f"promote {action.replica_id} over {dropped}"
        case Drain():
            return f"drain {action.replica_id}" + (" releasing" if action.release_kv else "")
        case Evict():
            return f"evict {action.replica_id}"
        case Warm():
            return f"warm {action.replica_id}"
        case _:
            return str(action)


def finish(brain: Brain, action: Action) -> None:
    """The agent says that it is done. What came of it is for a snapshot to show."""
    outcome = Outcome(
        action_id=action.action_id,
        verb="",
        node_id=action.node_id,
        replica_id="",
        model_id="",
        status=OutcomeStatus.DONE,
        began_us=0,
        ended_us=0,
    )
    brain.step(Ended(at_us=0, outcome=outcome))
