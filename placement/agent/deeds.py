"""Carrying out what the ledger has accepted: engines started, moved, verified, ended. ✎

Each action runs as a task of its own under its own deadline and ends in exactly one `Outcome`. An
engine whose state cannot be known after a failure is ended, never tried again: a failed wake may
have leaked memory, and a half-loaded model answers garbage with 200.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from placement.agent.book import Held
from placement.agent.ledger import Ledger
from placement.agent.obstacles import disturbed
from placement.catalog import EngineKind
from placement.clock import Clock
from placement.edges import Edge, edge_us, fetch_transfers
from placement.engines.base import Driver, Engine, EngineError
from placement.plan import (
    Action,
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
    Victim,
    Warm,
    target_rung,
)
from placement.snapshot import Rung, WeightsAt

log = logging.getLogger(__name__)

TOLERANCE_BYTES = 500_000_000
"""Measured memory may exceed the ledger by this much: the checklist's residue margin."""

_GRACE_WALL_S = 1.0
"""Our own HTTP and scheduling run in wall time: a fast clock must not time those out."""

_ASK_WALL_S = 2.0
_END_WALL_S = 15.0
_CANARY_WALL_S = 5.0
_ADAPT_WALL_S = 5.0
"""Below what a fleet waits for the agent's answer to a changed catalog."""

_CANARY_US = 30_000_000

Measure = Callable[[], Awaitable[dict[int, int]]]


