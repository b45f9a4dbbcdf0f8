"""Seeded stories in which a controller runs a small fleet, each told in one digest of its plans.

In: a seed. Out: a digest over every plan and every estimated wait of the story. `test_same_plans`
compares them with those in `plans_recorded.json`, which says by which commit it was made. A change
that means to plan otherwise records them anew, and says so:

    python -m tests.prewarm.plan_stories COMMIT > tests/prewarm/plans_recorded.json

Nodes are real ledgers, so that replicas stand where they can stand; requests are drawn.
"""

import hashlib
import json
import random
import sys

import msgspec

from placement.agent.ledger import Ledger
from placement.catalog import Catalog, EngineKind, ModelSpec, NodeSpec
from placement.plan import (
    Accepted,
    Action,
    Drain,
    Outcome,
    OutcomeStatus,
    RefusalCode,
    Refused,
    Restore,
    Start,
)
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot, Lack, Phase, Rung
from prewarm.controller import Answered, Controller, Ended, Observed, Reloaded
from tests.builders import GB, catalog, model, node

US = 1_000_000
SEEDS = range(160)
LARGE_EVERY = 16
"""Of so many stories one has 40 models on 8 nodes of 8 GPUs."""


class Story:
    """One fleet, its controller, and chance."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"plan stories/{seed}")
        self.large = seed % LARGE_EVERY == LARGE_EVERY - 1
        self.whole = self._catalog()
        self.controller = Controller(self.whole, f"s{seed}")
        self.ledgers = {n.id: Ledger(n, self.whole.models) for n in self.whole.nodes}
        self.in_flight: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.held_since_us: dict[str, int] = {}
        self.last_us: dict[str, int] = {}
        self.now_us = 1000 * US
        self.version = 0
        self.verbs: set[str] = set()
        self.told = hashlib.sha256()

    def run(self) -> str:
        for _ in range(25 if self.large else 50):
            self.now_us += int(self.rng.choice([0.05, 0.5, 0.5, 2, 12, 40]) * US)
            self._finish_what_is_due()
            self._accidents()
            self._requests()
            self._round()
        return self.told.hexdigest()[:16]

    # --- the fleet

    def _catalog(self) -> Catalog:
        draw = self.rng
        n_models, n_nodes = (40, 8) if self.large else (draw.randint(3, 12), draw.randint(1, 4))
        models = [self._model(i) for i in range(n_models)]
        nodes = [self._node(i) for i in range(n_nodes)]
        if not self.large and draw.random() < 0.2:
            cpu = {"engine": EngineKind.VLLM, "on_cpu": True, "weights_bytes": GB // 2}
            models += [model(f"cpu{i}", kv_cache_bytes=GB // 2, **cpu) for i in range(3)]
            nodes.append(
                node("ncpu", gpus=2, gpu_type="CPU", hbm_bytes=3 * GB // 2, host_bytes=9 * GB)
            )
        return catalog(*models, nodes=tuple(nodes))

    def _model(self, i: int) -> ModelSpec:
        draw = self.rng
        if draw.random() < 0.08:
            return model(f"m{i}", engine=EngineKind.LLAMACPP, weights_bytes=draw.randint(1, 9) * GB)
        if draw.random() < 0.04:
            return model(f"m{i}", engine=EngineKind.EXTERNAL, endpoints=("http://x",))
        gpus = draw.choice([1, 1, 1, 1, 2, 2, 3, 4])
        return model(
            f"m{i}",
            gpus=gpus,
            weights_bytes=draw.randint(2, 45) * gpus * GB,
            kv_cache_bytes=draw.randint(3, 28) * GB,
            residue_bytes=draw.choice([0, 1, 3]) * GB,
            max_num_seqs=draw.choice([4, 32]),
            min_replicas=draw.choice([0, 0, 0, 0, 1, 2]),
            max_replicas=draw.choice([1, 2, 8]),
            priority=draw.choice([0, 0, 0, 1]),
        )

    def _node(self, i: int) -> NodeSpec:
        draw = self.rng
        return node(
            f"n{i}",
            gpus=8 if self.large else draw.choice([1, 2, 4, 4, 8]),
            host_bytes=draw.choice([40, 120, 400]) * GB,
            preloaded=draw.random() < 0.7,
        )

    def _finish_what_is_due(self) -> None:
        for ledger in self.ledgers.values():
            for running in list(ledger.running.values()):
                moved = ledger.moved_by(running.action.action_id)
                if all(h.state.eta_us <= self.now_us for h in moved):
                    self._finish(ledger, running.action, running.began_us)

    def _finish(self, ledger: Ledger, action: Action, began_us: int) -> None:
        failed = self.rng.random() < 0.06
        model_id = getattr(action, "model_id", "")
        for held in ledger.moved_by(action.action_id):
            name, target = held.state.replica_id, held.state.target
            if held.state.replica_id == getattr(action, "replica_id", ""):
                model_id = held.spec.id
            if failed:
                ledger.stayed(name)
            elif target is None:
                ledger.gone(name)
            else:
                if held.state.phase is Phase.STARTING:
                    ledger.learned(name, endpoint="127.0.0.1:1", lacks=self._lacks())
                ledger.landed(name, target, self.now_us)
        outcome = Outcome(
            action_id=action.action_id,
            verb=type(action).__name__.lower(),
            node_id=action.node_id,
            replica_id=getattr(action, "replica_id", ""),
            model_id=model_id,
            status=OutcomeStatus.FAILED if failed else OutcomeStatus.DONE,
            began_us=began_us,
            ended_us=self.now_us,
        )
        ledger.finish(outcome)
        self.controller.step(Ended(at_us=self.now_us, outcome=outcome))

    def _lacks(self) -> tuple[Lack, ...]:
        if self.rng.random() > 0.1:
            return ()
        steps = self.rng.sample([Rung.WARM, Rung.PARKED, Rung.SHED], self.rng.randint(1, 3))
        return tuple(Lack(at=Rung.SERVING, to=to, why="an old server") for to in steps)

    def _accidents(self) -> None:
        """An engine dies; the catalog changes."""
        if self.rng.random() < 0.05:
            ledger = self.rng.choice(list(self.ledgers.values()))
            at_rest = [r for r, h in ledger.held.items() if not h.state.action_id]
            if at_rest:
                gone = self.rng.choice(at_rest)
                ledger.gone(gone)
        if self.rng.random() < 0.05:
            kept = [m for m in self.whole.models if self.rng.random() < 0.85]
            fewer = msgspec.structs.replace(self.whole, models=tuple(kept))
            self.controller.step(Reloaded(at_us=self.now_us, catalog=fewer))
            for ledger in self.ledgers.values():
                ledger.reload(self.controller.with_leaving_models().models)

    # --- requests

    def _requests(self) -> None:
        draw, busy_share = self.rng, self.rng.choice([0.2, 0.6])
        states = [h.state for ledger in self.ledgers.values() for h in ledger.held.values()]
        serving = [r for r in states if r.rung is Rung.SERVING and not r.action_id]
        self.in_flight = {}
        for r in serving:
            busy = draw.random() < (busy_share if r.phase is Phase.READY else 0.4)
            self.in_flight[r.replica_id] = draw.randint(1, max(r.slots, 1)) if busy else 0
        for spec in self.whole.models:
            was = self.held.get(spec.id, 0)
            waits = draw.random() < (0.8 if was else 0.15)
            now = was + draw.randint(1, 9) if waits else 0
            if now and not was:
                self.held_since_us[spec.id] = self.now_us - draw.randint(0, US)
            self.held[spec.id] = now
            if now or draw.random() < 0.3:
                self.last_us[spec.id] = self.now_us

    def _demand(self) -> tuple[ModelDemand, ...]:
        running: dict[str, int] = {}
        for ledger in self.ledgers.values():
            for name, held in ledger.held.items():
                one = self.in_flight.get(name, 0)
                running[held.spec.id] = running.get(held.spec.id, 0) + one
        return tuple(
            ModelDemand(
                model_id=spec.id,
                held=self.held.get(spec.id, 0),
                in_flight=running.get(spec.id, 0),
                oldest_held_us=self.held_since_us.get(spec.id, 0) if self.held[spec.id] else 0,
                rate_per_s=self.rng.choice([0.0, 0.01, 1.0, 7.0]),
                last_arrival_us=self.last_us.get(spec.id, 0),
                wanted=self.rng.random() < 0.03,
            )
            for spec in self.whole.models
        )

    # --- the round

    def _snapshot(self) -> ClusterSnapshot:
        self.version += 1
        nodes = []
        for ledger in self.ledgers.values():
            alive = self.rng.random() > 0.03
            nodes.append(msgspec.structs.replace(ledger.state(), alive=alive))
        return ClusterSnapshot(version=self.version, nodes=tuple(nodes))

    def _round(self) -> None:
        seen = Observed(
            at_us=self.now_us,
            snapshot=self._snapshot(),
            demand=self._demand(),
            in_flight=self.in_flight,
        )
        plan = self.controller.step(seen)
        assert plan is not None
        self.told.update(msgspec.json.encode(plan))
        self.verbs |= {type(action).__name__ for action in plan.actions}
        for action in plan.actions:
            self._submit(action)
        for spec in self.whole.models:
            eta_us = self.controller.eta_us(spec.id, self.now_us)
            self.told.update(f"{spec.id} {eta_us}".encode())

    def _submit(self, action: Action) -> None:
        """Handed over; now and then the agent falls silent before or after it has heard."""
        chance = self.rng.random()
        ledger = self.ledgers[action.node_id]
        if chance > 0.02:
            busy = frozenset(r for r, n in self.in_flight.items() if n)
            answer = ledger.admit(action, self.now_us, busy)
            if not isinstance(answer, Accepted):
                self.controller.step(Answered(at_us=self.now_us, refused=answer))
                return
            if isinstance(action, Drain | Restore):
                self._finish(ledger, action, self.now_us)
            elif isinstance(action, Start) and chance > 0.98:
                return  # slow to show
        if chance < 0.04:
            silent = RefusalCode.NODE_UNREACHABLE
            refused = Refused(action_id=action.action_id, reason_code=silent)
            self.controller.step(Answered(at_us=self.now_us, refused=refused))


def main(commit: str) -> None:
    """Every story's digest as JSON."""
    digests = [Story(seed).run() for seed in SEEDS]
    record = {"recorded_at_commit": commit, "digests": digests}
    sys.stdout.write(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
