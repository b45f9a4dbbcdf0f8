"""Joint demand paths: what may be asked of all models together. Pure.

In: whoever forecasts draws them (`prewarm.foresight.joint`). Out: arrays for the residency plan.
Never: draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemandPaths:
    """Path p of every model belongs to the same future."""

    models: tuple[str, ...]
    start_us: int
    """When the first step begins."""
    step_us: int
    concurrency: Counts
    """Requests that would run at once if nobody ever waited, at the step's peak. Shape
    models x steps x paths."""
    service_s: tuple[float, ...]
    """Of each model's mean request, warm. Arrivals a second are concurrency over this."""
    slots: tuple[int, ...]
    """Of each model: requests at once that one replica serves within the objectives."""

    def needed(self) -> Counts:
        """Replicas needed, each step and path. Shape models x steps x paths."""
        slots = np.maximum(np.array(self.slots, np.int32), 1)[:, None, None]
        found: Counts = -(-self.concurrency // slots)
        return found
