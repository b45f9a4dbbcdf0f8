"""The control loop: observe, plan, act, hear what became of it. An edge.

In: fleet events, pokes from the gateway (a request is held, a lane broke), a slow tick. Out:
actions submitted to the fleet. Never: decides; on the request path it is only poked.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from placement.catalog import Catalog
from placement.clock import Clock, monotonic_us
from placement.fleet import ActionEnded, Fleet, FleetChanged, FleetEvent
from placement.plan import Accepted, Action, Outcome, Plan, RefusalCode, Refused, stepping_down
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot
from prewarm.controller import Answered, Controller, Ended, Observed, Reloaded

log = logging.getLogger("warmtide.controller")

TICK_US = 500_000
TICK_WALL_S_MIN = 0.05
HISTORY_MAX = 200


class Ground(Protocol):
    """What the loop asks of the gateway it lives beside."""

    def demand(self, now_us: int) -> tuple[ModelDemand, ...]: ...
    def in_flight(self) -> dict[str, int]: ...
    def fence(self, replica_ids: Iterable[str]) -> bool:
        """Send these replicas nothing more; False, and nothing changed, if one of them is busy."""

    def unfence(self, replica_ids: Iterable[str]) -> None: ...
    def on_snapshot(self, snapshot: ClusterSnapshot) -> None: ...


class Loop:
    """Owns the controller and the fleet. `poke()` is cheap and safe from any callback."""

    def __init__(self, catalog: Catalog, fleet: Fleet, ground: Ground, clock: Clock) -> None:
        self.controller = Controller(catalog, prefix=f"{clock.now_us() // 1000:x}")
        self.fleet = fleet
        self.plan = Plan()
        self.outcomes: list[Outcome] = []
        self._ground = ground
        self._clock = clock
        self._poked = asyncio.Event()
        self._ready_at_us: dict[str, int | None] = {}
        self._fenced: dict[str, tuple[str, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.fleet.start(self._on_fleet)
        self._runner = asyncio.create_task(self._run())

    def poke(self) -> None:
        self._poked.set()

    def eta_us(self, model_id: str) -> int | None:
        """Estimated wait; worked out once per round, however many requests ask."""
        now_us = self._clock.now_us()
        if model_id not in self._ready_at_us:
            eta_us = self.controller.eta_us(model_id, now_us)
            self._ready_at_us[model_id] = None if eta_us is None else now_us + eta_us
        ready_at_us = self._ready_at_us[model_id]
        return None if ready_at_us is None else max(ready_at_us - now_us, 0)

    async def reload(self, catalog: Catalog) -> None:
        self.controller.step(Reloaded(at_us=self._clock.now_us(), catalog=catalog))
        # Agents also hear of models that leave: somebody may still wait for them.
        await self.fleet.reload(self.controller.with_leaving_models())
        self.poke()

    async def close(self, *, end_engines: bool) -> None:
        for task in [t for t in (self._runner, *self._tasks) if t is not None]:
            task.cancel()
        await self.fleet.close(end_engines=end_engines)

    # --- the round

    async def _run(self) -> None:
        tick_s = max(self._clock.wall_s(TICK_US), TICK_WALL_S_MIN)
        while True:
            try:
                async with asyncio.timeout(tick_s):
                    await self._poked.wait()
            except TimeoutError:
                pass
            self._poked.clear()
            began_us = monotonic_us()
            try:
                self.step()
            except Exception:  # a bug in one round must not end the loop that keeps models served
                log.exception("a planning round failed; the next one plans anew")
            # Requests share this event loop: planning takes half of it at the very most.
            await asyncio.sleep((monotonic_us() - began_us) / 1e6)

    def step(self) -> None:
        """One round: observe, plan, hand the actions to the fleet."""
        now_us = self._clock.now_us()
        self._ready_at_us.clear()
        plan = self.controller.step(
            Observed(
                at_us=now_us,
                snapshot=self.fleet.snapshot(),
                demand=self._ground.demand(now_us),
                in_flight=self._ground.in_flight(),
            )
        )
        assert plan is not None, "an observation calls for a plan"
        self.plan = plan
        pending = {action.action_id for action in self.controller.pending()}
        for action_id in [a for a in self._fenced if a not in pending]:
            self._lift_fence(action_id)
        for action in plan.actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        """Fence whoever steps down, then submit. One became busy meanwhile: the plan is stale."""
        fenced = stepping_down(action)
        if fenced and not self._ground.fence(fenced):
            stale = Refused(action_id=action.action_id, reason_code=RefusalCode.BUSY)
            self.controller.step(Answered(at_us=self._clock.now_us(), refused=stale))
            return
        self._fenced[action.action_id] = fenced
        task = asyncio.create_task(self._submit(action))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit(self, action: Action) -> None:
        log.info("%s %s", type(action).__name__.lower(), _told(action))
        answer = await self.fleet.submit(action)
        if isinstance(answer, Accepted):
            return
        log.warning("%s refused: %s", action.action_id, answer.message or answer.reason_code)
        self.controller.step(Answered(at_us=self._clock.now_us(), refused=answer))
        if answer.reason_code is not RefusalCode.NODE_UNREACHABLE:
            self._lift_fence(action.action_id)  # else the controller says when it is settled

    # --- what the fleet says

    def _on_fleet(self, event: FleetEvent) -> None:
        self._ready_at_us.clear()
        match event:
            case FleetChanged(snapshot=snapshot):
                self._ground.on_snapshot(snapshot)
            case ActionEnded(outcome=outcome):
                self._on_outcome(outcome)
        self.poke()

    def _on_outcome(self, outcome: Outcome) -> None:
        took_s = (outcome.ended_us - outcome.began_us) / 1e6
        log.info(
            "%s %s of %s: %s in %.2f s %s",
            outcome.verb,
            outcome.replica_id,
            outcome.model_id,
            outcome.status,
            took_s,
            outcome.message,
        )
        self.outcomes = [*self.outcomes[-HISTORY_MAX:], outcome]
        self.controller.step(Ended(at_us=self._clock.now_us(), outcome=outcome))
        self._lift_fence(outcome.action_id)

    def _lift_fence(self, action_id: str) -> None:
        fenced = self._fenced.pop(action_id, ())
        if fenced:
            self._ground.unfence(fenced)


def _told(action: Action) -> str:
    """What an operator wants to read of an action in one line."""
    what = getattr(action, "replica_id", "") or getattr(action, "model_id", "")
    numbers = " ".join(f"{k}={v:g}" for k, v in action.why.numbers.items())
    victims = getattr(action, "victims", ())
    lost = f" victims={[(v.replica_id, v.to and v.to.name) for v in victims]}" if victims else ""
    return f"{what} on {action.node_id}{lost} because {action.why.code} {numbers}".rstrip()
