"""The policy as a `Brain`: scaling, launches, prewarming, and what carries a drained instance back.

In: observations, outcomes, changes of concurrency; and, from its own gateway, a request that needs
an instance. Out: plans. State is what the released manager keeps: meters, forecasts, instances.
Never: awaits, reads a clock, draws.
"""

from collections.abc import Callable, Mapping

from loadtests.baselines.actions import US
from loadtests.baselines.warmserve.belief import Belief
from loadtests.baselines.warmserve.books import INSTANCE, Copy, Doing
from loadtests.baselines.warmserve.creating import Creations
from loadtests.baselines.warmserve.flags import PASS_US, Flags
from loadtests.baselines.warmserve.forecast import Forecast, Seen, forecast
from loadtests.baselines.warmserve.instances import Instance, Instances
from loadtests.baselines.warmserve.meter import Meter
from loadtests.baselines.warmserve.prewarming import asleep, loads
from loadtests.baselines.warmserve.scaling import fewer_wanted, more_wanted, to_drain
from placement.catalog import Catalog, ModelSpec, World
from placement.edges import climb_us
from placement.plan import Action, Plan, ReasonCode
from placement.snapshot import ClusterSnapshot, Rung, WeightsAt
from prewarm.controller import Answered, Ended, Event, Observed, Reloaded


