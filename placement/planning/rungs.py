"""The rung plan: who serves, who is warm, parked or ended, now and in the next seconds. Pure.

In: `Facts` with an outlook, sources of fresh ids. Out: a `Decision`: actions with the numbers
behind them, wants it could not grant. Never: forecasts, awaits, reads a clock. Without an outlook
it is the reactive policy.

In this order: what failed ends; models that wait or soon will climb, the most valuable first;
replicas that are not worth their GPUs drain, softly; what has drained rests as near as its memory
is worth; what may be needed soon comes nearer, in the room that is left or in that of what is worth
less.
"""

from functools import partial

from placement.catalog import ModelSpec
from placement.edges import climb_us, legal, resting_rungs
from placement.feasibility import room_for_step
from placement.plan import Reason, ReasonCode
from placement.planning.buddies import Buddies
from placement.planning.clearing import PATIENCE_S, clear_place
from placement.planning.climbs import Climb, climbs, ever_fits
from placement.planning.draft import Facts, Room
from placement.planning.expected import Expected, expected_of
from placement.planning.nodes import plan_nodes
from placement.planning.prewarming import prewarm
from placement.planning.ranks import Ranks, serves_or_will
from placement.planning.reactive import end, plan_reactive, settle_rest, use_room
from placement.planning.scaling import Wanted, wanted, worth
from placement.planning.standing import work_towards
from placement.planning.writing import ROOM_US, Decision, Ids, Planning
from placement.snapshot import Phase, ReplicaState, Rung, WeightsAt

US = 1_000_000
FAR_US = 1 << 62


def plan_rungs(facts: Facts, ids: Ids, *, apart: bool = True) -> Decision:
    """The fast plan. Without `apart` a place does not mind its neighbours: an ablation."""
    if facts.outlook is None:
        return plan_reactive(facts, ids)
    return _Round(Planning(facts, ids), apart=apart).decision()


