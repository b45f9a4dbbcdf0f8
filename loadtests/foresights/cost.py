"""What foresight costs: seconds to learn a week, microseconds a model and planning round. An edge.

In: numbers of models on the command line, by default 4, 40 and 200. Out: a table. It is an edge for
reading a clock and printing. Never: asserts: the figures are this machine's.

    python -m loadtests.foresights.cost
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from placement.catalog import Catalog, EngineKind, ModelId, ModelSpec, NodeId, NodeSpec
from placement.clock import monotonic_us
from placement.edges import DEFAULT_LINKS
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot
from prewarm.calendars import US, Calendar
from prewarm.controller import Observed
from prewarm.foresight.foreseeing import Foreseeing
from prewarm.foresight.learnt import Learnt
from prewarm.foresight.options import DEFAULT
from prewarm.series import Floats, Panel

DAYS = 7
DAY_BINS = 288
ROUNDS = 1200
"""Ten minutes."""
NODE = NodeSpec(
    id=NodeId("n0"),
    gpus=1,
    gpu_type="H100-80GB",
    hbm_bytes=80 * 10**9,
    host_bytes=10**12,
    links=DEFAULT_LINKS,
)


def measured(models: int) -> dict[str, float]:
    """Of one week of bins of five minutes, then ten minutes of planning rounds, two bins' ends
    among them."""
    rng = np.random.default_rng(0)
    names = tuple(f"m{i}" for i in range(models))
    per_bin = rng.lognormal(3.0, 1.5, models)
    values = rng.poisson(per_bin * _day_shape()).astype(np.float64)
    panel = Panel(calendar=Calendar(0, DEFAULT.width_us), streams=names, values=values)
    from_us = monotonic_us()
    foresight = Foreseeing(_catalog(names), Learnt(panel=panel), 0, rng, DEFAULT)
    learn_us = monotonic_us() - from_us
    rounds_us = [
        _timed(partial(_round, foresight, seen)) for seen in _observations(names, per_bin, rng)
    ]
    return {
        "models": models,
        "learn s": learn_us / US,
        "us a model and round": float(np.mean(rounds_us)) / models,
        "slowest round ms": max(rounds_us) / 1000,
        "paths ms": _timed(lambda: foresight.paths(2**62)) / 1000,
    }


def _day_shape() -> Floats:
    shape: Floats = 1 + 0.8 * np.sin(np.arange(DAYS * DAY_BINS) / DAY_BINS * 2 * np.pi)
    return shape[:, None]


def _catalog(names: tuple[str, ...]) -> Catalog:
    specs = (
        ModelSpec(id=ModelId(name), engine=EngineKind.EMULATED, parameters=8 * 10**9)
        for name in names
    )
    return Catalog(version="cost", models=tuple(specs), nodes=(NODE,))


def _observations(
    names: tuple[str, ...], per_bin: Floats, rng: np.random.Generator
) -> Iterator[Observed]:
    offered = np.zeros(len(names), np.int64)
    for at in range(ROUNDS):
        offered += rng.poisson(per_bin / 600)
        demand = tuple(
            ModelDemand(model_id=ModelId(name), offered=count, in_flight=1)
            for name, count in zip(names, offered.tolist(), strict=True)
        )
        snapshot = ClusterSnapshot(version=at)
        yield Observed(at_us=at * US // 2, snapshot=snapshot, demand=demand)


def _round(foresight: Foreseeing, seen: Observed) -> None:
    foresight.see(seen)
    foresight.outlook(seen.at_us)


def _timed(act: Callable[[], object]) -> int:
    from_us = monotonic_us()
    act()
    return monotonic_us() - from_us


def main(asked: list[str]) -> None:
    for models in map(int, asked or ("4", "40", "200")):
        told = (f"{what} {value:.3g}" for what, value in measured(models).items())
        print(", ".join(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