class WarmServe:
    """`usual`: by model, the windows of past days (4.1)."""

    def __init__(self, catalog: Catalog, flags: Flags, usual: dict[str, list[Seen]]) -> None:
        self.flags = flags
        self.catalog = catalog
        self.specs: dict[str, ModelSpec] = {spec.id: spec for spec in catalog.models}
        self.instances = Instances()
        self.on_ready: Callable[[Instance], None] = lambda _: None
        self.on_gone: Callable[[Instance], None] = lambda _: None
        self._usual = usual
        self._meters: dict[str, Meter] = {spec.id: Meter() for spec in catalog.models}
        self._seen: dict[str, list[Seen]] = {spec.id: [] for spec in catalog.models}
        self._forecasts = self._foresee()
        self._first_us = -1
        self._windows = 0
        self._next_pass_us = 0
        self._belief = Belief(self.specs)
        self._creations = Creations(self._belief, self.instances, flags)

    # --- the doors

    def on_concurrency(self, model_id: str, count: int, now_us: int) -> None:
        """Called at each arrival and end."""
        if self._first_us < 0:
            self._first_us = now_us
            for meter in self._meters.values():
                meter.open_window(now_us)
        self._meters[model_id].change(count, now_us)

    def step(self, event: Event) -> Plan | None:
        match event:
            case Observed():
                return self._observe(event)
            case Ended(outcome=outcome):
                self._belief.over(outcome.action_id)
                self._reconcile()
                return None
            case Answered(refused=refused):
                self._belief.over(refused.action_id)
                self._reconcile()
                return None
            case Reloaded():
                return None

    def see(self, snapshot: ClusterSnapshot) -> None:
        """The newest word about the cluster: instances come up, and go."""
        self._belief.see(snapshot)
        if self._belief.stale:
            self._reconcile()

    def create_for(self, model_id: str, now_us: int) -> tuple[Instance, Plan] | None:
        """A request that found no slot creates an instance itself (4.5); None: no GPUs."""
        self._look(self._belief.snapshot, now_us)
        created = self._creations.create(self.specs[model_id], now_us)
        return None if created is None else (created[0], Plan(actions=tuple(created[1])))

    def pass_at(self, now_us: int) -> Plan:
        """The autoscaler's and the prewarmer's turn, every half second (4.4, 4.7)."""
        self._look(self._belief.snapshot, now_us)
        return Plan(actions=(*self._scale(now_us), *self._prewarm(now_us)))

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        """Until an instance is up; where GPUs must come free first, as if they were."""
        spec = self.specs.get(model_id)
        if spec is None or not any(len(b.free) >= spec.gpus for b in self._belief.books().values()):
            return None
        mine = [
            c for b in self._belief.books().values() for c in b.copies if c.model_id == model_id
        ]
        if any(c.serves and c.doing is Doing.RUNNING for c in mine):
            return 0
        coming = [c.eta_us for c in mine if c.doing is Doing.RUNNING and c.eta_us]
        if coming:
            return max(min(coming) - now_us, US // 10)
        warm = any(c.doing is Doing.RESIDENT for c in mine)
        return climb_us(spec, Rung.WARM if warm else WeightsAt.HOST)

    # --- the round

    def _observe(self, seen: Observed) -> Plan:
        self._look(seen.snapshot, seen.at_us)
        if not self.flags.own_gateway:
            for instance in self.instances.by_id.values():
                instance.in_flight = seen.in_flight.get(instance.replica_id, 0)
        actions = [*self._land(seen.in_flight), *self._creations.go_on()]
        if not self.flags.own_gateway:
            for demand in seen.demand:
                actions += self._for_held(demand.model_id, demand.held, seen.at_us)
            if seen.at_us >= self._next_pass_us:
                self._next_pass_us = seen.at_us + PASS_US
                actions += [*self._scale(seen.at_us), *self._prewarm(seen.at_us)]
        return Plan(actions=tuple(actions))

    def _look(self, snapshot: ClusterSnapshot, now_us: int) -> None:
        """What the next actions believe."""
        self._belief.scribe.see(snapshot, now_us)
        self.see(snapshot)

    def _for_held(self, model_id: str, held: int, now_us: int) -> list[Action]:
        """With our gateway: a held request creates an instance, unless one is being created (4.5).
        Requests are held only where nothing serves, or all that serve are full."""
        if not held or not all(i.ready for i in self.instances.of(model_id)):
            return []
        created = self._creations.create(self.specs[model_id], now_us)
        return [] if created is None else created[1]

    def _scale(self, now_us: int) -> list[Action]:
        """4.7. Creations in the order of models; the first without GPUs ends them."""
        actions: list[Action] = []
        short: list[tuple[ModelSpec, int]] = []
        silence = self.flags.silence_before_first_sample
        for model_id, meter in self._meters.items():
            mine = self.instances.of(model_id)
            if not mine and meter.first_us < 0:
                continue
            load = meter.load(now_us, silence_before=silence)
            if more := more_wanted(load, len(mine)):
                short.append((self.specs[model_id], more))
            elif fewer := fewer_wanted(load, len(mine)):
                actions += [self._drain(i) for i in to_drain(mine, fewer, now_us)]
        for spec, more in short:
            for _ in range(more):
                created = self._creations.create(spec, now_us)
                if created is None:
                    return actions
                actions += created[1]
        return actions

    def _drain(self, instance: Instance) -> Action:
        """Without running requests its weights rest at the next look, which is at once."""
        instance.draining = True
        spec = self.specs[instance.model_id]
        release = self.flags.release_kv and spec.mechanism.world is World.W
        return self._belief.ask(
            self._belief.scribe.drain(instance.replica_id, instance.node_id, release_kv=release)
        )

    def _prewarm(self, now_us: int) -> list[Action]:
        """4.4. Nothing is worked out again while nothing changed."""
        if not self.flags.prewarm:
            return []
        self._close_window(now_us)
        if self._belief.settled:
            return []
        models = self.catalog.models
        running: dict[str, int] = {spec.id: len(self.instances.of(spec.id)) for spec in models}
        chosen = loads(self._belief.books(), models, running, self._forecasts, self.flags)
        self._belief.settled = True  # asking for a load takes it back
        return [self._load(x.model_id, x.node_id, x.gpu_ids) for x in chosen]

    def _load(self, model_id: str, node_id: str, gpu_ids: tuple[int, ...]) -> Action:
        """Weights to these GPUs. World S: by waking the engine there, or by starting one that
        steps down when it is up."""
        why, scribe = ReasonCode.MIN_REPLICAS, self._belief.scribe
        if self.specs[model_id].mechanism.world is World.W:
            name = scribe.new_replica(model_id)
            return self._belief.ask(scribe.start(name, model_id, node_id, gpu_ids, why, Rung.WARM))
        engine = asleep(self._belief.books()[node_id].copies, model_id, gpu_ids)
        if engine is not None:
            return self._belief.ask(scribe.warm(engine.replica_id, node_id, why))
        name = scribe.new_replica(model_id)
        self._belief.ahead.add(name)
        return self._belief.ask(scribe.start(name, model_id, node_id, gpu_ids, why))

    # --- windows

    def _close_window(self, now_us: int) -> None:
        due_us = self._first_us + (self._windows + 1) * self.flags.window_us
        if self._first_us < 0 or now_us < due_us:
            return
        self._windows += 1
        for model_id, meter in self._meters.items():
            self._seen[model_id].append(meter.close_window(now_us))
        self._forecasts = self._foresee()
        self._belief.settled = False

    def _foresee(self) -> dict[str, Forecast]:
        return {
            model_id: forecast(seen, self._usual.get(model_id, []))
            for model_id, seen in self._seen.items()
        }

    # --- what became of replicas

    def _land(self, in_flight: Mapping[str, int]) -> list[Action]:
        """Drained instances rest, engines started ahead step down, failed ones end.

        With our gateway, one that was started ahead may have got a request as it came up: then it
        is an instance.
        """
        actions: list[Action] = []
        for copy in [
            c for book in self._belief.books().values() for c in book.copies if not c.moving
        ]:
            instance = self.instances.by_id.get(copy.replica_id)
            if copy.doing is Doing.FAILED:
                actions.append(self._evict(copy))
            elif copy.doing is Doing.DRAINING and (instance is None or not instance.in_flight):
                actions.append(self._rest(copy))
            elif copy.doing is Doing.LOADING and copy.serves:
                self._belief.taken_up(copy)
                if in_flight.get(copy.replica_id):
                    self._reconcile()
                else:
                    actions.append(self._rest(copy))
        return actions

    def _rest(self, copy: Copy) -> Action:
        """Weights stay where they are; without unified memory they go, and in world S the engine
        sleeps without them."""
        scribe, name, node_id = self._belief.scribe, copy.replica_id, copy.node_id
        if self.flags.keep_weights:
            return self._belief.ask(scribe.warm(name, node_id, ReasonCode.IDLE))
        if self.specs[copy.model_id].mechanism.world is World.W:
            return self._belief.ask(scribe.evict(name, node_id, ReasonCode.IDLE))
        return self._belief.ask(scribe.shed(name, node_id, ReasonCode.IDLE))

    def _evict(self, copy: Copy) -> Action:
        why = ReasonCode.MAKE_ROOM
        return self._belief.ask(self._belief.scribe.evict(copy.replica_id, copy.node_id, why))

    # --- instances

    def _reconcile(self) -> None:
        """Instances as the cluster shows them; the gateway is told who is up, and who is gone."""
        there: dict[str, Copy] = {}
        for book in self._belief.books().values():
            for copy in book.copies:
                if copy.doing in INSTANCE:
                    there[copy.replica_id] = copy
        for instance in [i for k, i in self.instances.by_id.items() if k not in there]:
            self.instances.remove(instance)
            self.on_gone(instance)
        for name, copy in there.items():
            known = self.instances.by_id.get(name)
            if known is None:
                known = Instance(
                    replica_id=name,
                    model_id=copy.model_id,
                    node_id=copy.node_id,
                    gpu_ids=copy.gpu_ids,
                    created_us=copy.since_us,
                )
                self.instances.add(known)
            known.draining = copy.doing is Doing.DRAINING
            if copy.serves and not known.ready:
                known.ready = True
                self.on_ready(known)