class _Round:
    """One round: what is worked out once for every model, then the steps in their order."""

    def __init__(self, planning: Planning, *, apart: bool) -> None:
        self._apart = apart
        self._planning = planning
        self._draft = planning.draft
        self._facts = facts = planning.facts
        assert facts.outlook is not None
        self._models: dict[str, Expected] = {
            m.id: expected_of(
                m,
                facts.demand.get(m.id),
                facts.outlook,
                facts.catalog.waiting_to_idle(m.id),
                facts.now_us,
            )
            for m in facts.models.values()
            if m.managed
        }
        self._wanted: dict[str, Wanted] = {}
        self._least_of: dict[str, tuple[tuple[ReplicaState, ...], ReplicaState]] = {}
        self._ranks = Ranks(self._draft, self._models, facts.outlook)
        self._draft.loss_of = self._ranks.loss_us
        self._buddies = Buddies(self._draft, self._models, self._ranks)

    def decision(self) -> Decision:
        self._end_failed()
        for model in sorted(self._models.values(), key=self._urgency):
            if self._facts.catalog.model(model.spec.id) is not None or model.asked:
                self._serve(model)
        self._settle()
        prewarm(self._planning, self._models, self._ranks, apart=self._apart)
        work_towards(self._planning)
        plan_nodes(self._planning, self._models, self._wanted)
        return self._planning.decision()

    def _urgency(self, model: Expected) -> tuple[int, int, float, str]:
        """By priority; those first whom nobody serves, the longest waiting; then by worth."""
        spec, mine = model.spec, self._draft.of_model(model.spec.id)
        if model.held and not any(serves_or_will(r) for r in mine):
            return (-spec.priority, 0, -model.waited_s, spec.id)
        return (-spec.priority, 1, -model.waiting(len(mine), 1.0) / spec.gpus, spec.id)

    # --- up

    def _serve(self, model: Expected) -> None:
        planning, draft, spec = self._planning, self._draft, model.spec
        coming = sum(
            serves_or_will(r) for r in draft.of_model(spec.id) if not draft.leaves(r.node_id)
        )
        climb_s = self._climb_s(spec)
        found = wanted(model, coming, climb_s)
        self._wanted[spec.id] = found
        code = _code(model, coming)
        room = draft.rooms.get(spec.id)
        if room is not None and coming < found.serve:
            why = Reason(code=code, numbers=found.numbers)
            coming += use_room(planning, spec, room, why, partial(self._no_later, model, room))
        while coming < found.serve:
            climb = self._best(model, coming)
            if climb is None:
                self._do_without(model, coming)
                return
            gain = worth(model, coming, climb.takes_us / US)
            numbers = found.numbers | {"gain_gpus": gain, "loss_s": climb.loss_us / US}
            planning.take(spec, climb, Reason(code=code, numbers=numbers))
            coming += 1

    def _best(self, model: Expected, coming: int) -> Climb | None:
        """The way up whose time, for all who wait for it, and whose harm to others are least."""
        rest_us = self._at_rest_us(model.spec)
        options = [
            c
            for c in climbs(self._draft, model.spec)
            if self._pays(model, coming, c) and (not _loads(c) or c.takes_us <= rest_us)
        ]
        return min(options, key=lambda c: (self._cost(model, c), c.key), default=None)

    def _cost(self, model: Expected, climb: Climb) -> float:
        breaks_s = 0.0
        if not climb.restore:
            breaks_s = self._buddies.loss_s(self._draft.nodes[climb.node_id], climb.gpu_ids)
        return climb.takes_us * model.waiters(0.0) * model.price + climb.loss_us + breaks_s * US

    def _no_later(self, model: Expected, room: Room, climb: Climb) -> bool:
        """Whether a climb costs no more than to wait for the room that is being made. What it takes
        others is paid already; a room that is late is not waited for."""
        left_us = room.until_us - ROOM_US - self._facts.now_us
        waits = left_us * model.waiters(0.0) * model.price
        return left_us <= 0 or self._cost(model, climb) <= waits

    def _at_rest_us(self, spec: ModelSpec) -> int:
        """When an engine of its own that is on its way to a rung below could serve: a start that
        takes longer is not worth beginning."""
        now_us = self._facts.now_us
        ways = [
            max(r.eta_us - now_us, US) + climb_us(spec, r.target)
            for r in self._draft.of_model(spec.id)
            if r.action_id and r.target is not None and r.target is not Rung.SERVING
        ]
        return min(ways, default=FAR_US)

    def _pays(self, model: Expected, coming: int, climb: Climb) -> bool:
        """A further replica is to save more waiting than it costs others; the first one may cost
        them as much as those who wait have waited already, and in the end anything."""
        loss_s, climb_s = climb.loss_us / US, climb.takes_us / US
        if coming:
            saved = model.waiting(coming, climb_s) * max(climb_s, model.service_s)
            return loss_s <= saved * model.price
        gain = model.waited(max(model.waited_s, climb_s))
        return loss_s <= gain or model.waited_s >= PATIENCE_S

    def _do_without(self, model: Expected, coming: int) -> None:
        planning, spec = self._planning, model.spec
        if not ever_fits(self._draft, spec):
            planning.want(spec, "no living node is large enough")
        elif coming == 0 and model.asked:
            planning.want(
                spec, "every place that fits is busy, resting after a failure, or promised"
            )
            clear_place(planning, model, self._models)
        else:
            planning.want(spec, "no way up is worth what it costs others")

    def _climb_s(self, spec: ModelSpec) -> float:
        """The quickest climb that the model has, whether or not it is open now."""
        ways = [climb_us(spec, r.rung) for r in self._draft.of_model(spec.id) if _asleep(r)]
        if not ways:
            ways = [
                climb_us(spec, at, kind.spec.links) for kind, at in self._draft.kinds.weights(spec)
            ]
        return min(ways, default=climb_us(spec, WeightsAt.HOST)) / US

    # --- down

    def _end_failed(self) -> None:
        """First of all, so that their room is there for whoever climbs."""
        for replica in self._facts.snapshot.replicas():
            spec = self._facts.models.get(replica.model_id)
            if replica.phase is Phase.FAILED and spec is not None:
                settle_rest(self._planning, replica, spec, _rest)

    def _settle(self) -> None:
        for replica in self._facts.snapshot.replicas():
            current = self._draft.find(replica.replica_id)
            if current is None:
                continue
            model = self._models.get(current.model_id)
            if model is None or not self._stays(model):
                end(self._planning, current)
            elif current.serving:
                self._shrink(model, current)
            else:
                settle_rest(self._planning, current, model.spec, _rest)

    def _stays(self, model: Expected) -> bool:
        return self._facts.catalog.model(model.spec.id) is not None or model.asked > 0

    def _shrink(self, model: Expected, replica: ReplicaState) -> None:
        """Drain the least loaded replica of a model that has more than are worth their GPUs; first
        one on a node that goes."""
        draft, found = self._draft, self._wanted[model.spec.id]
        serving = draft.serving_of(model.spec.id)
        if not model.spec.on_gpu or len(serving) <= found.keep or model.held:
            return
        if not draft.settled(replica):
            return
        if self._least(model.spec.id) is replica:
            code = ReasonCode.EXCESS if len(serving) > 1 else ReasonCode.IDLE
            self._planning.drain(replica, Reason(code=code, numbers=found.numbers))

    def _least(self, model_id: str) -> ReplicaState:
        """Of those that serve."""
        draft, serving = self._draft, self._draft.serving_of(model_id)
        known = self._least_of.get(model_id)
        if known is None or known[0] is not serving:
            known = (
                serving,
                min(
                    serving,
                    key=lambda r: (not draft.leaves(r.node_id), draft.load(r), r.replica_id),
                ),
            )
            self._least_of[model_id] = known
        return known[1]


def _rest(planning: Planning, replica: ReplicaState, spec: ModelSpec) -> None:
    """Off its GPUs where the world has such a rung; else its weights stay: they harm nobody."""
    node, why = planning.draft.nodes[replica.node_id], Reason(code=ReasonCode.IDLE)
    offered = [to for to in (*resting_rungs(spec), Rung.WARM) if legal(spec, replica, to)]
    fitting = [to for to in offered if room_for_step(spec, node, replica, to) is None]
    if fitting or not offered:
        planning.step_down(replica, next(iter(fitting), None), why)


def _loads(climb: Climb) -> bool:
    """Its weights are not on the GPU yet: an engine starts, or has only begun to load."""
    return climb.replica is None or climb.replica.loading


def _asleep(replica: ReplicaState) -> bool:
    return replica.rung is not Rung.SERVING and replica.phase is Phase.READY


def _code(model: Expected, coming: int) -> ReasonCode:
    if model.held and not coming:
        return ReasonCode.HELD_REQUESTS
    if coming < model.spec.min_replicas:
        return ReasonCode.MIN_REPLICAS
    return ReasonCode.SATURATED if model.held else ReasonCode.FORECAST
