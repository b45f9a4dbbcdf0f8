"""A simulated node of world W: pinned copies shared by all GPUs, loads in turn, launches at once.

In: actions, the time. Out: answers, outcomes, the node's state. Never: awaits, reads a clock,
decides whom to drop. Loads take turns on each GPU, first come first served, and share the node's
link; a launch needs its GPUs alone; a drain may give KV pages away, into which others load.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from loadtests.simulator.engine import Engine
from loadtests.simulator.nodes import Site, outcome_of
from loadtests.simulator.shared_replica import SharedReplica
from loadtests.simulator.shared_rules import held_bytes, obstacle, owns
from placement.catalog import ModelSpec, NodeSpec
from placement.edges import Edge, Link, Transfer, edge_us, pinned_bytes, start_edge, step_edge
from placement.engines.emulated_links import Movers
from placement.feasibility import usable_hbm_bytes
from placement.plan import (
    Accepted,
    Action,
    Answer,
    Drain,
    Evict,
    Fetch,
    Outcome,
    OutcomeStatus,
    Park,
    Promote,
    Refused,
    Restore,
    Shed,
    Start,
    Warm,
)
from placement.snapshot import GpuState, NodeState, Phase, Rung, WeightsAt

US = 1_000_000
RELEASE_US = US // 2
"""How often a draining replica is asked for KV pages, beside each end of a request."""

Then = Callable[[int], None]


class SharedNode:
    """One node. `_queues` holds per GPU whose weights are copied to it, and who is next."""

    def __init__(self, spec: NodeSpec, models: Iterable[ModelSpec], site: Site) -> None:
        self.spec = spec
        self.seq = 0
        self.engines: dict[str, Engine] = {}
        self.replicas: dict[str, SharedReplica] = {}
        self._models: dict[str, ModelSpec] = {m.id: m for m in models}
        self._pinned = pinned_bytes(self._models.values())
        if self._pinned > spec.host_bytes:
            raise ValueError(
                f"world W keeps a copy of every model on each node: {spec.id} has "
                f"{spec.host_bytes} bytes of host memory, its models need {self._pinned}"
            )
        self._site = site
        self._meter = site.meter
        self._movers = Movers(spec.links)
        self._then: dict[str, Then] = {}
        self._queues: list[deque[str]] = [deque() for _ in range(spec.gpus)]
        self._running: dict[str, tuple[Action, int]] = {}
        self._outcomes: list[Outcome] = []

    def runs(self, action_id: str) -> bool:
        return action_id in self._running

    def next_us(self) -> int | None:
        return self._site.agenda.now_us if self._outcomes else self._movers.next_us()

    def advance(self, now_us: int) -> list[Outcome]:
        while (next_us := self._movers.next_us()) is not None and next_us <= now_us:
            for ended in self._movers.advance(next_us):
                # What ended with it may have cancelled it.
                if (then := self._then.pop(ended.key, None)) is not None:
                    then(ended.at_us)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def submit(self, action: Action, now_us: int) -> Answer:
        shortage = obstacle(action, self.spec, self._models, self.replicas)
        if shortage is not None:
            return Refused(
                action_id=action.action_id,
                reason_code=shortage.code,
                need_bytes=shortage.need_bytes,
                free_bytes=shortage.free_bytes,
                message=shortage.message,
            )
        self.seq += 1
        self._running[action.action_id] = (action, now_us)
        self._begin(action, now_us)
        return Accepted(action_id=action.action_id)

    def expire(self, action_id: str, now_us: int) -> None:
        action, _ = self._running[action_id]
        assert isinstance(action, Start | Promote), "all else ends when it begins"
        self._finish(action_id, now_us, OutcomeStatus.FAILED, "its deadline passed")
        self._drop(self.replicas[action.replica_id], now_us)

    def end(self, now_us: int) -> list[Outcome]:
        for action_id in list(self._running):
            self._finish(action_id, now_us, OutcomeStatus.FAILED, "its node is gone")
        for engine in self.engines.values():
            self._site.close(engine)
        self.replicas.clear()
        self.engines.clear()
        return self._outcomes

    # --- what actions do

    def _begin(self, action: Action, now_us: int) -> None:
        match action:
            case Start():
                self._start(action, now_us)
                return
            case Promote():
                self._promote(action, now_us)
                return
            case Drain():
                self._drain(self.replicas[action.replica_id], action, now_us)
            case Restore():
                replica = self.replicas[action.replica_id]
                replica.phase, replica.releases = Phase.READY, False
                replica.engine.on_end = None
            case Warm():
                self._keep(self.replicas[action.replica_id], now_us)
            case Evict():
                self._finish(action.action_id, now_us)
                self._drop(self.replicas[action.replica_id], now_us)
                return
            case Fetch() | Park() | Shed():
                pass  # every copy is there; the rules refuse the others
        self._finish(action.action_id, now_us)

    def _start(self, action: Start, now_us: int) -> None:
        spec = self._models[action.model_id]
        engine = self._site.open(action.replica_id, spec, self.spec.gpu_type)
        endpoint = self._site.endpoint(self.spec.id)
        replica = SharedReplica(self.spec.id, engine, action.gpu_ids, endpoint)
        self.engines[action.replica_id] = engine
        self.replicas[action.replica_id] = replica
        self._meter.climb(engine, now_us)
        edge = start_edge(spec, WeightsAt.HOST, action.to)
        behind_us = max(map(self._queued_us, action.gpu_ids))
        eta_us = now_us + behind_us + edge_us(edge, self.spec.links)
        replica.rung, replica.since_us = action.to, now_us
        replica.moves(action.action_id, action.to, eta_us)
        replica.to_copy = set(action.gpu_ids)
        for gpu_id in action.gpu_ids:
            self._queues[gpu_id].append(action.replica_id)
            self._copy_next(gpu_id, now_us)

    def _promote(self, action: Promote, now_us: int) -> None:
        """Victims are dropped at once. One that still loads goes on loading, then it launches."""
        for victim in action.victims:
            self._drop(self.replicas[victim.replica_id], now_us)
        replica = self.replicas[action.replica_id]
        if replica.action_id:
            message = f"taken over by {action.action_id}"
            self._finish(replica.action_id, now_us, OutcomeStatus.STALE, message)
        launch_us = edge_us(step_edge(replica.spec, Rung.WARM, Rung.SERVING))
        eta_us = max(replica.eta_us, now_us) + launch_us
        replica.moves(action.action_id, Rung.SERVING, eta_us)
        if replica.grouped:
            self._launch(replica, now_us)

    def _drain(self, replica: SharedReplica, action: Drain, now_us: int) -> None:
        replica.phase = Phase.DRAINING
        if action.release_kv and not replica.releases:
            replica.releases = True
            replica.engine.on_end = partial(self._release, replica)
            self._site.agenda.at(now_us + RELEASE_US, partial(self._release_again, replica))

    def _keep(self, replica: SharedReplica, now_us: int) -> None:
        """Its engine ends, its weights stay."""
        replica.engine.cease_serving()
        replica.regain()
        replica.rests(Rung.WARM, now_us)
        self._meter.kept(replica.engine, now_us)

    def _drop(self, replica: SharedReplica, now_us: int) -> None:
        """Weights, loads and engine, at once; an action at work on it has become stale."""
        name = replica.replica_id
        if replica.action_id in self._running:
            self._finish(replica.action_id, now_us, OutcomeStatus.STALE, f"{name} was dropped")
        del self.replicas[name], self.engines[name]
        for key in (f"{name}/group", f"{name}/launch"):
            self._cancel(key, now_us)
        for gpu_id in replica.gpu_ids:
            if name in self._queues[gpu_id]:
                self._queues[gpu_id].remove(name)
                self._cancel(f"{name}/{gpu_id}", now_us)
                self._copy_next(gpu_id, now_us)
        self._meter.dropped(replica.engine)
        self._site.close(replica.engine)
        self.seq += 1

    # --- loads and launches

    def _copy_next(self, gpu_id: int, now_us: int) -> None:
        """Whoever is first in the GPU's queue has its weights copied, if that is not under way."""
        queue = self._queues[gpu_id]
        if not queue or f"{queue[0]}/{gpu_id}" in self._then:
            return
        replica = self.replicas[queue[0]]
        n_bytes = replica.spec.weights_per_gpu_bytes
        copy = Edge(fixed_us=0, transfers=(Transfer(link=Link.H2D, bytes_per_stream=n_bytes),))
        self._move(f"{queue[0]}/{gpu_id}", copy, now_us, partial(self._copied, replica, gpu_id))

    def _copied(self, replica: SharedReplica, gpu_id: int, now_us: int) -> None:
        self._queues[gpu_id].popleft()
        self._copy_next(gpu_id, now_us)
        self._meter.loaded(replica.engine, replica.spec.weights_per_gpu_bytes)
        replica.to_copy.discard(gpu_id)
        if not replica.to_copy:
            fixed_us = start_edge(replica.spec, WeightsAt.HOST, Rung.WARM).fixed_us
            group = Edge(fixed_us=fixed_us)
            self._move(f"{replica.replica_id}/group", group, now_us, partial(self._loaded, replica))

    def _loaded(self, replica: SharedReplica, now_us: int) -> None:
        replica.grouped = True
        if replica.target is Rung.SERVING:
            self._launch(replica, now_us)
        else:
            self._landed(replica, Rung.WARM, now_us)

    def _launch(self, replica: SharedReplica, now_us: int) -> None:
        launch = step_edge(replica.spec, Rung.WARM, Rung.SERVING)
        self._move(f"{replica.replica_id}/launch", launch, now_us, partial(self._launched, replica))

    def _launched(self, replica: SharedReplica, now_us: int) -> None:
        self._landed(replica, Rung.SERVING, now_us)
        replica.engine.begin_serving()

    def _landed(self, replica: SharedReplica, rung: Rung, now_us: int) -> None:
        action_id = replica.action_id
        replica.rests(rung, now_us)
        self._finish(action_id, now_us)

    def _move(self, key: str, edge: Edge, now_us: int, then: Then) -> None:
        self._then[key] = then
        self._movers.begin(key, edge, now_us)

    def _cancel(self, key: str, now_us: int) -> None:
        if self._then.pop(key, None) is not None:
            self._movers.cancel(key, now_us)

    def _queued_us(self, gpu_id: int) -> int:
        """How long the copies before a new one take, if nothing else moves on this node."""
        waiting = sum(self.replicas[n].spec.weights_per_gpu_bytes for n in self._queues[gpu_id])
        return waiting * US // self.spec.links.h2d_stream

    # --- KV pages

    def _release(self, replica: SharedReplica) -> None:
        if replica.releases and replica.release():
            self.seq += 1
            self._site.settle(self.spec.id)

    def _release_again(self, replica: SharedReplica) -> None:
        if replica.releases and self.replicas.get(replica.replica_id) is replica:
            self._release(replica)
            at_us = self._site.agenda.now_us + RELEASE_US
            self._site.agenda.at(at_us, partial(self._release_again, replica))

    # --- what others see

    def _finish(
        self,
        action_id: str,
        now_us: int,
        status: OutcomeStatus = OutcomeStatus.DONE,
        message: str = "",
    ) -> None:
        action, began_us = self._running.pop(action_id)
        if isinstance(action, Fetch | Start):
            model_id: str = action.model_id
        else:
            model_id = self.replicas[action.replica_id].spec.id
        self._outcomes.append(outcome_of(action, model_id, began_us, now_us, status, message))
        self.seq += 1

    def state(self) -> NodeState:
        held, host = self.held_bytes()
        return NodeState(
            node_id=self.spec.id,
            alive=True,
            gpus=tuple(
                GpuState(gpu_id=g, hbm_bytes=self.spec.hbm_bytes, reserved_bytes=held[g])
                for g in range(self.spec.gpus)
            ),
            host_bytes=self.spec.host_bytes,
            host_reserved_bytes=host,
            replicas=tuple(r.state() for r in self.replicas.values()),
            weights_at=dict.fromkeys(self._models, WeightsAt.HOST),
            seq=self.seq,
        )

    def held_bytes(self) -> tuple[list[int], int]:
        gpus = [0] * self.spec.gpus
        for replica in self.replicas.values():
            for gpu_id in replica.gpu_ids:
                gpus[gpu_id] += held_bytes(replica)
        return gpus, self._pinned

    def flows(self) -> dict[Link, float]:
        return self._movers.flows()

    def check(self) -> None:
        """World W's own laws: who serves has its GPUs alone, but for what a drain gave away; one
        copy at a time goes to each GPU."""
        usable = usable_hbm_bytes(self.spec.hbm_bytes)
        for gpu_id in range(self.spec.gpus):
            here = [r for r in self.replicas.values() if gpu_id in r.gpu_ids]
            owner = next((r for r in here if owns(r)), None)
            room = usable if owner is None else owner.released_bytes
            guests = sum(held_bytes(r) for r in here if r is not owner)
            assert guests <= room, f"{guests} bytes of guests on GPU {gpu_id} of {self.spec.id}"
            copies = [k for k in self._then if k.endswith(f"/{gpu_id}")]
            assert len(copies) <= 1, f"copies at once to GPU {gpu_id}: {copies}"
