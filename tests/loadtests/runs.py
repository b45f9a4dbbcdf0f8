"""Runs and cells as tests write them: a fate for each request, and nothing else."""

from typing import Any

from loadtests.scenarios.setups import Wanted, build
from loadtests.simulator.port import LATE_US, Ending, Run, Setup
from loadtests.study.cells import Cell, Percentiles, Prewarming
from placement.catalog import World
from tests.loadtests.scenes import busy_days, scenario

MS = 1000


def setup(world: World = World.W) -> Setup:
    """Of the small scenario: models a, b, c with objectives of 500 ms and 50 ms."""
    file = scenario()
    return build("small", file, busy_days(), Wanted(cell=file.cell, world=world, seed=1)).setup


def run_of(*fates: tuple[int, int | None, int]) -> Run:
    """Each fate: model, milliseconds to the first token (None: refused), milliseconds a token."""
    run = Run(models=("a", "b", "c"))
    for at, (model, first_ms, itl_ms) in enumerate(fates):
        answered = first_ms is not None
        run.model.append(model)
        run.arrived_us.append(at)
        run.ttft_us.append(LATE_US if first_ms is None else first_ms * MS)
        run.itl_us.append(itl_ms * MS if answered else -1)
        run.ending.append(Ending.ANSWERED if answered else Ending.REFUSED)
        run.cold.append(0)
    return run


def cell(policy: str, p99_ms: float | None, **fields: Any) -> Cell:
    """A cell that matters for its P99 alone."""
    given: dict[str, Any] = {
        "requests": 100,
        "served": 100,
        "refused": 0,
        "cut": 0,
        "cold": 0,
        "ttft_ms": Percentiles(p50=p99_ms, p95=p99_ms, p99=p99_ms),
        "itl_attainment": 1.0,
        "share_under_100ms": 0.5,
        "share_under_slo": 0.9,
        "world": "W",
        "seed": 0,
        "rps": 5.0,
        "held": 0,
        "gpu_hours": 8.0,
        "gpu_hours_serving": 4.0,
        "hbm_gb_hours_idle": 1.0,
        "prewarm": Prewarming(hits=0, misses=0, wasted_gb=0.0),
        "loads_gb": 0.0,
        "evictions": 0,
        "models": {},
        "demand": "generated",
        "digest": "",
    }
    return Cell(policy=policy, **(given | fields))
