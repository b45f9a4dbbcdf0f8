"""A simulated node of world S: the agent's own ledger, with arithmetic for hands.

In: actions, the time. Out: answers, outcomes, the node's state. Never: awaits, reads a clock.
What `placement.agent.deeds` does to real engines is done here to edges of the rung graph, which
take their fixed time and share the node's links.
"""

from collections.abc import Callable, Iterable

from loadtests.simulator.engine import Engine
from loadtests.simulator.nodes import Site, outcome_of, to_gpus
from placement.agent.book import Held
from placement.agent.ledger import Ledger
from placement.agent.obstacles import disturbed
from placement.catalog import ModelSpec, NodeSpec
from placement.edges import Edge, Link, fetch_transfers, gpu_bytes, host_bytes, step_edge
from placement.engines.emulated import start_phases
from placement.engines.emulated_links import Movers
from placement.feasibility import frees_memory
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
    Restore,
    Shed,
    Start,
    Warm,
    target_rung,
)
from placement.snapshot import NodeState, Phase, Rung, WeightsAt

Then = Callable[[int], None]
_FAILED = OutcomeStatus.FAILED


class StockNode:
    """One node. The ledger answers; `_then` holds what follows the edge under each key."""

    def __init__(self, spec: NodeSpec, models: Iterable[ModelSpec], site: Site) -> None:
        self.spec = spec
        self.ledger = Ledger(spec, models)
        self.engines: dict[str, Engine] = {}
        self._site = site
        self._meter = site.meter
        self._movers = Movers(spec.links)
        self._then: dict[str, Then] = {}
        self._outcomes: list[Outcome] = []
        self._climbing: set[str] = set()
        """Promoted replicas whose victims have made room."""

    @property
    def seq(self) -> int:
        return self.ledger.seq

    def state(self) -> NodeState:
        return self.ledger.state()

    def runs(self, action_id: str) -> bool:
        return action_id in self.ledger.running

    def submit(self, action: Action, now_us: int) -> Answer:
        if (known := self.ledger.answered(action.action_id)) is not None:
            return known
        names = disturbed(action, self.ledger.held)
        busy = frozenset(name for name in names if self.engines[name].busy)
        answer = self.ledger.admit(action, now_us, busy)
        if isinstance(answer, Accepted):
            self._begin(action, now_us)
        return answer

    def next_us(self) -> int | None:
        return self._site.agenda.now_us if self._outcomes else self._movers.next_us()

    def advance(self, now_us: int) -> list[Outcome]:
        while (next_us := self._movers.next_us()) is not None and next_us <= now_us:
            for ended in self._movers.advance(next_us):
                self._then.pop(ended.key)(ended.at_us)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def expire(self, action_id: str, now_us: int) -> None:
        action = self.ledger.running[action_id].action
        self._fail(action, now_us, "its deadline passed")

    def end(self, now_us: int) -> list[Outcome]:
        for running in self.ledger.running.values():
            self._outcomes.append(
                self._outcome(running.action, now_us, _FAILED, "its node is gone")
            )
        for engine in self.engines.values():
            self._site.close(engine)
        return self._outcomes

    # --- beginning

    def _begin(self, action: Action, now_us: int) -> None:
        if action.deadline_us <= now_us:
            for held in self.ledger.moved_by(action.action_id):
                self.ledger.stayed(held.state.replica_id)
            stale = OutcomeStatus.STALE
            self._finish(self._outcome(action, now_us, stale, "its deadline had passed"))
            return
        match action:
            case Fetch():
                self._fetch(action, now_us)
            case Start():
                self._start(action, now_us)
            case Park() | Shed() | Warm():
                self._step(action, action.replica_id, target_rung(action), now_us)
            case Promote():
                self._promote(action, now_us)
            case Evict():
                outcome = self._outcome(action, now_us)
                self._end_engine(action.replica_id)
                self._finish(outcome)
            case Drain() | Restore():
                self._finish(self._outcome(action, now_us))  # the ledger's word is the deed

    def _move(self, action: Action, what: str, edge: Edge, now_us: int, then: Then) -> None:
        key = f"{action.action_id}/{what}"
        self._then[key] = then
        self._movers.begin(key, edge, now_us)

    def _fetch(self, action: Fetch, now_us: int) -> None:
        spec = self.ledger.models[action.model_id]
        legs = fetch_transfers(spec, self.ledger.weights_at(spec.id), action.to)

        def then(at_us: int) -> None:
            self.ledger.fetched(spec.id, action.to)
            self._finish(self._outcome(action, at_us))

        self._move(action, "fetch", Edge(fixed_us=0, transfers=legs), now_us, then)

    def _start(self, action: Start, now_us: int) -> None:
        """Boot and load, then profile, one start per GPU at a time; it ends serving."""
        spec, replica_id = self.ledger.models[action.model_id], action.replica_id
        engine = self._site.open(replica_id, spec, self.spec.gpu_type)
        self.engines[replica_id] = engine
        self._meter.climb(engine, now_us)
        self.ledger.learned(replica_id, endpoint=self._site.endpoint(self.spec.id))
        boot, rest = start_phases(spec, self.ledger.weights_at(spec.id))

        def booted(at_us: int) -> None:
            self._meter.loaded(engine, to_gpus(boot))
            self._move(action, "profile", rest, at_us, ready)

        def ready(at_us: int) -> None:
            self.ledger.fetched(spec.id, WeightsAt.HOST)
            self._land(replica_id, Rung.SERVING, at_us)
            self._finish(self._outcome(action, at_us))

        self._move(action, "boot", boot, now_us, booted)

    def _step(self, action: Action, replica_id: str, to: Rung, now_us: int) -> None:
        def then(at_us: int) -> None:
            self._land(replica_id, to, at_us)
            self._finish(self._outcome(action, at_us))

        self._move_rung(action, replica_id, to, now_us, then)

    def _promote(self, action: Promote, now_us: int) -> None:
        """Victims step down side by side; when the last has landed, the replica climbs."""
        left = {v.replica_id for v in action.victims if v.to is not None}

        def climb(at_us: int) -> None:
            self._climbing.add(action.replica_id)
            self._step(action, action.replica_id, Rung.SERVING, at_us)

        def given_way(replica_id: str, to: Rung) -> Then:
            def then(at_us: int) -> None:
                left.discard(replica_id)
                self._land(replica_id, to, at_us)
                if not left:
                    climb(at_us)

            return then

        self._note_climb(self.ledger.held[action.replica_id], now_us)
        for victim in action.victims:
            if victim.to is None:
                self._end_engine(victim.replica_id)
            else:
                then = given_way(victim.replica_id, victim.to)
                self._move_rung(action, victim.replica_id, victim.to, now_us, then)
        if not left:
            climb(now_us)

    def _move_rung(
        self, action: Action, replica_id: str, to: Rung, now_us: int, then: Then
    ) -> None:
        held, engine = self.ledger.held[replica_id], self.engines[replica_id]
        at = held.state.rung
        edge = step_edge(held.spec, at, to)
        if at is Rung.SERVING:
            engine.cease_serving()
        if to > at and not isinstance(action, Promote):
            self._note_climb(held, now_us)

        def landed(at_us: int) -> None:
            self._meter.loaded(engine, to_gpus(edge))
            then(at_us)

        self._move(action, replica_id, edge, now_us, landed)

    def _note_climb(self, held: Held, now_us: int) -> None:
        if held.state.rung < Rung.WARM:
            self._meter.climb(self.engines[held.state.replica_id], now_us)

    # --- ending

    def _land(self, replica_id: str, to: Rung, now_us: int) -> None:
        at, engine = self.ledger.held[replica_id].state.rung, self.engines[replica_id]
        self.ledger.landed(replica_id, to, now_us)
        self._climbing.discard(replica_id)
        if to is Rung.SERVING:
            engine.begin_serving()
        elif to < Rung.WARM <= at:
            self._meter.dropped(engine)
        elif to is Rung.WARM and at is Rung.SERVING:
            self._meter.kept(engine, now_us)

    def _end_engine(self, replica_id: str) -> None:
        engine = self.engines.pop(replica_id)
        self._climbing.discard(replica_id)
        self.ledger.gone(replica_id)
        self._meter.dropped(engine)
        self._site.close(engine)

    def _fail(self, action: Action, now_us: int, message: str) -> None:
        """As deeds do: whose state cannot be known is ended; a replica not yet moved stays."""
        outcome = self._outcome(action, now_us, _FAILED, message)
        for key in [k for k in self._then if k.startswith(f"{action.action_id}/")]:
            del self._then[key]
            self._movers.cancel(key, now_us)
        for held in self.ledger.moved_by(action.action_id):
            name = held.state.replica_id
            untouched = isinstance(action, Promote) and name == action.replica_id
            if untouched and name not in self._climbing:
                self.ledger.stayed(name)
            else:
                self._end_engine(name)
        self._finish(outcome)

    def _outcome(
        self,
        action: Action,
        now_us: int,
        status: OutcomeStatus = OutcomeStatus.DONE,
        message: str = "",
    ) -> Outcome:
        began_us = self.ledger.running[action.action_id].began_us
        if isinstance(action, Fetch | Start):
            model_id: str = action.model_id
        else:
            model_id = self.ledger.held[action.replica_id].spec.id
        return outcome_of(action, model_id, began_us, now_us, status, message)

    def _finish(self, outcome: Outcome) -> None:
        self.ledger.finish(outcome)
        self._outcomes.append(outcome)

    # --- for the laws

    def held_bytes(self) -> tuple[list[int], int]:
        gpus, host = [0] * self.spec.gpus, 0
        for name, held in self.ledger.held.items():
            state = held.state
            here, target = gpu_bytes(held.spec, state.rung), state.target
            climbs = target is not None and state.rung < target < Rung.SERVING
            if target is not None and (climbs or name in self._climbing):
                here = max(here, gpu_bytes(held.spec, target))
            for gpu_id in state.gpu_ids:
                gpus[gpu_id] += here
            pinned = state.pinned or Rung.PARKED in (state.rung, state.target)
            host += host_bytes(held.spec, Rung.PARKED if pinned else state.rung)
        return gpus, host

    def flows(self) -> dict[Link, float]:
        return self._movers.flows()

    def check(self) -> None:
        """World S's own law: one start per GPU at a time, and nobody frees memory beside it."""
        states = [held.state for held in self.ledger.held.values()]
        for starting in (s for s in states if s.phase is Phase.STARTING):
            for other in (s for s in states if s is not starting):
                beside = not set(other.gpu_ids).isdisjoint(starting.gpu_ids)
                moves = other.phase is Phase.STARTING or frees_memory(other)
                assert not (beside and moves), f"{other.replica_id} beside {starting.replica_id}"
