"""What plots need of a run, compactly: some hundred numbers instead of millions. Pure.

In: a `Run`. Out: a `Sketch` that is kept beside the cell. Never: draws.
"""

import numpy as np

from loadtests.simulator.port import Moment, Run
from placement.catalog import Frozen

SHARES = (
    *(i / 50 for i in range(45)),
    *(0.9 + i / 100 for i in range(9)),
    *(0.99 + i / 1000 for i in range(10)),
    0.9995,
    1.0,
)
"""At which shares of requests the distribution is kept, finer towards the tail."""
MOMENTS_MAX = 300


class Sketch(Frozen, frozen=True, kw_only=True):
    """Columns over `at_s` are snapshots, not means; `rungs` has a row for each model."""

    ttft_ms: tuple[float, ...]
    """At `SHARES`."""
    models: tuple[str, ...]
    at_s: tuple[float, ...]
    gpus_there: tuple[int, ...]
    gpus_serving: tuple[int, ...]
    hbm_idle_gb: tuple[float, ...]
    held: tuple[int, ...]
    in_flight: tuple[int, ...]
    rungs: tuple[tuple[int, ...], ...]


def sketch_of(run: Run) -> Sketch:
    moments = _thinned(run.timeline)
    return Sketch(
        ttft_ms=_distribution(run),
        models=run.models,
        at_s=tuple(m.at_us / 1e6 for m in moments),
        gpus_there=tuple(m.gpus_there for m in moments),
        gpus_serving=tuple(m.gpus_serving for m in moments),
        hbm_idle_gb=tuple(round(m.hbm_idle_bytes / 1e9, 3) for m in moments),
        held=tuple(m.held for m in moments),
        in_flight=tuple(m.in_flight for m in moments),
        rungs=tuple(
            tuple(m.rungs[model] if m.rungs else 0 for m in moments)
            for model in range(len(run.models))
        ),
    )


def _distribution(run: Run) -> tuple[float, ...]:
    times_us = np.frombuffer(run.ttft_us, np.int64)
    if not len(times_us):
        return ()
    at_shares = np.quantile(times_us, SHARES, method="inverted_cdf") / 1000
    return tuple(at_shares.tolist())


def _thinned(timeline: list[Moment]) -> list[Moment]:
    """Every n-th moment, the last one always among them."""
    step = -(-len(timeline) // MOMENTS_MAX) or 1
    return timeline[::-step][::-1]
