"""The control loop of a simulation: observe, plan, act, hear what became of it.

In: pokes, a tick, what the fleet tells. Out: plans, carried out. Never: decides. It behaves as
`prewarm.loop` does, in simulated time; planning itself takes none.
"""

from loadtests.simulator.agenda import Agenda
from loadtests.simulator.fleet import SimFleet
from loadtests.simulator.port import Brain, Front
from loadtests.simulator.rented import Rented
from placement.plan import Action, Outcome, Plan, RefusalCode, Refused, stepping_down
from placement.snapshot import ClusterSnapshot
from prewarm.controller import Answered, Ended, Observed

POKE_US = 2_000
"""From a poke to the plan that it causes; what is poked meanwhile is planned with it."""
GAP_US = 10_000
"""Between two rounds at least: on a live gateway planning takes half of the time at most."""


class Rounds:
    """Owns the brain's turn. `poke()` may be called from anywhere."""

    def __init__(self, agenda: Agenda, brain: Brain, tick_us: int) -> None:
        self._agenda = agenda
        self._brain = brain
        self._tick_us = tick_us
        self._due_us = -1
        self._last_us = -GAP_US
        self._ready_at_us: dict[str, int | None] = {}
        self._fenced: dict[str, tuple[str, ...]] = {}

    def begin(self, front: Front, fleet: SimFleet, rented: Rented) -> None:
        self._front = front
        self._fleet = fleet
        self._rented = rented
        self._set(self._agenda.now_us)

    def poke(self) -> None:
        now_us = self._agenda.now_us
        self._set(max(now_us + POKE_US, self._last_us + GAP_US))

    def eta_us(self, model_id: str) -> int | None:
        """Estimated wait; worked out once per round, however many requests ask."""
        now_us = self._agenda.now_us
        if model_id not in self._ready_at_us:
            eta_us = self._brain.eta_us(model_id, now_us)
            self._ready_at_us[model_id] = None if eta_us is None else now_us + eta_us
        ready_at_us = self._ready_at_us[model_id]
        return None if ready_at_us is None else max(ready_at_us - now_us, 0)

    def act(self, plan: Plan) -> None:
        for action in plan.actions:
            self._act(action)

    def _set(self, due_us: int) -> None:
        """One entry of the agenda is live: the earliest."""
        if self._due_us < 0 or due_us < self._due_us:
            self._due_us = due_us
            self._agenda.at(due_us, self._on_due)

    def _on_due(self) -> None:
        now_us = self._agenda.now_us
        if now_us != self._due_us:
            return
        self._due_us, self._last_us = -1, now_us
        self._round(now_us)
        self._set(now_us + self._tick_us)

    def _round(self, now_us: int) -> None:
        self._ready_at_us.clear()
        plan = self._brain.step(
            Observed(
                at_us=now_us,
                snapshot=self._fleet.snapshot,
                demand=self._front.demand(now_us),
                in_flight=self._front.in_flight(),
                elastic=self._rented.offered(),
            )
        )
        assert plan is not None, "an observation calls for a plan"
        self.act(plan)
        self._rented.act(plan)

    def _act(self, action: Action) -> None:
        """Fence whoever steps down, then submit. One became busy meanwhile: the plan is stale."""
        fenced = stepping_down(action)
        if fenced and not self._front.fence(fenced):
            self._refused(Refused(action_id=action.action_id, reason_code=RefusalCode.BUSY))
            return
        if fenced:
            self._fenced[action.action_id] = fenced
        answer = self._fleet.submit(action)
        if isinstance(answer, Refused):
            self._refused(answer)
            self._lift_fence(action.action_id)

    def _refused(self, refused: Refused) -> None:
        self._brain.step(Answered(at_us=self._agenda.now_us, refused=refused))

    # --- what the fleet tells

    def on_changed(self, snapshot: ClusterSnapshot) -> None:
        self._ready_at_us.clear()
        self._front.on_snapshot(snapshot)
        self.poke()

    def on_outcome(self, outcome: Outcome) -> None:
        self._ready_at_us.clear()
        self._brain.step(Ended(at_us=self._agenda.now_us, outcome=outcome))
        self._lift_fence(outcome.action_id)
        self.poke()

    def _lift_fence(self, action_id: str) -> None:
        fenced = self._fenced.pop(action_id, ())
        if fenced:
            self._front.unfence(fenced)
