"""One run's figures: what a cell of a comparison records. Pure.

In: a `Setup` and its `Run`. Out: a `Cell`, whose fields are the keys of the JSON. Times in
milliseconds where the key says so, GPU time in hours, sizes in GB (10^9), shares from 0 to 1.
Never: runs anything, leaves anyone out: a request that was not answered counts 999 s.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from loadtests.simulator.port import Ending, Run, Setup
from placement.catalog import Frozen

Mask = NDArray[np.bool_]
Place = tuple[object, ...]

HOUR_US = 3_600_000_000
GB = 1_000_000_000
QUICK_US = 100_000
"""Under 100 ms to the first token: the share that the WarmServe paper reports."""


class Percentiles(Frozen, frozen=True, kw_only=True):
    """By nearest rank; None where nobody asked."""

    p50: float | None
    p95: float | None
    p99: float | None


class Prewarming(Frozen, frozen=True, kw_only=True):
    hits: int
    misses: int
    wasted_gb: float


class Asked(Frozen, frozen=True, kw_only=True):
    """What requests met with: of all models in a cell, and of each."""

    requests: int
    served: int
    refused: int
    cut: int
    cold: int
    ttft_ms: Percentiles
    itl_attainment: float | None
    """Share whose mean gap between tokens kept the model's objective; the unanswered did not."""
    share_under_100ms: float | None
    share_under_slo: float | None
    """Share whose time to first token kept the model's objective."""


class Cell(Asked, frozen=True, kw_only=True):
    """One policy in one world on one place of a scenario's grid, with one seed."""

    policy: str
    world: str
    seed: int
    hour: str | None = None
    alpha: float | None = None
    rps: float | None = None
    cv: float | str | None = None
    held: int
    gpu_hours: float
    gpu_hours_serving: float
    hbm_gb_hours_idle: float
    prewarm: Prewarming
    loads_gb: float
    evictions: int
    models: dict[str, Asked]
    demand: str
    """Where the requests come from: a trace, or `generated`."""
    level: dict[str, float | str] = {}
    """How the demand was scaled."""
    notes: tuple[str, ...] = ()
    digest: str
    """Of every request's fate and every action's: equal runs have equal digests."""

    @property
    def place(self) -> Place:
        """What two policies must share to be compared."""
        return (self.world, self.hour, self.alpha, self.rps, self.cv, self.seed)


def cell_of(
    setup: Setup,
    run: Run,
    policy: str,
    demand: str,
    level: Mapping[str, float | str] | None = None,
    notes: tuple[str, ...] = (),
) -> Cell:
    """Everything that is told of a run, but for its plots."""
    columns = _Columns(setup, run)
    everyone = np.ones(len(columns.model), np.bool_)
    hour, alpha, rps = (setup.labels.get(key) for key in ("hour", "alpha", "rps"))
    pooled = _asked(columns, everyone)
    return Cell(
        **{name: getattr(pooled, name) for name in Asked.__struct_fields__},
        hour=hour if isinstance(hour, str) else None,
        alpha=alpha if isinstance(alpha, float) else None,
        rps=rps if isinstance(rps, float) else None,
        cv=setup.labels.get("cv"),
        policy=policy,
        world=setup.world.value,
        seed=setup.seed,
        held=run.held,
        gpu_hours=run.gpu_us_paid / HOUR_US,
        gpu_hours_serving=run.gpu_us_serving / HOUR_US,
        hbm_gb_hours_idle=run.hbm_idle_byte_us / GB / HOUR_US,
        prewarm=Prewarming(
            hits=run.prewarm_hits, misses=run.prewarm_misses, wasted_gb=run.wasted_bytes / GB
        ),
        loads_gb=run.loads_bytes / GB,
        evictions=run.evictions,
        models={
            name: _asked(columns, columns.model == place) for place, name in enumerate(run.models)
        },
        demand=demand,
        level=dict(level or {}),
        notes=notes,
        digest=run.digest,
    )


class _Columns:
    """A run's arrays as numpy sees them, and the objectives of each request's model."""

    def __init__(self, setup: Setup, run: Run) -> None:
        specs = {str(spec.id): spec for spec in setup.catalog.models}
        self.model = np.frombuffer(run.model, np.int16)
        self.ttft_us = np.frombuffer(run.ttft_us, np.int64)
        self.ending = np.frombuffer(run.ending, np.int8)
        self.cold = np.frombuffer(run.cold, np.int8) > 0
        itl_us = np.frombuffer(run.itl_us, np.int32)
        ttft_slo, itl_slo = (
            np.array([getattr(specs[name], objective) for name in run.models])
            for objective in ("ttft_slo_us", "itl_slo_us")
        )
        answered = self.ending == Ending.ANSWERED
        self.itl_kept: Mask = answered & (itl_us <= itl_slo[self.model])
        self.ttft_kept: Mask = self.ttft_us <= ttft_slo[self.model]


def _asked(columns: _Columns, chosen: Mask) -> Asked:
    ttft_us, ending = columns.ttft_us[chosen], columns.ending[chosen]
    return Asked(
        requests=len(ttft_us),
        served=int(np.count_nonzero(ending == Ending.ANSWERED)),
        refused=int(np.count_nonzero(ending == Ending.REFUSED)),
        cut=int(np.count_nonzero(ending == Ending.CUT)),
        cold=int(np.count_nonzero(columns.cold[chosen])),
        ttft_ms=percentiles(ttft_us),
        itl_attainment=_share(columns.itl_kept[chosen]),
        share_under_100ms=_share(ttft_us <= QUICK_US),
        share_under_slo=_share(columns.ttft_kept[chosen]),
    )


def percentiles(times_us: NDArray[np.int64]) -> Percentiles:
    if not len(times_us):
        return Percentiles(p50=None, p95=None, p99=None)
    p50, p95, p99 = np.percentile(times_us, (50, 95, 99), method="inverted_cdf") / 1000
    return Percentiles(p50=float(p50), p95=float(p95), p99=float(p99))


def _share(mask: Mask) -> float | None:
    return float(mask.mean()) if len(mask) else None
