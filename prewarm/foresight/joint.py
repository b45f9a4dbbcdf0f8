"""Joint demand paths for a residency plan: what all models may be asked in the next hour. Pure.

In: rates by path, bin and model. Out: `DemandPaths`. Never: draws: rates and ranks were drawn.
"""

import numpy as np

from placement.planning.paths import DemandPaths
from prewarm.calendars import US
from prewarm.foresight.peaks import peak_at
from prewarm.series import Floats
from prewarm.traces.records import Ints

CONCURRENCY_MAX = 2.0**30


def demand_paths(
    models: tuple[str, ...],
    start_us: int,
    step_us: int,
    rates: Floats,
    chances: Floats,
    service_s: Floats,
    dispersion: Floats,
    slots: Ints,
) -> DemandPaths:
    """`rates` and `chances` (ranks of the peak in each step) are paths x steps x models."""
    peaks = peak_at(chances, rates, service_s, dispersion, step_us / US)
    counts = np.minimum(peaks, CONCURRENCY_MAX).astype(np.int32)
    return DemandPaths(
        models=models,
        start_us=start_us,
        step_us=step_us,
        concurrency=np.ascontiguousarray(counts.transpose(2, 1, 0)),
        service_s=tuple(service_s.tolist()),
        slots=tuple(slots.tolist()),
    )
