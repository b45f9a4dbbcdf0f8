"""How many replicas of a model should be warm beside its instances, and what each is worth (4.2).

In: a forecast, the instances there are. Out: counts and scores. Never: knows where anything lies.
"""

from dataclasses import dataclass
from math import ceil, exp

from loadtests.baselines.warmserve.flags import BATCH
from loadtests.baselines.warmserve.forecast import Forecast
from placement.catalog import ModelSpec

GIB = 2**30
PCIE_GIB_PER_S = 32
"""In the score only: no measurement."""


@dataclass(frozen=True, slots=True)
class Needed:
    """Replicas that the average calls for, and those that the peak calls for beyond it."""

    foundation: int
    burst: int

    @property
    def count(self) -> int:
        return self.foundation + self.burst


def needed(expected: Forecast, instances: int) -> Needed:
    """`instances` are the registered ones that do not drain, booting ones among them."""
    foundation = max(ceil(expected.average / BATCH) - instances, 0)
    burst = max(ceil(expected.peak / BATCH) - instances - foundation, 0)
    return Needed(foundation, burst)


def cold_s(spec: ModelSpec) -> float:
    """Seconds that a load is taken to last when replicas are scored."""
    return spec.weights_bytes / spec.gpus / GIB / PCIE_GIB_PER_S


def scores(wanted: Needed, expected: Forecast, cold: float) -> list[float]:
    """What each of the wanted replicas is worth: less from one to the next, and burst ones more by
    how far the peak lies above the average."""
    above = expected.peak / expected.average
    return [
        exp(-j / wanted.count) * cold * (1.0 if j < wanted.foundation else above)
        for j in range(wanted.count)
    ]
