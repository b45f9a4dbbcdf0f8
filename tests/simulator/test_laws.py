"""What holds whatever comes: drawn clusters, drawn demand, both worlds, several brains.

`simulate(checked=True)` asserts the laws of `loadtests.simulator.laws` after every event.
`SEEDS=200 make sim` searches longer.
"""

import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.draws import stream
from loadtests.simulator.front import OwnFront
from loadtests.simulator.port import (
    Brain,
    Elastic,
    Ending,
    NodeEvent,
    NodeEventKind,
    Policy,
    Run,
    Stage,
)
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, Mechanism, ModelSpec, ReplicaId, World
from placement.constants import ACTIVATIONS_BYTES
from placement.feasibility import usable_hbm_bytes
from placement.plan import (
    Action,
    Drain,
    Evict,
    OutcomeStatus,
    Park,
    Plan,
    Promote,
    Restore,
    Shed,
    Start,
    Victim,
    Warm,
)
from placement.service_time import longest_tokens
from placement.snapshot import ClusterSnapshot, ReplicaState, Rung
from prewarm.controller import Answered, Ended, Event, Observed
from tests.builders import GB, catalog, model, node
from tests.simulator.scripts import on, start
from tests.simulator.worlds import Rows, drawn, reactive, setup

US = 1_000_000
SEEDS = int(os.environ.get("SEEDS", "6"))


class Reckless:
    """Orders whatever comes to its mind, seeded: nodes have to refuse what must not be."""

    def __init__(self, whole: Catalog, seed: int) -> None:
        self._whole = whole
        self._rng = stream(seed, "tests/reckless")
        self._named = 0
        self.asked: dict[str, Action] = {}
        self.heard: dict[str, OutcomeStatus | None] = {}

    def eta_us(self, model_id: str, now_us: int) -> int | None:  # noqa: ARG002
        return int(self._rng.integers(0, 60 * US))

    def step(self, event: Event) -> Plan | None:
        match event:
            case Observed(snapshot=snapshot):
                actions = [self._any(snapshot) for _ in range(self._rng.integers(0, 3))]
                found = tuple(a for a in actions if a is not None)
                self.asked |= {a.action_id: a for a in found}
                return Plan(actions=found)
            case Ended(outcome=outcome):
                self._hear(outcome.action_id, outcome.status)
            case Answered(refused=refused):
                self._hear(refused.action_id, None)
            case _:
                raise AssertionError(event)
        return None

    def _hear(self, action_id: str, status: OutcomeStatus | None) -> None:
        assert action_id in self.asked
        assert action_id not in self.heard, f"{action_id} ended twice"
        self.heard[action_id] = status

    def _any(self, snapshot: ClusterSnapshot) -> Action | None:
        replicas = snapshot.replicas()
        if not replicas or self._rng.random() < 0.4:
            return self._start(snapshot)
        one = replicas[self._rng.integers(len(replicas))]
        kind = self._rng.integers(7)
        if kind == 0:
            return self._promote(one, replicas)
        if kind == 1:
            release = bool(self._rng.integers(2))
            return on(Drain, one.replica_id, node_id=one.node_id, release_kv=release)
        return self._plain(int(kind) - 2, one)

    def _plain(self, kind: int, one: ReplicaState) -> Action:
        made = on((Park, Shed, Warm, Restore, Evict)[kind], one.replica_id, node_id=one.node_id)
        assert isinstance(made, Park | Shed | Warm | Restore | Evict)
        return made

    def _start(self, snapshot: ClusterSnapshot) -> Start | None:
        if not snapshot.nodes:
            return None
        here = snapshot.nodes[self._rng.integers(len(snapshot.nodes))]
        spec = self._whole.models[self._rng.integers(len(self._whole.models))]
        if spec.gpus > len(here.gpus):
            return None
        gpus = sorted(self._rng.choice(len(here.gpus), spec.gpus, replace=False).tolist())
        self._named += 1
        to = Rung.WARM if self._rng.integers(2) else Rung.SERVING
        name = f"{spec.id}-{self._named}"
        return start(name, spec.id, *gpus, node_id=here.node_id, to=to)

    def _promote(self, one: ReplicaState, replicas: list[ReplicaState]) -> Promote:
        beside = [
            r
            for r in replicas
            if r.node_id == one.node_id and r is not one and set(r.gpu_ids) & set(one.gpu_ids)
        ]
        down = (None, Rung.SHED, Rung.PARKED, None)
        victims = tuple(
            Victim(replica_id=ReplicaId(r.replica_id), to=down[self._rng.integers(4)])
            for r in beside
        )
        return on(Promote, one.replica_id, node_id=one.node_id, victims=victims)


class Unfenced(OwnFront):
    """A gateway that lets replicas step down under its requests: nodes have to refuse."""

    def fence(self, replica_ids: Iterable[str]) -> bool:  # noqa: ARG002
        return True