class Deeds:
    """The hands of one agent. `changed` is called after each change of the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        drivers: Mapping[EngineKind, Driver],
        clock: Clock,
        measure: Measure,
        changed: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self.drivers = drivers
        self.clock = clock
        self._measure = measure
        self._changed = changed
        self._untouched: set[str] = set()
        """Replicas whose victims still make room: a failure now leaves them where they are."""

    async def busy(self, action: Action) -> frozenset[str]:
        """Replicas in this action's way that have requests. One that cannot say has none."""
        names = disturbed(action, self.ledger.held)
        held = [self.ledger.held[n] for n in names if self.ledger.held[n].state.endpoint]
        counts = await asyncio.gather(*(self._requests(h) for h in held))
        return frozenset(h.state.replica_id for h, n in zip(held, counts, strict=True) if n)

    async def _requests(self, held: Held) -> int:
        try:
            async with asyncio.timeout(_ASK_WALL_S):
                return await self.driver(held).requests(engine_of(held))
        except (EngineError, TimeoutError):
            return 0

    async def carry_out(self, action: Action) -> None:
        """Do it and report it, however it ends."""
        if action.deadline_us <= self.clock.now_us():
            for held in self.ledger.moved_by(action.action_id):
                self.ledger.stayed(held.state.replica_id)
            self.report(action, OutcomeStatus.STALE, "its deadline had passed before it began")
            return
        await self._concluded(action, self._do(action))

    async def resume_start(self, action: Start) -> None:
        """Wait for a start that a former agent of this node began."""
        await self._concluded(action, self._until_serving(action.replica_id))

    async def _concluded(self, action: Action, deed: Awaitable[None]) -> None:
        left_s = self.clock.wall_s(action.deadline_us - self.clock.now_us())
        model_id = self._model_of(action)
        budget = asyncio.timeout(max(left_s, 0) + _GRACE_WALL_S)
        status, message = OutcomeStatus.FAILED, ""
        try:
            async with budget:
                await deed
            status = OutcomeStatus.DONE
        except EngineError as error:
            message = str(error)
        except TimeoutError:
            message = "its deadline passed" if budget.expired() else "an engine timed out"
        except Exception:
            # A bug of ours must not leave a replica between two rungs for ever.
            log.exception("action %s (%s)", action.action_id, type(action).__name__)
            message = "internal error of the agent: see its log"
        for held in self.ledger.moved_by(action.action_id):
            if held.state.replica_id in self._untouched:
                self.ledger.stayed(held.state.replica_id)
                continue
            message += f"; ended {held.state.replica_id}"
            await self.end(held)
        self._untouched.discard(getattr(action, "replica_id", ""))
        self.report(action, status, message, model_id)

    def report(
        self, action: Action, status: OutcomeStatus, message: str = "", model_id: str = ""
    ) -> None:
        """Close an action in the ledger and tell everyone."""
        running = self.ledger.running[action.action_id]
        outcome = Outcome(
            action_id=action.action_id,
            verb=type(action).__name__.lower(),
            node_id=self.ledger.node.id,
            replica_id="" if isinstance(action, Fetch) else action.replica_id,
            model_id=model_id or self._model_of(action),
            status=status,
            began_us=running.began_us,
            ended_us=self.clock.now_us(),
            message=message,
        )
        if status is not OutcomeStatus.DONE:
            log.warning("%s %s %s: %s", outcome.verb, outcome.replica_id, status, message)
        self.ledger.finish(outcome)
        self._changed()

    async def _do(self, action: Action) -> None:
        match action:
            case Fetch():
                await self._fetch(action)
            case Start():
                await self._start(action)
            case Park() | Shed() | Warm():
                await self._step(action.replica_id, target_rung(action))
            case Promote():
                await self._promote(action)
            case Evict():
                await self.end(self.ledger.held[action.replica_id])
            case Drain() | Restore():
                pass  # the ledger's word is the deed

    async def _fetch(self, action: Fetch) -> None:
        spec = self.ledger.models[action.model_id]
        legs = fetch_transfers(spec, self.ledger.weights_at(spec.id), action.to)
        if spec.engine is EngineKind.EMULATED:
            took = edge_us(Edge(fixed_us=0, transfers=legs), self.ledger.node.links)
            await asyncio.sleep(self.clock.wall_s(took))
        self.ledger.fetched(spec.id, action.to)

    async def _start(self, action: Start) -> None:
        held = self.ledger.held[action.replica_id]
        weights_at = self.ledger.weights_at(action.model_id)
        endpoint = await self.driver(held).start(engine_of(held), weights_at)
        if endpoint:
            self.ledger.learned(action.replica_id, endpoint=endpoint)
            self._changed()
        await self._until_serving(action.replica_id)

    async def _until_serving(self, replica_id: str) -> None:
        held = self.ledger.held[replica_id]
        eta_s = self.clock.wall_s(max(held.state.eta_us - self.clock.now_us(), 0))
        endpoint = await self.driver(held).ready(engine_of(held), eta_s)
        lacks = await self.driver(held).lacks(engine_of(held))
        self.ledger.learned(replica_id, endpoint=endpoint, lacks=lacks)
        await self.prove(replica_id)
        self.ledger.fetched(held.spec.id, WeightsAt.HOST)
        self._landed(replica_id, Rung.SERVING)

    async def prove(self, replica_id: str) -> None:
        """The canary gets an answer, and the one it got when the engine was young."""
        held = self.ledger.held[replica_id]
        try:
            async with asyncio.timeout(_CANARY_WALL_S + self.clock.wall_s(_CANARY_US)):
                answer = await self.driver(held).canary(engine_of(held))
                await self.adapt(held)
        except TimeoutError as error:
            raise EngineError(f"{replica_id} gave the canary no answer in time") from error
        if held.canary and answer != held.canary:
            raise EngineError(
                f"{replica_id} answered the canary {answer!r}, and {held.canary!r} when young"
            )
        self.ledger.learned(replica_id, canary=answer)

    async def adapt(self, held: Held) -> None:
        """Load the adapters that the catalog names now, again where it changes meanwhile."""
        loaded = None
        while (spec := self.ledger.spec_now(held)).adapters != loaded:
            engine = msgspec.structs.replace(engine_of(held), spec=spec)
            await self.driver(held).adapt(engine)
            loaded = spec.adapters

    async def adapt_serving(self) -> None:
        """After a changed catalog. Whatever is not at rest on serving learns when it gets there."""
        resting = [h for h in self.ledger.held.values() if not h.state.action_id]
        await asyncio.gather(*(self._readapt(h) for h in resting if h.state.rung is Rung.SERVING))

    async def _readapt(self, held: Held) -> None:
        try:
            async with asyncio.timeout(_ADAPT_WALL_S):
                await self.adapt(held)
        except (EngineError, TimeoutError) as error:
            log.warning("adapters of %s: %s %s", held.state.replica_id, type(error).__name__, error)

    async def _step(self, replica_id: str, to: Rung) -> None:
        """One edge, measured at its end."""
        held = self.ledger.held[replica_id]
        await self.driver(held).step(engine_of(held), held.state.rung, to)
        over = await self._over({replica_id: to}, held.state.gpu_ids)
        if over:
            raise EngineError(f"{replica_id} → {to.name} left memory behind: {over}")
        if to is Rung.SERVING:
            await self.prove(replica_id)
        self._landed(replica_id, to)

    async def _promote(self, action: Promote) -> None:
        """Victims make room and prove it, then the replica climbs."""
        self._untouched.add(action.replica_id)
        await asyncio.gather(*(self._give_way(v) for v in action.victims))
        over = await self._clear(action)
        for victim in action.victims:
            if victim.replica_id in self.ledger.held and victim.to is not None:
                self._landed(victim.replica_id, victim.to)
        if over:
            raise EngineError(f"GPU memory in use that nobody accounts for: {over}")
        self._untouched.discard(action.replica_id)
        await self._step(action.replica_id, Rung.SERVING)

    async def _give_way(self, victim: Victim) -> None:
        """Step down; whoever cannot is ended, for somebody waits for the room."""
        held = self.ledger.held[victim.replica_id]
        if victim.to is None:
            await self.end(held)
            return
        try:
            await self.driver(held).step(engine_of(held), held.state.rung, victim.to)
        except EngineError as error:
            log.warning("victim %s ended instead: %s", victim.replica_id, error)
            await self.end(held)

    async def _clear(self, action: Promote) -> dict[int, int]:
        """Measure; end victims that kept memory, one by one. What is too much even then."""
        climber = self.ledger.held[action.replica_id].state
        victims = list(action.victims)
        while True:
            landing: dict[str, Rung | None] = {climber.replica_id: climber.rung}
            for victim in action.victims:
                if victim.replica_id in self.ledger.held:
                    landing[victim.replica_id] = victim.to
            over = await self._over(landing, climber.gpu_ids)
            if not over or not victims:
                return over
            held = self.ledger.held.get(victims.pop(0).replica_id)
            if held is not None and not set(held.state.gpu_ids).isdisjoint(over):
                log.warning("victim %s kept memory (%s): ended", held.state.replica_id, over)
                await self.end(held)

    async def _over(
        self, landing: Mapping[str, Rung | None], gpu_ids: tuple[int, ...]
    ) -> dict[int, int]:
        """GPUs on which more is measured than the ledger knows of, with the bytes too many."""
        measured = await self._measure()
        most = self.ledger.physical_bytes(landing)
        excess = {g: measured.get(g, 0) - most[g] for g in gpu_ids}
        return {g: n for g, n in excess.items() if n > TOLERANCE_BYTES}

    async def end(self, held: Held) -> None:
        """End an engine. One that cannot be ended now is a stray that the watch will end."""
        replica_id = held.state.replica_id
        try:
            async with asyncio.timeout(_END_WALL_S):
                await self.driver(held).end(replica_id)
        except (EngineError, TimeoutError) as error:
            log.warning("ending %s: %s", replica_id, error)
        except Exception:
            # A bug of ours must not keep bytes promised to an engine that nobody wants.
            log.exception("ending %s", replica_id)
        self.ledger.gone(replica_id)
        self._changed()

    def _landed(self, replica_id: str, rung: Rung) -> None:
        self.ledger.landed(replica_id, rung, self.clock.now_us())
        self._changed()

    def _model_of(self, action: Action) -> str:
        if isinstance(action, Fetch | Start):
            return action.model_id
        held = self.ledger.held.get(action.replica_id)
        return held.spec.id if held else ""

    def driver(self, held: Held) -> Driver:
        return self.drivers[held.spec.engine]


def engine_of(held: Held) -> Engine:
    return Engine(
        replica_id=held.state.replica_id,
        spec=held.spec,
        gpu_ids=held.state.gpu_ids,
        endpoint=held.state.endpoint,
    )
