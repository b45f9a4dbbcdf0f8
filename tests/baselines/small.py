"""Small setups for tests of policies: few models, few minutes, demand that is made by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtests.draws import stream
from loadtests.simulator.port import Setup
from placement.catalog import Catalog, Mechanism, ModelSpec, NodeSpec, ServiceTimes, World
from placement.constants import ACTIVATIONS_BYTES
from placement.edges import SHARED_LINKS
from placement.feasibility import usable_hbm_bytes
from prewarm.traces.records import Requests
from tests.builders import GB, catalog, model, node

US = 1_000_000
Row = tuple[float, str, int, int]
"""Second of the slice, model, prompt tokens, output tokens."""


def requests(rows: list[Row], models: tuple[str, ...]) -> Requests:
    rows = sorted(rows, key=lambda r: r[0])
    return Requests(
        start_us=0,
        at_us=np.array([round(r[0] * US) for r in rows], np.int64),
        streams=models,
        stream=np.array([models.index(r[1]) for r in rows], np.int64),
        prompt_tokens=np.array([r[2] for r in rows], np.int64),
        output_tokens=np.array([r[3] for r in rows], np.int64),
    )


@dataclass
class HandMade:
    """Demand as rows: of the slice, and of each day before it."""

    models: tuple[str, ...]
    rows: list[Row]
    days: list[list[Row]] = field(default_factory=list)
    duration_us: int = 600 * US
    start_us: int = 0
    past_days: int = 0
    rows_a_chunk: int = 1_000_000

    def __post_init__(self) -> None:
        self.past_days = len(self.days)

    def chunks(self) -> Iterator[Requests]:
        return self._pieces(self.rows)

    def past(self, days_back: int) -> Iterator[Requests]:
        return self._pieces(self.days[days_back - 1])

    def _pieces(self, rows: list[Row]) -> Iterator[Requests]:
        ordered = sorted(rows, key=lambda r: r[0])
        for start in range(0, len(ordered), self.rows_a_chunk):
            yield requests(ordered[start : start + self.rows_a_chunk], self.models)


def poisson(seed: int, name: str, per_s: Mapping[str, float], seconds: int) -> list[Row]:
    """Independent arrivals; 200 prompt tokens, 100 output tokens."""
    rows: list[Row] = []
    for model_id, rate in per_s.items():
        rng = stream(seed, f"{name}/{model_id}")
        count = int(rng.poisson(rate * seconds))
        rows += [(float(t), model_id, 200, 100) for t in rng.random(count) * seconds]
    return rows


def served(
    model_id: str, world: World, gpus: int = 1, weights_bytes: int = 0, **changes: Any
) -> ModelSpec:
    """Weights of 16 GB, or 70 GB on several GPUs; alone on its GPUs in world W."""
    weights = weights_bytes or (16 * GB if gpus == 1 else 70 * GB)
    share = -(-weights // gpus)
    usable = usable_hbm_bytes(80 * GB)
    alone = usable - share - int(ACTIVATIONS_BYTES.value)
    return model(
        model_id,
        gpus=gpus,
        weights_bytes=weights,
        kv_cache_bytes=alone if world is World.W else 30 * GB,
        service=ServiceTimes(prefill_us=35_000, decode_step_us=15_000),
        mechanism=Mechanism(world=world),
        **changes,
    )


def nodes(count: int = 2, gpus: int = 4) -> tuple[NodeSpec, ...]:
    return tuple(
        node(f"n{i}", gpus=gpus, host_bytes=1_000 * GB, links=SHARED_LINKS) for i in range(count)
    )


def small_setup(world: World, seed: int = 1, seconds: int = 600, **changes: Any) -> Setup:
    """Four models, one of them on two GPUs, on two nodes of four GPUs, with two days before."""
    models = ("a", "b", "c", "d")
    rates = {"a": 2.0, "b": 0.5, "c": 0.05, "d": 0.2}
    specs = tuple(served(m, world, gpus=2 if m == "d" else 1) for m in models)
    made: Catalog = catalog(*specs, nodes=nodes())
    return Setup(
        scenario="small",
        world=world,
        seed=seed,
        catalog=made,
        demand=HandMade(
            models=models,
            rows=poisson(seed, "today", rates, seconds),
            days=[poisson(seed, f"before/{d}", rates, seconds) for d in (1, 2)],
            duration_us=seconds * US,
        ),
        **changes,
    )
