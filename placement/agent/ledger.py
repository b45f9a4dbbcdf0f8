"""The node's own book-keeping: who stands on which rung, what moves, what each byte is promised to.

In: actions, the time, who is busy, what became of each deed. Out: `Accepted` or `Refused`, the
node's state, a `Book` that outlives the process. An accepted action is begun at once, so its bytes
are reserved before anybody else can ask. Never: touches an engine, awaits, reads a clock.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from placement import feasibility as fit
from placement.agent.book import AgentSpec as AgentSpec
from placement.agent.book import Book, Held, Running, Told
from placement.agent.obstacles import Scene, obstacle
from placement.catalog import ModelSpec, NodeSpec
from placement.edges import climb_us, edge_us, gpu_bytes, step_edge
from placement.feasibility import Shortage
from placement.plan import (
    Accepted,
    Action,
    Answer,
    Drain,
    Evict,
    Fetch,
    Outcome,
    Park,
    Promote,
    RefusalCode,
    Refused,
    Restore,
    Shed,
    Start,
    Warm,
    target_rung,
)
from placement.snapshot import GpuState, Lack, NodeState, Phase, ReplicaState, Rung, WeightsAt

ANSWERS_KEPT = 1024
OUTCOMES_KEPT = 256


class Ledger:
    """One node's state machine. Every change raises `seq`."""

    def __init__(
        self, node: NodeSpec, models: Iterable[ModelSpec], book: Book | None = None
    ) -> None:
        book = book or Book()
        self.node = node
        self.seq = book.seq
        self.held: dict[str, Held] = {h.state.replica_id: h for h in book.held}
        self.running: dict[str, Running] = {r.action.action_id: r for r in book.running}
        self.told: deque[Told] = deque(book.told, maxlen=OUTCOMES_KEPT)
        self._answers: dict[str, Answer] = {a.action_id: a for a in book.answers}
        self._weights_at = dict(book.weights_at)
        self.models: dict[str, ModelSpec] = {}
        self.reload(models)

    def reload(self, models: Iterable[ModelSpec]) -> None:
        """A changed catalog: running replicas stay what they were started as.

        A model that left is not forgotten before its last replica has ended.
        """
        self.models = {m.id: m for m in models}
        at_start = WeightsAt.HOST if self.node.preloaded else WeightsAt.DISK
        known = [*self.models, *(h.spec.id for h in self.held.values())]
        self._weights_at = {m: self._weights_at.get(m, at_start) for m in known}
        self.seq += 1

    def book(self) -> Book:
        return Book(
            seq=self.seq,
            held=tuple(self.held.values()),
            weights_at=self._weights_at,
            running=tuple(self.running.values()),
            answers=tuple(self._answers.values()),
            told=tuple(self.told),
        )

    def state(self) -> NodeState:
        """The node as everybody else may see it."""
        found = self._reserved(self.held)
        gpus = tuple(
            GpuState(gpu_id=g, hbm_bytes=self.node.hbm_bytes, reserved_bytes=found.gpu_bytes[g])
            for g in range(self.node.gpus)
        )
        return NodeState(
            node_id=self.node.id,
            alive=True,
            gpus=gpus,
            host_bytes=self.node.host_bytes,
            host_reserved_bytes=found.host_bytes,
            replicas=tuple(h.state for h in self.held.values()),
            weights_at=dict(self._weights_at),
            seq=self.seq,
        )

    # Asking.

    def answered(self, action_id: str) -> Answer | None:
        """What was said to this action before. The memory is long, not endless."""
        return self._answers.get(action_id)

    def admit(self, action: Action, now_us: int, busy: frozenset[str] = frozenset()) -> Answer:
        """Take an action and reserve what it needs, or say why not and change nothing."""
        if (known := self.answered(action.action_id)) is not None:
            return known
        scene = Scene(node=self.node, models=self.models, held=self.held, busy=busy)
        shortage = obstacle(action, scene)
        begun: dict[str, Held] = {}
        if shortage is None:
            begun = {h.state.replica_id: h for h in self._begun(action, now_us)}
            shortage = self._overcommitted({**self.held, **begun})
        answer = _refused(action, shortage) if shortage else Accepted(action_id=action.action_id)
        self._answers[action.action_id] = answer
        if len(self._answers) > ANSWERS_KEPT:
            del self._answers[next(iter(self._answers))]
        if shortage is None:
            self.held.update(begun)
            self.running[action.action_id] = Running(action=action, began_us=now_us)
            self.seq += 1
        return answer

    def _overcommitted(self, held: dict[str, Held]) -> Shortage | None:
        """The GPU (or the host) that would hold more than it has, and by how much."""
        before, after = self._reserved(self.held), self._reserved(held)
        usable = fit.usable_hbm_bytes(self.node.hbm_bytes)
        for gpu_id, total in after.gpu_bytes.items():
            there = before.gpu_bytes[gpu_id]
            if total > max(usable, there):
                return Shortage(
                    code=RefusalCode.NO_ROOM_GPU,
                    need_bytes=total - there,
                    free_bytes=max(usable - there, 0),
                    message=f"needs {total - there} more bytes on GPU {gpu_id} of {self.node.id}, "
                    f"{max(usable - there, 0)} are free",
                )
        if after.host_bytes <= max(self.node.host_bytes, before.host_bytes):
            return None
        need, free = after.host_bytes - before.host_bytes, self.node.host_bytes - before.host_bytes
        return Shortage(
            code=RefusalCode.NO_ROOM_HOST,
            need_bytes=need,
            free_bytes=max(free, 0),
            message=f"needs {need} more bytes of host memory on {self.node.id}, "
            f"{max(free, 0)} are free",
        )

    def _reserved(self, held: dict[str, Held]) -> fit.Reserved:
        return fit.reserved(self.node, [(h.state, h.spec) for h in held.values()])

    # Beginning: how the replicas look from now until the deed is done.

    def _begun(self, action: Action, now_us: int) -> list[Held]:
        match action:
            case Fetch():
                return []
            case Start():
                return [self._starting(action, now_us)]
            case Drain():
                return [self._changed(action.replica_id, phase=Phase.DRAINING)]
            case Restore():
                return [self._changed(action.replica_id, phase=Phase.READY)]
            case Evict():
                return [self._moving(action.replica_id, None, action.action_id, now_us)]
            case Park() | Shed() | Warm():
                to = target_rung(action)
                return [self._moving(action.replica_id, to, action.action_id, now_us)]
            case Promote():
                moves = [
                    self._moving(v.replica_id, v.to, action.action_id, now_us)
                    for v in action.victims
                ]
                room_us = max([now_us, *(m.state.eta_us for m in moves)])
                replica_id, to = action.replica_id, Rung.SERVING
                return [*moves, self._moving(replica_id, to, action.action_id, room_us)]

    def _starting(self, action: Start, now_us: int) -> Held:
        spec = self.models[action.model_id]
        took = climb_us(spec, self.weights_at(spec.id), self.node.links)
        return Held(
            spec=spec,
            state=ReplicaState(
                replica_id=action.replica_id,
                model_id=action.model_id,
                node_id=self.node.id,
                gpu_ids=action.gpu_ids,
                rung=Rung.SERVING,
                phase=Phase.STARTING,
                slots=spec.max_num_seqs,
                since_us=now_us,
                action_id=action.action_id,
                target=Rung.SERVING,
                eta_us=now_us + took,
            ),
        )

    def _moving(self, replica_id: str, to: Rung | None, action_id: str, from_us: int) -> Held:
        held = self.held[replica_id]
        took = 0
        if to is not None:
            took = edge_us(step_edge(held.spec, held.state.rung, to), self.node.links)
        return self._changed(replica_id, action_id=action_id, target=to, eta_us=from_us + took)

    def _changed(self, replica_id: str, **changes: object) -> Held:
        held = self.held[replica_id]
        return msgspec.structs.replace(held, state=msgspec.structs.replace(held.state, **changes))

    # What became of it.

    def spec_now(self, held: Held) -> ModelSpec:
        """A replica's model as the catalog has it now, or as it was when it left the catalog."""
        return self.models.get(held.spec.id, held.spec)

    def weights_at(self, model_id: str) -> WeightsAt:
        return self._weights_at.get(model_id, WeightsAt.OBJECT)

    def fetched(self, model_id: str, to: WeightsAt) -> None:
        """Weights have come nearer; a copy farther away than the present one changes nothing."""
        self._weights_at[model_id] = max(self.weights_at(model_id), to)
        self.seq += 1

    def learned(
        self,
        replica_id: str,
        *,
        endpoint: str = "",
        canary: str = "",
        lacks: tuple[Lack, ...] | None = None,
    ) -> None:
        """Where an engine listens, what it does not offer, its canary's answer when young."""
        changes: dict[str, object] = {"endpoint": endpoint} if endpoint else {}
        held = self._changed(replica_id, **changes | ({} if lacks is None else {"lacks": lacks}))
        self.held[replica_id] = msgspec.structs.replace(held, canary=canary or held.canary)
        self.seq += 1

    def landed(self, replica_id: str, rung: Rung, now_us: int) -> None:
        """A replica stands on `rung` and rests there. One that only began to park is pinned too."""
        state = self.held[replica_id].state
        assert state.action_id, f"{replica_id} landed, but nothing moved it"
        self.held[replica_id] = self._changed(
            replica_id,
            rung=rung,
            phase=Phase.READY,
            action_id="",
            target=None,
            eta_us=0,
            since_us=now_us,
            pinned=state.pinned or Rung.PARKED in (rung, state.target),
        )
        self.seq += 1

    def stayed(self, replica_id: str) -> None:
        """Nothing happened to a replica that something was to happen to."""
        if self.held[replica_id].state.phase is Phase.STARTING:
            self.gone(replica_id)
            return
        self.held[replica_id] = self._changed(replica_id, action_id="", target=None, eta_us=0)
        self.seq += 1

    def gone(self, replica_id: str) -> None:
        """Its engine has ended, by us or by itself; all it held is free."""
        del self.held[replica_id]
        self.seq += 1

    def physical_bytes(self, landing: Mapping[str, Rung | None]) -> dict[int, int]:
        """At most this much may be measured on each GPU, once `landing` stand where they are to."""
        most = dict.fromkeys(range(self.node.gpus), 0)
        for replica_id, held in self.held.items():
            ends = {held.state.rung, held.state.target}
            if replica_id in landing:
                ends = {landing[replica_id]}
            holds = max(gpu_bytes(held.spec, rung) if rung else 0 for rung in ends)
            for gpu_id in held.state.gpu_ids:
                most[gpu_id] += holds
        return most

    def moved_by(self, action_id: str) -> list[Held]:
        """Replicas that an action still has between two rungs."""
        return [h for h in self.held.values() if h.state.action_id == action_id]

    def finish(self, outcome: Outcome) -> None:
        """An action has ended. Every replica it moved has landed or is gone by now."""
        left = self.moved_by(outcome.action_id)
        assert not left, f"action {outcome.action_id} ended with {left[0].state} between rungs"
        del self.running[outcome.action_id]
        self.seq += 1
        self.told.append(Told(seq=self.seq, outcome=outcome))


def _refused(action: Action, shortage: Shortage) -> Refused:
    return Refused(
        action_id=action.action_id,
        reason_code=shortage.code,
        need_bytes=shortage.need_bytes,
        free_bytes=shortage.free_bytes,
        message=shortage.message,
    )