def drawn_catalog(seed: int, world: World) -> Catalog:
    rng = stream(seed, "tests/catalog")
    nodes = tuple(node(f"n{i}", gpus=4, host_bytes=2000 * GB) for i in range(rng.integers(1, 4)))
    models = [drawn_model(f"m{i}", rng, world) for i in range(rng.integers(2, 8))]
    return catalog(*models, nodes=nodes)


def drawn_model(model_id: str, rng: np.random.Generator, world: World) -> ModelSpec:
    gpus = int(rng.choice([1, 1, 2, 4]))
    weights = int(rng.integers(5, 35)) * GB * gpus
    room = usable_hbm_bytes(80 * GB) - weights // gpus - int(ACTIVATIONS_BYTES.value)
    return model(
        model_id,
        weights_bytes=weights,
        gpus=gpus,
        kv_cache_bytes=room if world is World.W else int(rng.integers(2, 20)) * GB,
        kv_bytes_per_token=int(rng.choice([131_072, 12_000_000])),
        max_num_seqs=int(rng.integers(1, 12)),
        max_model_len=2048,
        deadline_us=int(rng.integers(2, 90)) * US,
        mechanism=Mechanism(world=world, lazy_kv=bool(rng.integers(2))),
    )


def drawn_demand(whole: Catalog, seed: int) -> Rows:
    return drawn([m.id for m in whole.models], seed, count=400, duration_s=200, tokens=(300, 400))


def drawn_run(seed: int, world: World, brain_of: str) -> tuple[Run, Brain]:
    """Nodes are lost and come back, and with some seeds launched and given back."""
    whole, rng = drawn_catalog(seed, world), stream(seed, "tests/setup")
    node_id = whole.nodes[-1].id
    lost_us = int(rng.integers(20, 120)) * US
    elastic = Elastic(lead_us=20 * US, nodes_min=1, idle_us=15 * US)
    made = setup(
        whole,
        drawn_demand(whole, seed),
        world=world,
        warmup_us=10 * US,
        node_events=(
            NodeEvent(at_us=lost_us, node_id=node_id, kind=NodeEventKind.LOST),
            NodeEvent(at_us=lost_us + 30 * US, node_id=node_id, kind=NodeEventKind.JOIN),
        )
        if rng.integers(2)
        else (),
        elastic=elastic if rng.integers(2) else None,
    )
    policy = reactive(whole) if brain_of == "ours" else reckless(whole, seed)
    return simulate(made, policy, checked=True), policy.brain


def reckless(whole: Catalog, seed: int) -> Policy:
    """With every other seed the gateway is no better."""
    brain = Reckless(whole, seed)

    def unfenced(stage: Stage) -> Unfenced:
        return Unfenced(whole, stage, lambda model_id: brain.eta_us(model_id, stage.now_us))

    return Policy(brain=brain, front=unfenced if seed % 2 else None)


def check_fates(run: Run, whole: Catalog, demand: Rows) -> None:
    """Everybody who came ended once, and tokens are those that were asked for."""
    columns = [(chunk.prompt_tokens, chunk.output_tokens) for chunk in demand.chunks()]
    rows = [row for pair in columns for row in zip(*pair, strict=True)]
    assert len(run.ending) == len(rows)
    answered = [i for i, ending in enumerate(run.ending) if ending == Ending.ANSWERED]
    longest = [longest_tokens(m) for m in whole.models]
    asked_in = sum(int(rows[i][0]) for i in answered)
    asked_out = sum(min(int(rows[i][1]), longest[run.model[i]] - int(rows[i][0])) for i in answered)
    assert (run.tokens_in, run.tokens_out) == (asked_in, asked_out)
    assert list(run.arrived_us) == sorted(run.arrived_us)
    gpus = sum(n.gpus for n in whole.nodes)
    assert 0 <= run.gpu_us_serving <= run.gpu_us_paid <= gpus * run.ended_us


@pytest.mark.parametrize("world", World)
@pytest.mark.parametrize("brain_of", ["ours", "reckless"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_laws_hold_and_everybody_ends_once(seed: int, brain_of: str, world: World) -> None:
    run, brain = drawn_run(seed, world, brain_of)
    whole = drawn_catalog(seed, world)
    check_fates(run, whole, drawn_demand(whole, seed))
    if isinstance(brain, Reckless):
        assert OutcomeStatus.DONE in brain.heard.values()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(World))
def test_laws_hold_under_any_orders(seed: int, world: World) -> None:
    run, _ = drawn_run(seed, world, "reckless")
    whole = drawn_catalog(seed, world)
    check_fates(run, whole, drawn_demand(whole, seed))


@pytest.mark.parametrize("world", World)
def test_the_digest_is_the_same_under_any_hash_seed(world: World) -> None:
    code = (
        "from tests.simulator.test_laws import drawn_run;"
        "from placement.catalog import World;"
        f"print(drawn_run(3, World.{world.name}, 'ours')[0].digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(digests) == 1
    assert drawn_run(3, world, "ours")[0].digest + "\n" in digests
    assert drawn_run(4, world, "ours")[0].digest + "\n" not in digests
